package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// find returns the container of an instance: the one with its uuid as label, else the one whose name is the uuid, else
// the one with its external id. ErrNotFound if there is none. No list of all containers is asked for.
func (h *handlers) find(ctx context.Context, in *instance) (runtime.ContainerStatus, error) {
	labelled := func(st runtime.ContainerStatus) bool { return in.UUID != "" && st.Labels[LabelUUID] == in.UUID }

	// What the server or the cache believes is one inspect away from being certain.
	var external *runtime.ContainerStatus
	if in.ExternalID != "" {
		st, err := h.state(ctx, in.ExternalID)
		switch {
		case errors.Is(err, runtime.ErrNotFound), errors.Is(err, runtime.ErrInvalid):
		case err != nil:
			return runtime.ContainerStatus{}, err
		case labelled(st):
			return st, nil
		case st.ID == in.ExternalID:
			external = &st
		}
	}
	if in.UUID != "" {
		st, err := h.findUUID(ctx, in.UUID, labelled)
		if !errors.Is(err, runtime.ErrNotFound) {
			return st, err
		}
	}
	if external != nil {
		return *external, nil
	}
	return runtime.ContainerStatus{}, fmt.Errorf("container of instance %s: %w", in.UUID, runtime.ErrNotFound)
}

func (h *handlers) findUUID(ctx context.Context, uuid string, labelled func(runtime.ContainerStatus) bool) (runtime.ContainerStatus, error) {
	var ids []string
	if h.opts.Containers != nil {
		for _, c := range h.opts.Containers.ByLabel(LabelUUID, uuid) {
			ids = append(ids, c.ID)
		}
	}
	for pass := range 2 {
		if pass == 1 {
			// The cache may be a moment late, so only the engine can say that there is none.
			rows, err := h.engine.List(ctx, runtime.ListOptions{Labels: map[string]string{LabelUUID: uuid}})
			if err != nil {
				return runtime.ContainerStatus{}, fmt.Errorf("find the container of instance %s: %w", uuid, err)
			}
			ids = ids[:0]
			for _, c := range rows {
				ids = append(ids, c.ID)
			}
		}
		for _, id := range ids {
			st, err := h.state(ctx, id)
			switch {
			case errors.Is(err, runtime.ErrNotFound):
			case err != nil:
				return st, err
			case labelled(st):
				return st, nil
			}
		}
	}
	// A container that was not made by a server goes by its name, or by its id if it has none.
	name := strings.TrimPrefix(uuid, "no-uuid-")
	st, err := h.state(ctx, name)
	if errors.Is(err, runtime.ErrInvalid) || err == nil && (st.Labels[LabelUUID] != "" || st.Name != name && st.ID != name) {
		err = fmt.Errorf("container %s: %w", name, runtime.ErrNotFound)
	}
	return st, err
}

func (h *handlers) state(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	st, err := h.engine.State(ctx, id)
	if err != nil {
		err = fmt.Errorf("look at container %s: %w", id, err)
	}
	return st, err
}

// self reports whether a container is the agent's own, which no event may stop or remove.
func (h *handlers) self(st runtime.ContainerStatus) bool {
	const original = "rancher-agent"
	if st.Name == original {
		return true
	}
	return slices.ContainsFunc(h.opts.Self, func(s string) bool {
		s = strings.TrimPrefix(s, "/")
		return s != "" && (s == st.Name || s == st.ID || len(s) >= 12 && strings.HasPrefix(st.ID, s))
	})
}

// containerName is what a new container of the instance is called.
func containerName(in *instance) string {
	first, _, _ := strings.Cut(in.UUID, "-")
	if validName(in.Name) {
		return "r-" + in.Name + "-" + first
	}
	return "r-" + in.UUID
}

// validName reports whether s is at least two letters, digits, "_", "." or "-", and begins with one of the first two.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return len(s) >= 2
}
