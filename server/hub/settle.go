package hub

import (
	"context"
	"sync"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/utils/backoff"
)

const (
	settleBatch   = 512
	settleBacklog = 8192 // readers wait beyond this
	recentKept    = 16 << 10
	claimsKept    = 4096
	claimsBytes   = 64 << 20
	claimsFor     = 5 * time.Minute
)

// A task is an event that is to be taken out of the store's queue.
type task struct {
	ref   store.EventRef
	agent *agent // holds those who wait for it; nil for an orphan
	safe  func(error)
}

// A settler takes answered events out of the store's queue, many at a time, and then says that their replies are safe.
type settler struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex // guards what follows
	tasks []task
	space *sync.Cond // signalled when tasks were taken
	ended bool
}

func newSettler() *settler {
	s := &settler{wake: make(chan struct{}, 1)}
	s.space = sync.NewCond(&s.mu)
	return s
}

// add never blocks: it is called under locks. Those who can wait call room first.
func (s *settler) add(t task) {
	s.mu.Lock()
	s.tasks = append(s.tasks, t)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// room waits while too much is to be done.
func (s *settler) room() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.tasks) > settleBacklog && !s.ended {
		s.space.Wait()
	}
}

// end lets everyone go who waits for room.
func (s *settler) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.space.Broadcast()
}

func (s *settler) take() []task {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.tasks), settleBatch)
	batch := s.tasks[:n:n]
	s.tasks = s.tasks[n:]
	if len(s.tasks) == 0 {
		s.tasks = nil
	}
	s.space.Broadcast()
	return batch
}

// run settles until stop is closed and nothing is left, or ctx ends.
func (s *settler) run(ctx context.Context, stop <-chan struct{}, h *Hub) {
	for {
		batch := s.take()
		if len(batch) > 0 {
			h.settle(ctx, batch)
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		case <-stop:
			if batch := s.take(); len(batch) > 0 {
				h.settle(ctx, batch)
				continue
			}
			return
		}
	}
}

// settle tries until the events are gone or ctx ends.
func (h *Hub) settle(ctx context.Context, batch []task) {
	refs := make([]store.EventRef, 0, len(batch))
	delays := backoff.Policy{First: 100 * time.Millisecond, Max: 5 * time.Second}.Start()
	for _, t := range batch {
		refs = append(refs, t.ref)
	}
	for {
		err := h.store.DropEvents(ctx, refs)
		if err == nil {
			break
		}
		h.log.WithError(err).Warn("hub: answered events cannot be taken out of the queue; trying again")
		if err := backoff.Sleep(ctx, delays.Next()); err != nil {
			for _, t := range batch {
				h.settled(t, ErrClosed)
			}
			return
		}
	}
	for _, t := range batch {
		h.settled(t, nil)
	}
}

// recent remembers the last events that were answered, to tell duplicates from replies that come late.
type recent struct {
	mu       sync.Mutex // guards what follows
	new, old map[store.EventRef]struct{}
}

func (r *recent) add(ref store.EventRef) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.new == nil || len(r.new) >= recentKept/2 {
		r.old, r.new = r.new, make(map[store.EventRef]struct{})
	}
	r.new[ref] = struct{}{}
}

func (r *recent) has(ref store.EventRef) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, isNew := r.new[ref]
	_, isOld := r.old[ref]
	return isNew || isOld
}

// claims are replies whose caller was gone when they came, for when it asks again.
type claims struct {
	mu    sync.Mutex // guards what follows
	kept  map[store.EventRef]claim
	bytes int
}

type claim struct {
	reply *wire.Reply
	until time.Time
}

func (c *claims) put(ref store.EventRef, r *wire.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = make(map[store.EventRef]claim)
	}
	if len(c.kept) >= claimsKept || c.bytes+len(r.Data) > claimsBytes {
		return
	}
	c.dropLocked(ref)
	c.kept[ref] = claim{r, time.Now().Add(claimsFor)}
	c.bytes += len(r.Data)
}

func (c *claims) take(ref store.EventRef) *wire.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.kept[ref].reply
	c.dropLocked(ref)
	return r
}

func (c *claims) dropLocked(ref store.EventRef) {
	if old, ok := c.kept[ref]; ok {
		c.bytes -= len(old.reply.Data)
		delete(c.kept, ref)
	}
}

// expire forgets what nobody asked for.
func (c *claims) expire(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ref, kept := range c.kept {
		if now.After(kept.until) {
			c.dropLocked(ref)
		}
	}
}
