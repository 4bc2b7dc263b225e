package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/utils/backoff"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

// A rig is a server that accepts tunnels, and the sessions it got.
type rig struct {
	http     *httptest.Server
	sessions chan *Session
	refuse   atomic.Int32 // status to answer instead, 0 for none
	header   atomic.Pointer[http.Header]
}

func newRig(t testing.TB, opts Options) *rig {
	t.Helper()
	srv, err := NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{sessions: make(chan *Session, 16)}
	var mu sync.Mutex
	var all []*Session
	r.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := req.Header.Clone()
		r.header.Store(&h)
		if status := r.refuse.Load(); status != 0 {
			http.Error(w, "no\nentry", int(status))
			return
		}
		s, err := srv.Accept(w, req, nil)
		if err != nil {
			return
		}
		mu.Lock()
		all = append(all, s)
		mu.Unlock()
		r.sessions <- s
	}))
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range all {
			_ = s.Close()
		}
		r.http.CloseClientConnections()
		r.http.Close()
	})
	return r
}

// agent runs a client until the test ends.
func agent(t testing.TB, cfg Config) *Client {
	t.Helper()
	if cfg.Backoff == (backoff.Policy{}) {
		cfg.Backoff = backoff.Policy{First: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	}
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return")
		}
	})
	return c
}

func (r *rig) session(t testing.TB) *Session {
	t.Helper()
	select {
	case s := <-r.sessions:
		return s
	case <-time.After(patience):
		t.Fatal("no tunnel came up")
		return nil
	}
}

func client(t testing.TB, s *Session) *http.Client {
	t.Helper()
	tr := s.Transport()
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
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

func TestRequestsReachTheHandler(t *testing.T) {
	r := newRig(t, Options{})
	c := agent(t, Config{
		URL:    r.http.URL + "/v1/tunnel",
		Header: func() http.Header { return http.Header{"Authorization": {"Basic c2VjcmV0"}} },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			fmt.Fprintf(w, "%s %s %s", req.Method, req.URL, body)
		}),
	})
	s := r.session(t)
	resp, err := client(t, s).Post("http://agent/v1/x?y=1", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "POST /v1/x?y=1 hello" {
		t.Errorf("the handler answered %q", body)
	}
	if got := r.header.Load().Get("Authorization"); got != "Basic c2VjcmV0" {
		t.Errorf("Authorization %q arrived at the server", got)
	}
	if st := c.Status(); st.State != Connected || st.Session.Opened != 1 || st.Dials != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestReverseProxyCarriesAnUpgrade(t *testing.T) {
	r := newRig(t, Options{})
	agent(t, Config{URL: r.http.URL, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	})})
	s := r.session(t)
	tr := s.Transport()
	defer tr.CloseIdleConnections()
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(&url.URL{Scheme: "http", Host: "agent"}) },
		Transport: tr,
	})
	defer front.Close()
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_ = conn.SetDeadline(time.Now().Add(patience))
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Fatalf("answer %q, %v", head, err)
	}
	want := []byte("ping through all of it")
	_, _ = conn.Write(want)
	var got []byte
	for !bytes.HasSuffix(got, want) {
		b := make([]byte, 64)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, b[:n]...)
	}
}

// TestManyStreamsBothWays sends 1 MiB of random bytes there and back on each of 200 streams at once.
func TestManyStreamsBothWays(t *testing.T) {
	r := newRig(t, Options{})
	agent(t, Config{URL: r.http.URL, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, req.Body)
	})})
	hc := client(t, r.session(t))
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	want := sha256.Sum256(data)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			resp, err := hc.Post("http://agent/", "application/octet-stream", bytes.NewReader(data))
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			defer resp.Body.Close()
			sum := sha256.New()
			if n, err := io.Copy(sum, resp.Body); err != nil || [32]byte(sum.Sum(nil)) != want {
				t.Errorf("stream %d: %d bytes came back, not the same (%v)", i, n, err)
			}
		})
	}
	wg.Wait()
}

// TestStuckStreamStopsNobody leaves one reader stuck for the whole test.
func TestStuckStreamStopsNobody(t *testing.T) {
	const window = minWindow
	r := newRig(t, Options{Window: window})
	var sent atomic.Int64
	agent(t, Config{
		URL: r.http.URL, Options: Options{Window: window},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/stuck" {
				_, _ = io.Copy(w, io.LimitReader(zeros{}, 4<<20))
				return
			}
			for req.Context().Err() == nil {
				n, err := w.Write(make([]byte, 16<<10))
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}),
	})
	hc := client(t, r.session(t))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/stuck", nil)
	stuck, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Body.Close()
	for i := range 20 {
		resp, err := hc.Get("http://agent/fine")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 4<<20 {
			t.Fatalf("request %d beside the stuck one: %d bytes, %v", i, n, err)
		}
		resp.Body.Close()
	}
	// The writer is held where its window and a few buffers are full.
	if n := sent.Load(); n > window+256<<10 {
		t.Errorf("%d bytes were taken from the writer of a stuck stream with a window of %d", n, window)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestViewerThatLeavesEndsTheRequest(t *testing.T) {
	r := newRig(t, Options{})
	ended := make(chan error, 1)
	agent(t, Config{URL: r.http.URL, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
		ended <- context.Cause(req.Context())
	})})
	hc := client(t, r.session(t))
	resp, err := hc.Get("http://agent/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the handler did not learn that its viewer left")
	}
}

