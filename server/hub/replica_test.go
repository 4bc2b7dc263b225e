package hub_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

// two runs two hubs that share one NATS server.
func two(t *testing.T, timings hub.Timings) (a, b *hubtest.Server) {
	t.Helper()
	url := storetest.NATS(t)
	run := func() *hubtest.Server {
		s := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
		return hubtest.Start(t, hub.Config{Store: s, Timings: timings})
	}
	return run(), run()
}

// seen waits until a replica has the agent's record.
func seen(t *testing.T, srv *hubtest.Server, id string) {
	t.Helper()
	hubtest.WaitFor(t, "the agent's record", func() bool { _, err := srv.Store.Agents.Get(id); return err == nil })
}

func TestReplicasCallEachOthersAgents(t *testing.T) {
	for _, original := range []bool{false, true} {
		t.Run(fmt.Sprintf("original=%v", original), func(t *testing.T) {
			one, other := two(t, hub.Timings{})
			id := one.Register(t, "k")
			seen(t, other, id)
			a := hubtest.StartAgent(t, hubtest.To(other), hubtest.AgentConfig{ID: id, Original: original, Handle: func(_ context.Context, ev *wire.Event, progress func(string, int)) (any, error) {
				progress("half", 50)
				return ev.Data, nil
			}})
			a.WaitConnected()
			var progress []string
			r, err := one.Call(t.Context(), id, hubtest.Event(1, 1), func(r *wire.Reply) { progress = append(progress, r.TransitioningMessage) })
			if err != nil || string(r.Data) != `{"n":1}` {
				t.Fatalf("%v, %v", r, err)
			}
			if len(progress) != 1 || progress[0] != "half" {
				t.Errorf("progress %q", progress)
			}
			if _, err := one.Call(t.Context(), id, &wire.Event{Name: "test.other"}, nil); !errors.Is(err, hub.ErrUnsupported) {
				t.Errorf("unsupported event through the other replica: %v", err)
			}
			ping := &wire.Event{Name: wire.NamePing, ResourceType: "agent", ResourceID: id}
			ping.Data = []byte(`{"options":{}}`)
			if _, err := one.Call(t.Context(), id, ping, nil); err != nil {
				t.Errorf("ping through the other replica: %v", err)
			}
			if err := one.Send(t.Context(), id, hubtest.Event(9, 9)); err != nil {
				t.Error(err)
			}
			hubtest.WaitFor(t, "the sent event", func() bool { return len(a.Runs()) == 2 })
			checkQueueEmpty(t, one.Store)
			hubtest.WaitFor(t, "the same state at both", func() bool {
				return connection(one.Store, id) == store.ConnectionOnline && connection(other.Store, id) == store.ConnectionOnline
			})
		})
	}
}

func TestReplicasExactlyOnce(t *testing.T) {
	one, other := two(t, hub.Timings{})
	id := one.Register(t, "k")
	seen(t, other, id)
	var n atomic.Int32
	// The agent comes back to another replica each time.
	servers := []*hubtest.Server{one, other}
	a := hubtest.StartAgent(t, func() *hubtest.Server { return servers[n.Add(1)%2] }, hubtest.AgentConfig{ID: id})
	a.WaitConnected()
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
				a.Cut()
			}
		}
	}()
	burst(t, servers, id, manyEvents/2)
	close(stop)
	<-ended
	checkOnce(t, a, manyEvents/2)
	checkQueueEmpty(t, one.Store)
	t.Logf("one: %+v", one.Stats())
	t.Logf("other: %+v", other.Stats())
}

// An agent whose server stops is served by the other one, which also has what was given to the first.
func TestReplicaTakesOver(t *testing.T) {
	one, other := two(t, hub.Timings{})
	id := one.Register(t, "k")
	seen(t, other, id)
	var to atomic.Pointer[hubtest.Server]
	to.Store(one)
	release := make(chan struct{})
	a := hubtest.StartAgent(t, to.Load, hubtest.AgentConfig{ID: id, Handle: func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) {
		<-release
		return ev.Data, nil
	}})
	a.WaitConnected()
	// One event that nobody asks for any more, one whose caller is on the server that goes on.
	ended := make(chan error, 2)
	go func() {
		_, err := one.Call(t.Context(), id, hubtest.Event(1, 1), nil)
		if !errors.Is(err, hub.ErrClosed) {
			err = fmt.Errorf("call at the server that stops: %w", err)
		} else {
			err = nil
		}
		ended <- err
	}()
	go func() {
		r, err := other.Call(t.Context(), id, hubtest.Event(2, 2), nil)
		if err == nil && string(r.Data) != `{"n":2}` {
			err = fmt.Errorf("reply %s", r.Data)
		}
		ended <- err
	}()
	hubtest.WaitFor(t, "both events", func() bool { return len(a.Frames()) == 2 })
	to.Store(other)
	one.Stop()
	a.WaitConnected()
	close(release)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	checkOnce(t, a, 2)
	checkQueueEmpty(t, other.Store)
	if r, err := other.Call(t.Context(), id, hubtest.Event(3, 3), nil); err != nil || string(r.Data) != `{"n":3}` {
		t.Errorf("after the take-over: %v, %v", r, err)
	}
}

