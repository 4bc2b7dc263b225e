package hostproxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/containerlog"
	"github.com/droverhq/drover/utils/backoff"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 90 * time.Second
	hostUUID = "77218982-8724-430a-a5a4-f2fc7d6b8019"
)

// A proxy is the server's end of the link.
type proxy struct {
	t     testing.TB
	key   *rsa.PrivateKey
	srv   *httptest.Server
	conns chan *websocket.Conn
	auth  atomic.Value // Authorization of the last connection
	query atomic.Value // its query

	ws  *websocket.Conn
	wmu sync.Mutex
	mu  sync.Mutex
	got map[string][]frame
	bad []string
}

func newProxy(t testing.TB, cfg Config) *proxy {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, key: key, conns: make(chan *websocket.Conn, 8), got: map[string][]frame{}}
	up := websocket.Upgrader{}
	p.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.auth.Store(r.Header.Get("Authorization"))
		p.query.Store(r.URL.RawQuery)
		if ws, err := up.Upgrade(w, r, nil); err == nil {
			p.conns <- ws
		}
	}))
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg.Log, cfg.HostUUID, cfg.Key = log, hostUUID, &key.PublicKey
	cfg.Backoff = backoff.Policy{First: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	if cfg.Token == nil {
		cfg.Token = func(context.Context) (Grant, error) {
			return Grant{URL: "ws" + strings.TrimPrefix(p.srv.URL, "http") + "/v1/connectbackend", Token: "back.end.token"}, nil
		}
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	var reading sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("Run did not return")
		}
		if p.ws != nil {
			p.ws.Close()
		}
		reading.Wait()
		p.srv.Close()
	})
	select {
	case p.ws = <-p.conns:
	case <-time.After(patience):
		t.Fatal("no connection")
	}
	reading.Go(p.read)
	return p
}

func (p *proxy) read() {
	for {
		_, text, err := p.ws.ReadMessage()
		if err != nil {
			return
		}
		f, err := parseFrame(string(text))
		p.mu.Lock()
		if err != nil {
			p.bad = append(p.bad, string(text))
		} else {
			p.got[f.key] = append(p.got[f.key], f)
		}
		p.mu.Unlock()
	}
}

func (p *proxy) send(text string) {
	p.t.Helper()
	p.wmu.Lock()
	defer p.wmu.Unlock()
	if err := p.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		p.t.Error(err)
	}
}

func (p *proxy) frames(key string) []frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]frame(nil), p.got[key]...)
}

