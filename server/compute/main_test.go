package compute

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// eventually waits until ok, and fails the test with what it waited for otherwise.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// stub is a hub with agents that answer as the test says.
type stub struct {
	answer func(ctx context.Context, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error)

	mu     sync.Mutex
	events []*wire.Event
}

func (s *stub) Call(ctx context.Context, _ string, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error) {
	s.mu.Lock()
	s.events = append(s.events, ev)
	s.mu.Unlock()
	if progress == nil {
		progress = func(*wire.Reply) {}
	}
	return s.answer(ctx, ev, progress)
}

func (s *stub) seen() []*wire.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *stub) names() []string {
	var out []string
	for _, ev := range s.seen() {
		out = append(out, ev.Name)
	}
	return out
}

// obey answers every event as a well-behaved agent does.
func obey(_ context.Context, ev *wire.Event, _ func(*wire.Reply)) (*wire.Reply, error) {
	return &wire.Reply{Data: goodReply(ev)}, nil
}

func goodReply(ev *wire.Event) json.RawMessage {
	switch ev.Name {
	case "compute.instance.activate":
		return json.RawMessage(`{"instanceHostMap":{"instance":{"externalId":"b7c1","+data":{"dockerContainer":{"Id":"b7c1"},
			"dockerInspect":{"Id":"b7c1","Created":"2026-01-02T03:04:05.6Z","State":{"Running":true},"Config":{"Labels":{"from":"image"}}},
			"dockerMounts":[],"+fields":{"dockerHostIp":"10.0.0.5","dockerIp":"172.17.0.9","dockerPorts":["0.0.0.0:8080:80/tcp"]}}}}}`)
	case "compute.instance.deactivate":
		return json.RawMessage(`{"instanceHostMap":{"instance":{"externalId":"b7c1","+data":{"dockerInspect":{"Id":"b7c1","State":{"Running":false}},"+fields":{"dockerIp":"","dockerPorts":[]}}}}}`)
	case "compute.instance.remove":
		return json.RawMessage(`{}`)
	case "compute.instance.pull":
		return json.RawMessage(`{"fields":{"dockerImage":{"Id":"sha256:1"}}}`)
	case "compute.instance.inspect":
		return json.RawMessage(`{"instanceInspect":{"Id":"b7c1","Big":12345678901234567890}}`)
	}
	return json.RawMessage(`{"imageStoragePoolMap":{}}`)
}

func refuse(code, text string) *wire.Reply {
	return &wire.Reply{Transitioning: wire.TransitioningError, TransitioningMessage: text, Code: code}
}

// hold answers nothing until its context ends, as an agent that is away.
func hold(ctx context.Context, _ *wire.Event, _ func(*wire.Reply)) (*wire.Reply, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// bench is an engine at work on a store of its own.
type bench struct {
	t     *testing.T
	store *store.Store
	hub   *stub
	*Engine
	stop func()
}

func newBench(t *testing.T, answer func(context.Context, *wire.Event, func(*wire.Reply)) (*wire.Reply, error)) *bench {
	t.Helper()
	st := storetest.Open(t)
	addHost(t, st, "one", store.ConnectionOnline, nil)
	return startBench(t, st, answer)
}

func startBench(t *testing.T, st *store.Store, answer func(context.Context, *wire.Event, func(*wire.Reply)) (*wire.Reply, error)) *bench {
	t.Helper()
	e, err := New(Config{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: st, hub: &stub{answer: answer}, Engine: e}
	e.Use(b.hub)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(b.stop)
	eventually(t, "the engine runs", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.ctx != nil })
	return b
}

func addHost(t *testing.T, st *store.Store, name, connection string, labels map[string]string) *store.Host {
	t.Helper()
	a, err := st.Agents.Create(t.Context(), store.Agent{UUID: "agent-" + name, AccountID: "1a1", AccessKey: "AK" + name, State: store.StateActive, Connection: connection})
	if err != nil {
		t.Fatal(err)
	}
	h, err := st.Hosts.Create(t.Context(), store.Host{
		UUID: "uuid-" + name, Hostname: name, AccountID: "1a1", AgentID: a.ID, State: store.StateActive, AgentState: store.StateActive,
		Connection: connection, Labels: labels,
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (b *bench) create(fields string) *store.Container {
	b.t.Helper()
	c, err := b.Create(b.t.Context(), "1a1", json.RawMessage(fields))
	if err != nil {
		b.t.Fatalf("create %s: %v", fields, err)
	}
	return c
}

// settled waits until nothing is in progress for a container and returns it.
func (b *bench) settled(id string) *store.Container {
	b.t.Helper()
	var c *store.Container
	eventually(b.t, "container "+id+" settles", func() bool {
		var err error
		if c, err = b.store.Containers.Get(id); err != nil {
			b.t.Fatal(err)
		}
		return len(c.Work) == 0
	})
	return c
}

func codeOf(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}
