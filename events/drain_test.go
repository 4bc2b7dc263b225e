package events_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

func TestDrainFinishesWhatRuns(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		started, release := make(chan struct{}), make(chan struct{})
		a := start(t, srv, routes(map[string]events.HandlerFunc{"ping": pong, "echo": echo, "slow": func(ctx context.Context, _ *wire.Event, p events.Progress) (any, error) {
			close(started)
			select {
			case <-release:
				return map[string]bool{"done": true}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}), func(c *events.Config) { c.Drain = patience })
		ctx := testContext(t)
		se, err := srv.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		slow, behind := newEvent("slow", "1", ""), newEvent("echo", "1", "{}")
		for _, ev := range []*wire.Event{slow, behind} {
			if err := srv.Push(ctx, ev); err != nil {
				t.Fatal(err)
			}
		}
		<-started
		until(t, "the second waits", func() bool { return a.Status().Stats.Queued == 1 })
		a.cancel()
		until(t, "draining", func() bool { return a.Status().State == events.StateDraining })
		late := newEvent("echo", "2", "{}")
		if err := srv.Push(ctx, late); err != nil {
			t.Fatal(err)
		}
		if !a.Status().Drover { // a Rancher server is told, a Drover server keeps it
			if got, err := srv.Answer(ctx, late.ID); err != nil || !strings.Contains(got.Final.TransitioningMessage, "shutting down") {
				t.Errorf("%v, %+v", err, got.Final)
			}
		}
		if _, err := srv.Call(ctx, newEvent("ping", "", "")); err != nil {
			t.Errorf("a ping to an agent that drains: %v", err)
		}
		close(release)
		<-a.done
		if a.err != nil {
			t.Errorf("Run returned %v", a.err)
		}
		for _, ev := range []*wire.Event{slow, behind} {
			if got, err := srv.Answer(ctx, ev.ID); err != nil || got.Final.Transitioning != "" {
				t.Errorf("%v, %+v", err, got.Final)
			}
		}
		<-se.Ended()
		if se.CloseCode() != websocket.CloseNormalClosure {
			t.Errorf("closed with %d", se.CloseCode())
		}
		if st := a.Status(); st.State != events.StateClosed || st.Stats.Unsent != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestDrainIsBounded lets a handler outlast the drain. A Drover server gives the event to the next agent; a Rancher
// server is told.
func TestDrainIsBounded(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		started := make(chan struct{}, 1)
		journal := t.TempDir() + "/journal.db"
		with := func(c *events.Config) { c.Drain, c.Journal = time.Second, journal }
		a := start(t, srv, routes(map[string]events.HandlerFunc{"echo": echo, "work": func(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
			started <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}}), with)
		ctx := testContext(t)
		running, waiting := newEvent("work", "1", "{}"), newEvent("work", "1", "{}")
		if err := srv.Deliver(ctx, running, waiting); err != nil {
			t.Fatal(err)
		}
		<-started
		began := time.Now()
		drover := a.Status().Drover
		a.stop(t)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %s", took)
		}
		if drover {
			if answers, _ := srv.Answers(); len(answers) > 0 {
				t.Errorf("answered %+v", answers)
			}
			start(t, srv, routes(map[string]events.HandlerFunc{"work": echo}), with)
		}
		for _, ev := range []*wire.Event{running, waiting} {
			got, err := srv.Answer(ctx, ev.ID)
			switch {
			case err != nil:
				t.Error(err)
			case drover && got.Final.Transitioning != "":
				t.Errorf("the next agent answered %+v", got.Final)
			case !drover && !strings.Contains(got.Final.TransitioningMessage, "shutting down"):
				t.Errorf("answered %+v", got.Final)
			}
		}
	})
}

func TestDrainWithoutAServer(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		started, release := make(chan struct{}), make(chan struct{})
		journal := t.TempDir() + "/journal.db"
		var runs tally
		h := map[string]events.HandlerFunc{"slow": func(context.Context, *wire.Event, events.Progress) (any, error) {
			runs.add("slow")
			if runs.of("slow") == 1 {
				close(started)
				<-release
			}
			return map[string]int{"run": runs.of("slow")}, nil
		}}
		with := func(c *events.Config) { c.Journal, c.Drain = journal, 3*time.Second }
		a := start(t, srv, routes(h), with)
		ctx := testContext(t)
		ev := newEvent("slow", "1", "")
		if err := srv.Push(ctx, ev); err != nil {
			t.Fatal(err)
		}
		<-started
		srv.Refuse(503, -1, "")
		srv.FailPublish(1, 503)
		srv.Cut()
		until(t, "the loss is noticed", func() bool { return a.Status().State == events.StateBackingOff })
		a.cancel()
		until(t, "draining", func() bool { return a.Status().State == events.StateDraining })
		close(release)
		a.stop(t)
		// What it did while nobody listened is told by its successor.
		srv.Refuse(0, 0, "")
		srv.FailPublish(0, 0)
		start(t, srv, routes(h), with)
		if got, err := srv.Answer(ctx, ev.ID); err != nil || string(got.Final.Data) != `{"run":1}` {
			t.Errorf("%v, %+v", err, got.Final)
		}
	})
}

func TestAJournalInUseEndsRun(t *testing.T) {
	t.Parallel()
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	journal := t.TempDir() + "/journal.db"
	with := func(c *events.Config) { c.Journal = journal }
	first := start(t, srv, routes(plain), with)
	if _, err := srv.Call(testContext(t), newEvent("echo", "1", "")); err != nil {
		t.Fatal(err)
	}
	second := start(t, srv, routes(plain), with)
	select {
	case <-second.done:
	case <-time.After(patience):
		t.Fatal("Run goes on")
	}
	if !errors.Is(second.err, events.ErrJournalInUse) {
		t.Errorf("got %v", second.err)
	}
	if st := first.Status(); st.State != events.StateConnected {
		t.Errorf("the first agent is %s", st.State)
	}
}

// TestAStormIsSpreadOut lets many agents lose one server at the same instant.
func TestAStormIsSpreadOut(t *testing.T) {
	const agents = 100
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	delays := make(chan time.Duration, agents)
	var all []*agent
	for range agents {
		all = append(all, start(t, srv, routes(plain), func(c *events.Config) {
			c.Journal = ""
			c.OnState = func(st events.Status) {
				if st.State == events.StateBackingOff && st.Stats.Connects == 1 {
					select {
					case delays <- time.Until(st.NextDial):
					default:
					}
				}
			}
		}))
	}
	for _, a := range all {
		until(t, "connected", isConnected(a, 1))
	}
	srv.Cut()
	bins := make([]int, 10)
	for range agents {
		d := <-delays
		if d > time.Second {
			t.Errorf("an agent waits %s after a lost connection", d)
		}
		bins[min(max(int(d/(100*time.Millisecond)), 0), 9)]++
	}
	for _, n := range bins {
		if n >= 3*agents/10 {
			t.Errorf("one tenth of a second sees %d of %d agents: %v", n, agents, bins)
		}
	}
	for _, a := range all {
		until(t, "connected again", isConnected(a, 2))
	}
	t.Log(fmt.Sprint(bins))
}
