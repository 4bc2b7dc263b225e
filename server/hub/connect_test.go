package hub_test

import (
	"encoding/json"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
	"github.com/gorilla/websocket"
)

const uuidText = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`

// What goes over the wire, to the letter: an original agent drops frames that it cannot read, without a word.
func TestGoldenFrames(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Timings: hub.Timings{Ping: time.Hour}}) // the first ones are enough
	c := dial(t, srv, srv.Register(t, "k"), false)
	golden := func(frame []byte, want string) {
		t.Helper()
		re := regexp.QuoteMeta(want)
		re = strings.ReplaceAll(re, "UUID", uuidText)
		re = strings.ReplaceAll(re, "NUMBER", `[1-9][0-9]{0,18}`)
		re = strings.ReplaceAll(re, "MILLIS", `1[0-9]{12}`)
		if !regexp.MustCompile("^" + re + "$").Match(frame) {
			t.Errorf("frame\n%s\nwant\n%s", frame, want)
		}
	}
	golden(c.read(), `{"id":"UUID","name":"ping","resourceId":null,"resourceType":null,"data":{"options":{},"resources":[]},"time":MILLIS}`)
	golden(c.read(), `{"id":"UUID","name":"ping","replyTo":"reply.NUMBER","resourceId":"1a1","resourceType":"agent",`+
		`"data":{"options":{"resources":true,"instances":true,"stats":true},"resources":[]},"time":MILLIS,"timeoutMillis":15000}`)
	go func() { _, _ = srv.Call(t.Context(), "1a1", hubtest.Event(3, 8), nil) }()
	golden(c.read(), `{"id":"UUID","name":"test.event","replyTo":"reply.NUMBER","resourceId":"1t8","resourceType":"thing",`+
		`"time":MILLIS,"timeoutMillis":45000,"data":{"n":3}}`)
	if err := srv.Send(t.Context(), "1a1", &wire.Event{Name: "test.event", PreviousIDs: []string{"x"}, PreviousNames: []string{"y"}}); err != nil {
		t.Fatal(err)
	}
	golden(c.read(), `{"id":"UUID","name":"test.event","time":MILLIS,"timeoutMillis":45000}`)
}

func TestUpgradeHeaders(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Version: "1.2.3"})
	ours := dial(t, srv, srv.Register(t, "a"), true).res.Header
	if ours.Get(wire.HeaderVersion) != "1.2.3" || ours.Get(wire.HeaderProtocol) != "1" {
		t.Errorf("headers for a Drover agent: %v", ours)
	}
	at, err := time.Parse(time.RFC3339Nano, ours.Get(wire.HeaderTime))
	if err != nil || time.Since(at).Abs() > hubtest.Patience {
		t.Errorf("%s: %v", wire.HeaderTime, ours.Get(wire.HeaderTime))
	}
	theirs := dial(t, srv, srv.Register(t, "b"), false).res.Header
	for name := range theirs {
		if strings.HasPrefix(name, "Drover") {
			t.Errorf("an original agent gets header %s", name)
		}
	}
}

func TestSubscribeRefusals(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t)})
	id := srv.Register(t, "k")
	get := func(url string, upgrade bool) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(url, "ws", "http", 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		if upgrade {
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "websocket")
			req.Header.Set("Sec-WebSocket-Version", "13")
			req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		var body struct{ Type, Code string }
		if err := json.NewDecoder(res.Body).Decode(&body); err != nil || body.Type != "error" {
			t.Errorf("%s: no error body: %v", url, err)
		}
		return res.StatusCode, body.Code
	}
	if status, _ := get(srv.Subscribe("1a99", "ping"), true); status != http.StatusUnauthorized {
		t.Errorf("unknown agent: %d", status)
	}
	if status, code := get(srv.Subscribe(id), true); status != http.StatusUnprocessableEntity || code != "MissingRequired" {
		t.Errorf("no event names: %d %s", status, code)
	}
	if status, _ := get(srv.Subscribe(id, "ping"), false); status != http.StatusBadRequest {
		t.Errorf("no upgrade: %d", status)
	}
	if n := srv.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestSecondLivePlaceIsRefused(t *testing.T) {
	srv, a := start(t, hubtest.AgentConfig{NoRetry: true})
	c := tryDial(t, srv, "1a1", true)
	if c.conn != nil || c.res.StatusCode != http.StatusConflict {
		t.Fatalf("second connection: %v, want 409", c.res)
	}
	var body struct{ Code, Message string }
	if err := json.NewDecoder(c.res.Body).Decode(&body); err != nil || body.Code != "AgentConnected" || body.Message == "" {
		t.Errorf("body %+v, %v", body, err)
	}
	if !a.Connected() {
		t.Error("the first connection was closed")
	}
	if _, err := srv.Call(t.Context(), "1a1", hubtest.Event(1, 1), nil); err != nil {
		t.Errorf("call after the refusal: %v", err)
	}
	if s := srv.Stats(); s.Refused != 1 || s.Sessions != 1 {
		t.Errorf("stats %+v", s)
	}
}

// The old socket is not closed, but nobody is behind it any more: a machine that lost its network.
func TestDeadConnectionGivesWay(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Timings: hub.Timings{Probe: 100 * time.Millisecond}})
	id := srv.Register(t, "k")
	old := dial(t, srv, id, true) // reads nothing, so answers no ping
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id})
	a.WaitConnected()
	if _, err := srv.Call(t.Context(), id, hubtest.Event(1, 1), nil); err != nil {
		t.Error(err)
	}
	if s := srv.Stats(); s.Sessions != 1 || s.Refused != 0 || s.StaleClosed != 1 {
		t.Errorf("stats %+v", s)
	}
	_ = old.conn.SetReadDeadline(time.Now().Add(hubtest.Patience))
	for {
		if _, _, err := old.conn.ReadMessage(); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("the old socket is still open")
			}
			break
		}
	}
}

func TestSilentSocketIsClosed(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Timings: hub.Timings{Ping: 200 * time.Millisecond, Hold: time.Hour}})
	dial(t, srv, srv.Register(t, "k"), true) // does not read
	hubtest.WaitFor(t, "the socket to be found silent", func() bool { return srv.Stats().StaleClosed == 1 })
	hubtest.WaitFor(t, "the session to end", func() bool { return srv.Stats().Sessions == 0 })
}

// An agent that answers WebSocket pings but no application pings keeps its socket, until it counts as disconnected.
func TestKeepAliveWithoutAnswers(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Timings: hub.Timings{
		Ping: time.Second, PingTimeout: 500 * time.Millisecond, FailedPings: 2, DisconnectAfter: time.Second,
	}})
	id := srv.Register(t, "k")
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, NoRetry: true})
	hubtest.WaitFor(t, "online", func() bool { return connection(srv.Store, id) == store.ConnectionOnline })
	a.Mute()
	hubtest.WaitFor(t, "reconnecting", func() bool { return connection(srv.Store, id) == store.ConnectionReconnecting })
	if !a.Connected() {
		t.Error("the socket was closed as soon as pings went unanswered")
	}
	hubtest.WaitFor(t, "the agent to be cut off", func() bool { return !a.Connected() })
	hubtest.WaitFor(t, "disconnected", func() bool { return connection(srv.Store, id) == store.ConnectionDisconnected })
}

func TestSlowConsumerIsClosed(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Timings: hub.Timings{Write: 3 * time.Second, Ping: time.Hour}})
	id := srv.Register(t, "k")
	dial(t, srv, id, true) // takes nothing
	body := json.RawMessage(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`)
	ctx := t.Context()
	for range 40 {
		go func() { _, _ = srv.Call(ctx, id, &wire.Event{Name: "test.event", Data: body}, nil) }()
	}
	hubtest.WaitFor(t, "the socket to be closed", func() bool { return srv.Stats().SlowClosed == 1 })
	hubtest.WaitFor(t, "the session to end", func() bool { return srv.Stats().Sessions == 0 })
	// Nothing of it is lost: it waits for the agent to come back.
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id})
	hubtest.WaitFor(t, "the events", func() bool { return len(a.Runs()) == 40 })
}

