package fake

import (
	"context"
	"iter"
	"maps"
	"time"

	"github.com/droverhq/drover/runtime"
)

// maxNotices is how many notices are remembered; as many as dockerd keeps.
const maxNotices = 256

// notify records that something happened to c. e.mu is held.
func (e *Engine) notify(c *container, action string) {
	n := runtime.Notice{ID: c.id, Name: c.name, Action: action, Image: c.spec.Image, Time: e.now()}
	if len(c.spec.Labels) > 0 {
		n.Labels = maps.Clone(c.spec.Labels)
	}
	if len(e.notices) >= maxNotices {
		half := maxNotices / 2
		e.notices = append([]runtime.Notice(nil), e.notices[half:]...)
		e.dropped += half
	}
	e.notices = append(e.notices, n)
	e.wake()
}

// Watch yields what happens to containers. A consumer that is more than some hundred notices behind gets an error, as
// the stream would have a gap.
func (e *Engine) Watch(ctx context.Context, since time.Time) iter.Seq2[runtime.Notice, error] {
	const op = "watch containers"
	if since.IsZero() {
		since = time.Now()
	}
	since = since.Round(0)
	lost := e.lost()
	return func(yield func(runtime.Notice, error) bool) {
		if err := e.enter(ctx, "Watch", op); err != nil {
			if ctx.Err() == nil {
				yield(runtime.Notice{}, err)
			}
			return
		}
		e.mu.Lock()
		next := e.dropped // number of the next notice, counted from the engine's first
		e.mu.Unlock()
		for {
			e.mu.Lock()
			behind := next < e.dropped
			var batch []runtime.Notice
			if !behind {
				batch = append(batch, e.notices[next-e.dropped:]...)
				next += len(batch)
			}
			changed := e.changed
			e.mu.Unlock()
			if behind {
				yield(runtime.Notice{}, broken(op))
				return
			}
			for _, n := range batch {
				if n.Time.Before(since) {
					continue
				}
				if !e.flowing(ctx) || !yield(n, nil) {
					return
				}
			}
			if len(batch) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-lost:
				yield(runtime.Notice{}, broken(op))
				return
			case <-e.life.Done():
				yield(runtime.Notice{}, broken(op))
				return
			}
		}
	}
}

// flowing waits while the engine hangs, and reports whether ctx still lasts.
func (e *Engine) flowing(ctx context.Context) bool {
	e.faults.mu.Lock()
	hung := e.faults.hung
	e.faults.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
		case <-e.life.Done():
		}
	}
	return ctx.Err() == nil
}
