package hub

import (
	"context"
	"sync"
)

// A workQueue is a queue that holds an item at most once. It is bounded by how many different items there are.
type workQueue[T comparable] struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex // guards what follows
	items []T
	has   map[T]struct{}
}

func newWorkQueue[T comparable]() *workQueue[T] {
	return &workQueue[T]{wake: make(chan struct{}, 1), has: make(map[T]struct{})}
}

// add puts item at the end, unless it is in the queue already.
func (q *workQueue[T]) add(item T) {
	q.mu.Lock()
	if _, ok := q.has[item]; ok {
		q.mu.Unlock()
		return
	}
	q.has[item] = struct{}{}
	q.items = append(q.items, item)
	q.mu.Unlock()
	q.notify()
}

func (q *workQueue[T]) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next takes the first item out, waiting for one; ok is false when ctx ended.
func (q *workQueue[T]) next(ctx context.Context) (item T, ok bool) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			item = q.items[0]
			q.items = q.items[1:]
			delete(q.has, item)
			more := len(q.items) > 0
			if !more {
				q.items = nil // let a once long queue go
			}
			q.mu.Unlock()
			if more {
				q.notify() // for the other workers
			}
			return item, true
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return item, false
		}
	}
}
