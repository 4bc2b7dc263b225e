package events_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

// through sends the client's connections through a faulty network.
func through(p *eventstest.FaultProxy) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, p.Addr())
	}
}

// fast keeps alive every 300 ms, so that a dead link is noticed after 750.
func fast(c *events.Config) {
	c.PingInterval, c.MaxDelay = 300*time.Millisecond, 2*time.Second
}

var plain = map[string]events.HandlerFunc{"ping": pong, "echo": echo}

func isConnected(a *agent, times uint64) func() bool {
	return func() bool { st := a.Status(); return st.State == events.StateConnected && st.Stats.Connects >= times }
}

// TestBadNetworks breaks the link in each way, mends it, and wants what was pushed meanwhile answered.
func TestBadNetworks(t *testing.T) {
	faults := map[string]struct {
		bad, good func(*eventstest.FaultProxy)
		err       string // what the client makes of it
	}{
		"black hole": {
			func(p *eventstest.FaultProxy) { p.BlackHole(true) }, func(p *eventstest.FaultProxy) { p.BlackHole(false) }, "went silent",
		},
		"half close": {func(p *eventstest.FaultProxy) { p.HalfClose() }, func(*eventstest.FaultProxy) {}, "EOF"},
		"reset":      {func(p *eventstest.FaultProxy) { p.ResetAfter(600) }, func(p *eventstest.FaultProxy) { p.ResetAfter(0) }, ""},
		"slow drip": {
			func(p *eventstest.FaultProxy) { p.Drip(1, 300*time.Millisecond) }, func(p *eventstest.FaultProxy) { p.Drip(0, 0) }, "went silent",
		},
		"cut": {func(p *eventstest.FaultProxy) { p.Cut() }, func(*eventstest.FaultProxy) {}, ""},
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
			net := eventstest.NewFaultProxy(t, srv.Addr())
			a := start(t, srv, routes(plain), func(c *events.Config) { fast(c); c.Dial = through(net) })
			ctx := testContext(t)
			if _, err := srv.Call(ctx, newEvent("echo", "r1", `{}`)); err != nil {
				t.Fatal(err)
			}
			f.bad(net)
			began := time.Now()
			var pushed []string
			for range 5 {
				ev := newEvent("echo", "r1", `{"a":"`+strings.Repeat("x", 200)+`"}`)
				pushed = append(pushed, ev.ID)
				if err := srv.Deliver(ctx, ev); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "the client notices", func() bool { return a.Status().State != events.StateConnected || a.Status().Stats.Connects > 1 })
			t.Logf("noticed after %s: %s", time.Since(began).Round(time.Millisecond), a.Status().LastError)
			if got := a.Status().LastError; !strings.Contains(got, f.err) {
				t.Errorf("last error %q, want %q in it", got, f.err)
			}
			f.good(net)
			for _, id := range pushed {
				if got, err := srv.Answer(ctx, id); err != nil || got.Final.Transitioning != "" {
					t.Fatalf("%v, %+v", err, got.Final)
				}
			}
			until(t, "a new connection", isConnected(a, 2))
		})
	}
}

// TestASlowLinkIsNotADeadLink sends a frame that takes longer than the keep-alive's patience to arrive, over a link
// with latency.
func TestASlowLinkIsNotADeadLink(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	net := eventstest.NewFaultProxy(t, srv.Addr())
	size := func(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) { return len(ev.Data), nil }
	a := start(t, srv, routes(map[string]events.HandlerFunc{"ping": pong, "size": size}), func(c *events.Config) {
		c.PingInterval, c.Dial = time.Second, through(net)
	})
	ctx := testContext(t)
	if _, err := srv.Call(ctx, newEvent("ping", "", "")); err != nil {
		t.Fatal(err)
	}
	net.Latency(100 * time.Millisecond)
	net.Drip(8<<10, 50*time.Millisecond) // with the latency some 55 KiB/s
	r, err := srv.Call(ctx, newEvent("size", "r1", `{"a":"`+strings.Repeat("x", 220<<10)+`"}`))
	if err != nil || string(r.Data) != fmt.Sprint(220<<10+8) {
		t.Fatalf("%v, %+v", err, r)
	}
	if n := a.Status().Stats.Connects; n != 1 {
		t.Errorf("the link was dropped: %d connections, %s", n, a.Status().LastError)
	}
}

