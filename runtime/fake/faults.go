package fake

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// faults is what an engine was told to do wrong, and how often it was called.
type faults struct {
	mu     sync.Mutex
	down   bool
	lost   chan struct{} // closed while the engine is down: streams break
	hung   chan struct{} // closed when the engine answers again; nil if it does
	errs   map[string]*failure
	delays map[string]time.Duration
	calls  map[string]int
}

type failure struct {
	err  error
	left int // calls, or -1 for ever
}

func (f *faults) init() {
	f.lost = make(chan struct{})
	f.errs = map[string]*failure{}
	f.delays = map[string]time.Duration{}
	f.calls = map[string]int{}
}

// Down makes every call fail with runtime.ErrUnavailable and breaks every stream, until [Engine.Up]. Containers go on.
func (e *Engine) Down() { e.outage(true) }

// Up ends Down and Hang.
func (e *Engine) Up() { e.outage(false) }

func (e *Engine) outage(down bool) {
	e.faults.mu.Lock()
	switch {
	case down && !e.faults.down:
		close(e.faults.lost)
	case !down && e.faults.down:
		e.faults.lost = make(chan struct{})
	}
	e.faults.down = down
	if e.faults.hung != nil {
		close(e.faults.hung)
		e.faults.hung = nil
	}
	e.faults.mu.Unlock()
}

// Forget drops the notices so far, as a daemon does that is restarted.
func (e *Engine) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropped += len(e.notices)
	e.notices = nil
}

// Hang makes every call wait for its ctx, or without a deadline for the timeout of [WithTimeout], and then fail with
// runtime.ErrUnavailable. Streams fall silent. [Engine.Up] ends it; calls that wait then go on.
func (e *Engine) Hang() {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	if e.faults.hung == nil {
		e.faults.hung = make(chan struct{})
	}
}

// Fail makes the next n calls of a method, "Start" for example, return err; n less than 0 means all, and a nil err
// ends it.
func (e *Engine) Fail(method string, n int, err error) {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	if err == nil || n == 0 {
		delete(e.faults.errs, method)
		return
	}
	e.faults.errs[method] = &failure{err: err, left: n}
}

// Delay makes every call of a method take d longer, or as long as its ctx.
func (e *Engine) Delay(method string, d time.Duration) {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	e.faults.delays[method] = d
}

// Calls returns how often a method was called, failures included.
func (e *Engine) Calls(method string) int {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	return e.faults.calls[method]
}

// enter is passed by every call first: it counts, waits and fails as it was told to.
func (e *Engine) enter(ctx context.Context, method, op string) error {
	e.faults.mu.Lock()
	e.faults.calls[method]++
	down, hung, delay := e.faults.down, e.faults.hung, e.faults.delays[method]
	var err error
	if f := e.faults.errs[method]; f != nil {
		err = f.err
		if f.left > 0 {
			if f.left--; f.left == 0 {
				delete(e.faults.errs, method)
			}
		}
	}
	e.faults.mu.Unlock()

	if ctx.Err() != nil {
		return ended(ctx, op)
	}
	if e.life.Err() != nil {
		return &runtime.Error{Op: op, Kind: runtime.ErrUnavailable, Message: "the engine is closed"}
	}
	if down {
		return &runtime.Error{Op: op, Kind: runtime.ErrUnavailable, Message: "fake: connection refused"}
	}
	if hung != nil {
		limited, cancel := ctx, context.CancelFunc(func() {})
		if _, ok := ctx.Deadline(); !ok {
			limited, cancel = context.WithTimeout(ctx, e.timeout)
		}
		defer cancel()
		select {
		case <-hung:
		case <-limited.Done():
			return ended(limited, op)
		case <-e.life.Done():
			return &runtime.Error{Op: op, Kind: runtime.ErrUnavailable, Message: "the engine is closed"}
		}
	}
	if delay > 0 && !sleep(ctx, delay) {
		return ended(ctx, op)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// lost is closed when streams must break.
func (e *Engine) lost() <-chan struct{} {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	return e.faults.lost
}

// broken is the error of a stream that did.
func broken(op string) error {
	return &runtime.Error{Op: op, Kind: runtime.ErrUnavailable, Message: "the stream broke"}
}

// ended is the error of a call whose ctx is over.
func ended(ctx context.Context, op string) error {
	err := ctx.Err()
	if err == context.DeadlineExceeded {
		return &runtime.Error{Op: op, Kind: runtime.ErrUnavailable, Message: "no answer in time", Cause: err}
	}
	return fmt.Errorf("%s: %w", op, err)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