// closed waits for the end of a key and returns the bodies before it.
func (p *proxy) closed(key string) []string {
	p.t.Helper()
	var bodies []string
	eventually(p.t, "stream "+key+" is closed", func() bool {
		all := p.frames(key)
		if len(all) == 0 || all[len(all)-1].kind != typeClose {
			return false
		}
		bodies = nil
		for _, f := range all {
			if f.kind == typeBody { // a body for a key that has ended is answered by another close
				bodies = append(bodies, f.body)
			}
		}
		return true
	})
	return bodies
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// token signs claims as the server does.
func (p *proxy) token(claims jwt.MapClaims) string {
	p.t.Helper()
	all := jwt.MapClaims{"sub": "cattle", "iss": "http://cattle.io", "kid": "default", "exp": time.Now().Add(time.Minute).Unix(), "hostUuid": hostUUID}
	for k, v := range claims {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	s, err := jwt.NewWithClaims(jwt.SigningMethodRS256, all).SignedString(p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// A stub is a node whose answers the test decides.
type stub struct {
	exec    func(ctx context.Context, id string, spec runtime.ExecSpec, s runtime.Streams) error
	running []runtime.ContainerSummary
	ip      string
	execs   atomic.Int32
}

func (*stub) AllowVerb(context.Context, string) error { return nil }

func (n *stub) Exec(ctx context.Context, id string, spec runtime.ExecSpec, s runtime.Streams) error {
	n.execs.Add(1)
	return n.exec(ctx, id, spec, s)
}

func (*stub) Entries(_ context.Context, id string, q containerlog.Query, yield func(bool, *containerlog.Entry) error) error {
	for _, e := range []containerlog.Entry{{Line: []byte("123456789\n")}, {Stderr: true, Line: []byte("bad \xff\n")}, {Line: []byte("no newline")}} {
		if err := yield(id == "tty", &e); err != nil {
			return err
		}
	}
	return nil
}

func (*stub) HostSample(context.Context) (runtime.Stats, error) {
	return runtime.Stats{Time: time.Unix(0, 0).UTC(), CPUTotal: 4, CPUUser: 2, CPUSystem: 1, PerCPU: []uint64{3, 1}, Memory: 5, MemoryLimit: 6, ReadBytes: 7, WriteBytes: 8, Networks: []runtime.NetworkStats{{Name: "eth0", RxBytes: 9, TxBytes: 10}}}, nil
}

func (*stub) ContainerSample(_ context.Context, id string) (runtime.Stats, error) {
	if id == "dead" {
		return runtime.Stats{}, runtime.ErrConflict
	}
	return runtime.Stats{ID: id, Time: time.Unix(0, 0).UTC(), Memory: 5, MemoryLimit: 6, Networks: []runtime.NetworkStats{{Name: "eth0", RxBytes: 9}}}, nil
}

func (n *stub) Running(context.Context) ([]runtime.ContainerSummary, error) { return n.running, nil }

func (n *stub) State(context.Context, string) (runtime.ContainerStatus, error) {
	return runtime.ContainerStatus{IP: n.ip}, nil
}

func echo(_ context.Context, _ string, _ runtime.ExecSpec, s runtime.Streams) error {
	_, err := io.Copy(s.Out, s.In)
	return err
}

var execClaim = map[string]any{"AttachStdin": true, "AttachStdout": true, "Tty": true, "Cmd": []string{"/bin/sh"}, "Container": "b7c1"}

func TestTokenTravelsInTheHeader(t *testing.T) {
	p := newProxy(t, Config{Node: &stub{}})
	if p.auth.Load() != "Bearer back.end.token" || p.query.Load() != "" {
		t.Errorf("authorization %q, query %q", p.auth.Load(), p.query.Load())
	}
}

// TestGoldenFrames sends what Rancher's proxy sends and wants what Rancher's agent answers.
func TestGoldenFrames(t *testing.T) {
	sizes := make(chan runtime.TerminalSize, 1)
	p := newProxy(t, Config{Node: &stub{
		exec: func(_ context.Context, id string, spec runtime.ExecSpec, s runtime.Streams) error {
			if id != "b7c1" || !spec.TTY || strings.Join(spec.Cmd, " ") != "/bin/sh" {
				return fmt.Errorf("wrong: %s %+v", id, spec)
			}
			b := make([]byte, 3)
			if _, err := io.ReadFull(s.In, b); err != nil {
				return err
			}
			sizes <- <-s.Resize
			_, err := fmt.Fprintf(s.Out, "%s\r\n$ ", b)
			return err
		},
		running: []runtime.ContainerSummary{{ID: "d1"}, {ID: "dead"}, {ID: "other"}},
	}})
	p.send("k1||0||/v1/exec/?token=" + p.token(jwt.MapClaims{"exec": execClaim}))
	p.send("k1||1||:resizeTTY:132,43")
	p.send("k1||1||" + base64.StdEncoding.EncodeToString([]byte("ls\n")))
	if got := p.closed("k1"); strings.Join(got, " ") != "bHMKDQokIA==" {
		t.Errorf("exec: %q", got)
	}
	if size := <-sizes; size != (runtime.TerminalSize{Width: 132, Height: 43}) {
		t.Errorf("size %+v", size)
	}
	p.send("k2||0||/v2-beta/logs/?token=" + p.token(jwt.MapClaims{"logs": map[string]any{"Container": "c", "Lines": 100, "Follow": false, "Timestamps": false, "Since": ""}}))
	if got := p.closed("k2"); fmt.Sprintf("%q", got) != `["01 123456789\n" "02 bad �\n" "01 no newline"]` {
		t.Errorf("logs: %q", got)
	}
	p.send("k3||0||/v1/logs/?token=" + p.token(jwt.MapClaims{"logs": map[string]any{"Container": "tty", "Timestamps": false}}))
	if got := p.closed("k3"); len(got) != 3 || got[0] != "00 123456789\n" {
		t.Errorf("logs of a terminal: %q", got)
	}
	for path, want := range map[string]string{
		"/v1/hoststats?token=" + p.token(jwt.MapClaims{"resourceId": "1h1"}):                                                               `[{"id":"1h1","resourceType":"host","memLimit":6,"timestamp":"1970-01-01T00:00:00Z","cpu":{"usage":{"total":4,"per_cpu_usage":[3,1],"user":2,"system":1}},"diskio":{"io_service_bytes":[{"major":0,"minor":0,"stats":{"Read":7,"Write":8}}]},"network":{"name":"all","rx_bytes":9,"rx_packets":0,"rx_errors":0,"rx_dropped":0,"tx_bytes":10,"tx_packets":0,"tx_errors":0,"tx_dropped":0},"memory":{"usage":5}}]`,
		"/v1/containerstats?token=" + p.token(jwt.MapClaims{"containerIds": map[string]string{"d1": "1i5", "dead": "1i6", "gone": "1i7"}}): `[{"id":"1i5","resourceType":"container","memLimit":6,"timestamp":"1970-01-01T00:00:00Z","cpu":{"usage":{"total":0,"per_cpu_usage":[],"user":0,"system":0}},"diskio":{"io_service_bytes":[{"major":0,"minor":0,"stats":{"Read":0}},{"major":0,"minor":0,"stats":{"Write":0}}]},"network":{"name":"eth0","rx_bytes":9,"rx_packets":0,"rx_errors":0,"rx_dropped":0,"tx_bytes":0,"tx_packets":0,"tx_errors":0,"tx_dropped":0,"interfaces":[{"name":"eth0","rx_bytes":9,"rx_packets":0,"rx_errors":0,"rx_dropped":0,"tx_bytes":0,"tx_packets":0,"tx_errors":0,"tx_dropped":0}]},"memory":{"usage":5}}]`,
	} {
		key := "s" + path[4:8]
		p.send(key + "||0||" + path)
		eventually(t, "samples on "+path[:20], func() bool { return len(p.frames(key)) > 0 })
		if got := p.frames(key)[0].body; got != want {
			t.Errorf("%s:\n got %s\nwant %s", path[:20], got, want)
		}
		p.send(key + "||2||")
		p.closed(key)
	}
}

// TestEveryPathAsksForItsToken tries each path with tokens that are none, or not for it.
func TestEveryPathAsksForItsToken(t *testing.T) {
	node := &stub{exec: echo}
	dialed := atomic.Int32{}
	dial := func(context.Context) (net.Conn, error) { dialed.Add(1); return nil, errors.New("no") }
	p := newProxy(t, Config{Node: node, Dial: dial, Console: func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }})
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	good := jwt.MapClaims{"exec": execClaim, "hostUuid": hostUUID, "logs": map[string]any{"Container": "x"}, "resourceId": "1h1", "containerIds": map[string]string{}, "console": map[string]any{"container": "x"}}
	foreign, _ := jwt.NewWithClaims(jwt.SigningMethodRS256, good).SignedString(other)
	symmetric, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, good).SignedString(pemKey)
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone, good).SignedString(jwt.UnsafeAllowNoneSignatureType)
	tokens := map[string]string{
		"no token": "", "nonsense": "a.b.c", "another key": foreign, "the public key as a secret": symmetric, "no signature": none,
		"another host":  p.token(jwt.MapClaims{"hostUuid": "other", "exec": execClaim}),
		"no host":       p.token(jwt.MapClaims{"hostUuid": nil, "exec": execClaim}),
		"host a number": p.token(jwt.MapClaims{"hostUuid": 7, "exec": execClaim}),
		"expired":       p.token(jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix(), "exec": execClaim}),
	}
	n := 0
	for _, path := range []string{"exec/", "logs/", "stats", "stats/x", "hoststats", "containerstats", "containerstats/x", "dockersocket/", "console/", "container-proxy/"} {
		for name, token := range tokens {
			n++
			key := fmt.Sprint("t", n)
			p.send(key + "||0||/v1/" + path + "?token=" + token)
			if got := p.closed(key); len(got) != 0 {
				t.Errorf("%s with %s: %q", path, name, got)
			}
		}
	}
	// A good token without the claim, or with one of another shape: it crashed the original.
	for _, path := range []string{"exec/", "logs/", "hoststats", "containerstats", "containerstats/x", "console/"} {
		for _, claims := range []jwt.MapClaims{
			{},
			{"exec": "x", "logs": 3, "resourceId": []int{1}, "containerIds": "x", "console": true},
			{"exec": nil, "console": map[string]any{"container": "../../etc"}, "containerIds": map[string]int{"x": 1}},
		} {
			n++
			key := fmt.Sprint("t", n)
			p.send(key + "||0||/v1/" + path + "?token=" + p.token(claims))
			if got := p.closed(key); len(got) != 0 {
				t.Errorf("%s with claims %v: %q", path, claims, got)
			}
		}
	}
	if node.execs.Load() != 0 || dialed.Load() != 0 {
		t.Errorf("%d processes were run, %d sockets dialled", node.execs.Load(), dialed.Load())
	}
}

