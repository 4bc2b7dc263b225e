package events_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

// waits ends when its context does.
func waits(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("waiting: %w", ctx.Err())
}

func TestRouterSetsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := routes(map[string]events.HandlerFunc{"wait": waits})
		for millis, want := range map[int64]time.Duration{0: 45 * time.Second, 7000: 7 * time.Second, 1 << 62: 24 * time.Hour} {
			began := time.Now()
			reply := r.Serve(t.Context(), &wire.Event{ID: "e", Name: "wait", TimeoutMillis: millis}, nil)
			if took := time.Since(began); took != want {
				t.Errorf("timeoutMillis %d: ended after %s, want %s", millis, took, want)
			}
			if reply.Code != wire.CodeTimeout || !strings.HasPrefix(reply.TransitioningMessage, "timed out after ") {
				t.Errorf("got %+v", reply)
			}
		}
	})
}

// TestProgressExtendsTheDeadline reports every 30 s of a minute's timeout for an hour, as a long pull does.
func TestProgressExtendsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := routes(map[string]events.HandlerFunc{"pull": func(ctx context.Context, _ *wire.Event, p events.Progress) (any, error) {
			for range 120 {
				select {
				case <-time.After(30 * time.Second):
					p.Report("still pulling", 1)
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			if d, ok := ctx.Deadline(); !ok || time.Until(d) != time.Minute {
				return nil, fmt.Errorf("the deadline is in %s", time.Until(d))
			}
			<-ctx.Done() // and now it stalls
			return nil, ctx.Err()
		}})
		began := time.Now()
		reply := r.Serve(t.Context(), &wire.Event{ID: "e", Name: "pull", TimeoutMillis: 60_000}, nil)
		if took := time.Since(began); took != time.Hour+time.Minute || reply.Code != wire.CodeTimeout {
			t.Errorf("ended after %s with %+v", took, reply)
		}
	})
}

func TestRouterClassifiesAndObserves(t *testing.T) {
	errMissing := errors.New("no such container")
	seen := map[string]string{}
	log, hook := logtest.NewNullLogger()
	r := events.NewRouter(events.RouterConfig{
		Log: log,
		Classify: func(err error) (string, string) {
			if errors.Is(err, errMissing) {
				return wire.CodeNotFound, "it is not there"
			}
			return "", ""
		},
		Policy: func(_ context.Context, ev *wire.Event) error {
			if ev.Name == "forbidden" {
				return errors.New("this host forbids it")
			}
			return nil
		},
		Observe: func(name, result string, took time.Duration) {
			if took < 0 {
				t.Errorf("%s took %s", name, took)
			}
			seen[name] = result
		},
	})
	fails := func(err error) events.HandlerFunc {
		return func(context.Context, *wire.Event, events.Progress) (any, error) { return nil, err }
	}
	r.Handle("good", events.HandlerFunc(echo))
	r.Handle("missing", fails(fmt.Errorf("inspect: %w", errMissing)))
	r.Handle("wrong", fails(fmt.Errorf("decoding: %w", &wire.FieldError{Field: "data.id", Want: "a string", Got: "a number"})))
	r.Handle("odd", fails(errors.New("something else")))
	r.Handle("forbidden", fails(nil))
	r.Handle("panic", events.HandlerFunc(func(context.Context, *wire.Event, events.Progress) (any, error) { panic(errMissing) }))
	for name, want := range map[string]struct{ code, text string }{
		"good": {}, "missing": {wire.CodeNotFound, "it is not there"},
		"wrong":     {wire.CodeInvalid, `decoding: field "data.id": want a string, got a number`},
		"odd":       {wire.CodeInternal, "something else"},
		"forbidden": {wire.CodeDenied, "this host forbids it"},
		"panic":     {wire.CodeInternal, "the handler crashed; see the agent's log"},
		"nobody":    {wire.CodeUnsupported, `no handler for event "nobody"`},
	} {
		hook.Reset()
		reply := r.Serve(t.Context(), &wire.Event{ID: "e1", Name: name, ResourceType: "t", ResourceID: "1"}, nil)
		if reply.Code != want.code || reply.TransitioningMessage != want.text || (want.code == "") != (reply.Transitioning == "") {
			t.Errorf("%s: %+v", name, reply)
		}
		result := want.code
		if result == "" {
			result = "ok"
		}
		observed := name
		if name == "nobody" {
			observed = "other" // names that a server makes up must not become metrics
		}
		if seen[observed] != result {
			t.Errorf("%s was observed as %q", name, seen[observed])
		}
		lines := hook.AllEntries()
		if want.code == "" && len(lines) != 0 || want.code != "" && (len(lines) != 1 || lines[0].Level != logrus.WarnLevel || lines[0].Data["event"] != "e1") {
			t.Errorf("%s: logged %v", name, lines)
		}
		if name == "panic" && len(lines) == 1 && !strings.Contains(fmt.Sprint(lines[0].Data["stack"]), "router_test.go") {
			t.Errorf("the stack is not logged: %v", lines[0].Data)
		}
	}
}