func TestShutdownSaysGoAway(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s})
	ours, theirs := dial(t, srv, srv.Register(t, "a"), true), dial(t, srv, srv.Register(t, "b"), false)
	go srv.Stop()
	if ev := ours.next(); ev.Name != wire.NameGoAway {
		t.Errorf("frame %s, want %s", ev.Name, wire.NameGoAway)
	} else if g, err := wire.DecodeGoAway(ev.Data); err != nil || g.RetryAfterMillis < 500 {
		t.Errorf("%+v, %v", g, err)
	}
	for _, c := range []*raw{ours, theirs} {
		for {
			_ = c.conn.SetReadDeadline(time.Now().Add(hubtest.Patience))
			if _, frame, err := c.conn.ReadMessage(); err != nil {
				if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
					t.Errorf("ended with %v, want a close frame 1001", err)
				}
				break
			} else if ev, err := wire.DecodeEvent(frame); err != nil || ev.Name != wire.NamePing {
				t.Errorf("frame %s", frame)
			}
		}
	}
}

func TestMalformedFramesDoNoHarm(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t)})
	c := dial(t, srv, srv.Register(t, "k"), true)
	frames := []string{``, `{`, `null`, `[]`, `"x"`, `{"previousIds":7}`, `{"name":"reply.1"}`, strings.Repeat("[", 100_000)}
	for _, frame := range frames {
		c.write([]byte(frame))
	}
	if err := c.conn.WriteMessage(websocket.BinaryMessage, []byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	hubtest.WaitFor(t, "the frames", func() bool { return srv.Stats().Malformed == int64(len(frames)+1) })
	go func() {
		ev := c.next()
		// A field of the wrong type spoils the field and not the answer.
		c.write([]byte(`{"previousIds":["` + ev.ID + `"],"name":"` + ev.ReplyTo + `","transitioningProgress":{},"data":{"n":1}}`))
	}()
	r, err := srv.Call(t.Context(), "1a1", hubtest.Event(1, 1), nil)
	if err != nil || string(r.Data) != `{"n":1}` {
		t.Errorf("%v, %v", r, err)
	}
}