// TestOddFrames sends frames that crashed the original, or should end their stream alone.
func TestOddFrames(t *testing.T) {
	p := newProxy(t, Config{Node: &stub{exec: func(ctx context.Context, id string, spec runtime.ExecSpec, s runtime.Streams) error {
		if id == "panic" {
			panic("in a handler")
		}
		return echo(ctx, id, spec, s)
	}}})
	for _, text := range []string{"", "|", "||", "k", "k||", "k||1", "||1||x", "|||||||"} {
		p.send(text)
	}
	p.send("u1||1||for a key that is none")
	p.closed("u1")
	p.send("u2||0||/v1/nothing/?token=x")
	p.closed("u2")
	p.send("u3||0||:not a uri")
	p.closed("u3")
	p.send("u4||7||a type that is none")
	p.closed("u4")
	crash := map[string]any{"AttachStdin": true, "AttachStdout": true, "Container": "panic", "Cmd": []string{"x"}}
	p.send("u5||0||/v1/exec/?token=" + p.token(jwt.MapClaims{"exec": crash}))
	p.closed("u5")
	// The link has survived it all.
	p.send("ok||0||/v1/exec/?token=" + p.token(jwt.MapClaims{"exec": execClaim}))
	p.send("ok||1||" + base64.StdEncoding.EncodeToString([]byte("a||b")))
	eventually(t, "an echo", func() bool { return len(p.frames("ok")) == 1 })
	p.send("ok||2||")
	if got := p.closed("ok"); len(got) != 1 || got[0] != base64.StdEncoding.EncodeToString([]byte("a||b")) {
		t.Errorf("after all that: %q", got)
	}
	if len(p.bad) != 0 {
		t.Errorf("frames of ours that are none: %q", p.bad)
	}
}

