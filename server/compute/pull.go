package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// The values of a pull task's status by host; a host that failed has statusFailed and the reason.
const (
	statusWaiting = "waiting"
	statusDone    = "done"
	statusFailed  = "error: "
)

// pullsAtOnce bounds the hosts of one task that pull at the same time.
const pullsAtOnce = 64

// pullWork is a pull task in progress, as it lies in its record.
type pullWork struct {
	ID     string            `json:"id"`
	Events map[string]string `json:"events"` // event id by host id
	Owner  string            `json:"owner"`
	Lease  time.Time         `json:"lease"`
}

func pullWorkOf(raw json.RawMessage) *pullWork {
	w := &pullWork{}
	if len(raw) == 0 || json.Unmarshal(raw, w) != nil || w.ID == "" {
		return nil
	}
	return w
}

func (w *pullWork) raw() json.RawMessage {
	b, _ := json.Marshal(w) // strings and a time: it cannot fail
	return b
}

// Pull records a task that pulls an image onto hosts, or, without any, onto every host that is online, and begins it.
func (e *Engine) Pull(ctx context.Context, accountID, image string, hostIDs []string) (*store.PullTask, error) {
	image = imageName(image)
	if image == "" || strings.ContainsAny(image, " \t\r\n\x00") {
		return nil, invalid("image", "%q is no image", image)
	}
	if len(hostIDs) == 0 {
		for _, h := range e.store.Hosts.List() {
			if h.Connection == store.ConnectionOnline && h.State == store.StateActive {
				hostIDs = append(hostIDs, h.ID)
			}
		}
		if len(hostIDs) == 0 {
			return nil, unavailable("no host is online")
		}
	}
	w := &pullWork{ID: uuid.NewString(), Events: map[string]string{}, Owner: e.owner, Lease: e.now().Add(lease)}
	status := map[string]string{}
	for _, id := range hostIDs {
		if _, err := e.store.Hosts.Get(id); err != nil {
			return nil, invalid("hostIds", "there is no host %s", id)
		}
		w.Events[id], status[id] = uuid.NewString(), statusWaiting
	}
	slices.Sort(hostIDs)
	t, err := e.store.PullTasks.Create(ctx, store.PullTask{
		AccountID: accountID, Image: image, HostIDs: slices.Compact(hostIDs), State: store.StateActivating,
		Transitioning: wire.TransitioningYes, TransitioningMessage: "pulling " + image, Status: status, Work: w.raw(),
	})
	if err != nil {
		return nil, err
	}
	e.launch(t.ID, w.ID, e.drivePull)
	return t, nil
}

func (e *Engine) adoptPull(ctx context.Context, id, workID, owner string) {
	_, err := e.store.PullTasks.Update(ctx, id, func(t *store.PullTask) error {
		w := pullWorkOf(t.Work)
		if w == nil || w.ID != workID || w.Owner != owner {
			return store.ErrUnchanged
		}
		w.Owner, w.Lease = e.owner, e.now().Add(lease)
		t.Work = w.raw()
		return nil
	})
	if err != nil {
		e.log.WithError(err).WithField("task", id).Warn("cannot take up a pull task")
		return
	}
	if t, err := e.store.PullTasks.Get(id); err == nil {
		if w := pullWorkOf(t.Work); w != nil && w.ID == workID && w.Owner == e.owner {
			e.launch(id, workID, e.drivePull)
		}
	}
}

