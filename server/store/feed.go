package store

import (
	"context"
	"sync"
)

// Change is one change of a record. Record is a *Host, *Container and so on, shared and read-only; nil if Deleted.
type Change struct {
	Type     string
	ID       string
	Revision uint64
	Deleted  bool
	Record   any
}

// Subscribe returns a feed of the changes of the given types (none: all), from now on, until ctx ends; then, and when
// the store closes, the channel is closed. Changes come in order; where the reader is slow, the states of one record
// are coalesced to the last. Nothing else waits for the reader.
func (s *Store) Subscribe(ctx context.Context, types ...string) <-chan Change {
	return s.feeds.subscribe(ctx, types)
}

// feeds spreads changes to the subscribers.
type feeds struct {
	wg   sync.WaitGroup
	done chan struct{} // closed by close

	mu     sync.Mutex // guards what follows
	closed bool
	subs   map[*feed]struct{}
}

func newFeeds() *feeds {
	return &feeds{done: make(chan struct{}), subs: make(map[*feed]struct{})}
}

type changeKey struct{ typ, id string }

// A feed holds what one subscriber has not taken yet: at most one change for each record.
type feed struct {
	types map[string]bool
	wake  chan struct{} // capacity 1

	mu      sync.Mutex // guards what follows
	pending map[changeKey]Change
	order   []changeKey
}

func (fs *feeds) subscribe(ctx context.Context, types []string) <-chan Change {
	f := &feed{wake: make(chan struct{}, 1), pending: make(map[changeKey]Change)}
	if len(types) > 0 {
		f.types = make(map[string]bool)
		for _, t := range types {
			f.types[t] = true
		}
	}
	out := make(chan Change)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		close(out)
		return out
	}
	fs.subs[f] = struct{}{}
	fs.wg.Go(func() {
		defer close(out)
		defer fs.remove(f)
		f.pump(ctx, fs.done, out)
	})
	return out
}

func (fs *feeds) remove(f *feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.subs, f)
}

// publish never blocks.
func (fs *feeds) publish(c Change) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for f := range fs.subs {
		if f.types == nil || f.types[c.Type] {
			f.add(c)
		}
	}
}

func (fs *feeds) close() {
	fs.mu.Lock()
	if !fs.closed {
		fs.closed = true
		close(fs.done)
	}
	fs.mu.Unlock()
	fs.wg.Wait()
}

func (f *feed) add(c Change) {
	k := changeKey{c.Type, c.ID}
	f.mu.Lock()
	if _, waits := f.pending[k]; !waits {
		f.order = append(f.order, k)
	}
	f.pending[k] = c
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed) next() (Change, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.order) == 0 {
		f.order = nil // let a once long queue go
		return Change{}, false
	}
	k := f.order[0]
	f.order = f.order[1:]
	c := f.pending[k]
	delete(f.pending, k)
	return c, true
}

func (f *feed) pump(ctx context.Context, done <-chan struct{}, out chan<- Change) {
	for {
		c, ok := f.next()
		if !ok {
			select {
			case <-f.wake:
				continue
			case <-ctx.Done():
				return
			case <-done:
				return
			}
		}
		select {
		case out <- c:
		case <-ctx.Done():
			return
		case <-done:
			return
		}
	}
}