// TestStuckViewer: a stream that does not take its input is closed; the others and the pings go on.
func TestStuckViewer(t *testing.T) {
	stuck := make(chan struct{})
	p := newProxy(t, Config{Node: &stub{exec: func(ctx context.Context, id string, spec runtime.ExecSpec, s runtime.Streams) error {
		if id != "stuck" {
			return echo(ctx, id, spec, s)
		}
		<-ctx.Done()
		close(stuck)
		return ctx.Err()
	}}})
	p.send("st||0||/v1/exec/?token=" + p.token(jwt.MapClaims{"exec": map[string]any{"AttachStdin": true, "AttachStdout": true, "Container": "stuck", "Cmd": []string{"x"}}}))
	p.send("go||0||/v1/exec/?token=" + p.token(jwt.MapClaims{"exec": execClaim}))
	for i := range inboxFrames + 10 {
		p.send("st||1||eA==")
		if i%100 == 0 {
			p.send("go||1||eQ==")
		}
	}
	p.closed("st")
	<-stuck
	want := (inboxFrames+10)/100 + 1
	eventually(t, "the other stream has all of its input", func() bool { return len(p.frames("go")) == want })
	p.send("go||2||")
	p.closed("go")
}

// TestLinkThatIsCutEndsItsStreams and comes back with a new token.
func TestLinkThatIsCutEndsItsStreams(t *testing.T) {
	ended := make(chan struct{})
	p := newProxy(t, Config{Node: &stub{exec: func(ctx context.Context, _ string, _ runtime.ExecSpec, s runtime.Streams) error {
		_, _ = s.Out.Write([]byte("up"))
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}}})
	p.send("k||0||/v1/exec/?token=" + p.token(jwt.MapClaims{"exec": execClaim}))
	eventually(t, "output", func() bool { return len(p.frames("k")) > 0 })
	p.ws.NetConn().Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the process goes on")
	}
	select {
	case ws := <-p.conns:
		ws.Close()
	case <-time.After(patience):
		t.Fatal("no new connection")
	}
}