// drivePull carries out a pull task on all its hosts.
func (e *Engine) drivePull(ctx context.Context, id, workID string) {
	t, err := e.store.PullTasks.Get(id)
	if err != nil {
		return
	}
	w := pullWorkOf(t.Work)
	if w == nil || w.ID != workID {
		return
	}
	p := &pullProgress{e: e, id: id, workID: workID, percent: map[string]int{}}
	group := errgroup.Group{}
	group.SetLimit(pullsAtOnce)
	for _, hostID := range t.HostIDs {
		if s := t.Status[hostID]; s == statusDone || strings.HasPrefix(s, statusFailed) {
			continue // done before a restart
		}
		group.Go(func() error { return e.pullOn(ctx, p, hostID, t.Image, w.Events[hostID]) })
	}
	if group.Wait() != nil || ctx.Err() != nil {
		return // recorded, and taken up by the next process
	}
	p.update(ctx, func(t *store.PullTask) {
		t.Work, t.TransitioningProgress = nil, 0
		failed := 0
		for _, hostID := range t.HostIDs {
			if why, ok := strings.CutPrefix(t.Status[hostID], statusFailed); ok {
				failed++
				t.TransitioningMessage = why
			}
		}
		t.State, t.Transitioning = store.StateActive, wire.TransitioningNo
		if failed == 0 {
			t.TransitioningMessage = ""
			return
		}
		t.State, t.Transitioning = store.ContainerError, wire.TransitioningError
		if len(t.HostIDs) > 1 {
			t.TransitioningMessage = fmt.Sprintf("%d of %d hosts failed; one of them: %s", failed, len(t.HostIDs), t.TransitioningMessage)
		}
	})
}

// pullOn pulls on one host. It returns an error only where the pull must be taken up later.
func (e *Engine) pullOn(ctx context.Context, p *pullProgress, hostID, image, eventID string) error {
	outcome := statusDone
	host, err := e.store.Hosts.Get(hostID)
	if err != nil {
		outcome = statusFailed + "the host was removed"
	} else {
		timeout := pullTimeout
		ev := &wire.Event{
			ID: eventID, Name: "compute.instance.pull", ResourceType: "resourcePull", TimeoutMillis: timeout.Milliseconds(),
			Data: marshal(pullData(image)),
		}
		r, err := e.call(ctx, host.AgentID, ev, func(r *wire.Reply) { p.report(ctx, hostID, r) })
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, hub.ErrClosed):
			return err
		case err != nil:
			outcome = statusFailed + explain(err, hostName(host)).Text
		case failure(r) != nil:
			outcome = statusFailed + failure(r).Text
		case !pulled(r):
			outcome = statusFailed + "the host has no image after the pull"
		}
	}
	p.update(ctx, func(t *store.PullTask) { t.Status[hostID] = outcome })
	return nil
}

// pulled reports whether the reply of a pull names the image. Original agents answer a failed one with an empty one.
func pulled(r *wire.Reply) bool {
	var data struct {
		Fields struct {
			DockerImage struct {
				ID string `json:"Id"`
			} `json:"dockerImage"`
		} `json:"fields"`
	}
	return json.Unmarshal(r.Data, &data) == nil && data.Fields.DockerImage.ID != ""
}

// pullProgress folds the progress of many hosts into one task.
type pullProgress struct {
	e          *Engine
	id, workID string

	mu      sync.Mutex // guards the following fields
	last    time.Time
	percent map[string]int
}

func (p *pullProgress) report(ctx context.Context, hostID string, r *wire.Reply) {
	p.mu.Lock()
	p.percent[hostID] = min(max(r.TransitioningProgress, 0), 100)
	sum := 0
	for _, n := range p.percent {
		sum += n
	}
	now := p.e.now()
	due := now.Sub(p.last) >= progressEvery
	if due {
		p.last = now
	}
	p.mu.Unlock()
	if !due {
		return
	}
	p.update(ctx, func(t *store.PullTask) {
		t.Status[hostID] = r.TransitioningMessage
		t.TransitioningMessage = r.TransitioningMessage
		t.TransitioningProgress = sum / max(len(t.HostIDs), 1)
	})
}

func (p *pullProgress) update(ctx context.Context, change func(*store.PullTask)) {
	_ = p.e.persist(ctx, p.id, func() error { // at the end of ctx the next process takes the task up
		_, err := p.e.store.PullTasks.Update(ctx, p.id, func(t *store.PullTask) error {
			if w := pullWorkOf(t.Work); w == nil || w.ID != p.workID {
				return store.ErrUnchanged
			}
			if t.Status == nil {
				t.Status = map[string]string{}
			}
			change(t)
			return nil
		})
		return err
	})
}
