package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

func keysOf(t *testing.T, raw []byte) []string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(m))
}

func TestSubscribesToTheLetter(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{})
	start(t, srv, routes(map[string]events.HandlerFunc{"ping": pong, "a.b": echo}), nil)
	ctx := testContext(t)
	if _, err := srv.Next(ctx); err != nil {
		t.Fatal(err)
	}
	d := srv.Dials()[0]
	if !slices.Equal(d.Events, []string{"a.b", "ping"}) {
		t.Errorf("eventNames %v", d.Events)
	}
	if got := d.Header.Get("Sec-Websocket-Extensions") + d.Header.Get("Origin") + d.Header.Get("Sec-Websocket-Protocol"); got != "" {
		t.Errorf("the request carries %q beyond what Rancher's agent sends", got)
	}
	if d.Header.Get("Drover-Version") != "1.2.3" || d.Header.Get("Drover-Protocol") != "1" {
		t.Errorf("headers %v", d.Header)
	}
}

func TestAnswers(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		a := start(t, srv, routes(map[string]events.HandlerFunc{
			"echo": echo,
			"fail": func(context.Context, *wire.Event, events.Progress) (any, error) {
				return nil, fmt.Errorf("no such\nimage")
			},
			"panic":  func(context.Context, *wire.Event, events.Progress) (any, error) { panic("oops") },
			"broken": func(context.Context, *wire.Event, events.Progress) (any, error) { return []byte(`{"a":`), nil },
			"config": func(context.Context, *wire.Event, events.Progress) (any, error) {
				return events.Result{Data: map[string]int{"exitCode": 1}, Message: "config update failed"}, nil
			},
		}), nil)
		ctx := testContext(t)
		for _, c := range []struct {
			ev                     *wire.Event
			transitioning, message string
			code, data             string
		}{
			{newEvent("echo", "1ihm1", `{"a":[1,2]}`), "", "", "", `{"a":[1,2]}`},
			{newEvent("echo", "", ""), "", "", "", ""},
			{newEvent("fail", "1ihm1", ""), "error", "no such image", wire.CodeInternal, ""},
			{newEvent("panic", "1ihm1", ""), "error", "the handler crashed; see the agent's log", wire.CodeInternal, ""},
			{newEvent("broken", "1ihm1", ""), "error", "the reply's data (5 bytes) is no JSON", wire.CodeInternal, ""},
			{newEvent("config", "1a1", ""), "no", "config update failed", "", `{"exitCode":1}`},
			{newEvent("nobody", "1ihm1", ""), "error", `no handler for event "nobody"`, wire.CodeUnsupported, ""},
			{newEvent("echo;agent=7", "1ihm1", `{}`), "", "", "", ``},
		} {
			drover := a.Status().Drover
			if drover && c.ev.Name == "echo;agent=7" {
				c.data = `{}`
			}
			r, err := srv.Call(ctx, c.ev)
			if err != nil {
				t.Fatalf("%s: %v", c.ev.Name, err)
			}
			if !drover {
				c.code = ""
			}
			if r.Transitioning != c.transitioning || r.TransitioningMessage != c.message || r.Code != c.code || string(r.Data) != c.data || r.Name != c.ev.ReplyTo {
				t.Errorf("%s: got %+v with data %s", c.ev.Name, r, r.Data)
			}
		}
	})
}

// TestRancherRepliesAreToTheLetter looks at the bytes that were posted.
func TestRancherRepliesAreToTheLetter(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{})
	start(t, srv, routes(map[string]events.HandlerFunc{"echo": echo}), nil)
	ctx := testContext(t)
	for name, c := range map[string]struct {
		ev   *wire.Event
		keys []string
	}{
		"good":  {newEvent("echo", "1ihm1", `{"a":1}`), []string{"actions", "data", "id", "links", "name", "previousIds", "resourceId", "resourceType", "time"}},
		"empty": {newEvent("echo", "1ihm1", `{}`), []string{"actions", "id", "links", "name", "previousIds", "resourceId", "resourceType", "time"}},
		"bad":   {newEvent("nobody", "1ihm1", ``), []string{"actions", "links", "name", "previousIds", "transitioning", "transitioningMessage"}},
	} {
		if _, err := srv.Call(ctx, c.ev); err != nil {
			t.Fatal(err)
		}
		a, _ := srv.Answer(ctx, c.ev.ID)
		if got := keysOf(t, a.Raw); !slices.Equal(got, c.keys) {
			t.Errorf("%s: keys %v, want %v in %s", name, got, c.keys, a.Raw)
		}
	}
}