func TestUnknownHostIsAskedAgain(t *testing.T) {
	asked := atomic.Int32{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err == nil {
			_, _, _ = ws.ReadMessage()
			ws.Close()
		}
	}))
	defer srv.Close()
	key, _ := rsa.GenerateKey(rand.Reader, 2048)
	log := logrus.New()
	log.SetOutput(io.Discard)
	connected := make(chan struct{})
	c, err := New(Config{Node: &stub{}, HostUUID: hostUUID, Key: &key.PublicKey, Log: log, Token: func(context.Context) (Grant, error) {
		switch asked.Add(1) {
		case 1:
			return Grant{}, fmt.Errorf("422: %w", ErrUnknownHost)
		case 2:
			close(connected)
		}
		return Grant{URL: "ws" + strings.TrimPrefix(srv.URL, "http")}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	select {
	case <-connected:
	case <-time.After(patience):
		t.Error("not asked again")
	}
	cancel()
	<-done
}

// TestContainerProxy reaches containers of this host and nothing else.
func TestContainerProxy(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Header.Get("X-Test"))
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL.Path, r.Host, b)
	}))
	defer site.Close()
	ask := func(p *proxy, key, target string) (message, string) {
		p.send(key + "||0||/v1/container-proxy/")
		b, _ := json.Marshal(message{Method: http.MethodPost, URL: target, Host: "site", Headers: map[string][]string{"X-Test": {"yes"}}})
		p.send(key + "||1||" + string(b))
		b, _ = json.Marshal(message{Body: []byte("hello")})
		p.send(key + "||1||" + string(b))
		p.send(key + "||1||" + `{"eof":true}`)
		var head message
		var body bytes.Buffer
		for i, text := range p.closed(key) {
			var m message
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Error(err)
			}
			if i == 0 {
				head = m
			}
			body.Write(m.Body)
		}
		return head, body.String()
	}
	node := &stub{ip: "127.0.0.1", running: []runtime.ContainerSummary{{ID: "d1"}}}
	p := newProxy(t, Config{Node: node, TrustProxy: true})
	if head, body := ask(p, "c1", site.URL+"/path"); head.Code != http.StatusTeapot || body != "POST /path site hello" || head.Headers["X-Seen"][0] != "yes" {
		t.Errorf("answer %+v %q", head, body)
	}
	for i, target := range []string{"http://169.254.169.254/latest", "http://localhost/", "file:///etc/passwd", "http://", ""} {
		if head, body := ask(p, fmt.Sprint("x", i), target); head.Code != http.StatusForbidden && head.Code != http.StatusBadRequest {
			t.Errorf("%q was answered %+v %q", target, head, body)
		}
	}
	// Without trust in the proxy there is no answer at all.
	p = newProxy(t, Config{Node: node})
	if head, body := ask(p, "c2", site.URL+"/path"); head.Code != 0 || body != "" {
		t.Errorf("without a token: %+v %q", head, body)
	}
}

