package compute

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/utils/backoff"
	"github.com/google/uuid"
)

const (
	busyTries     = 6                      // of an event that the agent is too busy for
	progressEvery = 300 * time.Millisecond // records are not written more often for progress
)

// drive carries out an operation step by step until it is done, superseded, or ctx ends.
func (e *Engine) drive(ctx context.Context, id, workID string) {
	for ctx.Err() == nil {
		c, err := e.store.Containers.Get(id)
		if err != nil {
			return // removed with its host
		}
		w := workOf(c.Work)
		if w == nil || w.ID != workID {
			return // superseded
		}
		if more := e.step(ctx, c, w); !more {
			return
		}
	}
}

// step sends one event and settles its outcome. It reports whether the operation goes on.
func (e *Engine) step(ctx context.Context, c *store.Container, w *work) bool {
	j, err := e.job(c)
	if err != nil {
		return e.record(ctx, c.ID, w, func(c *store.Container) bool { return e.fail(c, w, explain(err, c.HostID)) })
	}
	ev := j.event(w)
	r, err := e.call(ctx, j.host.AgentID, ev, e.progress(ctx, c.ID, w))
	if ctx.Err() != nil || errors.Is(err, hub.ErrClosed) {
		return false // recorded, and taken up by the next process
	}
	if err == nil {
		more, err := e.settle(ctx, c.ID, w, ev, r)
		return more && err == nil
	}
	if errors.Is(err, hub.ErrUnknownAgent) && w.Op == opRemove {
		more, err := e.settle(ctx, c.ID, w, ev, &wire.Reply{}) // nobody is left who could have the container
		return more && err == nil
	}
	return e.record(ctx, c.ID, w, func(c *store.Container) bool { return e.fail(c, w, explain(err, hostName(j.host))) })
}

// hostName is a host's name with why it may not answer.
func hostName(h *store.Host) string {
	if h.Connection == store.ConnectionOnline || h.Connection == "" {
		return h.DisplayName()
	}
	return h.DisplayName() + " (" + h.Connection + ")"
}

// job gathers what the events of a container describe.
func (e *Engine) job(c *store.Container) (*job, error) {
	host, err := e.store.Hosts.Get(c.HostID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, hub.ErrUnknownAgent
	}
	if err != nil {
		return nil, err
	}
	j := &job{c: c, spec: &spec{}, host: host}
	if len(c.Fields) > 0 {
		if err := json.Unmarshal(c.Fields, j.spec); err != nil {
			return nil, invalid("", "the container's record cannot be read: %v", err)
		}
	}
	if mode, id, _ := strings.Cut(j.spec.NetworkMode, ":"); mode == "container" {
		if id == "" {
			id = j.spec.NetworkContainerID
		}
		if j.networkContainer = e.onHost(host.ID, id); j.networkContainer == nil {
			return nil, conflict("container %s, whose network this one shares, is gone", id)
		}
	}
	for _, id := range j.spec.DataVolumesFrom {
		from := e.onHost(host.ID, id)
		if from == nil {
			return nil, conflict("container %s, whose volumes this one shares, is gone", id)
		}
		j.volumesFrom = append(j.volumesFrom, from)
	}
	return j, nil
}

// call is the hub's Call, and asks again where the agent is too busy.
func (e *Engine) call(ctx context.Context, agentID string, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error) {
	delays := backoff.Policy{First: 500 * time.Millisecond, Max: 10 * time.Second}.Start()
	for try := 1; ; try++ {
		r, err := e.hub.Call(ctx, agentID, ev, progress)
		busy := errors.Is(err, hub.ErrFull) || err == nil && r.Code == wire.CodeBusy && r.Transitioning == wire.TransitioningError
		if !busy || try == busyTries {
			return r, err
		}
		if err := backoff.Sleep(ctx, delays.Next()); err != nil {
			return nil, err
		}
		again := *ev
		again.ID = uuid.NewString() // the agent remembers what it answered to the old one
		again.Time = 0
		ev = &again
	}
}

// progress returns what writes progress replies into a record, not too often.
func (e *Engine) progress(ctx context.Context, id string, w *work) func(*wire.Reply) {
	var last time.Time
	return func(r *wire.Reply) {
		now := e.now()
		if now.Sub(last) < progressEvery {
			return
		}
		last = now
		_, err := e.apply(ctx, id, w, func(c *store.Container) bool {
			if r.TransitioningMessage != "" {
				c.TransitioningMessage = r.TransitioningMessage
			}
			c.TransitioningProgress = min(max(r.TransitioningProgress, 0), 100)
			return true
		})
		if err != nil && ctx.Err() == nil {
			e.log.WithError(err).WithField("container", id).Debug("cannot write progress")
		}
	}
}