// TestMalformedEventsAreAnswered sends frames that make no sense: each whose id and replyTo can be read is answered with
// what is wrong, and the channel lives on.
func TestMalformedEventsAreAnswered(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		a := start(t, srv, routes(map[string]events.HandlerFunc{"echo": echo}), nil)
		ctx := testContext(t)
		se, err := srv.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wants := map[string]string{}
		n := 0
		head := func() (string, string) {
			n++
			id := fmt.Sprintf("bad-%d", n)
			return id, fmt.Sprintf(`{"id":%q,"replyTo":"reply.%d","name":"echo"`, id, n)
		}
		for _, field := range []string{"resourceId", "resourceType", "publisher", "previousIds", "previousNames", "data", "time", "timeoutMillis"} {
			for _, value := range []string{`true`, `[1]`, `{"a":1}`, `500000`, `"x"`} {
				id, frame := head()
				frame += fmt.Sprintf(`,%q:%s}`, field, value)
				if _, err := wire.DecodeEvent([]byte(frame)); err != nil {
					wants[id] = fmt.Sprintf("field %q", field)
				} else {
					wants[id] = "" // it is right
				}
				if err := se.PushRaw(ctx, []byte(frame)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, rest := range []string{``, `,`, `,"data":{"a"}}`, `,"data":{}}x`, `,"data":` + strings.Repeat(`{"a":`, 2000)} {
			id, frame := head()
			wants[id] = "want JSON"
			if err := se.PushRaw(ctx, []byte(frame+rest)); err != nil {
				t.Fatal(err)
			}
		}
		id, frame := head()
		wants[id] = "at most 8388608 bytes"
		if err := se.PushRaw(ctx, []byte(frame+`,"data":{"a":"`+strings.Repeat("x", wire.MaxFrame)+`"}}`)); err != nil {
			t.Fatal(err)
		}
		wants["no-name"] = `field "name"`
		_ = se.PushRaw(ctx, []byte(`{"id":"no-name","replyTo":"reply.77"}`))
		for _, frame := range []string{``, ` `, `x`, `[]`, `null`, "\x00\xff", `{"id":5}`, `{"name":"echo"}`, `{"id":"a"}`, `{"name":"drover.ack","data":{"ids":5}}`} {
			if err := se.PushRaw(ctx, []byte(frame)); err != nil {
				t.Fatal(err)
			}
		}
		for id, want := range wants {
			got, err := srv.Answer(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if want == "" && got.Final.Transitioning != "" || !strings.Contains(got.Final.TransitioningMessage, want) {
				t.Errorf("%s: answered %q, want %q", id, got.Final.TransitioningMessage, want)
			}
			if want != "" && a.Status().Drover && got.Final.Code != wire.CodeInvalid {
				t.Errorf("%s: code %q", id, got.Final.Code)
			}
		}
		if _, err := srv.Call(ctx, newEvent("echo", "1ihm1", `{}`)); err != nil {
			t.Fatal(err)
		}
		if st := a.Status(); st.Stats.Connects != 1 || st.Stats.Malformed == 0 {
			t.Errorf("%d connections, %d malformed", st.Stats.Connects, st.Stats.Malformed)
		}
	})
}

// TestOneResourceInOrder is the event loss that the original agent is known for: of 50 events of one resource, it
// answers one.
func TestOneResourceInOrder(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		srv.FailPublish(4, 503) // a retry must not be overtaken
		var mu sync.Mutex
		var ran []string
		running := 0
		start(t, srv, routes(map[string]events.HandlerFunc{"work": func(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) {
			mu.Lock()
			running++
			if running > 1 {
				t.Error("two events of one resource run at once")
			}
			ran = append(ran, ev.ID)
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			running--
			mu.Unlock()
			return nil, nil
		}}), nil)
		ctx := testContext(t)
		var sent []string
		for range 50 {
			ev := newEvent("work", "1ihm7", "")
			sent = append(sent, ev.ID)
			if err := srv.Push(ctx, ev); err != nil {
				t.Fatal(err)
			}
		}
		if err := srv.WaitAnswered(ctx, 50); err != nil {
			t.Fatal(err)
		}
		_, order := srv.Answers()
		if !slices.Equal(ran, sent) {
			t.Errorf("ran %v", ran)
		}
		if !slices.Equal(order, sent) {
			t.Errorf("answered %v", order)
		}
	})
}

