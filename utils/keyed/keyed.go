// Package keyed hands out work in order per key and in parallel across keys.
//
// A [Queue] holds values in lanes, one a key. Values of one lane come out in the order they went in, and the next one
// only after its predecessor is done. Lanes take turns. Nothing in it starts a goroutine; Push never blocks,
// Pop does.
package keyed

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrClosed says that the queue was closed and is empty.
var ErrClosed = errors.New("keyed: queue closed")

// A Queue is safe for concurrent use. It does not bound itself: its owner knows what a value weighs and decides before
// Push.
type Queue[T any] struct {
	mu      sync.Mutex
	lanes   map[string]*lane[T] // guarded by mu; lanes with values or a value out
	head    *lane[T]            // guarded by mu; lanes ready to be popped, in turn
	tail    *lane[T]
	waiting int  // guarded by mu; values that are in
	ready   int  // guarded by mu; lanes in the list
	idle    int  // guarded by mu; calls of Pop that wait
	closed  bool // guarded by mu
	wake    chan struct{}
}

type lane[T any] struct {
	key    string
	values []T
	next   *lane[T]
}

// NewQueue returns an empty queue.
func NewQueue[T any]() *Queue[T] {
	return &Queue[T]{lanes: map[string]*lane[T]{}, wake: make(chan struct{}, 1)}
}

// Push adds v at the end of key's lane and reports whether no Pop waits for it, so that a pool may grow. The empty key
// asks for no order: each of its values is a lane of its own.
func (q *Queue[T]) Push(key string, v T) (unattended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting++
	if key != "" {
		if l, ok := q.lanes[key]; ok {
			l.values = append(l.values, v)
			return false
		}
	}
	l := &lane[T]{key: key, values: []T{v}}
	if key != "" {
		q.lanes[key] = l
	}
	q.readyLocked(l)
	return q.ready > q.idle
}

func (q *Queue[T]) readyLocked(l *lane[T]) {
	if q.tail == nil {
		q.head = l
	} else {
		q.tail.next = l
	}
	q.tail = l
	q.ready++
	q.wakeLocked()
}

func (q *Queue[T]) wakeLocked() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Taken is a value that came out of a queue. When its work is over, Done or Again must be called, once: they free
// the lane.
type Taken[T any] struct {
	Value T
	queue *Queue[T]
	lane  *lane[T]
}

// Pop waits for a value whose lane is free and takes it. The error is ctx's, or ErrClosed when the queue was closed and
// nothing is left to take.
func (q *Queue[T]) Pop(ctx context.Context) (t Taken[T], err error) {
	q.mu.Lock()
	for q.head == nil {
		if q.closed && q.waiting == 0 {
			q.wakeLocked() // the next one shall see it too
			q.mu.Unlock()
			return t, ErrClosed
		}
		q.idle++
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			err = ctx.Err()
		}
		q.mu.Lock()
		q.idle--
		if err != nil {
			if q.head != nil {
				q.wakeLocked() // perhaps it was meant for us
			}
			q.mu.Unlock()
			return t, err
		}
	}
	l := q.head
	q.head = l.next
	if q.head == nil {
		q.tail = nil
	} else {
		q.wakeLocked()
	}
	l.next = nil
	q.ready--
	q.waiting--
	t = Taken[T]{Value: l.values[0], queue: q, lane: l}
	var zero T
	l.values[0] = zero
	l.values = l.values[1:]
	q.mu.Unlock()
	return t, nil
}

// Done lets the next value of the same key out.
func (t Taken[T]) Done() {
	q, l := t.queue, t.lane
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(l.values) > 0:
		q.readyLocked(l)
	case l.key != "":
		delete(q.lanes, l.key)
	}
	if q.closed {
		q.wakeLocked()
	}
}

// Again puts the value back as the next one of its key, instead of Done.
func (t Taken[T]) Again() {
	q, l := t.queue, t.lane
	q.mu.Lock()
	defer q.mu.Unlock()
	l.values = slices.Insert(l.values, 0, t.Value)
	q.waiting++
	q.readyLocked(l)
}

// Len returns how many values wait.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// Drain takes out every value that waits, lane by lane in order, without regard to values that are out.
func (q *Queue[T]) Drain() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]T, 0, q.waiting)
	for l := q.head; l != nil; l = l.next {
		out = append(out, l.values...)
		l.values = nil
		delete(q.lanes, l.key)
	}
	q.head, q.tail, q.ready = nil, nil, 0
	for _, l := range q.lanes {
		out = append(out, l.values...)
		l.values = nil
	}
	q.waiting = 0
	q.wakeLocked()
	return out
}

// Close lets every Pop end once nothing is left to take. Values may still be pushed by owners that are done with
// earlier ones.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wakeLocked()
}
