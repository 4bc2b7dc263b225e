package access_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/droverhq/drover/events/tunnel"
	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
	"github.com/droverhq/drover/utils/backoff"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// A replica is one server process, as far as this package goes.
type replica struct {
	*access.Access
	t     *testing.T
	store *store.Store
	http  *httptest.Server
	// linger is how long net/http has to notice what a way left behind on the connection.
	linger time.Duration
}

func start(t *testing.T, s *store.Store, change func(*access.Config)) *replica {
	t.Helper()
	r := &replica{t: t, store: s}
	r.http = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	cfg := access.Config{Store: s, Key: signingKey(), URL: "http://" + r.http.Listener.Addr().String(), Wait: patience}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Access, err = access.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		r.Follow(ctx)
	}()
	r.http.Start()
	t.Cleanup(func() {
		cancel()
		<-followed
		r.Close()
		r.http.Close()
	})
	return r
}

// serve is what package api does: it finds out who asks and passes on.
func (r *replica) serve(w http.ResponseWriter, req *http.Request) {
	segs := strings.SplitN(strings.Trim(req.URL.Path, "/"), "/", 4)
	var err error
	if access.IsWay(segs[1]) {
		err = r.ServeWay(w, req, segs[1], strings.Join(segs[2:], "/"))
		if r.linger > 0 {
			select {
			case <-req.Context().Done():
			case <-time.After(r.linger):
			}
		}
	}
	switch segs[1] {
	case "alive":
		w.Header().Set("X-Alive", fmt.Sprint(req.Context().Err()))
	case "tunnel":
		if _, err := r.store.Agents.Get(req.URL.Query().Get("agent")); err != nil {
			http.Error(w, "unknown", http.StatusUnauthorized)
			return
		}
		r.ServeTunnel(w, req, req.URL.Query().Get("agent"))
	case access.ReplicaPath:
		err = r.ServeReplica(w, req, segs[2], "/"+strings.Join(segs[3:], ""))
	case "hosts":
		host, herr := r.store.Hosts.Get(segs[2])
		if herr != nil {
			http.Error(w, herr.Error(), http.StatusNotFound)
			return
		}
		err = r.ServeHost(w, req, host, "1a1", netip.MustParseAddr("192.0.2.7"), "/"+strings.Join(segs[3:], ""))
	}
	var e *access.Error
	if errors.As(err, &e) {
		e.Write(w)
	}
}

