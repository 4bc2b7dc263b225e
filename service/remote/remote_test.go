package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/droverhq/drover/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

// A process is what the test serves.
type process func(s *Session) error

// serve runs a process behind a server that counts its sessions.
func serve(t testing.TB, opts Options, run process) *httptest.Server {
	t.Helper()
	var sessions sync.WaitGroup
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sessions.Add(1)
		defer sessions.Done()
		o := opts
		q := r.URL.Query()
		o.Stdin, o.Stdout, o.Stderr, o.TTY = q.Has("in"), q.Has("out"), q.Has("err"), q.Has("tty")
		s, err := Accept(w, r, o)
		if err != nil {
			return
		}
		s.Finish(run(s))
	}))
	t.Cleanup(func() {
		done := make(chan struct{})
		go func() { sessions.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("a session did not end")
		}
		srv.Close()
	})
	return srv
}

// cat echoes.
func cat(s *Session) error {
	_, err := io.Copy(s.Stdout, s.Stdin)
	return err
}

// executor returns a client of one kind: "spdy:v4.channel.k8s.io" or "ws:v5.channel.k8s.io".
func executor(t testing.TB, srv *httptest.Server, kind, query string) remotecommand.Executor {
	t.Helper()
	cfg := &rest.Config{Host: srv.URL}
	target, err := url.Parse(srv.URL + "/exec?" + query)
	if err != nil {
		t.Fatal(err)
	}
	how, protocol, _ := strings.Cut(kind, ":")
	var e remotecommand.Executor
	if how == "spdy" {
		transport, upgrader, err2 := spdy.RoundTripperFor(cfg)
		if err2 != nil {
			t.Fatal(err2)
		}
		e, err = remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, http.MethodPost, target, protocol)
	} else {
		e, err = remotecommand.NewWebSocketExecutorForProtocols(cfg, http.MethodGet, target.String(), protocol)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// allKinds are the combinations that client-go speaks. Its v1 takes the end of the output for the end of everything, and
// races with itself; see TestVersion1.
var allKinds = []string{
	"spdy:v5.channel.k8s.io", "spdy:v4.channel.k8s.io", "spdy:v3.channel.k8s.io", "spdy:v2.channel.k8s.io",
	"ws:v5.channel.k8s.io", "ws:v4.channel.k8s.io", "ws:v3.channel.k8s.io", "ws:v2.channel.k8s.io",
}

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestOutputAndExitCode(t *testing.T) {
	for _, kind := range allKinds {
		t.Run(kind, func(t *testing.T) {
			srv := serve(t, Options{}, func(s *Session) error {
				fmt.Fprint(s.Stdout, "to out")
				fmt.Fprint(s.Stderr, "to err")
				return &runtime.ExitError{Code: 3}
			})
			var out, errOut bytes.Buffer
			err := executor(t, srv, kind, "out&err").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
			if out.String() != "to out" || errOut.String() != "to err" {
				t.Errorf("stdout %q, stderr %q", out.String(), errOut.String())
			}
			if strings.Contains(kind, "v4") || strings.Contains(kind, "v5") {
				var code utilexec.CodeExitError
				if !errors.As(err, &code) || code.Code != 3 {
					t.Errorf("error %v, want exit code 3", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), "exit status 3") {
				t.Errorf("error %v, want one that tells of exit status 3", err)
			}
		})
	}
}

func TestSuccessAndFailure(t *testing.T) {
	for _, kind := range allKinds {
		srv := serve(t, Options{}, func(s *Session) error { fmt.Fprint(s.Stdout, "fine"); return nil })
		var out bytes.Buffer
		if err := executor(t, srv, kind, "out").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdout: &out}); err != nil || out.String() != "fine" {
			t.Errorf("%s: %q, %v", kind, out.String(), err)
		}
		srv = serve(t, Options{}, func(*Session) error { return fmt.Errorf("container x: %w", runtime.ErrNotFound) })
		err := executor(t, srv, kind, "out").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdout: &out})
		if err == nil || !strings.Contains(err.Error(), "container x: not found") {
			t.Errorf("%s: error %v", kind, err)
		}
	}
}