func TestRouterWiring(t *testing.T) {
	r := routes(map[string]events.HandlerFunc{"b": echo, "a": echo})
	if got := fmt.Sprint(r.Names()); got != "[a b]" {
		t.Errorf("names %s", got)
	}
	for what, wrong := range map[string]func(){
		"a second handler": func() { r.Handle("a", events.HandlerFunc(echo)) },
		"no name":          func() { r.Handle("", events.HandlerFunc(echo)) },
		"no handler":       func() { r.Handle("c", nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was taken", what)
				}
			}()
			wrong()
		}()
	}
}

// TestSerializedCompute wants deactivate, remove and the engine part of activate one at a time, and the rest of activate
// in parallel.
func TestSerializedCompute(t *testing.T) {
	for _, serialize := range []bool{true, false} {
		t.Run(fmt.Sprint(serialize), func(t *testing.T) {
			srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
			var mu sync.Mutex
			now, most := 0, 0
			work := func() {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
				mu.Lock()
				now--
				mu.Unlock()
			}
			plainWork := func(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
				release, err := events.Exclusive(ctx) // held already: it must not wait for itself
				if err != nil {
					return nil, err
				}
				defer release()
				work()
				return nil, nil
			}
			meet := make(chan struct{}, 10)
			start(t, srv, routes(map[string]events.HandlerFunc{
				"compute.instance.deactivate": plainWork, "compute.instance.force.stop": plainWork, "compute.instance.remove": plainWork,
				"compute.instance.activate": func(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
					meet <- struct{}{}
					release, err := events.Exclusive(ctx)
					if err != nil {
						return nil, err
					}
					work()
					release()
					return nil, nil
				},
			}), func(c *events.Config) { c.Serialize = func() bool { return serialize } })
			ctx := testContext(t)
			for i := range 12 {
				name := []string{"compute.instance.deactivate", "compute.instance.activate", "compute.instance.remove", "compute.instance.force.stop"}[i%4]
				if err := srv.Push(ctx, newEvent(name, fmt.Sprint(i), "")); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				<-meet
			}
			if err := srv.WaitAnswered(ctx, 12); err != nil {
				t.Fatal(err)
			}
			if serialize && most != 1 || !serialize && most < 2 {
				t.Errorf("%d at a time", most)
			}
		})
	}
}

func TestExclusiveGivesUpWithItsContext(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	start(t, srv, routes(map[string]events.HandlerFunc{
		"compute.instance.remove": waits, "compute.instance.deactivate": waits,
	}), func(c *events.Config) { c.Serialize = func() bool { return true } })
	ctx := testContext(t)
	first, second := newEvent("compute.instance.remove", "1", ""), newEvent("compute.instance.deactivate", "2", "")
	first.TimeoutMillis, second.TimeoutMillis = 3000, 300
	for _, ev := range []*wire.Event{first, second} {
		if err := srv.Push(ctx, ev); err != nil {
			t.Fatal(err)
		}
	}
	for _, ev := range []*wire.Event{second, first} {
		if got, err := srv.Answer(ctx, ev.ID); err != nil || got.Final.Code != wire.CodeTimeout {
			t.Errorf("%v, %+v", err, got.Final)
		}
	}
}

// TestAnEventThatWaitedTooLongDoesNotRun is answered instead, so that its sender's next try is the only one.
func TestAnEventThatWaitedTooLongDoesNotRun(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	var runs tally
	release, started := make(chan struct{}), make(chan struct{})
	start(t, srv, routes(map[string]events.HandlerFunc{
		"block": func(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
			close(started)
			<-release
			return nil, nil
		},
		"work": func(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) {
			runs.add(ev.ID)
			return nil, nil
		},
	}), nil)
	ctx := testContext(t)
	late := newEvent("work", "1", "")
	late.TimeoutMillis = 200
	for _, ev := range []*wire.Event{newEvent("block", "1", ""), late} {
		if err := srv.Push(ctx, ev); err != nil {
			t.Fatal(err)
		}
	}
	<-started
	time.Sleep(300 * time.Millisecond)
	close(release)
	got, err := srv.Answer(ctx, late.ID)
	if err != nil || got.Final.Code != wire.CodeTimeout || !strings.Contains(got.Final.TransitioningMessage, "in the queue") {
		t.Errorf("%v, %+v", err, got.Final)
	}
	if runs.of(late.ID) != 0 {
		t.Error("it ran")
	}
}