// settle folds the final reply of a step into the record and goes to the next step, if there is one. It reports
// whether there is, and an error where the record could not be written.
func (e *Engine) settle(ctx context.Context, id string, w *work, ev *wire.Event, r *wire.Reply) (more bool, err error) {
	f := failure(r)
	if f != nil && f.Code == wire.CodeNotFound && w.step() == stepRemove {
		f = nil
	}
	var in *instanceReply
	if f == nil {
		in, err = parseInstance(r, ev.ResourceType)
		if err != nil {
			f = &Error{Code: wire.CodeInternal, Text: err.Error()}
		} else if w.step() == stepPull && !pulled(r) {
			f = &Error{Code: wire.CodeNotFound, Text: "the host has no image after the pull"}
		}
	}
	return e.recordErr(ctx, id, w, func(c *store.Container) bool {
		if f != nil {
			return e.fail(c, w, f)
		}
		return e.succeed(c, w, in)
	})
}

// succeed applies a step that went well and reports whether another follows.
func (e *Engine) succeed(c *store.Container, w *work, in *instanceReply) bool {
	var state string
	switch w.step() {
	case stepActivate:
		in.merge(c)
		state = store.ContainerRunning
		if !in.running() {
			state = store.ContainerStopped
		}
	case stepDeactivate:
		in.merge(c)
		state = store.ContainerStopped
	case stepRemove:
		state = store.ContainerRemoved
		c.Removed, c.PrimaryIPAddress, c.DockerPorts = e.now().UTC(), "", nil
	default:
		state = store.ContainerStopped // as long as nothing follows
	}
	next := *w
	if next.advance() {
		e.begin(c, &next)
		return true
	}
	c.State, c.Work = state, nil
	c.Transitioning, c.TransitioningMessage, c.TransitioningProgress = wire.TransitioningNo, "", 0
	return false
}

// fail ends an operation that went wrong.
func (e *Engine) fail(c *store.Container, w *work, why *Error) bool {
	switch {
	case w.Op == opCreate, w.Op == opRemove:
		c.State = store.ContainerError
	case w.Op == opRestart && w.step() == stepActivate:
		c.State = store.ContainerStopped
	default:
		c.State = w.From
	}
	c.Work = nil
	c.Transitioning, c.TransitioningMessage, c.TransitioningProgress = wire.TransitioningError, why.Text, 0
	e.log.WithField("container", c.ID).WithField("operation", w.Op).WithField("code", why.Code).Warn(why.Text)
	return false
}

// record is recordErr for callers to whom a record that cannot be written means the end.
func (e *Engine) record(ctx context.Context, id string, w *work, change func(*store.Container) bool) bool {
	more, err := e.recordErr(ctx, id, w, change)
	return more && err == nil
}

// recordErr applies change to the record of an operation, unless it was superseded or is at another step already.
// While the store fails it tries again, until ctx ends.
func (e *Engine) recordErr(ctx context.Context, id string, w *work, change func(*store.Container) bool) (more bool, err error) {
	err = e.persist(ctx, id, func() error {
		more, err = e.apply(ctx, id, w, change)
		return err
	})
	return more && err == nil, err
}

// apply is recordErr with one try.
func (e *Engine) apply(ctx context.Context, id string, w *work, change func(*store.Container) bool) (more bool, err error) {
	_, err = e.store.Containers.Update(ctx, id, func(c *store.Container) error {
		cur := workOf(c.Work)
		if cur == nil || cur.ID != w.ID || cur.Step != w.Step {
			more = cur != nil && cur.ID == w.ID
			return store.ErrUnchanged
		}
		more = change(c)
		return nil
	})
	return more, err
}

// persist calls write until it succeeds, the record is gone, or ctx ends.
func (e *Engine) persist(ctx context.Context, id string, write func() error) error {
	delays := backoff.Policy{First: 200 * time.Millisecond, Max: 5 * time.Second}.Start()
	for {
		err := write()
		if err == nil || errors.Is(err, store.ErrNotFound) {
			return err
		}
		if ctx.Err() == nil {
			e.log.WithError(err).WithField("id", id).Warn("cannot write a record")
		}
		if serr := backoff.Sleep(ctx, delays.Next()); serr != nil {
			return err
		}
	}
}