// TestOthersAndPingsPassABlockedResource blocks every worker but one.
func TestOthersAndPingsPassABlockedResource(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	release := make(chan struct{})
	blocked := make(chan struct{}, 10)
	start(t, srv, routes(map[string]events.HandlerFunc{"ping": pong, "echo": echo, "block": func(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
		blocked <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	}}), func(c *events.Config) { c.Workers = 2 })
	ctx := testContext(t)
	first, behind, second := newEvent("block", "1ihm1", ""), newEvent("echo", "1ihm1", ""), newEvent("block", "1ihm2", "")
	for _, ev := range []*wire.Event{first, behind} {
		if err := srv.Push(ctx, ev); err != nil {
			t.Fatal(err)
		}
	}
	<-blocked
	if _, err := srv.Call(ctx, newEvent("echo", "1ihm3", "")); err != nil {
		t.Fatalf("another resource: %v", err)
	}
	if err := srv.Push(ctx, second); err != nil { // now both workers are taken
		t.Fatal(err)
	}
	<-blocked
	for range 20 {
		if _, err := srv.Call(ctx, newEvent("ping", "", "")); err != nil {
			t.Fatalf("ping: %v", err)
		}
	}
	answers, _ := srv.Answers()
	if answers[behind.ID].Final != nil {
		t.Error("an event overtook its predecessor on the same resource")
	}
	close(release)
	for _, ev := range []*wire.Event{first, behind, second} {
		if _, err := srv.Answer(ctx, ev.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullQueueSaysBusy(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		release := make(chan struct{})
		started := make(chan struct{}, 1)
		var runs tally
		a := start(t, srv, routes(map[string]events.HandlerFunc{"block": func(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
			runs.add(ev.ID)
			select {
			case started <- struct{}{}:
			default:
			}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, nil
		}}), func(c *events.Config) { c.Workers, c.QueueEvents = 1, 5 })
		ctx := testContext(t)
		if err := srv.Push(ctx, newEvent("block", "r0", "")); err != nil {
			t.Fatal(err)
		}
		<-started
		var sent []*wire.Event
		for i := range 8 {
			ev := newEvent("block", fmt.Sprintf("r%d", i+1), "")
			sent = append(sent, ev)
			if err := srv.Push(ctx, ev); err != nil {
				t.Fatal(err)
			}
		}
		for _, ev := range sent[5:] {
			got, err := srv.Answer(ctx, ev.ID)
			if err != nil {
				t.Fatal(err)
			}
			if want := "the agent is busy: 5 events wait; try again later"; got.Final.TransitioningMessage != want {
				t.Errorf("answered %q", got.Final.TransitioningMessage)
			}
			if a.Status().Drover && got.Final.Code != wire.CodeBusy {
				t.Errorf("code %q", got.Final.Code)
			}
		}
		if st := a.Status().Stats; st.Busy != 3 || st.Queued != 5 {
			t.Errorf("busy %d, queued %d", st.Busy, st.Queued)
		}
		close(release)
		if err := srv.WaitAnswered(ctx, 9); err != nil {
			t.Fatal(err)
		}
		// The same event, offered again once there is room, runs: busy was no answer to remember.
		again := sent[7]
		srv.Forget()
		if r, err := srv.Call(ctx, again); err != nil || r.Transitioning != "" || runs.of(again.ID) != 1 {
			t.Errorf("offered again: %v, %+v, %d runs", err, r, runs.of(again.ID))
		}
	})
}

func TestQueueIsBoundedInBytesToo(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	release := make(chan struct{})
	a := start(t, srv, routes(map[string]events.HandlerFunc{"block": func(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	}}), func(c *events.Config) { c.Workers, c.QueueBytes = 1, 100<<10 })
	ctx := testContext(t)
	data := `{"a":"` + strings.Repeat("x", 30<<10) + `"}`
	for range 6 {
		if err := srv.Push(ctx, newEvent("block", "r1", data)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "busy replies", func() bool { return a.Status().Stats.Busy >= 2 })
	if st := a.Status().Stats; st.QueuedBytes > 100<<10 {
		t.Errorf("%d bytes wait", st.QueuedBytes)
	}
	close(release)
	if err := srv.WaitAnswered(ctx, 6); err != nil {
		t.Fatal(err)
	}
}

func TestAnIDInFlightIsJoined(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		release, started := make(chan struct{}), make(chan struct{}, 10)
		var runs tally
		a := start(t, srv, routes(map[string]events.HandlerFunc{"slow": func(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
			runs.add(ev.ID)
			started <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, nil
		}}), nil)
		ctx := testContext(t)
		ev := newEvent("slow", "r1", "")
		for range 5 {
			if err := srv.Push(ctx, ev); err != nil {
				t.Fatal(err)
			}
		}
		<-started
		until(t, "joins", func() bool { return a.Status().Stats.Joined == 4 })
		close(release)
		if _, err := srv.Answer(ctx, ev.ID); err != nil {
			t.Fatal(err)
		}
		if n := runs.of(ev.ID); n != 1 {
			t.Errorf("it ran %d times", n)
		}
		if n := srv.Duplicates(); n != 0 {
			t.Errorf("%d replies too many", n)
		}
	})
}