func TestReplicasRefuseASecondPlace(t *testing.T) {
	one, other := two(t, hub.Timings{Probe: time.Second})
	id := one.Register(t, "k")
	seen(t, other, id)
	a := hubtest.StartAgent(t, hubtest.To(one), hubtest.AgentConfig{ID: id, NoRetry: true})
	hubtest.WaitFor(t, "online", func() bool { return connection(other.Store, id) == store.ConnectionOnline })
	if c := tryDial(t, other, id, true); c.conn != nil || c.res.StatusCode != http.StatusConflict {
		t.Errorf("second place on the other replica: %v, want 409", c.res)
	}
	if !a.Connected() {
		t.Error("the first connection was closed")
	}
	if err := other.Disconnect(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	hubtest.WaitFor(t, "the socket to be closed from the other replica", func() bool { return !a.Connected() })
	dial(t, other, id, true)
}

func TestStatesAfterAReplicaIsGone(t *testing.T) {
	one, other := two(t, hub.Timings{Hold: 50 * time.Millisecond, Ping: 200 * time.Millisecond, DisconnectAfter: 500 * time.Millisecond})
	id := one.Register(t, "k")
	seen(t, other, id)
	a := hubtest.StartAgent(t, hubtest.To(one), hubtest.AgentConfig{ID: id, NoRetry: true})
	hubtest.WaitFor(t, "online", func() bool { return connection(other.Store, id) == store.ConnectionOnline })
	one.Stop()
	hubtest.WaitFor(t, "the socket to be closed", func() bool { return !a.Connected() })
	hubtest.WaitFor(t, "disconnected", func() bool { return connection(other.Store, id) == store.ConnectionDisconnected })
}

func TestEventsWaitForAnAgentOfNoReplica(t *testing.T) {
	one, other := two(t, hub.Timings{})
	id := one.Register(t, "k")
	seen(t, other, id)
	ended := make(chan error, 1)
	go func() { _, err := one.Call(t.Context(), id, hubtest.Event(1, 1), nil); ended <- err }()
	hubtest.WaitFor(t, "the call", func() bool { return one.Stats().Pending == 1 })
	a := hubtest.StartAgent(t, hubtest.To(other), hubtest.AgentConfig{ID: id})
	if err := <-ended; err != nil {
		t.Error(err)
	}
	checkOnce(t, a, 1)
	checkQueueEmpty(t, other.Store)
}

// A server that dies without a word: the others find out when it gives no sign of life, and then serve what was given
// to it too.
func TestReplicaDies(t *testing.T) {
	one, other := two(t, hub.Timings{})
	id := one.Register(t, "k")
	seen(t, other, id)
	ev := hubtest.Event(1, 1)
	ev.ID, ev.TimeoutMillis = "given-to-the-dead", (5 * time.Minute).Milliseconds()
	go func() { _, _ = one.Call(context.WithoutCancel(t.Context()), id, ev, nil) }()
	hubtest.WaitFor(t, "the event to be stored", func() bool { n, err := one.Store.QueueLen(t.Context()); return err == nil && n == 1 })
	one.Kill(t)
	b := hubtest.StartAgent(t, hubtest.To(other), hubtest.AgentConfig{ID: id})
	b.WaitConnected()
	if r, err := other.Call(t.Context(), id, hubtest.Event(2, 2), nil); err != nil || string(r.Data) != `{"n":2}` {
		t.Errorf("at once after the death: %v, %v", r, err)
	}
	hubtest.WaitFor(t, "the event that was given to the dead server", func() bool { return b.Runs()[ev.ID] == 1 })
	r, err := other.Call(t.Context(), id, ev, nil)
	if err != nil || string(r.Data) != `{"n":1}` {
		t.Errorf("its outcome: %v, %v", r, err)
	}
	checkOnce(t, b, 2)
	checkQueueEmpty(t, other.Store)
}
