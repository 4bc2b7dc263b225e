package logs

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type someHosts struct {
	hosts []*store.Host
	agent store.Agent
}

func (s someHosts) Hosts() []*store.Host               { return s.hosts }
func (s someHosts) Agent(string) (*store.Agent, error) { return &s.agent, nil }

func host(id, name, ip, port string) *store.Host {
	h := &store.Host{Name: name, Hostname: name + ".example", UUID: "uuid-" + id, State: store.StateActive, AgentIPAddress: ip, Labels: map[string]string{}}
	h.ID = id
	if port != "" {
		h.Labels[LabelPort] = port
	}
	return h
}

func proxy(t *testing.T, hosts someHosts, change func(*Config)) *Proxy {
	t.Helper()
	c := Config{Hosts: hosts}
	if change != nil {
		change(&c)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Wait)
	return p
}

func TestOnlyRegisteredHostsAreFound(t *testing.T) {
	gone := host("1h4", "gone", "10.0.0.4", "8080")
	gone.State = store.StateRemoved
	p := proxy(t, someHosts{hosts: []*store.Host{host("1h1", "a", "10.0.0.1", "8080"), host("1h2", "b", "10.0.0.2", ""), host("1h3", "b", "10.0.0.3", ""), gone}},
		func(c *Config) {
			c.Locate = func(_ context.Context, task, request string) (string, error) {
				if task == "7" {
					return "10.0.0.2", nil
				}
				return "", errors.New("unknown")
			}
		})
	for query, want := range map[string]string{
		"host=1h1": "1h1", "host=a": "1h1", "host=a.example": "1h1", "host=uuid-1h3": "1h3", "ip=10.0.0.3": "1h3", "ip=::ffff:10.0.0.3": "1h3",
		"taskId=7": "1h2",
		"host=b":   "409", "host=c": "404", "ip=10.0.0.9": "404", "ip=169.254.169.254": "404", "ip=localhost": "404", "host=gone": "404", "host=10.0.0.1": "404",
		"": "400", "host=a&ip=10.0.0.1": "400", "requestId=8": "404",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		h, err := p.Find(t.Context(), q)
		var e *Error
		got := ""
		switch {
		case errors.As(err, &e):
			got = map[int]string{400: "400", 404: "404", 409: "409"}[e.Status]
		case err == nil:
			got = h.ID
		}
		if got != want {
			t.Errorf("?%s: %s (%v), want %s", query, got, err, want)
		}
	}
}

// front serves a proxy to one host as the server does.
func front(t *testing.T, p *Proxy, h *store.Host) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.Serve(w, r, h, "ada", netip.MustParseAddr("192.0.2.7"), "/below"); err != nil {
			var e *Error
			if !errors.As(err, &e) {
				e = problem(500, "%v", err)
			}
			e.Write(w)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestRelay(t *testing.T) {
	up := websocket.Upgrader{Subprotocols: []string{"drover.logs.v1"}}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token-of-ada-for-uuid-1h1" || r.Header.Get("Cookie") != "" || r.URL.Path != "/below" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if !websocket.IsWebSocketUpgrade(r) {
			_, _ = io.WriteString(w, r.URL.RawQuery)
			return
		}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, m, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, append([]byte("got "), m...)) != nil {
				return
			}
		}
	}))
	defer node.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(node.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	h := host("1h1", "a", "127.0.0.1", port)
	hosts := someHosts{hosts: []*store.Host{h}, agent: store.Agent{RemoteAddr: "127.0.0.1:999"}}
	p := proxy(t, hosts, func(c *Config) {
		c.Token = func(h *store.Host, user string) (string, error) { return "token-of-" + user + "-for-" + h.UUID, nil }
	})
	srv := front(t, p, h)

	header := http.Header{"Authorization": {"Basic secret"}, "Cookie": {"a=b"}}
	d := websocket.Dialer{Subprotocols: []string{"drover.logs.v1"}}
	conn, _, err := d.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), header)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, m, err := conn.ReadMessage(); err != nil || string(m) != "got hello" || conn.Subprotocol() != "drover.logs.v1" {
		t.Errorf("%q, %v, protocol %q", m, err, conn.Subprotocol())
	}
	status := func(srv *httptest.Server, origin string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"?a=b", nil)
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := status(srv, ""); code != 200 || body != "a=b" {
		t.Errorf("plain: %d %q", code, body)
	}
	if code, _ := status(srv, "https://evil.example"); code != http.StatusForbidden {
		t.Errorf("from another site: %d", code)
	}
	if code, body := status(front(t, proxy(t, hosts, nil), h), ""); code != http.StatusBadGateway || !strings.Contains(body, "token-key-file") {
		t.Errorf("without a token: %d %q", code, body)
	}
	// An agent elsewhere cannot send the server to the server's own machine.
	hosts.agent.RemoteAddr = "10.1.1.1:5"
	if code, _ := status(front(t, proxy(t, hosts, nil), h), ""); code != http.StatusForbidden {
		t.Errorf("an address that is not the agent's: %d", code)
	}
	if code, body := status(front(t, p, host("1h9", "quiet", "10.0.0.1", "")), ""); code != http.StatusConflict || !strings.Contains(body, "app.logs.port") {
		t.Errorf("a host without a log service: %d %q", code, body)
	}
	node.Close()
	if code, body := status(srv, ""); code != http.StatusBadGateway || !strings.Contains(body, "does not answer") {
		t.Errorf("a node that is gone: %d %q", code, body)
	}
}

// A caller that neither reads nor closes does not hold the relay after the host has gone.
func TestASilentCallerIsLetGo(t *testing.T) {
	up := websocket.Upgrader{}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := up.Upgrade(w, r, nil); err == nil {
			_ = conn.Close() // at once, without a word
		}
	}))
	t.Cleanup(node.Close)
	_, port, err := net.SplitHostPort(node.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	h := host("1h1", "a", "127.0.0.1", port)
	hosts := someHosts{hosts: []*store.Host{h}}
	hosts.agent.RemoteAddr = "127.0.0.1:1"
	p := proxy(t, hosts, nil)
	conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(front(t, p, h).URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	defer conn.Close()
	done := make(chan struct{})
	go func() { p.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(lastWords + 20*time.Second):
		t.Fatal("the relay goes on")
	}
}