// TestRealContainer runs exec and logs against dockerd through the whole service.
func TestRealContainer(t *testing.T) {
	engine, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	var suffix [6]byte
	_, _ = rand.Read(suffix[:])
	id, _, err := engine.Create(t.Context(), &runtime.ContainerSpec{
		Name: "hostproxy-" + hex.EncodeToString(suffix[:]), Image: "drover-test/busybox:1", NetworkMode: "none", LogDriver: "json-file",
		Cmd: []string{"sh", "-c", "echo 123456789; echo oops >&2; printf end; sleep 3600"},
	})
	if err != nil {
		t.Fatalf("these tests need a dockerd: %v", err)
	}
	defer func() {
		if err := engine.Remove(context.Background(), id, runtime.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}()
	if err := engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := service.New(service.Config{Engine: engine, Log: log, Grace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := newProxy(t, Config{Node: s})
	p.send("e||0||/v1/exec/?token=" + p.token(jwt.MapClaims{"exec": map[string]any{"AttachStdin": true, "AttachStdout": true, "Tty": true, "Cmd": []string{"sh"}, "Container": id}}))
	p.send("e||1||:resizeTTY:101,37")
	output := func() string {
		var b strings.Builder
		for _, f := range p.frames("e") {
			text, err := base64.StdEncoding.DecodeString(f.body)
			if err != nil {
				t.Error(err)
			}
			b.Write(text)
		}
		return b.String()
	}
	eventually(t, "a prompt", func() bool { return strings.Contains(output(), "# ") })
	eventually(t, "the terminal's size", func() bool {
		p.send("e||1||" + base64.StdEncoding.EncodeToString([]byte("stty size\n")))
		time.Sleep(100 * time.Millisecond)
		return strings.Contains(output(), "37 101")
	})
	p.send("e||2||")
	p.closed("e")
	eventually(t, "the shell is gone", func() bool {
		_, rows, err := engine.Top(context.Background(), id, nil)
		return err == nil && len(rows) <= 2 // the main shell and its sleep
	})
	p.send("l||0||/v1/logs/?token=" + p.token(jwt.MapClaims{"logs": map[string]any{"Container": id, "Timestamps": false}}))
	eventually(t, "the log", func() bool {
		var got []string
		for _, f := range p.frames("l") {
			got = append(got, f.body)
		}
		return strings.Contains(strings.Join(got, "|"), "01 123456789\n") && strings.Contains(strings.Join(got, "|"), "02 oops\n")
	})
	p.send("l||2||")
	p.closed("l")
}

func TestParseFrame(t *testing.T) {
	for text, want := range map[string]frame{
		"k||1||body":   {"k", "1", "body"},
		"k||1||a||b||": {"k", "1", "a||b||"},
		"k||2||":       {"k", "2", ""},
		"k||||x":       {"k", "", "x"},
	} {
		if got, err := parseFrame(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	for _, s := range []string{"k||1||body", "||", "k|1|x", "a||b||c||d", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFrame(text)
		if err != nil {
			if parts := strings.SplitN(text, separator, 3); len(parts) == 3 && parts[0] != "" {
				t.Errorf("%q was refused", text)
			}
			return
		}
		if got.String() != text {
			t.Errorf("%q came back as %q", text, got)
		}
	})
}
