package events

import (
	"context"
	"errors"
	"sync"
	"time"
)

// moving is a context whose deadline moves: each report of progress grants the handler one more period, because the
// server extends its own patience by as much. Nothing moves it beyond last.
type moving struct {
	context.Context
	cancel context.CancelCauseFunc
	period time.Duration
	last   time.Time

	mu       sync.Mutex
	deadline time.Time   // guarded by mu
	timer    *time.Timer // guarded by mu
}

func withMovingDeadline(parent context.Context, deadline time.Time, period, most time.Duration) *moving {
	m := &moving{period: period, last: time.Now().Add(most), deadline: deadline}
	m.Context, m.cancel = context.WithCancelCause(parent)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timer = time.AfterFunc(time.Until(deadline), m.expire)
	return m
}

// expire ends the context unless the deadline moved on meanwhile.
func (m *moving) expire() {
	m.mu.Lock()
	left := time.Until(m.deadline)
	if left > 0 {
		m.timer.Reset(left)
	}
	m.mu.Unlock()
	if left <= 0 {
		m.cancel(context.DeadlineExceeded)
	}
}

// extend moves the deadline to one period from now.
func (m *moving) extend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := time.Now().Add(m.period)
	if next.After(m.last) {
		next = m.last
	}
	if next.After(m.deadline) {
		m.deadline = next // the timer finds out when it fires
	}
}

func (m *moving) stop() {
	m.mu.Lock()
	m.timer.Stop()
	m.mu.Unlock()
	m.cancel(context.Canceled)
}

// Deadline returns the deadline as it stands; it may yet move.
func (m *moving) Deadline() (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.deadline, true
}

// Err tells a passed deadline from other ends.
func (m *moving) Err() error {
	err := m.Context.Err()
	if err != nil && errors.Is(context.Cause(m.Context), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

func (m *moving) expired() bool { return errors.Is(context.Cause(m.Context), context.DeadlineExceeded) }