// TestAnAnsweredIDIsAnsweredFromTheJournal asks again for what was answered: in the same process, and after a restart.
func TestAnAnsweredIDIsAnsweredFromTheJournal(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		var runs tally
		journal := t.TempDir() + "/journal.db"
		r := func() *events.Router {
			return routes(map[string]events.HandlerFunc{"count": func(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) {
				runs.add(ev.ID)
				if ev.ResourceID == "bad" {
					return nil, errors.New("it is bad")
				}
				return map[string]int{"n": runs.of(ev.ID)}, nil
			}})
		}
		with := func(c *events.Config) { c.Journal = journal }
		a := start(t, srv, r(), with)
		ctx := testContext(t)
		good, bad := newEvent("count", "r1", ""), newEvent("count", "bad", "")
		silent := newEvent("count", "r2", "")
		silent.ReplyTo = ""
		for round := range 4 {
			if round == 2 {
				a.stop(t)
				a = start(t, srv, r(), with)
			}
			srv.Forget()
			if got, err := srv.Call(ctx, good); err != nil || string(got.Data) != `{"n":1}` {
				t.Fatalf("round %d: %v, %s", round, err, got.Data)
			}
			if got, err := srv.Call(ctx, bad); err != nil || got.TransitioningMessage != "it is bad" {
				t.Fatalf("round %d: %v, %+v", round, err, got)
			}
			if err := srv.Push(ctx, silent); err != nil {
				t.Fatal(err)
			}
			until(t, "every reply taken", func() bool { return a.Status().Stats.Unsent == 0 })
		}
		until(t, "the silent event's repeats", func() bool { return a.Status().Stats.Repeated >= 6 })
		for _, ev := range []*wire.Event{good, bad, silent} {
			if n := runs.of(ev.ID); n != 1 {
				t.Errorf("%s ran %d times", ev.ResourceID, n)
			}
		}
	})
}

// TestUntakenRepliesSurviveARestart loses the server before it takes the reply.
func TestUntakenRepliesSurviveARestart(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		journal := t.TempDir() + "/journal.db"
		with := func(c *events.Config) { c.Journal, c.Drain = journal, 100*time.Millisecond }
		var runs tally
		r := func() *events.Router {
			return routes(map[string]events.HandlerFunc{"count": func(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) {
				runs.add(ev.ID)
				return json.RawMessage(`{"done":true}`), nil
			}})
		}
		srv.HoldAcks(true)
		srv.FailPublish(1, 503)
		a := start(t, srv, r(), with)
		ctx := testContext(t)
		ev := newEvent("count", "r1", "")
		if err := srv.Push(ctx, ev); err != nil {
			t.Fatal(err)
		}
		until(t, "the reply is on record", func() bool { return a.Status().Stats.Unsent == 1 })
		a.stop(t)
		srv.Forget()
		srv.HoldAcks(false)
		srv.FailPublish(0, 0)
		a = start(t, srv, r(), with)
		got, err := srv.Answer(ctx, ev.ID)
		if err != nil || string(got.Final.Data) != `{"done":true}` {
			t.Fatalf("%v, %+v", err, got.Final)
		}
		until(t, "the reply is taken", func() bool { return a.Status().Stats.Unsent == 0 })
		if runs.of(ev.ID) != 1 {
			t.Errorf("it ran %d times", runs.of(ev.ID))
		}
	})
}