// TestHijackedWriterLearnsOfALeaver is the same for a stream on which the handler only writes.
func TestHijackedWriterLearnsOfALeaver(t *testing.T) {
	r := newRig(t, Options{})
	ended := make(chan error, 1)
	agent(t, Config{URL: r.http.URL, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				ended <- err
				return
			}
		}
	})})
	s := r.session(t)
	conn, err := s.DialContext(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrReset) {
			t.Errorf("the writer ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the writer goes on for a viewer that left")
	}
}

func TestHalfCloseAndClose(t *testing.T) {
	r := newRig(t, Options{})
	agent(t, Config{URL: r.http.URL, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(rw)
		fmt.Fprintf(conn, "got %d", len(all))
	})})
	s := r.session(t)
	conn, err := s.DialContext(context.Background(), "tcp", "x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n12345")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(conn); err != nil || string(all) != "got 5" {
		t.Errorf("after the half-close: %q, %v", all, err)
	}
	// Close ends a blocked Read.
	conn2, err := s.DialContext(context.Background(), "tcp", "x:1")
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := conn2.Read(make([]byte, 1))
		read <- err
	}()
	conn2.Close()
	conn2.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the blocked Read ended with %v", err)
	}
	if err := conn2.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetDeadline after Close: %v", err)
	}
}

func TestReconnectsAfterTheServerIsGone(t *testing.T) {
	r := newRig(t, Options{})
	c := agent(t, Config{URL: r.http.URL, Handler: http.NotFoundHandler()})
	first := r.session(t)
	first.Close()
	second := r.session(t)
	resp, err := client(t, second).Get("http://agent/")
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Fatalf("through the second session: %v, %v", resp, err)
	}
	resp.Body.Close()
	if _, err := first.DialContext(context.Background(), "", ""); !errors.Is(err, ErrClosed) {
		t.Errorf("dial on the closed session: %v", err)
	}
	if st := c.Status(); !errors.Is(st.LastError, ErrPeerClosed) {
		t.Errorf("the client remembers %v", st.LastError)
	}
}

func TestRefusedCredentialsAreToldAndRetried(t *testing.T) {
	r := newRig(t, Options{})
	r.refuse.Store(http.StatusUnauthorized)
	c := agent(t, Config{URL: r.http.URL, Handler: http.NotFoundHandler()})
	eventually(t, "unauthorized in the status", func() bool { return errors.Is(c.Status().LastError, ErrUnauthorized) })
	r.refuse.Store(0)
	r.session(t)
}

func TestRefusalNamesTheProxy(t *testing.T) {
	r := newRig(t, Options{})
	r.refuse.Store(http.StatusBadGateway)
	c := agent(t, Config{URL: r.http.URL, Handler: http.NotFoundHandler()})
	eventually(t, "an explanation", func() bool {
		err := c.Status().LastError
		return err != nil && strings.Contains(err.Error(), "a proxy on the way may not pass WebSockets: no entry")
	})
}

func TestTooManyStreams(t *testing.T) {
	r := newRig(t, Options{MaxStreams: 2})
	agent(t, Config{URL: r.http.URL, Options: Options{MaxStreams: 1}, Handler: http.NotFoundHandler()})
	s := r.session(t)
	one, err := s.DialContext(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := s.DialContext(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	// The agent takes one only, and closes the other.
	_ = two.SetReadDeadline(time.Now().Add(patience))
	if _, err := two.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the stream beyond the agent's limit: %v", err)
	}
	// This side opens two only, and waits with the third.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.DialContext(ctx, "", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("third dial: %v", err)
	}
	two.Close()
	three, err := s.DialContext(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	three.Close()
}

func TestShutdownWaitsForHandlers(t *testing.T) {
	r := newRig(t, Options{})
	entered, left := make(chan struct{}), atomic.Bool{}
	c, err := NewClient(Config{URL: r.http.URL, Drain: time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		close(entered)
		<-req.Context().Done()
		time.Sleep(50 * time.Millisecond)
		left.Store(true)
	})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	hc := client(t, r.session(t))
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if resp, err := hc.Get("http://agent/"); err == nil {
			resp.Body.Close()
		}
	}()
	<-entered
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-asked
	if !left.Load() {
		t.Error("Run returned before its handler did")
	}
	if st := c.Status(); st.State != Closed {
		t.Errorf("state %q", st.State)
	}
}

func TestConfigIsChecked(t *testing.T) {
	h := http.NotFoundHandler()
	for name, cfg := range map[string]Config{
		"no handler":      {URL: "http://x"},
		"scheme":          {URL: "ftp://x", Handler: h},
		"credentials":     {URL: "http://a:b@x", Handler: h},
		"not a URL":       {URL: "http://[::1", Handler: h},
		"window":          {URL: "http://x", Handler: h, Options: Options{Window: 1}},
		"streams":         {URL: "http://x", Handler: h, Options: Options{MaxStreams: -1}},
		"negative period": {URL: "http://x", Handler: h, Options: Options{PingInterval: -1}},
	} {
		if _, err := NewClient(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got := Endpoint("http://h:8080/v1/"); got != "http://h:8080/v1/tunnel" {
		t.Errorf("Endpoint: %s", got)
	}
}