// TestAStuckWriteIsNoticed fills the way to a server that reads no more although it still talks.
func TestAStuckWriteIsNoticed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, http.Header{wire.HeaderProtocol: {wire.Protocol}})
		if err != nil {
			return
		}
		defer ws.Close()
		big := wire.AppendEvent(nil, newEvent("echo", "", `{"a":"`+strings.Repeat("x", 1<<20)+`"}`))
		for i := 0; ; i++ {
			frame := []byte(`{"id":"k","name":"ping"}`) // life, of a kind
			if i < 20 {
				frame = []byte(strings.Replace(string(big), `"id":"`, fmt.Sprintf(`"id":"%d-`, i), 1))
			}
			if ws.WriteMessage(websocket.TextMessage, frame) != nil {
				return
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-stop:
				return
			}
		}
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { close(stop); _ = srv.Close() })
	fake := eventstest.NewServer(t, eventstest.Options{})
	a := start(t, fake, routes(plain), func(c *events.Config) { fast(c); c.URL = "http://" + ln.Addr().String() + "/v1" })
	until(t, "the client notices", func() bool { return strings.Contains(a.Status().LastError, "writing") })
	if got := a.Status().LastError; !strings.Contains(got, "i/o timeout") {
		t.Errorf("last error %q", got)
	}
}

func TestReconnectsAtOnceAndSpreadOut(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	a := start(t, srv, routes(plain), nil)
	ctx := testContext(t)
	for i := range 3 {
		se, err := srv.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// An event makes the connection a useful one, which the next delay is not held against.
		if _, err := srv.Call(ctx, newEvent("echo", "r1", "")); err != nil {
			t.Fatal(err)
		}
		se.Cut()
		until(t, "loss noticed", func() bool {
			return a.Status().State == events.StateBackingOff || a.Status().Stats.Connects > uint64(i+1)
		})
		if st := a.Status(); st.State == events.StateBackingOff && time.Until(st.NextDial) > time.Second {
			t.Errorf("the first attempt comes in %s, want at most 1 s", time.Until(st.NextDial))
		}
	}
}

func TestOrdinaryEndsOfASession(t *testing.T) {
	for name, end := range map[string]struct {
		by   func(context.Context, *eventstest.Session)
		want string
	}{
		"twelve hours are over": {func(_ context.Context, se *eventstest.Session) { se.Close(1000) }, "the server closed the connection (1000)"},
		"logout": {
			func(ctx context.Context, se *eventstest.Session) { _ = se.PushRaw(ctx, []byte(`{"name":"logout"}`)) }, "the server ended the subscription",
		},
		"going away": {func(_ context.Context, se *eventstest.Session) { se.Close(1001) }, "the server closed the connection (1001)"},
	} {
		t.Run(name, func(t *testing.T) {
			flavours(t, func(t *testing.T, srv *eventstest.Server) {
				a := start(t, srv, routes(plain), nil)
				ctx := testContext(t)
				se, err := srv.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				end.by(ctx, se)
				if _, err := srv.Next(ctx); err != nil {
					t.Fatal(err)
				}
				if _, err := srv.Call(ctx, newEvent("echo", "r1", "")); err != nil {
					t.Fatal(err)
				}
				if got := a.Status().LastError; got != end.want {
					t.Errorf("last error %q", got)
				}
			})
		})
	}
}

func TestGoAwayIsHeeded(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
	a := start(t, srv, routes(plain), nil)
	ctx := testContext(t)
	se, err := srv.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := se.GoAway(ctx, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	se.Close(1001)
	if _, err := srv.Next(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(gone); took < 2*time.Second {
		t.Errorf("back after %s, asked for 2 s", took)
	}
	if got := a.Status().LastError; got != "the server is shutting down" {
		t.Errorf("last error %q", got)
	}
}

func TestRetryAfterIsHeeded(t *testing.T) {
	for _, status := range []int{429, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			srv := eventstest.NewServer(t, eventstest.Options{Drover: true})
			srv.Refuse(status, 1, "2")
			a := start(t, srv, routes(plain), nil)
			if _, err := srv.Next(testContext(t)); err != nil {
				t.Fatal(err)
			}
			d := srv.Dials()
			if took := d[1].At.Sub(d[0].At); took < 2*time.Second {
				t.Errorf("back after %s, asked for 2 s", took)
			}
			if got := a.Status().LastError; !strings.Contains(got, fmt.Sprint(status)) {
				t.Errorf("last error %q", got)
			}
		})
	}
}

func TestRefusedCredentialsEndRun(t *testing.T) {
	for name, refuse := range map[string]func(*eventstest.Server, *events.Config){
		"401": func(_ *eventstest.Server, c *events.Config) { c.SecretKey = "wrong" },
		"403": func(s *eventstest.Server, _ *events.Config) { s.Refuse(403, -1, "") },
	} {
		t.Run(name, func(t *testing.T) {
			srv := eventstest.NewServer(t, eventstest.Options{})
			a := start(t, srv, routes(plain), func(c *events.Config) { refuse(srv, c) })
			select {
			case <-a.done:
			case <-time.After(patience):
				t.Fatal("Run goes on")
			}
			if !errors.Is(a.err, events.ErrUnauthorized) {
				t.Errorf("got %v", a.err)
			}
			if strings.Contains(fmt.Sprint(a.err), "wrong") {
				t.Errorf("the error tells the secret: %v", a.err)
			}
			if n := len(srv.Dials()); n != 1 {
				t.Errorf("%d attempts", n)
			}
			if a.Status().State != events.StateClosed {
				t.Errorf("state %s", a.Status().State)
			}
		})
	}
}