// TestAFailedPublishNeverMakesAnError is how the original agent turns success into failure.
func TestAFailedPublishNeverMakesAnError(t *testing.T) {
	for _, status := range []int{500, 503, 404, 401, 429, 0} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			srv := eventstest.NewServer(t, eventstest.Options{})
			a := start(t, srv, routes(map[string]events.HandlerFunc{"echo": echo}), nil)
			ctx := testContext(t)
			srv.FailPublish(2, status)
			for i := range 6 {
				if r, err := srv.Call(ctx, newEvent("echo", "r1", `{"a":1}`)); err != nil || r.Transitioning != "" {
					t.Fatalf("event %d: %v, %+v", i, err, r)
				}
			}
			until(t, "every reply taken", func() bool { return a.Status().Stats.Unsent == 0 })
			if st := a.Status().Stats; st.PublishFailures == 0 || st.Refused != 0 || st.Expired != 0 {
				t.Errorf("%d failures, %d refused, %d expired", st.PublishFailures, st.Refused, st.Expired)
			}
		})
	}
}

func TestARefusedReplyIsGivenUp(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{})
	a := start(t, srv, routes(map[string]events.HandlerFunc{"echo": echo}), nil)
	ctx := testContext(t)
	ev := newEvent("echo", "r1", "")
	ev.ReplyTo = "nonsense" // the server takes names that begin with reply. alone
	if err := srv.Push(ctx, ev); err != nil {
		t.Fatal(err)
	}
	until(t, "refusal", func() bool { st := a.Status().Stats; return st.Refused == 1 && st.Unsent == 0 })
	if _, err := srv.Call(ctx, newEvent("echo", "r1", "")); err != nil {
		t.Fatal(err)
	}
}

func TestProgressIsCoalescedAndNeverLate(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		start(t, srv, routes(map[string]events.HandlerFunc{"pull": func(_ context.Context, _ *wire.Event, p events.Progress) (any, error) {
			begin := time.Now()
			for i := 0; time.Since(begin) < 1100*time.Millisecond; i++ {
				p.Report(fmt.Sprintf("layer %d", i), i%101)
				time.Sleep(time.Millisecond)
			}
			p.Report("the last", 100)
			return nil, nil
		}}), nil)
		ctx := testContext(t)
		ev := newEvent("pull", "r1", "")
		if _, err := srv.Call(ctx, ev); err != nil {
			t.Fatal(err)
		}
		time.Sleep(600 * time.Millisecond) // for what might come too late
		got, _ := srv.Answer(ctx, ev.ID)
		if n := len(got.Progress); n < 2 || n > 8 {
			t.Errorf("%d progress replies for 1.1 s", n)
		}
		if len(got.Late) > 0 || got.Duplicates > 0 {
			t.Errorf("%d late, %d duplicates", len(got.Late), got.Duplicates)
		}
		if p := got.Progress[0]; p.TransitioningMessage != "layer 0" || p.Transitioning != "yes" || p.Name != ev.ReplyTo || p.ID != "" || p.Time != 0 {
			t.Errorf("first progress %+v", p)
		}
	})
}

func TestPostAndCreate(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{TLS: true})
	a := start(t, srv, routes(map[string]events.HandlerFunc{"ping": pong}), nil)
	ctx := testContext(t)
	if err := a.Post(ctx, "containerEvent", map[string]string{"externalId": "b7c1"}); err != nil {
		t.Fatal(err)
	}
	if got := srv.Created("containerevents"); len(got) != 1 || string(got[0]) != `{"externalId":"b7c1"}` {
		t.Errorf("created %s", got)
	}
	var token struct{ URL, Token string }
	if err := a.Create(ctx, "hostApiProxyToken", map[string]string{"reportedUuid": "u"}, &token); err != nil || token.Token != "t1" || token.URL == "" {
		t.Errorf("%v, %+v", err, token)
	}
	err := a.Post(ctx, "hostApiProxyToken", map[string]string{"reportedUuid": "unknown-host"})
	var refused *events.APIError
	if !errors.As(err, &refused) || refused.Status != 422 || refused.Code != "InvalidReference" || refused.FieldName != "reportedUuid" {
		t.Errorf("got %v", err)
	}
	if err := a.Post(ctx, "host", nil); err == nil || !strings.Contains(err.Error(), `takes no POST of type "host"`) {
		t.Errorf("got %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	r := routes(nil)
	for want, cfg := range map[string]events.Config{
		"Router is missing":   {URL: "http://h/v1"},
		"must be http":        {URL: "ws://h/v1", Router: r},
		"names no host":       {URL: "http:///v1", Router: r},
		"holds credentials":   {URL: "http://u:p@h/v1", Router: r},
		"Workers is negative": {URL: "http://h/v1", Router: r, Workers: -1},
	} {
		if _, err := events.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