func TestDisconnect(t *testing.T) {
	srv, a := start(t, hubtest.AgentConfig{NoRetry: true})
	if err := srv.Disconnect(t.Context(), "1a1"); err != nil {
		t.Fatal(err)
	}
	hubtest.WaitFor(t, "the socket to be closed", func() bool { return !a.Connected() })
}

func TestRemovedAgentIsCutOff(t *testing.T) {
	srv, a := start(t, hubtest.AgentConfig{NoRetry: true})
	if err := srv.Store.RemoveAgent(t.Context(), "1a1"); err != nil {
		t.Fatal(err)
	}
	hubtest.WaitFor(t, "the socket to be closed", func() bool { return !a.Connected() })
	if c := tryDial(t, srv, "1a1", true); c.conn != nil || c.res.StatusCode != http.StatusUnauthorized {
		t.Errorf("dial after removal: %v", c.res)
	}
}

func connection(s *store.Store, id string) string {
	rec, err := s.Agents.Get(id)
	if err != nil {
		return err.Error()
	}
	return rec.Connection
}

func TestConnectionStatesAreWrittenDown(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Timings: hub.Timings{
		Ping: 100 * time.Millisecond, Hold: 50 * time.Millisecond, DisconnectAfter: 500 * time.Millisecond,
	}})
	id := srv.Register(t, "k")
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "host-1"})
	host := func() *store.Host {
		h, err := srv.Store.HostByUUID("host-1")
		if err != nil {
			return &store.Host{}
		}
		return h
	}
	is := func(connection, state string) func() bool {
		return func() bool {
			rec, err := srv.Store.Agents.Get(id)
			return err == nil && rec.Connection == connection && rec.State == state &&
				host().Connection == connection && host().AgentState == state
		}
	}
	hubtest.WaitFor(t, "online", is(store.ConnectionOnline, store.StateActive))
	if rec, _ := srv.Store.Agents.Get(id); rec.Version != "test" || !rec.Drover || rec.RemoteAddr == "" || rec.Since.IsZero() {
		t.Errorf("agent %+v", rec)
	}
	a.Stop()
	hubtest.WaitFor(t, "reconnecting", is(store.ConnectionReconnecting, store.StateReconnecting))
	hubtest.WaitFor(t, "disconnected", is(store.ConnectionDisconnected, store.StateDisconnected))
	if srv.LastSeen(id).IsZero() || host().LastSeen.IsZero() {
		t.Error("it is not known when it was last seen")
	}
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "host-1"})
	hubtest.WaitFor(t, "online again", is(store.ConnectionOnline, store.StateActive))
}

// After a restart of the server nobody is connected, whatever its records say.
func TestStatesAfterARestart(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s})
	id := srv.Register(t, "k")
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id})
	hubtest.WaitFor(t, "online", func() bool { return connection(s, id) == store.ConnectionOnline })
	a.Stop()
	srv.Stop()
	if got := connection(s, id); got != store.ConnectionOnline {
		t.Fatalf("%s", got)
	}
	hubtest.Start(t, hub.Config{Store: s, Timings: hub.Timings{Hold: 100 * time.Millisecond}})
	hubtest.WaitFor(t, "reconnecting", func() bool { return connection(s, id) == store.ConnectionReconnecting })
}