// host registers an agent that is online, and returns the ids of its host and of itself.
func host(t *testing.T, s *store.Store, key string, change func(*store.Agent)) (hostID, agentID string) {
	t.Helper()
	agent, _, _ := storetest.Agent(t, s, key)
	if _, err := s.Agents.Update(t.Context(), agent.ID, func(a *store.Agent) error {
		a.Connection, a.Drover = store.ConnectionOnline, true
		if change != nil {
			change(a)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	h, err := s.Hosts.Create(t.Context(), store.Host{UUID: key, Hostname: "host-" + key, AgentID: agent.ID, State: store.StateActive})
	if err != nil {
		t.Fatal(err)
	}
	return h.ID, agent.ID
}

// agent keeps a tunnel to a replica open, with handler at its end, until the test ends or the returned function is called.
func agent(t *testing.T, r *replica, agentID string, handler http.Handler) (stop func()) {
	t.Helper()
	c, err := tunnel.NewClient(tunnel.Config{
		URL: r.http.URL + "/v1/tunnel?agent=" + agentID, Handler: handler, Backoff: backoff.Policy{First: 10 * time.Millisecond, Max: 50 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// get returns the status, the body, and the code of the error that the body may be.
func get(t *testing.T, url string, header ...string) (status int, body, code string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	var e struct{ Code, Message string }
	_ = json.Unmarshal(b, &e)
	return resp.StatusCode, string(b), e.Code
}

// echo tells what reached the host.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Set-Cookie", "a=b")
	w.Header().Set("Content-Security-Policy", "none")
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, "%s %s\nbody %s\n", r.Method, r.URL.RequestURI(), body)
	for _, name := range []string{"Authorization", "Cookie", "Origin", access.HeaderUser, "X-Forwarded-For", "X-Own"} {
		fmt.Fprintf(w, "%s=%s\n", name, r.Header.Get(name))
	}
}

func TestRequestsReachTheHost(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	id, agentID := host(t, s, "k", nil)
	agent(t, r, agentID, http.HandlerFunc(echo))
	// The first request is as early as can be: it waits for the tunnel.
	for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPatch, "PROPFIND"} {
		req, _ := http.NewRequestWithContext(t.Context(), method, r.http.URL+"/v1/hosts/"+id+"/v1/files/c/etc/a%20b?x=1&x=2&y=%2F", strings.NewReader("text"))
		for name, value := range map[string]string{
			"Authorization": "Basic c2VjcmV0", "Cookie": "token=secret", "Origin": "http://" + req.Host, "X-Own": "kept",
			access.HeaderUser: "somebody else", "X-Forwarded-For": "203.0.113.9",
		} {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		want := method + " /v1/files/c/etc/a%20b?x=1&x=2&y=%2F\nbody text\nAuthorization=\nCookie=\nOrigin=\nDrover-User=1a1\nX-Forwarded-For=192.0.2.7\nX-Own=kept\n"
		if resp.StatusCode != http.StatusAccepted || string(body) != want {
			t.Errorf("%s: %d\n%s\nwant\n%s", method, resp.StatusCode, body, want)
		}
		if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Content-Security-Policy") != "" {
			t.Errorf("the host set %v", resp.Header)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// conversation reads a line of the request's body, answers it at once, and so on: both bodies are open all the time.
func conversation(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		fmt.Fprintf(w, "got %s\n", lines.Text())
		_ = rc.Flush()
	}
}

func TestBodiesFlowBothWaysAtOnce(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	id, agentID := host(t, s, "k", nil)
	agent(t, r, agentID, http.HandlerFunc(conversation))
	in, out := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, r.http.URL+"/v1/hosts/"+id+"/x", in)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	said := make(chan error, 1)
	go func() { _, err := io.WriteString(out, "one\n"); said <- err }()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i, word := range []string{"one", "two", "three"} {
		if i > 0 {
			go func() { _, err := io.WriteString(out, word+"\n"); said <- err }()
		}
		if line, err := lines.ReadString('\n'); line != "got "+word+"\n" || err != nil {
			t.Fatalf("answer to %s: %q %v", word, line, err)
		}
		if err := <-said; err != nil {
			t.Fatal(err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(lines); len(rest) != 0 || err != nil {
		t.Errorf("after the end: %q %v", rest, err)
	}
}

// upgraded speaks WebSocket where it is asked for, and otherwise echoes bytes after an upgrade to "tcp".
func upgraded(w http.ResponseWriter, r *http.Request) {
	if websocket.IsWebSocketUpgrade(r) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, b, err := conn.ReadMessage()
			if err != nil {
				return
			}
			_ = conn.WriteMessage(kind, b)
		}
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "tcp")
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.Copy(conn, rw)
	fmt.Fprint(conn, "bye")
}

// dialUpgrade upgrades a connection to "tcp".
func dialUpgrade(t *testing.T, addr, path string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", path)
	buffered := bufio.NewReader(conn)
	resp, err := http.ReadResponse(buffered, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v %v", resp, err)
	}
	return conn.(*net.TCPConn), buffered
}

func TestUpgrades(t *testing.T) {
	url := storetest.NATS(t)
	here := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}), nil)
	there := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}), nil)
	id, agentID := host(t, here.store, "k", nil)
	eventually(t, "the host at both", func() bool { _, err := there.store.Hosts.Get(id); return err == nil })
	agent(t, there, agentID, http.HandlerFunc(upgraded))
	for name, r := range map[string]*replica{"at the tunnel's replica": there, "at another replica": here} {
		t.Run(name, func(t *testing.T) {
			ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(r.http.URL, "http")+"/v1/hosts/"+id+"/ws", nil)
			if err != nil {
				t.Fatalf("%v %v", err, resp)
			}
			defer ws.Close()
			if err := ws.WriteMessage(websocket.BinaryMessage, []byte{0, 255, 10}); err != nil {
				t.Fatal(err)
			}
			if kind, b, err := ws.ReadMessage(); kind != websocket.BinaryMessage || string(b) != "\x00\xff\n" || err != nil {
				t.Errorf("echo: %d %q %v", kind, b, err)
			}
			// One half ends, the other goes on.
			conn, in := dialUpgrade(t, r.http.Listener.Addr().String(), "/v1/hosts/"+id+"/raw")
			defer conn.Close()
			fmt.Fprint(conn, "hello ")
			_ = conn.CloseWrite()
			if b, err := io.ReadAll(in); string(b) != "hello bye" || err != nil {
				t.Errorf("after the half close: %q %v", b, err)
			}
		})
	}
}

