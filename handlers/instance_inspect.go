package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// inspect relays what the engine knows of a container. An unknown one is no error, but an empty answer.
func (h *handlers) inspect(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req inspectRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	id, name := req.Inspect.ID, strings.TrimPrefix(req.Inspect.Name, "/")
	if id == "" && name == "" {
		return nil, invalid("instanceInspect.id", "missing, and so is the name")
	}
	raw, err := h.inspectAny(ctx, id, name)
	if errors.Is(err, runtime.ErrNotFound) {
		raw = json.RawMessage(goneInspect)
	} else if err != nil {
		return nil, err
	}
	key := ev.ResourceType
	if key == "" {
		key = "instanceInspect"
	}
	return wrapRaw(key, raw)
}

// inspectAny tries the id, then the name, then a link's alias of that name.
func (h *handlers) inspectAny(ctx context.Context, id, name string) (json.RawMessage, error) {
	err := fmt.Errorf("inspect: %w", runtime.ErrNotFound)
	for _, what := range []string{id, name} {
		if what == "" {
			continue
		}
		var raw json.RawMessage
		raw, err = h.engine.Inspect(ctx, what)
		if err == nil {
			return raw, nil
		}
		if !errors.Is(err, runtime.ErrNotFound) {
			return nil, fmt.Errorf("inspect container %s: %w", what, err)
		}
	}
	if name != "" && h.opts.Containers != nil {
		for _, c := range h.opts.Containers.Snapshot() {
			for _, n := range c.Names {
				if strings.HasSuffix(n, "/"+name) {
					return h.engine.Inspect(ctx, c.ID)
				}
			}
		}
	}
	return nil, err
}

// wrapRaw returns {"key":raw} without looking into raw.
func wrapRaw(key string, raw json.RawMessage) (json.RawMessage, error) {
	k, err := json.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("encode the reply: %w", err)
	}
	raw = bytes.TrimSpace(raw)
	b := make([]byte, 0, len(k)+len(raw)+3)
	b = append(b, '{')
	b = append(b, k...)
	b = append(b, ':')
	b = append(b, raw...)
	return append(b, '}'), nil
}
