package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A link is a TCP proxy that misbehaves on request.
type link struct {
	ln    net.Listener
	to    string
	hole  atomic.Bool  // swallow everything from now on, both ways, and keep the connections open
	drip  atomic.Int64 // wait so many microseconds for each KiB
	limit atomic.Int64 // reset each connection after so many bytes; 0 is never

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{ln: ln, to: to}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		ln.Close()
		l.cut()
		l.wg.Wait()
	})
	return l
}

func (l *link) url() string { return "http://" + l.ln.Addr().String() }

func (l *link) accept() {
	for {
		a, err := l.ln.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", l.to)
		if err != nil {
			a.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, a, b)
		l.mu.Unlock()
		l.wg.Go(func() { l.pump(a, b) })
		l.wg.Go(func() { l.pump(b, a) })
	}
}

func (l *link) pump(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 1<<10)
	var total int64
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		for l.hole.Load() {
			// Neither read on nor answer: the kernel's buffers fill up, as with a cable that was pulled.
			if _, err := src.Read(make([]byte, 0)); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
			if !l.has(src) {
				return
			}
		}
		if d := l.drip.Load(); d > 0 {
			time.Sleep(time.Duration(d) * time.Microsecond)
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
		total += int64(n)
		if lim := l.limit.Load(); lim > 0 && total > lim {
			_ = dst.(*net.TCPConn).SetLinger(0)
			_ = src.(*net.TCPConn).SetLinger(0)
			return
		}
	}
}

func (l *link) has(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.conns {
		if x == c {
			return true
		}
	}
	return false
}

// cut closes all connections.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func brisk() Options {
	return Options{PingInterval: 200 * time.Millisecond, KeepAlive: 100 * time.Millisecond, WriteTimeout: 2 * time.Second}
}

// TestBlackHoleIsNoticed: no packet comes back and no connection is closed; both ends must find out by themselves.
func TestBlackHoleIsNoticed(t *testing.T) {
	r := newRig(t, brisk())
	l := newLink(t, r.http.Listener.Addr().String())
	c := agent(t, Config{URL: l.url(), Options: brisk(), Handler: http.NotFoundHandler()})
	s := r.session(t)
	// The server has a session before the agent has read the answer to its upgrade.
	eventually(t, "the agent is connected", func() bool { return c.Status().State == Connected })
	l.hole.Store(true)
	start := time.Now()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the server did not notice")
	}
	if err := s.Err(); !errors.Is(err, ErrStalled) {
		t.Errorf("the server's session ended with %v", err)
	}
	eventually(t, "the agent notices", func() bool { return errors.Is(c.Status().LastError, ErrStalled) })
	t.Logf("noticed after %v, with pings every %v", time.Since(start), brisk().PingInterval)
	l.cut()
	l.hole.Store(false)
	r.session(t)
}

// TestResetInTheMiddle cuts the link in the middle of a download: the reader gets an error, never a short success.
func TestResetInTheMiddle(t *testing.T) {
	r := newRig(t, brisk())
	l := newLink(t, r.http.Listener.Addr().String())
	l.limit.Store(3 << 20)
	var wrote atomic.Bool
	agent(t, Config{URL: l.url(), Options: brisk(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(w, io.LimitReader(zeros{}, 64<<20))
		wrote.Store(err == nil)
	})})
	resp, err := client(t, r.session(t)).Get("http://agent/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil || n >= 64<<20 {
		t.Errorf("read %d bytes of a cut download, error %v", n, err)
	}
	if wrote.Load() {
		t.Error("the writer of the cut download succeeded")
	}
	l.limit.Store(0)
	r.session(t)
}

// TestSlowLinkKeepsATerminalAlive sends bulk over a link of about 1 MB/s and asks beside it.
func TestSlowLinkKeepsATerminalAlive(t *testing.T) {
	opts := Options{PingInterval: time.Second, KeepAlive: time.Second, WriteTimeout: 20 * time.Second}
	r := newRig(t, opts)
	l := newLink(t, r.http.Listener.Addr().String())
	l.drip.Store(150)
	agent(t, Config{URL: l.url(), Options: opts, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/bulk" {
			_, _ = io.Copy(w, zeros{})
			return
		}
		fmt.Fprint(w, "prompt$ ")
	})})
	hc := client(t, r.session(t))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 4 {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/bulk", nil)
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		go func() { _, _ = io.Copy(io.Discard, resp.Body) }()
	}
	for range 3 {
		start := time.Now()
		resp, err := hc.Get("http://agent/prompt")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "prompt$ " || err != nil {
			t.Fatalf("beside the bulk: %q, %v", body, err)
		}
		t.Logf("answer beside four bulk streams on a slow link after %v", time.Since(start))
	}
}

// TestManyCyclesLeaveNothing opens and closes streams and looks at what is left; goleak looks at the goroutines.
func TestManyCyclesLeaveNothing(t *testing.T) {
	r := newRig(t, Options{})
	c := agent(t, Config{URL: r.http.URL, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "ok")
	})})
	s := r.session(t)
	tr := s.Transport()
	tr.DisableKeepAlives = true
	hc := &http.Client{Transport: tr}
	for i := range 2000 {
		resp, err := hc.Get("http://agent/")
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	eventually(t, "no stream is left", func() bool {
		return s.Stats().Streams == 0 && c.Status().Session.Streams == 0 && len(s.slots) == 0 && s.accepted.Load() == 0
	})
	if st := s.Stats(); st.Opened != 2000 || st.Refused != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestPingsMeasureTheRoundTrip(t *testing.T) {
	r := newRig(t, brisk())
	agent(t, Config{URL: r.http.URL, Options: brisk(), Handler: http.NotFoundHandler()})
	s := r.session(t)
	eventually(t, "a round trip time", func() bool { return s.Stats().RTT > 0 })
	before := s.Stats().LastFrame
	eventually(t, "frames on an idle link", func() bool { return s.Stats().LastFrame.After(before) })
}
