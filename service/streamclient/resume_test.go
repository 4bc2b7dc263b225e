package streamclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/remote"
	"github.com/droverhq/drover/service/resume"
	"github.com/droverhq/drover/utils/backoff"
)

// behind puts a network that goes bad before the node.
func (n *node) behind() (*eventstest.FaultProxy, *Client) {
	p := eventstest.NewFaultProxy(n.t, strings.TrimPrefix(n.url, "http://"))
	return p, clientOf(n.t, Config{Base: "http://" + p.Addr(), Retry: backoff.Policy{First: 5 * time.Millisecond, Max: 50 * time.Millisecond}})
}

// A cutting reader cuts the network at some places of what it passes on.
type cutting struct {
	r     io.Reader
	proxy *eventstest.FaultProxy
	every int
	read  int
	cuts  atomic.Int32
}

func (c *cutting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p[:min(len(p), 5000)])
	if c.read/c.every != (c.read+n)/c.every {
		c.proxy.Cut()
		c.cuts.Add(1)
	}
	c.read += n
	return n, err
}

// TestExecSurvivesCuts sends 1 MiB of random bytes there and back while the network is cut again and again, in the
// middle of both directions.
func TestExecSurvivesCuts(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{})
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	for name, spoil := range map[string]func(*eventstest.FaultProxy, io.Reader) io.Reader{
		"cut from here": func(p *eventstest.FaultProxy, r io.Reader) io.Reader {
			return &cutting{r: r, proxy: p, every: 100 << 10}
		},
		"reset on the way back": func(p *eventstest.FaultProxy, r io.Reader) io.Reader {
			p.ResetAfter(150 << 10)
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			proxy, c := n.behind()
			var out bytes.Buffer
			err := c.Exec(bounded(t), id, ExecOptions{Cmd: []string{"sh", "-c", "cat; exit 7"}, Streams: Streams{
				Stdin: spoil(proxy, bytes.NewReader(data)), Stdout: &out, Gap: func(n int64) { t.Errorf("a gap of %d bytes", n) },
			}})
			var exit *runtime.ExitError
			if !errors.As(err, &exit) || exit.Code != 7 || !bytes.Equal(out.Bytes(), data) {
				t.Errorf("%d bytes came back, want the same %d; %v", out.Len(), len(data), err)
			}
			if proxy.Opened() < 5 {
				t.Errorf("%d connections only: the network was not cut", proxy.Opened())
			}
		})
	}
}

// TestOutputSurvivesCuts: both outputs and the exit code of a process that nobody talks to.
func TestOutputSurvivesCuts(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{})
	proxy, c := n.behind()
	var out, errOut bytes.Buffer
	lines := 0
	cut := tell(func(p []byte) {
		if lines += bytes.Count(p, []byte("\n")); lines%7 == 0 {
			proxy.Cut()
		}
	})
	err := c.Exec(bounded(t), id, ExecOptions{
		Cmd:     []string{"sh", "-c", `for i in $(seq 50); do echo "out $i"; echo "err $i" >&2; sleep 0.02; done; exit 3`},
		Streams: Streams{Stdout: io.MultiWriter(&out, cut), Stderr: &errOut},
	})
	var wantOut, wantErr strings.Builder
	for i := range 50 {
		fmt.Fprintf(&wantOut, "out %d\n", i+1)
		fmt.Fprintf(&wantErr, "err %d\n", i+1)
	}
	var exit *runtime.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != wantOut.String() || errOut.String() != wantErr.String() || proxy.Opened() < 4 {
		t.Errorf("%d connections, %v\n%s%s", proxy.Opened(), err, out.String(), errOut.String())
	}
}