// TestViewersThatDoNotClose has a host that says everything and a viewer who neither closes nor sends anything then.
func TestViewersThatDoNotClose(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, func(c *access.Config) { c.Linger = 50 * time.Millisecond })
	id, agentID := host(t, s, "k", nil)
	ended := make(chan error, 1)
	agent(t, r, agentID, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "tcp")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "bye")
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		_, err = io.Copy(io.Discard, rw)
		ended <- err
	}))
	conn, in := dialUpgrade(t, r.http.Listener.Addr().String(), "/v1/hosts/"+id+"/raw")
	defer conn.Close()
	if b, err := io.ReadAll(in); string(b) != "bye" || err != nil {
		t.Errorf("the viewer got %q, %v", b, err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the connection to the host lives as long as a silent viewer does")
	}
}

func TestTheTunnelMovesBetweenReplicas(t *testing.T) {
	url := storetest.NATS(t)
	one := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}), nil)
	other := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}), nil)
	id, agentID := host(t, one.store, "k", nil)
	eventually(t, "the host at both", func() bool { _, err := other.store.Hosts.Get(id); return err == nil })
	name := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) })
	}
	stop := agent(t, one, agentID, name("first"))
	both := func(want string) {
		t.Helper()
		for _, r := range []*replica{one, other} {
			if status, body, _ := get(t, r.http.URL+"/v1/hosts/"+id+"/"); status != http.StatusOK || body != want {
				t.Errorf("%d %q, want %q", status, body, want)
			}
		}
	}
	both("first")
	if one.Tunnels() != 1 || other.Tunnels() != 0 {
		t.Fatalf("tunnels: %d and %d", one.Tunnels(), other.Tunnels())
	}
	// The agent's other end dies without a word and comes back somewhere else: the newer one counts at once.
	c, err := tunnel.NewClient(tunnel.Config{URL: other.http.URL + "/v1/tunnel?agent=" + agentID, Handler: name("second")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	stopped := make(chan struct{})
	go func() {
		// The first agent would come back and take the tunnel again.
		eventually(t, "the second tunnel", func() bool { return other.Tunnels() == 1 })
		stop()
		close(stopped)
	}()
	go func() { ended <- c.Run(ctx) }()
	<-stopped
	eventually(t, "one tunnel alone", func() bool { return one.Tunnels() == 0 && other.Tunnels() == 1 })
	both("second")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOnlyReplicasComeThroughTheReplicasDoor(t *testing.T) {
	url := storetest.NATS(t)
	r := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}), nil)
	_, agentID := host(t, r.store, "k", nil)
	agent(t, r, agentID, http.HandlerFunc(echo))
	eventually(t, "the tunnel", func() bool { return r.Tunnels() == 1 })
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	soon, past := time.Now().Add(time.Minute).Unix(), time.Now().Add(-time.Hour).Unix()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := jwt.MapClaims{"aud": "drover-replica", "sub": "1a1", "agent": agentID, "exp": soon}
	for what, token := range map[string]string{
		"none":                     "",
		"no token at all":          "x",
		"of another key":           sign(jwt.SigningMethodRS256, stranger, good),
		"without signature":        sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good),
		"with the public key HMAC": sign(jwt.SigningMethodHS256, []byte("whatever"), good),
		"for a viewer":             sign(jwt.SigningMethodRS256, signingKey(), jwt.MapClaims{"hostUuid": "k", "agent": agentID, "exp": soon}),
		"for another agent":        sign(jwt.SigningMethodRS256, signingKey(), jwt.MapClaims{"aud": "drover-replica", "agent": "1a4711", "exp": soon}),
		"expired":                  sign(jwt.SigningMethodRS256, signingKey(), jwt.MapClaims{"aud": "drover-replica", "agent": agentID, "exp": past}),
		"without end":              sign(jwt.SigningMethodRS256, signingKey(), jwt.MapClaims{"aud": "drover-replica", "agent": agentID}),
	} {
		if status, body, _ := get(t, r.http.URL+"/v1/replicaproxy/"+agentID+"/x", "Authorization", "Bearer "+token); status != http.StatusUnauthorized {
			t.Errorf("a token %s: %d %s", what, status, body)
		}
	}
	if status, body, _ := get(t, r.http.URL+"/v1/replicaproxy/"+agentID+"/x", "Authorization", "Bearer "+sign(jwt.SigningMethodRS256, signingKey(), good)); status != http.StatusAccepted {
		t.Errorf("a good one: %d %s", status, body)
	}
}