// TestVersion1 speaks the first version by hand.
func TestVersion1(t *testing.T) {
	fail := func(s *Session) error {
		fmt.Fprint(s.Stdout, "out")
		return errors.New("it failed")
	}
	ws := dialWS(t, serve(t, Options{}, fail), "out", "channel.k8s.io")
	got := map[byte]string{}
	for {
		_, p, err := ws.ReadMessage()
		if err != nil {
			break
		}
		got[p[0]] += string(p[1:])
	}
	if got[1] != "out" || got[3] != "it failed" || len(got) != 2 {
		t.Errorf("over WebSocket: %q", got)
	}

	srv := serve(t, Options{}, fail)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "POST /?out HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: channel.k8s.io\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByte{conn}, 16), nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("X-Stream-Protocol-Version") != "channel.k8s.io" {
		t.Fatalf("answer %v, %v", resp, err)
	}
	sc, err := streamspdy.NewClientConnection(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.Close()
	read := map[string]string{}
	var streams []io.Reader
	for _, kind := range []string{"error", "stdout"} {
		stream, err := sc.CreateStream(http.Header{"Streamtype": {kind}})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	for i, kind := range []string{"error", "stdout"} {
		b, err := io.ReadAll(streams[i])
		if err != nil {
			t.Error(err)
		}
		read[kind] = string(b)
	}
	if read["error"] != "it failed" || read["stdout"] != "out" {
		t.Errorf("over SPDY: %q", read)
	}
}

// A oneByte reader gives a bufio.Reader no more than it asked for, so that nothing of what follows is swallowed.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

// TestRandomBytesBothWays sends 1 MiB through, where the input can be ended.
func TestRandomBytesBothWays(t *testing.T) {
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	for _, kind := range []string{"spdy:v5.channel.k8s.io", "spdy:v4.channel.k8s.io", "spdy:v3.channel.k8s.io", "spdy:v2.channel.k8s.io", "ws:v5.channel.k8s.io"} {
		srv := serve(t, Options{}, cat)
		var out bytes.Buffer
		err := executor(t, srv, kind, "in&out").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdin: bytes.NewReader(data), Stdout: &out})
		if err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%s: %d bytes came back, want %d the same; %v", kind, out.Len(), len(data), err)
		}
	}
}

type queue chan remotecommand.TerminalSize

func (q queue) Next() *remotecommand.TerminalSize {
	size, ok := <-q
	if !ok {
		return nil
	}
	return &size
}

func TestResize(t *testing.T) {
	for _, kind := range []string{"spdy:v5.channel.k8s.io", "spdy:v4.channel.k8s.io", "spdy:v3.channel.k8s.io", "ws:v5.channel.k8s.io", "ws:v4.channel.k8s.io"} {
		srv := serve(t, Options{}, func(s *Session) error {
			for size := range s.Resize {
				fmt.Fprintf(s.Stdout, "%dx%d ", size.Width, size.Height)
				if size.Width == 132 {
					return nil
				}
			}
			return errors.New("no more sizes")
		})
		sizes := make(queue, 3)
		sizes <- remotecommand.TerminalSize{} // no size at all
		sizes <- remotecommand.TerminalSize{Width: 80, Height: 24}
		sizes <- remotecommand.TerminalSize{Width: 132, Height: 43}
		close(sizes)
		var out bytes.Buffer
		err := executor(t, srv, kind, "out&tty").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdout: &out, Tty: true, TerminalSizeQueue: sizes})
		if got := out.String(); err != nil || got != "80x24 132x43 " && got != "132x43 " {
			t.Errorf("%s: sizes %q, %v", kind, got, err)
		}
	}
}