// TestSilentNetwork: nothing is closed, and nothing gets through. Both ends find out.
func TestSilentNetwork(t *testing.T) {
	n := newNode(t, func(c *service.Config) { c.KeepAlive = 100 * time.Millisecond })
	id := n.run(runtime.ContainerSpec{})
	proxy, c := n.behind()
	in, stdin := io.Pipe()
	up := make(chan struct{})
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- c.Exec(bounded(t), id, ExecOptions{Cmd: []string{"cat"}, Streams: Streams{Stdin: in, Stdout: io.MultiWriter(&out, tell(func([]byte) {
			select {
			case <-up:
			default:
				close(up)
			}
		}))}})
	}()
	fmt.Fprintln(stdin, "before")
	<-up
	proxy.BlackHole(true)
	opened := proxy.Opened()
	fmt.Fprintln(stdin, "meanwhile")
	eventually(t, "another connection is tried", func() bool { return proxy.Opened() > opened })
	proxy.BlackHole(false)
	proxy.Cut() // what the network has swallowed for long is not delivered late
	fmt.Fprintln(stdin, "after")
	stdin.Close()
	if err := <-done; err != nil || out.String() != "before\nmeanwhile\nafter\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestGrace: a viewer that does not come back has its process ended, after the grace and not before; one that says
// goodbye, or whose patience ends, at once.
func TestGrace(t *testing.T) {
	n := newNode(t, func(c *service.Config) { c.Keep.Grace = 1500 * time.Millisecond })
	id := n.run(runtime.ContainerSpec{})
	proxy, _ := n.behind()
	c := clientOf(t, Config{Base: "http://" + proxy.Addr(), Patience: -1})
	var cut time.Time
	err := c.Exec(bounded(t), id, ExecOptions{Cmd: []string{"sh", "-c", "echo up; sleep 7071"}, Streams: Streams{Stdout: tell(func([]byte) {
		cut = time.Now()
		proxy.Cut()
	})}})
	if err == nil || !strings.Contains(err.Error(), "broke") {
		t.Errorf("without patience: %v", err)
	}
	eventually(t, "the process is gone", func() bool { return n.processes(id, "7071") == 0 })
	if took := time.Since(cut); took < 1500*time.Millisecond {
		t.Errorf("the process was ended %s after the cut", took)
	}
}

// TestCancelWhileCut: the caller does not wait for the network.
func TestCancelWhileCut(t *testing.T) {
	n := newNode(t, func(c *service.Config) { c.Keep.Grace = time.Minute })
	id := n.run(runtime.ContainerSpec{})
	proxy, c := n.behind()
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	err := c.Exec(ctx, id, ExecOptions{Cmd: []string{"sh", "-c", "echo up; sleep 7081"}, Streams: Streams{Stdout: tell(func([]byte) {
		proxy.BlackHole(true)
		proxy.Cut()
		time.AfterFunc(100*time.Millisecond, func() { cancel(reason) })
	})}})
	if !errors.Is(err, reason) {
		t.Errorf("the call returned %v", err)
	}
	// The agent's end does not wait for the viewer either.
	began := time.Now()
	n.service.Close()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("Close took %s", took)
	}
	if left := n.processes(id, "7081"); left != 0 {
		t.Errorf("%d processes are left", left)
	}
}

// TestGapIsMarked: a container does not wait for a viewer that is cut off. What was dropped meanwhile is counted.
func TestGapIsMarked(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{Cmd: []string{"sh", "-c", "read x; echo first; read x; head -c 4000000 /dev/zero; echo; echo last; read x"}, OpenStdin: true})
	proxy, c := n.behind()
	in, stdin := io.Pipe()
	defer stdin.Close()
	var tail bytes.Buffer
	var delivered, gap int64
	ended := errors.New("seen it all")
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	direct := n.client()
	var helper sync.WaitGroup
	defer helper.Wait()
	go func() { fmt.Fprintln(stdin) }()
	err := c.Attach(ctx, id, AttachOptions{Streams: Streams{Stdin: in, Gap: func(n int64) { gap += n }, Stdout: tell(func(p []byte) {
		delivered += int64(len(p))
		tail.Write(p)
		switch {
		case bytes.HasSuffix(p, []byte("first\n")):
			proxy.BlackHole(true)
			proxy.Cut()
			helper.Go(func() {
				// The container writes on while its viewer is away, as another one sees.
				var all int64
				over := errors.New("all written")
				ctx, stop := context.WithCancelCause(ctx)
				defer stop(nil)
				again, w := io.Pipe()
				defer w.Close()
				go func() { fmt.Fprintln(w) }()
				err := direct.Attach(ctx, id, AttachOptions{Streams: Streams{Stdin: again, Stdout: tell(func(p []byte) {
					all += int64(len(p))
					if bytes.HasSuffix(p, []byte("last\n")) {
						stop(over)
					}
				})}})
				if !errors.Is(err, over) {
					t.Errorf("the other viewer: %d bytes, %v", all, err)
				}
				proxy.BlackHole(false)
				proxy.Cut()
			})
		case bytes.HasSuffix(p, []byte("last\n")):
			cancel(ended)
		}
	})}})
	total := int64(len("first\n") + 4000000 + 1 + len("last\n"))
	if !errors.Is(err, ended) || gap == 0 || delivered >= total || delivered+gap < total || delivered+gap > total+total/100 {
		t.Errorf("%d bytes delivered and a gap of %d, of %d; %v", delivered, gap, total, err)
	}
	if !strings.HasSuffix(tail.String(), "last\n") {
		t.Error("the newest output is missing")
	}
}

