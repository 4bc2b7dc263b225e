package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/droverhq/drover/runtime"
)

// defaultStop is how long a daemon waits after the stop signal unless the container or the caller says otherwise.
const defaultStop = 10 * time.Second

// Create makes a container of spec. Wishes that the daemon does not know are warnings.
func (e *Engine) Create(ctx context.Context, spec *runtime.ContainerSpec) (string, []string, error) {
	op := "create container"
	if spec == nil {
		return "", nil, invalid(op, "no spec")
	}
	if spec.Name != "" {
		op = "create " + spec.Name
		if _, err := containerID(op, spec.Name); err != nil {
			return "", nil, err
		}
	}
	if _, err := imageRef(op, spec.Image); err != nil {
		return "", nil, err
	}
	var created container.CreateResponse
	var warnings []string
	err := e.change(ctx, op, func(ctx context.Context, s *session) (err error) {
		req, ignored, err := createRequest(op, spec, s.version)
		if err != nil {
			return err
		}
		warnings = ignored
		created, err = s.api.ContainerCreate(ctx, req.config, req.host, req.network, nil, spec.Name)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return created.ID, append(warnings, created.Warnings...), nil
}

// Start starts a container; one that runs already is no error.
func (e *Engine) Start(ctx context.Context, id string) error {
	op := "start " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	return e.change(ctx, op, func(ctx context.Context, s *session) error {
		return s.api.ContainerStart(ctx, id, container.StartOptions{})
	})
}

// Stop stops a container; one that does not run is no error.
func (e *Engine) Stop(ctx context.Context, id string, timeout *time.Duration) error {
	op := "stop " + shorten(id)
	return e.stopping(ctx, op, id, timeout, func(ctx context.Context, s *session, id string, opts container.StopOptions) error {
		return s.long.ContainerStop(ctx, id, opts)
	})
}

// Restart stops a container if it runs, and starts it.
func (e *Engine) Restart(ctx context.Context, id string, timeout *time.Duration) error {
	op := "restart " + shorten(id)
	return e.stopping(ctx, op, id, timeout, func(ctx context.Context, s *session, id string, opts container.StopOptions) error {
		return s.long.ContainerRestart(ctx, id, opts)
	})
}

// stopping runs a call that includes a stop, and bounds it by what the stop may take.
func (e *Engine) stopping(ctx context.Context, op, id string, timeout *time.Duration, fn func(context.Context, *session, string, container.StopOptions) error) error {
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	var opts container.StopOptions
	wait := defaultStop
	switch {
	case timeout == nil:
		if _, ok := ctx.Deadline(); !ok {
			if wait, err = e.stopTimeout(ctx, op, id); err != nil {
				return err
			}
		}
	case *timeout < 0:
		return invalid(op, "negative timeout %v", *timeout)
	default:
		seconds := int((*timeout + time.Second - 1) / time.Second)
		opts.Timeout = &seconds
		wait = *timeout
	}
	err = e.do(ctx, op, wait+4*e.cfg.Timeout, func(ctx context.Context, s *session) error {
		return fn(ctx, s, id, opts)
	})
	if ended := ctx.Err(); ended != nil && err != nil { // the container took its time, which is no fault of the daemon's
		return fmt.Errorf("%s: %w", op, ended)
	}
	return err
}

// stopTimeout asks how long the container itself wants to be waited for.
func (e *Engine) stopTimeout(ctx context.Context, op, id string) (time.Duration, error) {
	var c struct{ Config struct{ StopTimeout *int } }
	err := e.read(ctx, op, func(ctx context.Context, s *session) error {
		return e.getJSON(ctx, s, "/containers/"+id+"/json", "", &c)
	})
	if err != nil || c.Config.StopTimeout == nil {
		return defaultStop, err
	}
	if *c.Config.StopTimeout < 0 { // for ever
		return 24 * time.Hour, nil
	}
	return time.Duration(*c.Config.StopTimeout) * time.Second, nil
}

// Kill sends a signal; runtime.ErrConflict if the container does not run.
func (e *Engine) Kill(ctx context.Context, id, signal string) error {
	op := "kill " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	return e.change(ctx, op, func(ctx context.Context, s *session) error {
		return s.api.ContainerKill(ctx, id, signal)
	})
}

// Pause freezes a container.
func (e *Engine) Pause(ctx context.Context, id string) error {
	op := "pause " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	return e.change(ctx, op, func(ctx context.Context, s *session) error { return s.api.ContainerPause(ctx, id) })
}

// Unpause thaws a container.
func (e *Engine) Unpause(ctx context.Context, id string) error {
	op := "unpause " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	err = e.change(ctx, op, func(ctx context.Context, s *session) error { return s.api.ContainerUnpause(ctx, id) })
	var failed *runtime.Error
	if errors.As(err, &failed) && failed.Kind == nil { // so daemons before 23 answer if there is nothing to thaw
		if st, stErr := e.State(ctx, id); stErr == nil && !st.Paused {
			failed.Kind = runtime.ErrConflict
		}
	}
	return err
}

// Remove deletes a container; runtime.ErrConflict if it runs and opts.Force is not set.
func (e *Engine) Remove(ctx context.Context, id string, opts runtime.RemoveOptions) error {
	op := "remove " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	return e.change(ctx, op, func(ctx context.Context, s *session) error {
		return s.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: opts.Force, RemoveVolumes: opts.Volumes})
	})
}

// Wait blocks until the container does not run.
func (e *Engine) Wait(ctx context.Context, id string) (int, error) {
	op := "wait for " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return 0, err
	}
	s, err := e.opened(ctx, op)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done, failed := s.long.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case result := <-done:
		if result.Error != nil && result.Error.Message != "" {
			return 0, e.wrapLong(ctx, op, &runtime.Error{Message: clean(result.Error.Message)})
		}
		return int(result.StatusCode), nil
	case err := <-failed:
		return 0, e.wrapLong(ctx, op, err)
	}
}

// Top lists the processes of a running container; args are those of ps.
func (e *Engine) Top(ctx context.Context, id string, args []string) ([]string, [][]string, error) {
	op := "top " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return nil, nil, err
	}
	var top container.TopResponse
	err = e.read(ctx, op, func(ctx context.Context, s *session) (err error) {
		top, err = s.api.ContainerTop(ctx, id, args)
		return err
	})
	return top.Titles, top.Processes, err
}