func TestHostsOutOfReach(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, func(c *access.Config) { c.Wait = 20 * time.Millisecond })
	for _, c := range []struct {
		what   string
		change func(*store.Agent)
		status int
		code   string
	}{
		{"away", func(a *store.Agent) { a.Connection = store.ConnectionDisconnected }, http.StatusServiceUnavailable, access.CodeNotConnected},
		{"never there", func(a *store.Agent) { a.Connection = "" }, http.StatusServiceUnavailable, access.CodeNotConnected},
		{"Rancher's", func(a *store.Agent) { a.Drover = false }, http.StatusNotImplemented, access.CodeNoTunnel},
		{"late", nil, http.StatusServiceUnavailable, access.CodeNoTunnel},
		{"removed", func(a *store.Agent) { a.State = store.StateRemoved }, http.StatusNotFound, "Not Found"},
	} {
		id, _ := host(t, s, c.what, c.change)
		status, body, code := get(t, r.http.URL+"/v1/hosts/"+id+"/x")
		if status != c.status || code != c.code || strings.Count(body, "\n") > 1 || !strings.Contains(body, "host-"+c.what) {
			t.Errorf("%s: %d %s", c.what, status, body)
		}
	}
}

func TestARemovedAgentLosesItsTunnel(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	id, agentID := host(t, s, "k", nil)
	began := make(chan struct{})
	agent(t, r, agentID, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).Flush()
		close(began)
		<-req.Context().Done()
	}))
	conn, err := net.Dial("tcp", r.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /v1/hosts/%s/x HTTP/1.1\r\nHost: x\r\n\r\n", id)
	<-began
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // once the answer has begun, it can only break
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveAgent(t.Context(), agentID); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream of a removed agent ended with %q, %v", b, err)
	}
	eventually(t, "no tunnel", func() bool { return r.Tunnels() == 0 })
}

func TestTunnelsAreBounded(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, func(c *access.Config) { c.MaxTunnels = 2 })
	for _, key := range []string{"a", "b"} {
		_, id := host(t, s, key, nil)
		agent(t, r, id, http.NotFoundHandler())
	}
	_, third := host(t, s, "c", nil)
	eventually(t, "two tunnels", func() bool { return r.Tunnels() == 2 })
	_, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(r.http.URL, "http")+"/v1/tunnel?agent="+third, nil)
	if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a third tunnel: %v %v", resp, err)
	}
}

// TestCloseEndsEverything: goleak looks at what is left.
func TestCloseEndsEverything(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	id, agentID := host(t, s, "k", nil)
	agent(t, r, agentID, http.HandlerFunc(upgraded))
	conn, in := dialUpgrade(t, r.http.Listener.Addr().String(), "/v1/hosts/"+id+"/raw")
	defer conn.Close()
	fmt.Fprint(conn, "x")
	if b, err := in.ReadByte(); b != 'x' || err != nil {
		t.Fatal(b, err)
	}
	r.Close()
	if b, err := io.ReadAll(in); string(b) == "bye" {
		t.Errorf("after Close: %q %v", b, err)
	}
	if status, _, code := get(t, r.http.URL+"/v1/hosts/"+id+"/x"); status != http.StatusServiceUnavailable || code != access.CodeClosing {
		t.Errorf("a request after Close: %d %s", status, code)
	}
}
