package handlers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// maxCollectorLine bounds a line of a collector's output.
const maxCollectorLine = 64 << 10

// registryCollection is what a garbage collection did.
type registryCollection struct {
	Container string   `json:"container"`
	Manifests int      `json:"manifests"` // that went
	Blobs     int      `json:"blobs"`     // that went
	DryRun    bool     `json:"dryRun"`    // nothing went: it would
	Output    []string `json:"output"`    // the collector's last lines
}

// registryGC lets a registry container collect its garbage, and starts it again: a registry remembers blobs that are
// gone. It runs the registry's own collector, with the configuration that the container itself has.
func (h *handlers) registryGC(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req struct {
		Container string `json:"container"` // the engine's id, or a name
		DryRun    bool   `json:"dryRun"`
		Untagged  bool   `json:"untagged"` // manifests without a tag too
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	if req.Container == "" {
		return nil, invalid("container", "missing")
	}
	execer, ok := h.engine.(runtime.Execer)
	if !ok {
		return nil, fmt.Errorf("collect the garbage of %s: %w", req.Container, runtime.ErrUnsupported)
	}
	st, err := h.engine.State(ctx, req.Container)
	if err != nil {
		return nil, err
	}
	command, err := h.collector(ctx, st.ID, req.DryRun, req.Untagged)
	if err != nil {
		return nil, err
	}
	what := "Collecting the garbage of " + strings.TrimPrefix(st.Name, "/")
	out := registryCollection{Container: strings.TrimPrefix(st.Name, "/"), DryRun: req.DryRun}
	r, w := io.Pipe()
	read := make(chan struct{})
	report := newDetailed(what, p)
	go func() {
		defer close(read)
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxCollectorLine)
		for lines.Scan() {
			out.line(lines.Text())
			report.step(runtime.PullProgress{Status: lines.Text()})
		}
		r.CloseWithError(lines.Err()) // io.ErrClosedPipe where it is nil: nobody writes then
	}()
	stop := pulse(ctx, p, what)
	err = execer.Exec(ctx, st.ID, runtime.ExecSpec{Cmd: command}, runtime.Streams{Out: w, Err: w})
	w.Close()
	<-read
	stop()
	var exit *runtime.ExitError
	if errors.As(err, &exit) {
		last := "it said nothing"
		if len(out.Output) > 0 {
			last = oneLine(out.Output[len(out.Output)-1])
		}
		return nil, &runtime.Error{Op: "collecting garbage", Message: fmt.Sprintf("the registry's collector ended with %d: %s", exit.Code, last), Cause: err}
	}
	if err != nil {
		return nil, err
	}
	if !req.DryRun {
		if err := h.again(ctx, st.ID); err != nil {
			return nil, err
		}
	}
	return map[string]any{"collection": out}, nil
}

// again stops and starts a container.
func (h *handlers) again(ctx context.Context, id string) error {
	if r, ok := h.engine.(runtime.Restarter); ok {
		return r.Restart(ctx, id, nil)
	}
	if err := h.engine.Stop(ctx, id, nil); err != nil {
		return err
	}
	return h.engine.Start(ctx, id)
}

func (c *registryCollection) line(text string) {
	switch {
	case strings.HasPrefix(text, "manifest eligible for deletion: "):
		c.Manifests++
	case strings.HasPrefix(text, "blob eligible for deletion: "):
		c.Blobs++
	}
	if c.Output = append(c.Output, text); len(c.Output) > keptSteps {
		c.Output = c.Output[1:]
	}
}

// collector is the command of a registry container's own collector: its entrypoint, and the configuration file that it
// was started with.
func (h *handlers) collector(ctx context.Context, id string, dryRun, untagged bool) ([]string, error) {
	raw, err := h.engine.Inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	var container struct {
		Config struct{ Entrypoint, Cmd []string }
	}
	if err := json.Unmarshal(raw, &container); err != nil {
		return nil, fmt.Errorf("inspect %s: %w", id, err)
	}
	all := slices.Concat(container.Config.Entrypoint, container.Config.Cmd)
	file := slices.IndexFunc(all, func(s string) bool { return strings.HasSuffix(s, ".yml") || strings.HasSuffix(s, ".yaml") })
	if file < 1 {
		return nil, &runtime.Error{Kind: runtime.ErrInvalid, Message: "the container is no registry: its command names no configuration file"}
	}
	command := []string{all[0], "garbage-collect"}
	if dryRun {
		command = append(command, "--dry-run")
	}
	if untagged {
		command = append(command, "--delete-untagged")
	}
	return append(command, all[file]), nil
}