// TestOnlyItsViewerComesBack: a stream is continued by whoever has its key and is allowed what the stream does.
func TestOnlyItsViewerComesBack(t *testing.T) {
	var forbidden atomic.Bool
	n := newNode(t, func(c *service.Config) {
		c.Policy = func(context.Context, service.Action) error {
			if forbidden.Load() {
				return errors.New("not any more")
			}
			return nil
		}
	})
	id := n.run(runtime.ContainerSpec{})
	c := n.client()
	ws, err := c.upgrade(bounded(t), of("exec", id), map[string][]string{"command": {"cat"}, "stdin": {"1"}, "stdout": {"1"}}, nil, resume.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	_, hello, err := greet(bounded(t), ws)
	if err != nil || len(hello.Key) < 32 {
		t.Fatalf("%+v, %v", hello, err)
	}
	again := func(id string, header http.Header) error {
		ws, err := c.upgrade(bounded(t), resume.Path+id, nil, header, resume.Protocol)
		if err == nil {
			_, _, err = greet(bounded(t), ws)
			leave(ws)
		}
		return err
	}
	status := func(err error) int {
		var refused *Error
		if errors.As(err, &refused) {
			return refused.Status
		}
		return 0
	}
	zero := http.Header{resume.HeaderReceived: {"0"}, resume.HeaderKey: {hello.Key}}
	with := func(name, value string) http.Header {
		h := zero.Clone()
		h.Set(name, value)
		return h
	}
	other := "A" + hello.Key[1:]
	if other == hello.Key {
		other = "B" + hello.Key[1:]
	}
	for name, test := range map[string]struct {
		err  error
		want int
	}{
		"no key":        {again(hello.Session, with(resume.HeaderKey, "")), 404},
		"another key":   {again(hello.Session, with(resume.HeaderKey, other)), 404},
		"half a key":    {again(hello.Session, with(resume.HeaderKey, hello.Key[:20])), 404},
		"no stream":     {again("nosuch", zero), 404},
		"no count":      {again(hello.Session, with(resume.HeaderReceived, "")), 400},
		"a bad count":   {again(hello.Session, with(resume.HeaderReceived, "-5")), 400},
		"a wrong count": {again(hello.Session, with(resume.HeaderReceived, "123456")), 0},
	} {
		if test.err == nil || status(test.err) != test.want {
			t.Errorf("%s: %v", name, test.err)
		}
	}
	forbidden.Store(true)
	if err := again(hello.Session, zero); status(err) != http.StatusForbidden || !strings.Contains(err.Error(), "not any more") {
		t.Errorf("who is no longer allowed: %v", err)
	}
	forbidden.Store(false)
	if err := again(hello.Session, zero); err != nil {
		t.Errorf("the viewer itself: %v", err)
	}
	ws.Close()
	eventually(t, "the process is gone", func() bool { return n.processes(id, "cat") == 0 })
	if err := again(hello.Session, zero); status(err) != http.StatusNotFound {
		t.Errorf("after the goodbye: %v", err)
	}
}

// TestViewersThatCheat: more input than the window allows, and acknowledgements of what was never sent.
func TestViewersThatCheat(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{})
	c := n.client()
	for name, cheat := range map[string]func(conn *keptConn) error{
		"too much input": func(conn *keptConn) error {
			for range 2000 {
				if err := conn.Send(chanStdin, make([]byte, resume.MaxData)); err != nil {
					return err
				}
			}
			return nil
		},
		"too long a message": func(conn *keptConn) error { return conn.Send(chanStdin, make([]byte, resume.MaxData+1)) },
		"a false receipt":    func(conn *keptConn) error { return conn.Send(resume.ChanAck, resume.Ack(1<<40)) },
		"half a receipt":     func(conn *keptConn) error { return conn.Send(resume.ChanAck, []byte{1}) },
		"a negative receipt": func(conn *keptConn) error { return conn.Send(resume.ChanAck, bytes.Repeat([]byte{0xff}, 8)) },
	} {
		ws, err := c.upgrade(bounded(t), of("exec", id), map[string][]string{"command": {"sleep", "7091"}, "stdin": {"1"}}, nil, resume.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		conn, _, err := greet(bounded(t), ws)
		if err != nil {
			t.Fatal(err)
		}
		_ = cheat(conn)
		_ = ws.SetReadDeadline(time.Now().Add(patience))
		for err == nil {
			_, _, err = ws.ReadMessage()
		}
		if strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", name, err)
		}
		ws.Close()
	}
}

