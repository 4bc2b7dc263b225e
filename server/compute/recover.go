package compute

import (
	"context"
	"errors"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// interrupted is what a record says whose operation cannot be taken up.
const interrupted = "interrupted by a restart of the server"

// resume takes up every recorded operation that no live replica holds.
func (e *Engine) resume(ctx context.Context) {
	for _, c := range e.store.Containers.List() {
		if w := workOf(c.Work); w != nil {
			switch {
			case w.Owner == e.owner:
				e.launch(c.ID, w.ID, e.drive) // begun before Run, or ended because the store failed
			case e.free(w.Lease):
				e.adopt(ctx, c.ID, w.ID, w.Owner)
			}
		} else if c.Transitioning == wire.TransitioningYes {
			e.giveUp(ctx, c.ID)
		}
	}
	for _, t := range e.store.PullTasks.List() {
		if w := pullWorkOf(t.Work); w != nil {
			switch {
			case w.Owner == e.owner:
				e.launch(t.ID, w.ID, e.drivePull)
			case e.free(w.Lease):
				e.adoptPull(ctx, t.ID, w.ID, w.Owner)
			}
		}
	}
}

// free reports whether another process's operation may be taken up. Without other replicas, that process is dead.
func (e *Engine) free(until time.Time) bool {
	return !e.store.Clustered() || e.now().After(until)
}

func (e *Engine) adopt(ctx context.Context, id, workID, owner string) {
	_, err := e.store.Containers.Update(ctx, id, func(c *store.Container) error {
		w := workOf(c.Work)
		if w == nil || w.ID != workID || w.Owner != owner {
			return store.ErrUnchanged // another replica was faster
		}
		w.Owner, w.Lease = e.owner, e.now().Add(lease)
		c.Work = w.raw()
		return nil
	})
	if err != nil {
		e.log.WithError(err).WithField("container", id).Warn("cannot take up an operation")
		return
	}
	if c, err := e.store.Containers.Get(id); err == nil {
		if w := workOf(c.Work); w != nil && w.ID == workID && w.Owner == e.owner {
			e.log.WithField("container", id).WithField("operation", w.Op).Info("takes up an operation")
			e.launch(id, workID, e.drive)
		}
	}
}

// giveUp marks a container whose operation is unknown: its record is of another version, say.
func (e *Engine) giveUp(ctx context.Context, id string) {
	_, err := e.store.Containers.Update(ctx, id, func(c *store.Container) error {
		if workOf(c.Work) != nil || c.Transitioning != wire.TransitioningYes {
			return store.ErrUnchanged
		}
		c.State, c.Work = store.ContainerError, nil
		c.Transitioning, c.TransitioningMessage, c.TransitioningProgress = wire.TransitioningError, interrupted, 0
		return nil
	})
	if err != nil {
		e.log.WithError(err).WithField("container", id).Warn("cannot mark an interrupted operation")
	}
}

// renew extends the leases of what this process does.
func (e *Engine) renew(ctx context.Context) {
	e.mu.Lock()
	mine := e.inProgress()
	e.mu.Unlock()
	e.lease(ctx, mine, e.now().Add(lease))
}

// release ends the leases of what was left, so that another replica takes it up at once.
func (e *Engine) release(ctx context.Context, left map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	e.lease(ctx, left, time.Time{})
}

func (e *Engine) lease(ctx context.Context, operations map[string]string, until time.Time) {
	for id, workID := range operations {
		var err error
		if _, notTask := e.store.PullTasks.Get(id); notTask == nil {
			_, err = e.store.PullTasks.Update(ctx, id, func(t *store.PullTask) error {
				w := pullWorkOf(t.Work)
				if w == nil || w.ID != workID {
					return store.ErrUnchanged
				}
				w.Lease = until
				t.Work = w.raw()
				return nil
			})
		} else {
			_, err = e.store.Containers.Update(ctx, id, func(c *store.Container) error {
				w := workOf(c.Work)
				if w == nil || w.ID != workID {
					return store.ErrUnchanged
				}
				w.Lease = until
				c.Work = w.raw()
				return nil
			})
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			e.log.WithError(err).WithField("id", id).Warn("cannot renew the lease of an operation")
		}
	}
}

// purge deletes what nobody looks at any more.
func (e *Engine) purge(ctx context.Context) {
	now := e.now()
	for _, c := range e.store.Containers.List() {
		if c.State == store.ContainerRemoved && !c.Removed.IsZero() && now.Sub(c.Removed) > keepRemoved {
			e.logDelete(e.store.Containers.Delete(ctx, c.ID, c.Revision), c.ID)
		}
	}
	for _, t := range e.store.PullTasks.List() {
		if t.Transitioning != wire.TransitioningYes && now.Sub(t.Updated) > keepTasks {
			e.logDelete(e.store.PullTasks.Delete(ctx, t.ID, t.Revision), t.ID)
		}
	}
}

func (e *Engine) logDelete(err error, id string) {
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
		e.log.WithError(err).WithField("id", id).Warn("cannot purge a record")
	}
}
