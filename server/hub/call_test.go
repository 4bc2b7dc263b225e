package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/droverhq/drover/server/store/storetest"
)

// start runs a hub on an embedded store, with one connected agent.
func start(t *testing.T, cfg hubtest.AgentConfig) (*hubtest.Server, *hubtest.Agent) {
	t.Helper()
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Version: "1.2.3"})
	cfg.ID = srv.Register(t, "key")
	a := hubtest.StartAgent(t, hubtest.To(srv), cfg)
	a.WaitConnected()
	return srv, a
}

func TestCallReturnsTheFinalReply(t *testing.T) {
	for _, original := range []bool{false, true} {
		t.Run(fmt.Sprintf("original=%v", original), func(t *testing.T) {
			srv, _ := start(t, hubtest.AgentConfig{Original: original})
			r, err := srv.Call(t.Context(), "1a1", hubtest.Event(7, 1), nil)
			if err != nil {
				t.Fatal(err)
			}
			if string(r.Data) != `{"n":7}` || r.ResourceID != "1t1" || !r.Final() {
				t.Errorf("reply %+v", r)
			}
			hubtest.WaitFor(t, "the queue to be empty", func() bool { n, err := srv.Store.QueueLen(t.Context()); return err == nil && n == 0 })
			if s := srv.Stats(); s.Calls != 1 || s.Replies != 1 || s.Duplicates != 0 || s.Pending != 0 || s.Sessions != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestCallTellsProgressInOrder(t *testing.T) {
	for _, original := range []bool{false, true} {
		t.Run(fmt.Sprintf("original=%v", original), func(t *testing.T) {
			srv, _ := start(t, hubtest.AgentConfig{Original: original, Handle: func(_ context.Context, _ *wire.Event, progress func(string, int)) (any, error) {
				for i := range 3 {
					progress(fmt.Sprint("layer ", i), 30*i)
				}
				return nil, errors.New("no space left")
			}})
			var got []string
			r, err := srv.Call(t.Context(), "1a1", hubtest.Event(1, 1), func(r *wire.Reply) { got = append(got, r.TransitioningMessage) })
			if err != nil {
				t.Fatal(err)
			}
			if r.Transitioning != wire.TransitioningError || r.TransitioningMessage != "no space left" {
				t.Errorf("a failure must be returned as it is: %+v", r)
			}
			if want := "layer 0,layer 1,layer 2"; strings.Join(got, ",") != want {
				t.Errorf("progress %q, want %q", got, want)
			}
		})
	}
}

func TestProgressExtendsTheDeadline(t *testing.T) {
	srv, _ := start(t, hubtest.AgentConfig{Handle: func(_ context.Context, _ *wire.Event, progress func(string, int)) (any, error) {
		for range 20 {
			time.Sleep(200 * time.Millisecond)
			progress("still at it", 1)
		}
		return nil, nil
	}})
	ev := hubtest.Event(1, 1)
	ev.TimeoutMillis = 2000 // half of what the work takes, ten times what passes between two signs of life
	if _, err := srv.Call(t.Context(), "1a1", ev, nil); err != nil {
		t.Error(err)
	}
}

func TestCallErrors(t *testing.T) {
	srv, a := start(t, hubtest.AgentConfig{Handle: func(ctx context.Context, _ *wire.Event, _ func(string, int)) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	ctx := t.Context()
	check := func(what string, ev *wire.Event, agent string, want error, code string) {
		t.Helper()
		_, err := srv.Call(ctx, agent, ev, nil)
		if !errors.Is(err, want) || hub.Code(err) != code {
			t.Errorf("%s: %v (code %s), want %v (code %s)", what, err, hub.Code(err), want, code)
		}
	}
	short := hubtest.Event(1, 1)
	short.TimeoutMillis = 50
	check("no answer", short, "1a1", hub.ErrTimeout, wire.CodeTimeout)
	check("not subscribed", &wire.Event{Name: "test.other"}, "1a1", hub.ErrUnsupported, wire.CodeUnsupported)
	check("no such agent", hubtest.Event(1, 1), "1a99", hub.ErrUnknownAgent, wire.CodeNotFound)
	check("no name", &wire.Event{}, "1a1", hub.ErrInvalid, wire.CodeInvalid)
	check("a name that would be qualified", &wire.Event{Name: "a;agent=1"}, "1a1", hub.ErrInvalid, wire.CodeInvalid)
	check("broken data", &wire.Event{Name: "test.event", Data: json.RawMessage(`{`)}, "1a1", hub.ErrInvalid, wire.CodeInvalid)
	check("data that is no object", &wire.Event{Name: "test.event", Data: json.RawMessage(`[1]`)}, "1a1", hub.ErrInvalid, wire.CodeInvalid)
	check("negative timeout", &wire.Event{Name: "test.event", TimeoutMillis: -1}, "1a1", hub.ErrInvalid, wire.CodeInvalid)
	huge := &wire.Event{Name: "test.event", Data: json.RawMessage(`{"x":"` + strings.Repeat("x", wire.MaxFrame) + `"}`)}
	check("too large", huge, "1a1", hub.ErrInvalid, wire.CodeInvalid)

	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := srv.Call(gone, "1a1", hubtest.Event(2, 2), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call: %v", err)
	}
	if err := srv.Send(ctx, "1a1", &wire.Event{Name: "test.other"}); !errors.Is(err, hub.ErrUnsupported) {
		t.Errorf("send of what is not subscribed: %v", err)
	}
	if n := len(a.Frames()); n > 2 {
		t.Errorf("the agent got %d events, want only those it subscribed to: %v", n, a.Frames())
	}
}

func TestSendIsWrittenOnce(t *testing.T) {
	var runs atomic.Int32
	srv, a := start(t, hubtest.AgentConfig{Handle: func(context.Context, *wire.Event, func(string, int)) (any, error) { runs.Add(1); return nil, nil }})
	for i := range 100 {
		if err := srv.Send(t.Context(), "1a1", hubtest.Event(i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	hubtest.WaitFor(t, "the events", func() bool { return runs.Load() == 100 })
	hubtest.WaitFor(t, "the queue to be empty", func() bool { n, err := srv.Store.QueueLen(t.Context()); return err == nil && n == 0 })
	for i, frame := range a.Frames() {
		if !strings.Contains(frame, fmt.Sprintf(`{"n":%d}`, i)) || strings.Contains(frame, "replyTo") {
			t.Fatalf("frame %d: %s; want the events in order, without replyTo", i, frame)
		}
	}
}

func TestEventsOfOneResourceStayInOrder(t *testing.T) {
	for _, original := range []bool{false, true} {
		t.Run(fmt.Sprintf("original=%v", original), func(t *testing.T) {
			srv, a := start(t, hubtest.AgentConfig{Original: original, Handle: func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) {
				time.Sleep(time.Millisecond)
				return ev.Data, nil
			}})
			const events, resources = 50, 3
			var wg sync.WaitGroup
			for i := range events {
				for res := range resources {
					ev := hubtest.Event(i, res)
					ev.ID = fmt.Sprintf("e-%d-%02d", res, i)
					begun := make(chan struct{})
					wg.Go(func() {
						close(begun)
						if r, err := srv.Call(t.Context(), "1a1", ev, nil); err != nil || r.Transitioning == wire.TransitioningError {
							t.Errorf("%s: %v, %v", ev.ID, r, err)
						}
					})
					<-begun
				}
			}
			wg.Wait()
			if n := a.Dropped(); n != 0 {
				t.Errorf("%d events met another one for their resource: an original agent drops those", n)
			}
			for id, n := range a.Runs() {
				if n != 1 {
					t.Errorf("%s ran %d times", id, n)
				}
			}
		})
	}
}

func TestJoinsAnEventByItsID(t *testing.T) {
	release := make(chan struct{})
	srv, a := start(t, hubtest.AgentConfig{Handle: func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) {
		<-release
		return ev.Data, nil
	}})
	ev := hubtest.Event(5, 1)
	ev.ID = "mine"
	first, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := srv.Call(first, "1a1", ev, nil); ended <- err }()
	hubtest.WaitFor(t, "the event to arrive", func() bool { return len(a.Frames()) == 1 })
	if _, err := srv.Call(t.Context(), "1a1", ev, nil); !errors.Is(err, hub.ErrInvalid) {
		t.Errorf("an id that a caller waits for already: %v, want ErrInvalid", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	go func() {
		hubtest.WaitFor(t, "the second caller", func() bool { return srv.Stats().Pending == 1 })
		close(release)
	}()
	r, err := srv.Call(t.Context(), "1a1", ev, nil)
	if err != nil || string(r.Data) != `{"n":5}` {
		t.Errorf("joined: %v, %v", r, err)
	}
	if n := a.Runs()["mine"]; n != 1 {
		t.Errorf("ran %d times, want once", n)
	}
}

func TestLateReplyIsKeptForWhoeverAsksAgain(t *testing.T) {
	release := make(chan struct{})
	srv, a := start(t, hubtest.AgentConfig{Handle: func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) {
		<-release
		return ev.Data, nil
	}})
	ev := hubtest.Event(5, 1)
	ev.ID = "mine"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := srv.Call(ctx, "1a1", ev, nil); ended <- err }()
	hubtest.WaitFor(t, "the event to arrive", func() bool { return len(a.Frames()) == 1 })
	cancel()
	<-ended
	close(release)
	hubtest.WaitFor(t, "the acknowledgement", func() bool { return a.Unacked() == 0 && a.Acks()["mine"] == 1 })
	r, err := srv.Call(t.Context(), "1a1", ev, nil)
	if err != nil || string(r.Data) != `{"n":5}` {
		t.Errorf("asked again: %v, %v", r, err)
	}
	if n := a.Runs()["mine"]; n != 1 {
		t.Errorf("ran %d times, want once", n)
	}
	if s := srv.Stats(); s.Late != 1 {
		t.Errorf("stats %+v, want one late reply", s)
	}
}

func TestDuplicateRepliesAreAckedAndDeliveredNowhere(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t)})
	c := dial(t, srv, srv.Register(t, "k"), true)
	go func() {
		ev := c.next()
		reply, _ := wire.NewReply(ev, json.RawMessage(`{"n":1}`))
		other, _ := wire.NewReply(ev, json.RawMessage(`{"n":2}`))
		c.write(wire.AppendReply(nil, reply))
		c.write(wire.AppendReply(nil, other))
		c.write(wire.AppendReply(nil, reply))
	}()
	r, err := srv.Call(t.Context(), "1a1", hubtest.Event(1, 1), nil)
	if err != nil || string(r.Data) != `{"n":1}` {
		t.Fatalf("%v, %v; want the first reply", r, err)
	}
	acks := 0
	for acks < 3 {
		ev := c.next()
		if ev.Name != wire.NameAck {
			t.Fatalf("frame %s", ev.Name)
		}
		ack, err := wire.DecodeAck(ev.Data)
		if err != nil {
			t.Fatal(err)
		}
		acks += len(ack.IDs)
	}
	if s := srv.Stats(); s.Replies != 1 || s.Duplicates != 2 {
		t.Errorf("stats %+v, want 1 reply and 2 duplicates", s)
	}
}

func TestPublishDoor(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t)})
	srv.Register(t, "k")
	srv.Register(t, "k2")
	ctx := t.Context()
	if err := srv.Publish(ctx, "1a1", &wire.Reply{Name: "resource.change"}); !errors.Is(err, hub.ErrForbidden) {
		t.Errorf("publishing what is no reply: %v, want ErrForbidden", err)
	}
	if err := srv.Publish(ctx, "1a1", &wire.Reply{Name: "reply.1"}); !errors.Is(err, hub.ErrInvalid) {
		t.Errorf("a reply to nothing: %v, want ErrInvalid", err)
	}
	if err := srv.Publish(ctx, "1a1", &wire.Reply{Name: "reply.1", PreviousIDs: []string{"unknown"}}); err != nil {
		t.Errorf("a reply to an unknown event: %v, want nil: the agent can do nothing about it", err)
	}
	// An agent cannot answer for another one.
	ev := hubtest.Event(1, 1)
	ev.ID, ev.TimeoutMillis = "theirs", 500
	ended := make(chan error, 1)
	go func() { _, err := srv.Call(ctx, "1a1", ev, nil); ended <- err }()
	hubtest.WaitFor(t, "the call", func() bool { return srv.Stats().Pending == 1 })
	if err := srv.Publish(ctx, "1a2", &wire.Reply{Name: "reply.1", PreviousIDs: []string{"theirs"}}); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, hub.ErrTimeout) {
		t.Errorf("call answered by another agent: %v, want ErrTimeout", err)
	}
}

