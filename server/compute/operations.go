package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/google/uuid"
)

// Create records a new container of an account and begins to make it. fields is a JSON object with Rancher's fields of
// a container, the types of which the caller has checked; the container is started unless startOnCreate is false. It
// returns the record as it is now, in state creating.
func (e *Engine) Create(ctx context.Context, accountID string, fields json.RawMessage) (*store.Container, error) {
	s, err := parseSpec(fields)
	if err != nil {
		return nil, err
	}
	if e.full() {
		return nil, &Error{Code: wire.CodeBusy, Text: "too many operations are in progress"}
	}
	e.creating.Lock()
	defer e.creating.Unlock()
	host, err := schedule(e.store, s)
	if err != nil {
		return nil, err
	}
	if err := e.checkReferences(s, host.ID); err != nil {
		return nil, err
	}
	mapID, _, err := e.store.NextID(ctx, store.TypeInstanceHostMap)
	if err != nil {
		return nil, err
	}
	rec := store.Container{
		UUID: uuid.NewString(), Name: s.Name, Description: s.Description, AccountID: accountID, HostID: host.ID, MapID: mapID,
		ImageUUID: "docker:" + s.image(), State: store.ContainerStopped, Transitioning: wire.TransitioningNo,
		Labels: s.Labels, Ports: s.Ports, Fields: fields,
	}
	steps := createSteps(s, s.start())
	if len(steps) == 0 {
		return e.store.Containers.Create(ctx, rec)
	}
	w := newWork(opCreate, steps, store.ContainerError)
	e.begin(&rec, w)
	c, err := e.store.Containers.Create(ctx, rec)
	if err != nil {
		return nil, err
	}
	e.launch(c.ID, w.ID, e.drive)
	return c, nil
}

// checkReferences checks what a create request says about other containers of the host.
func (e *Engine) checkReferences(s *spec, hostID string) error {
	if s.Name != "" {
		for _, c := range e.store.ContainersOfHost(hostID) {
			if c.Name == s.Name && c.State != store.ContainerRemoved {
				return &Error{
					Code: wire.CodeConflict, Field: "name",
					Text: fmt.Sprintf("container %s on the same host is named %s already", c.ID, s.Name),
				}
			}
		}
	}
	for _, id := range s.DataVolumesFrom {
		if e.onHost(hostID, id) == nil {
			return invalid("dataVolumesFrom", "there is no container %s on the host", id)
		}
	}
	mode, id, _ := strings.Cut(s.NetworkMode, ":")
	switch mode {
	case "", "host", "none", "bridge", "managed", "default":
		if id != "" {
			return invalid("networkMode", "network mode %s takes no name", mode)
		}
	case "container":
		if id == "" {
			id = s.NetworkContainerID
		}
		if id == "" {
			return invalid("networkContainerId", "network mode container needs the id of a container")
		}
		if e.onHost(hostID, id) == nil {
			return invalid("networkContainerId", "there is no container %s on the host", id)
		}
	default:
		return invalid("networkMode", "%q is none of bridge, host, none, container:ID", s.NetworkMode)
	}
	return nil
}

// onHost finds a container of a host by its id, its engine's id or its name.
func (e *Engine) onHost(hostID, ref string) *store.Container {
	for _, c := range e.store.ContainersOfHost(hostID) {
		if c.State != store.ContainerRemoved && (c.ID == ref || c.ExternalID == ref || c.Name == ref || c.UUID == ref) {
			return c
		}
	}
	return nil
}

// Start starts a stopped container. One that is being started already is left alone; one that runs is looked at again.
func (e *Engine) Start(ctx context.Context, id string) (*store.Container, error) {
	return e.change(ctx, id, func(c *store.Container, cur *work) (*work, error) {
		if cur != nil {
			if cur.Op == opStart || cur.Op == opRestart || cur.Op == opCreate && cur.Steps[len(cur.Steps)-1] == stepActivate {
				return nil, nil
			}
			return nil, inProgress(c, cur)
		}
		if c.State == store.ContainerRemoved {
			return nil, removed(c)
		}
		steps := []string{stepActivate}
		if c.ExternalID == "" && !c.Native {
			s := &spec{}
			_ = json.Unmarshal(c.Fields, s) // checked when it was made
			steps = createSteps(s, true)
		}
		return newWork(opStart, steps, c.State), nil
	})
}

// Stop stops a container. timeout is how many seconds its processes get before they are killed; nil leaves that to
// the agent, which gives 10.
func (e *Engine) Stop(ctx context.Context, id string, timeout *int) (*store.Container, error) {
	return e.change(ctx, id, func(c *store.Container, cur *work) (*work, error) {
		if cur != nil {
			switch cur.Op {
			case opStop:
				return nil, nil
			case opRemove:
				return nil, inProgress(c, cur)
			}
		}
		if c.State == store.ContainerRemoved {
			return nil, removed(c)
		}
		w := newWork(opStop, []string{stepDeactivate}, stable(c, cur))
		w.Timeout = timeout
		return w, nil
	})
}

