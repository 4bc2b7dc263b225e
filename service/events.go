package service

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A Notice is something that happened to a container.
type Notice struct {
	Type      string            `json:"type"` // "event"
	Action    string            `json:"action"`
	Container string            `json:"container"` // id
	Name      string            `json:"name,omitempty"`
	Image     string            `json:"image,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Time      time.Time         `json:"time"`
}

// serveEvents writes what happens to containers, a JSON object a line, from now on or from since.
func (s *Service) serveEvents(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	since := q.when("since")
	if q.err != nil {
		return q.err
	}
	if s.notices == nil {
		return unsupported("events")
	}
	if err := s.allow(r, Action{Verb: VerbEvents}); err != nil {
		return err
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", MediaLines)
	w.Header().Set("X-Accel-Buffering", "no")
	enc := json.NewEncoder(w)
	write := func(n runtime.Notice) error {
		err := enc.Encode(Notice{Type: "event", Action: n.Action, Container: n.ID, Name: n.Name, Image: n.Image, Labels: n.Labels, Time: n.Time})
		if err == nil {
			err = rc.Flush()
		}
		return err
	}
	if !since.IsZero() {
		// A past of its own needs a watch of its own.
		for n, err := range s.notices.engine.Watch(r.Context(), since) {
			if err == nil {
				err = write(n)
			}
			if err != nil {
				return ignoreEnd(r.Context(), err)
			}
		}
		return nil
	}
	notices, leave := s.notices.join()
	defer leave()
	if err := rc.Flush(); err != nil {
		return err
	}
	for {
		select {
		case <-r.Context().Done():
			return nil
		case n, ok := <-notices:
			if !ok {
				return &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the events broke off, or were not read fast enough"}
			}
			if err := write(n); err != nil {
				return err
			}
		}
	}
}

// ignoreEnd returns nil for an error that only says that the request has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// noticeQueue is how many notices may wait for a viewer.
const noticeQueue = 256

// A broadcast shares one watch of the engine among all viewers, while there are any.
type broadcast struct {
	engine runtime.Watcher

	mu      sync.Mutex
	viewers map[chan runtime.Notice]struct{}
	stop    context.CancelFunc // of the watch; nil if there is none
	ended   chan struct{}      // closed when it has ended
}

func newBroadcast(w runtime.Watcher) *broadcast {
	return &broadcast{engine: w, viewers: map[chan runtime.Notice]struct{}{}}
}

// join returns the notices from now on. The channel is closed when the watch broke, or when the viewer was too slow. The
// last viewer that leaves ends the watch, and waits for it.
func (b *broadcast) join() (<-chan runtime.Notice, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan runtime.Notice, noticeQueue)
	b.viewers[c] = struct{}{}
	if b.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		b.stop, b.ended = cancel, ended
		go b.watch(ctx, ended)
	}
	return c, func() { b.leave(c) }
}

func (b *broadcast) leave(c chan runtime.Notice) {
	b.mu.Lock()
	delete(b.viewers, c)
	if len(b.viewers) > 0 || b.stop == nil {
		b.mu.Unlock()
		return
	}
	b.stop()
	ended := b.ended
	b.stop = nil
	b.mu.Unlock()
	<-ended
}

func (b *broadcast) watch(ctx context.Context, ended chan<- struct{}) {
	defer close(ended)
	for n, err := range b.engine.Watch(ctx, time.Time{}) {
		if err != nil {
			break
		}
		b.mu.Lock()
		for c := range b.viewers {
			select {
			case c <- n:
			default:
				delete(b.viewers, c)
				close(c)
			}
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil {
		return // those who are here now have a watch of their own
	}
	for c := range b.viewers {
		delete(b.viewers, c)
		close(c)
	}
	b.stop()
	b.stop = nil
}
