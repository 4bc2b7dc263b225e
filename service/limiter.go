package service

import (
	"context"
	"sync"
)

// A limiter lets a few through at a time for each key, in the order in which they came. Engines start the processes of
// one container one after another: more in flight would only wait there, where nobody can order them or send them away.
type limiter struct {
	slots, queue int

	mu   sync.Mutex
	keys map[string]*line
}

// A line is the state of one key.
type line struct {
	busy    int
	waiting []chan struct{} // each is closed when its turn has come
}

func newLimiter(slots, queue int) *limiter {
	return &limiter{slots: slots, queue: queue, keys: map[string]*line{}}
}

// enter waits for a turn. The caller calls leave once.
func (l *limiter) enter(ctx context.Context, key string) (leave func(), err error) {
	l.mu.Lock()
	ln := l.keys[key]
	if ln == nil {
		ln = &line{}
		l.keys[key] = ln
	}
	if ln.busy < l.slots {
		ln.busy++
		l.mu.Unlock()
		return sync.OnceFunc(func() { l.leave(key, ln) }), nil
	}
	if len(ln.waiting) >= l.queue {
		l.mu.Unlock()
		return nil, errBusy
	}
	turn := make(chan struct{})
	ln.waiting = append(ln.waiting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return sync.OnceFunc(func() { l.leave(key, ln) }), nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, t := range ln.waiting {
		if t == turn {
			ln.waiting = append(ln.waiting[:i], ln.waiting[i+1:]...)
			return nil, context.Cause(ctx)
		}
	}
	// The turn came at the same moment: pass it on.
	l.passLocked(key, ln)
	return nil, context.Cause(ctx)
}

func (l *limiter) leave(key string, ln *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passLocked(key, ln)
}

func (l *limiter) passLocked(key string, ln *line) {
	if len(ln.waiting) > 0 {
		close(ln.waiting[0])
		ln.waiting = ln.waiting[1:]
		return
	}
	if ln.busy--; ln.busy == 0 {
		delete(l.keys, key)
	}
}