func TestAnAnswerThatIsNoUpgradeNamesTheProxy(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{})
	srv.Refuse(502, -1, "")
	a := start(t, srv, routes(plain), nil)
	until(t, "an attempt", func() bool { return a.Status().LastError != "" })
	if got := a.Status().LastError; !strings.Contains(got, "502") || !strings.Contains(got, "may not pass WebSockets") {
		t.Errorf("last error %q", got)
	}
}

func TestEndsPromptlyWhileDialing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	srv := eventstest.NewServer(t, eventstest.Options{})
	for name, cfg := range map[string]func(*events.Config){
		"server": func(c *events.Config) { c.URL = "http://" + ln.Addr().String() + "/v1" },
		"TLS":    func(c *events.Config) { c.URL = "https://" + ln.Addr().String() + "/v1" },
		"proxy": func(c *events.Config) {
			p := url.URL{Scheme: "http", Host: ln.Addr().String()}
			c.Proxy = http.ProxyURL(&p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, srv, routes(plain), cfg)
			until(t, "dialing", func() bool { return a.Status().State == events.StateConnecting })
			time.Sleep(50 * time.Millisecond)
			began := time.Now()
			a.stop(t)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if a.err != nil {
				t.Errorf("got %v", a.err)
			}
		})
	}
}

// TestThroughProxies wants both the socket and REST to go through whatever proxy there is, for http and https servers.
func TestThroughProxies(t *testing.T) {
	for _, tls := range []bool{false, true} {
		for _, drover := range []bool{false, true} {
			for kind, makeProxy := range map[string]func(testing.TB, string, string) *eventstest.ForwardProxy{
				"HTTP": eventstest.NewHTTPProxy, "SOCKS": eventstest.NewSOCKSProxy,
			} {
				t.Run(fmt.Sprintf("%s,tls=%v,drover=%v", kind, tls, drover), func(t *testing.T) {
					srv := eventstest.NewServer(t, eventstest.Options{Drover: drover, TLS: tls})
					proxy := makeProxy(t, "user", "p@ss")
					a := start(t, srv, routes(plain), func(c *events.Config) { c.Proxy = proxy.Func() })
					ctx := testContext(t)
					if _, err := srv.Call(ctx, newEvent("echo", "r1", `{}`)); err != nil {
						t.Fatal(err)
					}
					if err := a.Post(ctx, "containerEvent", map[string]string{"externalId": "x"}); err != nil {
						t.Fatal(err)
					}
					seen := proxy.Seen()
					want := "CONNECT " + srv.Addr()
					if kind == "SOCKS" {
						want = "SOCKS " + srv.Addr()
					}
					if !slices.Contains(seen, want) || len(seen) < 2 {
						t.Errorf("the proxy saw %v, want %s and REST", seen, want)
					}
				})
			}
		}
	}
}

func TestAProxyThatRefusesIsTold(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{})
	proxy := eventstest.NewHTTPProxy(t, "user", "right")
	wrong := *proxy.URL()
	wrong.User = nil
	a := start(t, srv, routes(plain), func(c *events.Config) { c.Proxy = http.ProxyURL(&wrong) })
	until(t, "an attempt", func() bool { return a.Status().LastError != "" })
	if got := a.Status().LastError; !strings.Contains(got, "Proxy Authentication Required") {
		t.Errorf("last error %q", got)
	}
}

func TestUntrustedCertificatesAreRefused(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{TLS: true})
	a := start(t, srv, routes(plain), func(c *events.Config) { c.TLS = nil })
	until(t, "an attempt", func() bool { return a.Status().LastError != "" })
	if got := a.Status().LastError; !strings.Contains(got, "certificate") {
		t.Errorf("last error %q", got)
	}
	if len(srv.Dials()) != 0 {
		t.Error("it subscribed")
	}
}

func TestStatusTellsAboutTheServer(t *testing.T) {
	srv := eventstest.NewServer(t, eventstest.Options{Drover: true, Version: "9.8.7", Skew: time.Hour, KeepAlive: 50 * time.Millisecond})
	a := start(t, srv, routes(plain), fast)
	until(t, "round trip", func() bool { st := a.Status(); return st.RTT > 0 && st.Stats.KeepAlives > 2 })
	st := a.Status()
	if st.ServerVersion != "9.8.7" || !st.Drover || st.State != events.StateConnected || st.Stats.Events != st.Stats.KeepAlives {
		t.Errorf("%+v", st)
	}
	if off := st.ClockSkew - time.Hour; off < -time.Minute || off > time.Minute {
		t.Errorf("skew %s", st.ClockSkew)
	}
	if time.Since(st.LastFrame) > patience {
		t.Errorf("last frame %s", st.LastFrame)
	}
	a.stop(t)
	if a.Status().State != events.StateClosed {
		t.Errorf("state %s", a.Status().State)
	}
	if err := a.Run(t.Context()); err == nil {
		t.Error("Run ran twice")
	}
}