func TestTooManyEventsForOneAgent(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t)})
	srv.Register(t, "k")
	var wg sync.WaitGroup
	var full atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	body := json.RawMessage(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`)
	for range 80 {
		wg.Go(func() {
			_, err := srv.Call(ctx, "1a1", &wire.Event{Name: "test.event", Data: body}, nil)
			if errors.Is(err, hub.ErrFull) {
				full.Add(1)
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	hubtest.WaitFor(t, "the calls", func() bool { return int(full.Load())+srv.Stats().Pending == 80 })
	cancel()
	wg.Wait()
	if n := full.Load(); n < 10 {
		t.Errorf("%d of 80 calls with 1 MiB were refused, want those beyond 64 MiB", n)
	}
}

func TestCallOfARemovedAgentEnds(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t)})
	id := srv.Register(t, "k")
	ended := make(chan error, 1)
	go func() { _, err := srv.Call(t.Context(), id, hubtest.Event(1, 1), nil); ended <- err }()
	hubtest.WaitFor(t, "the call", func() bool { return srv.Stats().Pending == 1 })
	if err := srv.Store.RemoveAgent(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, hub.ErrUnknownAgent) {
		t.Errorf("%v, want ErrUnknownAgent", err)
	}
	if _, err := srv.Call(t.Context(), id, hubtest.Event(1, 1), nil); !errors.Is(err, hub.ErrUnknownAgent) {
		t.Errorf("%v, want ErrUnknownAgent", err)
	}
}
