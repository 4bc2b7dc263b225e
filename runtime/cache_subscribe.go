package runtime

import (
	"context"
)

// A Change is one element of a [Subscription].
type Change struct {
	Notice    Notice
	Simulated bool // found by comparing lists; no notice of the engine said so
	Gap       bool // notices may be missing here; Notice is zero
}

// A Subscription delivers the changes of a [Cache], in the engine's order per container. It holds a bounded number of
// them: when the reader is too slow the oldest is dropped, and the next read returns a Change with Gap set first.
type Subscription struct {
	c    *Cache
	wake chan struct{}

	// Guarded by Cache.mu.
	queue   []Change
	limit   int
	dropped uint64
	lost    bool
	closed  bool
}

// Subscribe starts to collect changes, at most limit (default 1,024) of them. The caller closes it.
func (c *Cache) Subscribe(limit int) *Subscription {
	if limit <= 0 {
		limit = 1024
	}
	s := &Subscription{c: c, wake: make(chan struct{}, 1), limit: limit}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[s] = struct{}{}
	return s
}

// Next returns the next change; it blocks until there is one or ctx ends. One goroutine at a time calls it.
func (s *Subscription) Next(ctx context.Context) (Change, error) {
	for {
		if ch, ok := s.take(); ok {
			return ch, nil
		}
		select {
		case <-ctx.Done():
			return Change{}, ctx.Err()
		case <-s.wake:
		}
	}
}

// Dropped returns how many changes were lost because the reader was too slow.
func (s *Subscription) Dropped() uint64 {
	s.c.mu.RLock()
	defer s.c.mu.RUnlock()
	return s.dropped
}

// Close ends the collection. It is idempotent and does not wake a blocked Next.
func (s *Subscription) Close() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.closed, s.queue = true, nil
	delete(s.c.subs, s)
}

func (s *Subscription) take() (Change, bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.lost {
		s.lost = false
		return Change{Gap: true}, true
	}
	if len(s.queue) == 0 {
		return Change{}, false
	}
	ch := s.queue[0]
	s.queue[0] = Change{}
	s.queue = s.queue[1:]
	return ch, true
}

func (s *Subscription) offerLocked(ch Change) {
	if s.closed {
		return
	}
	if len(s.queue) >= s.limit {
		s.queue[0] = Change{}
		s.queue = s.queue[1:]
		s.dropped++
		s.lost = true
	}
	s.queue = append(s.queue, ch)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