// TestViewerThatLeaves cancels the client while the process runs; the process must learn of it.
func TestViewerThatLeaves(t *testing.T) {
	for _, kind := range allKinds {
		for _, query := range []string{"in&out", "out"} {
			t.Run(kind+" "+query, func(t *testing.T) {
				learned := make(chan error, 1)
				srv := serve(t, Options{Linger: time.Second}, func(s *Session) error {
					fmt.Fprint(s.Stdout, "up")
					<-s.Context().Done()
					learned <- context.Cause(s.Context())
					return s.Context().Err()
				})
				ctx, cancel := context.WithCancel(context.Background())
				up := make(chan struct{})
				opts := remotecommand.StreamOptions{Stdout: notify{up}}
				if strings.Contains(query, "in") {
					in, w := io.Pipe()
					defer w.Close()
					opts.Stdin = in
				}
				done := make(chan error, 1)
				go func() { done <- executor(t, srv, kind, query).StreamWithContext(ctx, opts) }()
				<-up
				cancel()
				select {
				case err := <-learned:
					if !errors.Is(err, ErrGone) {
						t.Errorf("the session ended with %v", err)
					}
				case <-time.After(patience):
					t.Fatal("the process did not learn that its viewer left")
				}
				<-done
			})
		}
	}
}

type notify struct{ c chan struct{} }

func (n notify) Write(p []byte) (int, error) {
	if len(p) > 0 {
		select {
		case <-n.c:
		default:
			close(n.c)
		}
	}
	return len(p), nil
}

// A cutter is a TCP proxy whose connections the test can cut.
type cutter struct {
	ln net.Listener
	to string
	mu sync.Mutex
	cs []net.Conn
	wg sync.WaitGroup
}

func newCutter(t testing.TB, to string) *cutter {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{ln: ln, to: to}
	c.wg.Go(func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			c.mu.Lock()
			c.cs = append(c.cs, a, b)
			c.mu.Unlock()
			c.wg.Go(func() { _, _ = io.Copy(a, b); a.Close() })
			c.wg.Go(func() { _, _ = io.Copy(b, a); b.Close() })
		}
	})
	t.Cleanup(func() { ln.Close(); c.cut(); c.wg.Wait() })
	return c
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.cs {
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	c.cs = nil
}

// TestCutWithUnreadInput cuts the connection of a viewer whose input nobody reads: it is noticed by writing, at the
// latest.
func TestCutWithUnreadInput(t *testing.T) {
	for _, kind := range []string{"spdy:v4.channel.k8s.io", "ws:v5.channel.k8s.io"} {
		t.Run(kind, func(t *testing.T) {
			learned := make(chan struct{})
			srv := serve(t, Options{KeepAlive: 50 * time.Millisecond, Linger: time.Second}, func(s *Session) error {
				fmt.Fprint(s.Stdout, "up")
				<-s.Context().Done()
				close(learned)
				return nil
			})
			c := newCutter(t, srv.Listener.Addr().String())
			up := make(chan struct{})
			done := make(chan error, 1)
			behind := &httptest.Server{URL: "http://" + c.ln.Addr().String()}
			go func() {
				done <- executor(t, behind, kind, "in&out").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdin: zeros{}, Stdout: notify{up}})
			}()
			<-up
			time.Sleep(200 * time.Millisecond) // the input piles up
			c.cut()
			select {
			case <-learned:
			case <-time.After(patience):
				t.Fatal("the process did not learn that its viewer was cut off")
			}
			<-done
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestNothingIsLostAtTheEnd: the process writes much and ends at once, while the viewer sends without pause and reads
// slowly.
func TestNothingIsLostAtTheEnd(t *testing.T) {
	for _, kind := range []string{"spdy:v4.channel.k8s.io", "spdy:v5.channel.k8s.io", "ws:v5.channel.k8s.io", "ws:v4.channel.k8s.io"} {
		t.Run(kind, func(t *testing.T) {
			const size = 8 << 20
			srv := serve(t, Options{}, func(s *Session) error {
				_, err := io.CopyN(s.Stdout, zeros{}, size)
				if err != nil {
					return err
				}
				return &runtime.ExitError{Code: 7}
			})
			slow := &slowWriter{}
			err := executor(t, srv, kind, "in&out").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdin: zeros{}, Stdout: slow})
			var code utilexec.CodeExitError
			if !errors.As(err, &code) || code.Code != 7 || slow.n != size {
				t.Errorf("%d bytes of %d, error %v", slow.n, size, err)
			}
		})
	}
}

