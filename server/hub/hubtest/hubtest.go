// Package hubtest has what tests of the hub need: a server in front of a hub, and agents that behave like Drover's or
// like Rancher's, with a journal, and with faults on request.
package hubtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

// Patience is how long tests wait for what must happen.
const Patience = time.Minute

// A Server is a hub that runs, with an HTTP server before it: /subscribe and /publish, where the query parameter
// "agent" stands for the credentials.
type Server struct {
	*hub.Hub
	Store *store.Store
	URL   string

	http   *httptest.Server
	stop   func()
	killed atomic.Bool
}

// Start runs a hub. It is stopped with the test.
func Start(tb testing.TB, cfg hub.Config) *Server { return StartTLS(tb, cfg, nil) }

// StartTLS runs a hub behind TLS, or without where tc is nil.
func StartTLS(tb testing.TB, cfg hub.Config, tc *tls.Config) *Server {
	tb.Helper()
	h, err := hub.New(cfg)
	if err != nil {
		tb.Fatalf("new hub: %v", err)
	}
	s := &Server{Hub: h, Store: cfg.Store}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /subscribe", func(w http.ResponseWriter, r *http.Request) {
		h.ServeWS(w, r, r.URL.Query().Get("agent"))
	})
	mux.HandleFunc("POST /publish", s.publish)
	s.http = httptest.NewUnstartedServer(mux)
	if s.http.TLS = tc; tc != nil {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	s.URL = s.http.URL

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil && !s.killed.Load() {
				tb.Errorf("hub: %v", err)
			}
		case <-time.After(Patience):
			tb.Error("the hub does not end")
		}
		s.http.Close()
	})
	tb.Cleanup(s.stop)
	return s
}

// Stop ends the hub and waits for it.
func (s *Server) Stop() { s.stop() }

// Kill takes the store away and cuts all sockets, so that the others see the server die: it can tell nobody, and what it
// does from then on has no effect. Stop still has to be called; it is with the test.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.killed.Store(true)
	if err := s.Store.Close(); err != nil {
		tb.Errorf("close store: %v", err)
	}
	s.http.Listener.Close() //nolint:errcheck // nobody can dial it any more, which is all that is wanted
}

func (s *Server) publish(w http.ResponseWriter, r *http.Request) {
	var reply wire.Reply
	if err := json.NewDecoder(r.Body).Decode(&reply); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch err := s.Publish(r.Context(), r.URL.Query().Get("agent"), &reply); {
	case errors.Is(err, hub.ErrForbidden):
		w.WriteHeader(http.StatusForbidden)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusCreated)
	}
}

// Address returns host and port.
func (s *Server) Address() string { return s.http.Listener.Addr().String() }

// Subscribe returns the WebSocket URL for an agent.
func (s *Server) Subscribe(agentID string, names ...string) string {
	url := "ws" + strings.TrimPrefix(s.URL, "http") + "/subscribe?agent=" + agentID
	for _, name := range names {
		url += "&eventNames=" + name
	}
	return url
}

// Register makes an agent's record and returns its id.
func (s *Server) Register(tb testing.TB, key string) string {
	tb.Helper()
	agent, _, _ := storetest.Agent(tb, s.Store, key)
	return agent.ID
}

// WaitFor waits until cond is true.
func WaitFor(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(Patience)
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("timed out waiting for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
