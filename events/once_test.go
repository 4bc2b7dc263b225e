package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

const (
	manyEvents    = 10_000
	manyResources = 200
)

// many makes events that are spread over resources, with data as an inspect event has it.
func many(n int) []*wire.Event {
	all := make([]*wire.Event, n)
	for i := range all {
		all[i] = newEvent("inspect", fmt.Sprintf("1ihm%d", i%manyResources), fmt.Sprintf(`{"n":%d}`, i))
	}
	return all
}

// inspect answers with a document that says which event it answers.
func inspect(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	return json.RawMessage(`{"of":` + strconv.Quote(ev.ID) + `,"document":` + string(ev.Data) + `}`), nil
}

// checkAnswers wants exactly one right answer for each event, and the events of each resource answered in order.
func checkAnswers(t *testing.T, srv *eventstest.Server, sent []*wire.Event, ordered bool) {
	t.Helper()
	answers, order := srv.Answers()
	resource := map[string]string{}
	want := map[string][]string{}
	for _, ev := range sent {
		a, ok := answers[ev.ID]
		switch {
		case !ok || a.Final == nil:
			t.Fatalf("%s is not answered", ev.ID)
		case a.Final.Transitioning != "":
			t.Fatalf("%s is answered with %q", ev.ID, a.Final.TransitioningMessage)
		case string(a.Final.Data) != `{"of":`+strconv.Quote(ev.ID)+`,"document":`+string(ev.Data)+`}`:
			t.Fatalf("%s has the answer %s", ev.ID, a.Final.Data)
		case len(a.Late) > 0:
			t.Fatalf("%s: progress after the final reply", ev.ID)
		}
		resource[ev.ID] = ev.ResourceID
		want[ev.ResourceID] = append(want[ev.ResourceID], ev.ID)
	}
	if len(answers) != len(sent) {
		t.Errorf("%d answers to %d events", len(answers), len(sent))
	}
	if !ordered {
		return
	}
	got := map[string][]string{}
	for _, id := range order {
		got[resource[id]] = append(got[resource[id]], id)
	}
	for r, ids := range want {
		if !slices.Equal(got[r], ids) {
			t.Fatalf("resource %s is answered out of order", r)
		}
	}
}

// TestTenThousandAtOnce pushes them in one go over a good network.
func TestTenThousandAtOnce(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		a := start(t, srv, routes(map[string]events.HandlerFunc{"inspect": inspect}), nil)
		ctx := testContext(t)
		if _, err := srv.Next(ctx); err != nil {
			t.Fatal(err)
		}
		sent := many(manyEvents)
		began := time.Now()
		for _, ev := range sent {
			if err := srv.Push(ctx, ev); err != nil {
				t.Fatal(err)
			}
		}
		if err := srv.WaitAnswered(ctx, manyEvents); err != nil {
			t.Fatalf("%v; %+v", err, a.Status())
		}
		t.Logf("took %s", time.Since(began).Round(time.Millisecond))
		checkAnswers(t, srv, sent, true)
		if n := srv.Duplicates(); n > 0 {
			t.Errorf("%d duplicates", n)
		}
		if st := a.Status().Stats; st.Busy > 0 || st.JournalFailures > 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestTenThousandOverABadNetwork cuts the socket every second and lets one POST in three fail, half of those after the
// server took the reply.
func TestTenThousandOverABadNetwork(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		var runs tally
		a := start(t, srv, routes(map[string]events.HandlerFunc{"inspect": func(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
			runs.add(ev.ID)
			return inspect(ctx, ev, p)
		}}), func(c *events.Config) { c.MaxDelay = cutDelay })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if _, err := srv.Next(ctx); err != nil {
			t.Fatal(err)
		}
		srv.FailPublish(3, 503)
		stop := srv.CutEvery(time.Second)
		sent := many(manyEvents)
		began := time.Now()
		for i := 0; i < len(sent); i += 500 {
			if err := srv.Deliver(ctx, sent[i:i+500]...); err != nil {
				t.Fatal(err)
			}
			if i%2000 == 0 {
				time.Sleep(300 * time.Millisecond) // so that more than one cut meets them
			}
		}
		if err := srv.WaitAnswered(ctx, manyEvents); err != nil {
			t.Fatalf("%v; %+v", err, a.Status())
		}
		t.Logf("took %s, %d connections, %d failed POSTs, %d duplicates refused by the server",
			time.Since(began).Round(time.Millisecond), a.Status().Stats.Connects, a.Status().Stats.PublishFailures, srv.Duplicates())
		stop()
		checkAnswers(t, srv, sent, false)
		for _, ev := range sent {
			if n := runs.of(ev.ID); n != 1 {
				t.Fatalf("%s ran %d times", ev.ID, n)
			}
		}
	})
}