type slowWriter struct{ n int }

func (w *slowWriter) Write(p []byte) (int, error) {
	w.n += len(p)
	if w.n%(1<<20) < len(p) {
		time.Sleep(20 * time.Millisecond)
	}
	return len(p), nil
}

// TestStuckViewer does not read; the process's writer blocks with little memory, and is let go when the request ends.
func TestStuckViewer(t *testing.T) {
	var mu sync.Mutex
	wrote := 0
	release, released := context.WithCancel(context.Background())
	srv := httptest.NewUnstartedServer(nil)
	ended := make(chan struct{})
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		s, err := Accept(w, r.WithContext(release), Options{Stdout: true, Linger: time.Second})
		if err != nil {
			t.Error(err)
			return
		}
		for {
			n, err := s.Stdout.Write(make([]byte, 64<<10))
			mu.Lock()
			wrote += n
			mu.Unlock()
			if err != nil {
				s.Finish(err)
				return
			}
		}
	})
	srv.Start()
	defer srv.Close()
	ws, _, err := (&websocket.Dialer{}).Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	last := -1
	for {
		time.Sleep(100 * time.Millisecond)
		mu.Lock()
		n := wrote
		mu.Unlock()
		if n == last {
			break
		}
		last = n
	}
	if last > 32<<20 {
		t.Errorf("%d bytes were taken for a viewer that reads nothing", last)
	}
	released()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the writer was not let go")
	}
}

func dialWS(t testing.TB, srv *httptest.Server, query string, protocols ...string) *websocket.Conn {
	t.Helper()
	ws, resp, err := (&websocket.Dialer{Subprotocols: protocols}).Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/?"+query, nil)
	if err != nil {
		t.Fatalf("%v (%v)", err, resp)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	return ws
}

// TestBase64 is the protocol of viewers that can send text alone.
func TestBase64(t *testing.T) {
	for _, protocol := range []string{"base64.channel.k8s.io", "v4.base64.channel.k8s.io"} {
		srv := serve(t, Options{}, func(s *Session) error {
			line := make([]byte, 8)
			if _, err := io.ReadFull(s.Stdin, line); err != nil {
				return err
			}
			_, err := s.Stdout.Write(line)
			return err
		})
		ws := dialWS(t, srv, "in&out", protocol)
		if ws.Subprotocol() != protocol {
			t.Fatalf("agreed on %q", ws.Subprotocol())
		}
		for _, part := range []string{"hi\xff", "\x00 you"} {
			if err := ws.WriteMessage(websocket.TextMessage, []byte("0"+base64.StdEncoding.EncodeToString([]byte(part)))); err != nil {
				t.Fatal(err)
			}
		}
		var got, status []byte
		for {
			kind, p, err := ws.ReadMessage()
			if err != nil {
				if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
					t.Errorf("ended with %v", err)
				}
				break
			}
			text, err := base64.StdEncoding.DecodeString(string(p[1:]))
			if err != nil || kind != websocket.TextMessage {
				t.Fatalf("message %q: %v", p, err)
			}
			switch p[0] {
			case '1':
				got = append(got, text...)
			case '3':
				status = append(status, text...)
			}
		}
		if string(got) != "hi\xff\x00 you" {
			t.Errorf("%s: got %q", protocol, got)
		}
		if want := ""; strings.HasPrefix(protocol, "v4") {
			want = `{"metadata":{},"status":"Success"}`
			if string(status) != want {
				t.Errorf("%s: status %q", protocol, status)
			}
		} else if string(status) != want {
			t.Errorf("%s: status %q", protocol, status)
		}
	}
}

