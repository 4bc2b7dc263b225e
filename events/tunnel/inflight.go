package tunnel

import (
	"context"
	"net/http"
	"sync"
)

// inflight counts the requests that a handler serves, hijacked ones too, which http.Server forgets.
type inflight struct {
	mu   sync.Mutex
	n    int
	shut bool
	idle chan struct{} // closed while n is 0; made by the first request
}

func (f *inflight) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.enter() {
			http.Error(w, "the agent is shutting down", http.StatusServiceUnavailable)
			return
		}
		defer f.leave()
		h.ServeHTTP(w, r)
	})
}

func (f *inflight) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return false
	}
	if f.n == 0 {
		f.idle = make(chan struct{})
	}
	f.n++
	return true
}

func (f *inflight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 {
		close(f.idle)
	}
}

// close lets no more requests in and waits for those that are.
func (f *inflight) close() {
	f.mu.Lock()
	f.shut = true
	f.mu.Unlock()
	f.wait(context.Background())
}

// wait blocks until no request is served or ctx ends.
func (f *inflight) wait(ctx context.Context) {
	f.mu.Lock()
	n, idle := f.n, f.idle
	f.mu.Unlock()
	if n == 0 {
		return
	}
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