// Restart stops a container and starts it again.
func (e *Engine) Restart(ctx context.Context, id string, timeout *int) (*store.Container, error) {
	return e.change(ctx, id, func(c *store.Container, cur *work) (*work, error) {
		if cur != nil {
			if cur.Op == opRestart {
				return nil, nil
			}
			return nil, inProgress(c, cur)
		}
		if c.State == store.ContainerRemoved {
			return nil, removed(c)
		}
		if c.ExternalID == "" && !c.Native {
			return nil, conflict("container %s was never started", c.ID)
		}
		w := newWork(opRestart, []string{stepDeactivate, stepActivate}, c.State)
		w.Timeout = timeout
		return w, nil
	})
}

// Remove stops a container, which gets timeout seconds as with Stop, and removes it from its host. With force it is
// killed at once. A container that is removed already is left alone.
func (e *Engine) Remove(ctx context.Context, id string, force bool, timeout *int) (*store.Container, error) {
	return e.change(ctx, id, func(c *store.Container, cur *work) (*work, error) {
		if c.State == store.ContainerRemoved || cur != nil && cur.Op == opRemove {
			return nil, nil
		}
		steps := []string{stepDeactivate, stepRemove}
		if force || cur == nil && c.State == store.ContainerStopped {
			steps = steps[1:]
		}
		w := newWork(opRemove, steps, stable(c, cur))
		w.Timeout = timeout
		return w, nil
	})
}

// Rename changes what people call a container. The container of the engine keeps its name.
func (e *Engine) Rename(ctx context.Context, id string, name, description *string) (*store.Container, error) {
	e.creating.Lock()
	defer e.creating.Unlock()
	c, err := e.store.Containers.Get(id)
	if err != nil {
		return nil, err
	}
	if name != nil && *name != c.Name {
		s := &spec{Name: *name, ImageUUID: c.ImageUUID}
		if *name == "" || !namePattern().MatchString(*name) || len(*name) > maxName {
			return nil, invalid("name", "%q is no name of a container", *name)
		}
		if err := e.checkReferences(s, c.HostID); err != nil {
			return nil, err
		}
	}
	return e.store.Containers.Update(ctx, id, func(c *store.Container) error {
		if name != nil {
			c.Name = *name
		}
		if description != nil {
			c.Description = *description
		}
		return nil
	})
}

// stable is the state to which a failed operation goes back: the one before it, if it was not in between two.
func stable(c *store.Container, cur *work) string {
	if cur != nil {
		return store.ContainerError
	}
	return c.State
}

func inProgress(c *store.Container, w *work) error {
	return conflict("container %s is %s: wait for it to end", c.ID, transient(w.Op, w.step()))
}

func removed(c *store.Container) error { return conflict("container %s is removed", c.ID) }

// begin writes an operation into a record.
func (e *Engine) begin(c *store.Container, w *work) {
	w.Owner, w.Lease = e.owner, e.now().Add(lease)
	c.Work = w.raw()
	c.State = transient(w.Op, w.step())
	c.Transitioning = wire.TransitioningYes
	c.TransitioningMessage, c.TransitioningProgress = describe(c, w), 0
}

// describe says what a step does.
func describe(c *store.Container, w *work) string {
	switch step := w.step(); {
	case step == stepImage, step == stepPull:
		return "preparing image " + imageName(c.ImageUUID)
	case strings.HasPrefix(step, stepVolume):
		return "preparing volume " + strings.TrimPrefix(step, stepVolume)
	case step == stepDeactivate:
		return "stopping"
	case step == stepRemove:
		return "removing"
	}
	return "starting"
}

// change decides on an operation and begins it. decide sees the record and what is in progress, and returns the
// operation, nil where nothing is to be done, or a refusal.
func (e *Engine) change(ctx context.Context, id string, decide func(*store.Container, *work) (*work, error)) (*store.Container, error) {
	if e.full() {
		return nil, &Error{Code: wire.CodeBusy, Text: "too many operations are in progress"}
	}
	mapID, err := e.mapID(ctx, id)
	if err != nil {
		return nil, err
	}
	var w *work
	c, err := e.store.Containers.Update(ctx, id, func(c *store.Container) error {
		if c.MapID == "" {
			c.MapID = mapID
		}
		next, err := decide(c, workOf(c.Work))
		w = next
		if err != nil {
			return err
		}
		if next == nil {
			return store.ErrUnchanged
		}
		e.begin(c, next)
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, &Error{Code: wire.CodeNotFound, Text: "there is no container " + id}
	}
	if err != nil {
		return nil, err
	}
	if w != nil {
		e.launch(id, w.ID, e.drive)
	}
	return c, nil
}

// mapID returns the id under which agents know a container. One that was found on a host has none at first.
func (e *Engine) mapID(ctx context.Context, id string) (string, error) {
	c, err := e.store.Containers.Get(id)
	if err != nil || c.MapID != "" {
		return "", nil // the caller sees what is wrong
	}
	fresh, _, err := e.store.NextID(ctx, store.TypeInstanceHostMap)
	return fresh, err
}