// TestOddMessages sends what no client should: nothing of it may end the session or reach the process.
func TestOddMessages(t *testing.T) {
	srv := serve(t, Options{}, cat)
	ws := dialWS(t, srv, "in&out&tty", "v5.channel.k8s.io")
	for _, m := range [][]byte{{}, {9, 'x'}, {1, 'x'}, {3}, {4, '{'}, {4, 'x', 'y'}, {255, 7}, {0, 'o', 'k'}, {255, 0}} {
		if err := ws.WriteMessage(websocket.BinaryMessage, m); err != nil {
			t.Fatal(err)
		}
	}
	var got []byte
	for {
		_, p, err := ws.ReadMessage()
		if err != nil {
			break
		}
		if p[0] == 1 {
			got = append(got, p[1:]...)
		}
	}
	if string(got) != "ok" {
		t.Errorf("got %q", got)
	}
}

func TestKeepAliveIsData(t *testing.T) {
	stop := make(chan struct{})
	srv := serve(t, Options{KeepAlive: 20 * time.Millisecond}, func(s *Session) error { <-stop; return nil })
	ws := dialWS(t, srv, "out", "v5.channel.k8s.io")
	for range 4 {
		kind, p, err := ws.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(p, []byte{1}) {
			t.Fatalf("message %v %q, %v", kind, p, err)
		}
	}
	close(stop)
}

func TestRefusals(t *testing.T) {
	srv := serve(t, Options{Creation: 100 * time.Millisecond}, func(*Session) error { return nil })
	for name, c := range map[string]struct {
		header http.Header
		status int
	}{
		"no upgrade":       {http.Header{}, http.StatusUpgradeRequired},
		"other upgrade":    {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"h2c"}}, http.StatusUpgradeRequired},
		"no SPDY version":  {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}}, http.StatusBadRequest},
		"unknown version":  {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"v9.channel.k8s.io"}}, http.StatusForbidden},
		"unknown protocol": {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"chat"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"MDEyMzQ1Njc4OTAxMjM0NQ=="}}, http.StatusForbidden},
		"other origin":     {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Origin": {"http://evil.example"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"MDEyMzQ1Njc4OTAxMjM0NQ=="}}, http.StatusForbidden},
	} {
		req, _ := http.NewRequest(http.MethodGet, srv.URL+"/?out", nil)
		req.Header = c.header
		tr := &http.Transport{}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		tr.CloseIdleConnections()
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s, want %d", name, resp.Status, c.status)
		}
	}
}

// TestMissingStreams is a viewer that upgrades and then opens nothing.
func TestMissingStreams(t *testing.T) {
	result := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := Accept(w, r, Options{Stdout: true, Creation: 50 * time.Millisecond})
		result <- err
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n")
	select {
	case err := <-result:
		if err == nil || !strings.Contains(err.Error(), "in time") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("waits for ever")
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the connection ended with %v", err)
	}
}

func TestManySessions(t *testing.T) {
	srv := serve(t, Options{}, cat)
	for i := range 200 {
		kind := allKinds[i%2*4] // SPDY and WebSocket in turn
		var out bytes.Buffer
		err := executor(t, srv, kind, "in&out").StreamWithContext(ctxOf(t), remotecommand.StreamOptions{Stdin: strings.NewReader("x"), Stdout: &out})
		if err != nil || out.String() != "x" {
			t.Fatalf("session %d over %s: %q, %v", i, kind, out.String(), err)
		}
	}
}

func BenchmarkStream(b *testing.B) {
	const size = 64 << 20
	srv := serve(b, Options{}, func(s *Session) error {
		buf := make([]byte, 32<<10)
		for range size / len(buf) {
			if _, err := s.Stdout.Write(buf); err != nil {
				return err
			}
		}
		return nil
	})
	for _, kind := range []string{"spdy:v4.channel.k8s.io", "ws:v5.channel.k8s.io"} {
		b.Run(strings.ReplaceAll(kind, ":", " "), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				var n slowCounter
				if err := executor(b, srv, kind, "out").StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdout: &n}); err != nil || n != size {
					b.Fatal(n, err)
				}
			}
		})
	}
}

type slowCounter int

func (c *slowCounter) Write(p []byte) (int, error) { *c += slowCounter(len(p)); return len(p), nil }
