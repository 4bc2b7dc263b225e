package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

const patience = 3 * time.Minute // a busy machine is no failure

func quiet() *logrus.Logger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

// testContext ends with the test, or when its patience does.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// flavours runs a test against both kinds of server.
func flavours(t *testing.T, test func(t *testing.T, srv *eventstest.Server)) {
	for name, opts := range map[string]eventstest.Options{"Rancher": {}, "Drover": {Drover: true}} {
		t.Run(name, func(t *testing.T) { test(t, eventstest.NewServer(t, opts)) })
	}
}

// routes makes a router of handlers.
func routes(handlers map[string]events.HandlerFunc) *events.Router {
	r := events.NewRouter(events.RouterConfig{Log: quiet()})
	for name, h := range handlers {
		r.Handle(name, h)
	}
	return r
}

// echo answers with the event's data.
func echo(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) { return ev.Data, nil }

func pong(context.Context, *wire.Event, events.Progress) (any, error) {
	return json.RawMessage(`{"resources":[]}`), nil
}

type agent struct {
	*events.Client
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// start runs a client against srv that ends with the test. change may adjust its configuration.
func start(t testing.TB, srv *eventstest.Server, r *events.Router, change func(*events.Config)) *agent {
	t.Helper()
	cfg := events.Config{
		URL: srv.URL(), AccessKey: eventstest.AccessKey, SecretKey: eventstest.SecretKey, Router: r, Log: quiet(), Version: "1.2.3",
		Journal: filepath.Join(t.TempDir(), "journal.db"), TLS: srv.TLS(),
	}
	if change != nil {
		change(&cfg)
	}
	c, err := events.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{Client: c, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.err = c.Run(ctx)
	}()
	t.Cleanup(func() { a.stop(t) })
	return a
}

// stop ends the client and waits.
func (a *agent) stop(t testing.TB) {
	t.Helper()
	a.cancel()
	select {
	case <-a.done:
	case <-time.After(patience):
		t.Fatal("the client does not end")
	}
}

var ids atomic.Int64

// newEvent makes an event with an id of its own.
func newEvent(name, resource, data string) *wire.Event {
	n := ids.Add(1)
	ev := &wire.Event{ID: fmt.Sprintf("ev-%d", n), Name: name, ReplyTo: fmt.Sprintf("reply.%d", n), ResourceID: resource, TimeoutMillis: 600_000}
	if resource != "" {
		ev.ResourceType = "instanceHostMap"
	}
	if data != "" {
		ev.Data = json.RawMessage(data)
	}
	return ev
}

// until waits for cond.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// tally counts how often each event ran.
type tally struct {
	mu   sync.Mutex
	runs map[string]int
}

func (c *tally) add(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs == nil {
		c.runs = map[string]int{}
	}
	c.runs[id]++
}

func (c *tally) of(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs[id]
}
