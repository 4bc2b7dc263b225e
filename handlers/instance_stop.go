package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

const (
	// defaultStop is how long a container may take to stop unless the event says otherwise.
	defaultStop = 10 * time.Second
	// killWait is how long a killed container may take to be gone.
	killWait = 10 * time.Second
)

// deactivate stops the instance's container. One that is absent or does not run is stopped.
func (h *handlers) deactivate(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req instanceRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	in, err := req.check()
	if err != nil {
		return nil, err
	}
	st, err := h.find(ctx, in)
	if errors.Is(err, runtime.ErrNotFound) {
		return notFoundReply(ev, in, h.opts.HostIP), nil
	}
	if err != nil {
		return nil, err
	}
	switch {
	case req.ProcessData.NoOp || in.ProcessData.NoOp || !st.Running:
	case h.self(st):
		h.log.WithField("container", st.Name).Warn("the agent does not stop its own container")
	default:
		timeout := defaultStop
		if t := req.ProcessData.Timeout; t != nil {
			timeout = time.Duration(*t) * time.Second
		}
		if st, err = h.stop(ctx, st, timeout); err != nil {
			return nil, err
		}
		if st.ID == "" { // made to vanish when it stops
			return notFoundReply(ev, in, h.opts.HostIP), nil
		}
	}
	return h.instanceReply(ctx, ev, in, st, replyIP{})
}

// stop stops a container, by force if it does not obey, and returns what it is then: zero if it is gone. The error is
// nil only if it does not run any more.
func (h *handlers) stop(ctx context.Context, st runtime.ContainerStatus, timeout time.Duration) (runtime.ContainerStatus, error) {
	stopErr := h.engine.Stop(ctx, st.ID, &timeout)
	if stopErr == nil || errors.Is(stopErr, runtime.ErrNotFound) {
		if after, err := h.look(ctx, st.ID); err == nil && !after.Running {
			return after, nil
		}
	}
	after, err := h.kill(ctx, st.ID)
	if err != nil {
		if stopErr != nil {
			err = stopErr // what went wrong first says more
		}
		return after, fmt.Errorf("stop container %s: %w", st.Name, err)
	}
	if stopErr != nil {
		h.log.WithField("container", st.Name).WithError(stopErr).Warn("container had to be killed")
	}
	return after, nil
}

// kill sends SIGKILL, waits until the container does not run, and returns what it is then: zero if it is gone.
func (h *handlers) kill(ctx context.Context, id string) (after runtime.ContainerStatus, err error) {
	err = h.engine.Kill(ctx, id, "SIGKILL")
	if errors.Is(err, runtime.ErrUnsupported) {
		now := time.Duration(0)
		err = h.engine.Stop(ctx, id, &now)
	}
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		return after, nil
	case err != nil && !errors.Is(err, runtime.ErrConflict):
		return after, err
	}
	err = poll(ctx, killWait, "the container still runs after SIGKILL", func() (bool, error) {
		after, err = h.look(ctx, id)
		return !after.Running, err
	})
	return after, err
}

// look is state for a container that may be gone: it is zero then.
func (h *handlers) look(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	st, err := h.state(ctx, id)
	if errors.Is(err, runtime.ErrNotFound) {
		return runtime.ContainerStatus{}, nil
	}
	return st, err
}

// poll asks until done says yes or fails, at growing intervals; after limit it fails with the text.
func poll(ctx context.Context, limit time.Duration, text string, done func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, 500*time.Millisecond) {
		ok, err := done()
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		case time.Now().After(deadline):
			return errors.New(text)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

// remove deletes the instance's container. One that is absent is removed.
func (h *handlers) remove(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req instanceRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	in, err := req.check()
	if err != nil {
		return nil, err
	}
	st, err := h.find(ctx, in)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if h.self(st) {
		h.log.WithField("container", st.Name).Warn("the agent does not remove its own container")
		return h.instanceReply(ctx, ev, in, st, replyIP{})
	}
	if err := h.destroy(ctx, st); err != nil {
		return nil, err
	}
	return notFoundReply(ev, in, h.opts.HostIP), nil
}

// destroy kills and removes a container, and its anonymous volumes unless they are to be kept.
func (h *handlers) destroy(ctx context.Context, st runtime.ContainerStatus) error {
	err := h.engine.Remove(ctx, st.ID, runtime.RemoveOptions{Force: true, Volumes: !h.opts.KeepAnonymousVolumes})
	if errors.Is(err, runtime.ErrConflict) {
		// Somebody else removes it already, or it could not be killed at once.
		conflict := err
		err = poll(ctx, killWait, "", func() (bool, error) {
			after, err := h.look(ctx, st.ID)
			return after.ID == "", err
		})
		if err != nil && ctx.Err() == nil {
			err = conflict
		}
	}
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("remove container %s: %w", st.Name, err)
	}
	return nil
}

// forceStop kills a container at once. One that is absent or does not run is stopped.
func (h *handlers) forceStop(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req forceStopRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	if req.Stop.ID == "" {
		return nil, invalid("instanceForceStop.id", "missing")
	}
	st, err := h.state(ctx, req.Stop.ID)
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case !st.Running:
		return nil, nil
	case h.self(st):
		h.log.WithField("container", st.Name).Warn("the agent does not stop its own container")
		return nil, fmt.Errorf("container %s is the agent's own and is not stopped: %w", st.Name, runtime.ErrConflict)
	}
	if _, err := h.kill(ctx, st.ID); err != nil {
		return nil, fmt.Errorf("force container %s to stop: %w", st.Name, err)
	}
	return nil, nil
}