// TestTooManyAreNotKept: further streams are served, as Kubernetes' are.
func TestTooManyAreNotKept(t *testing.T) {
	n := newNode(t, func(c *service.Config) { c.Keep = remote.KeepOptions{Most: 1} })
	id := n.run(runtime.ContainerSpec{})
	c := n.client()
	ctx, cancel := context.WithCancel(bounded(t))
	up := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- c.Exec(ctx, id, ExecOptions{Cmd: []string{"sleep", "7101"}, Streams: Streams{Stdout: io.Discard, Started: func() { close(up) }}})
	}()
	<-up
	var out bytes.Buffer
	if err := c.Exec(bounded(t), id, ExecOptions{Cmd: []string{"cat"}, Streams: Streams{Stdin: strings.NewReader("x"), Stdout: &out}}); err != nil || out.String() != "x" {
		t.Errorf("%q, %v", out.String(), err)
	}
	cancel()
	<-done
}

// TestFollowSurvivesCuts follows a log through its rotation while the network is cut again and again.
func TestFollowSurvivesCuts(t *testing.T) {
	n := newNode(t, nil)
	const lines = 2000
	id := n.run(runtime.ContainerSpec{
		Cmd:        []string{"sh", "-c", fmt.Sprintf(`read x; i=0; while [ $i -lt %d ]; do echo "line $i"; [ $((i %% 100)) = 99 ] && sleep 0.05; i=$((i+1)); done`, lines)},
		LogOptions: map[string]string{"max-size": "20k", "max-file": "3"}, LogDriver: "json-file", OpenStdin: true,
	})
	proxy, c := n.behind()
	var out bytes.Buffer
	seen := 0
	cut := tell(func(p []byte) {
		if was := seen / 300; was != (seen+bytes.Count(p, []byte("\n")))/300 {
			proxy.Cut()
		}
		seen += bytes.Count(p, []byte("\n"))
	})
	done := make(chan error, 1)
	go func() {
		// From now on: the first cut comes before the first line.
		_, err := c.Logs(bounded(t), id, LogOptions{Follow: true, Tail: -1, Gap: func() { t.Error("a gap") }}, io.MultiWriter(&out, cut), nil)
		done <- err
	}()
	eventually(t, "a connection is made", func() bool { return proxy.Opened() > 0 })
	time.Sleep(200 * time.Millisecond)
	proxy.Cut()
	if err := n.client().Attach(bounded(t), id, AttachOptions{Streams: Streams{Stdin: strings.NewReader("go\n"), Stdout: io.Discard}}); err != nil {
		t.Error(err)
	}
	err := <-done
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if err != nil || out.String() != want.String() {
		t.Errorf("%d bytes over %d connections, want %d; %v", out.Len(), proxy.Opened(), want.Len(), err)
	}
	if proxy.Opened() < 5 {
		t.Errorf("%d connections only: the network was not cut", proxy.Opened())
	}
}
