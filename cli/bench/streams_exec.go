package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/droverhq/drover/service/streamclient"
)

// rawExec is a process of dockerd, with nothing between.
type rawExec struct {
	id   string
	conn net.Conn
	in   *bufio.Reader
}

func (s *streamsSuite) rawStart(ctx context.Context, container string, stdin bool, cmd ...string) (*rawExec, error) {
	b, err := s.raw.do(ctx, http.MethodPost, "/containers/"+container+"/exec", map[string]any{
		"AttachStdin": stdin, "AttachStdout": true, "AttachStderr": true, "Cmd": cmd,
	})
	if err != nil {
		return nil, err
	}
	var made struct{ ID string }
	if err := json.Unmarshal(b, &made); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.Docker)
	if err != nil {
		return nil, err
	}
	const body = `{"Detach":false,"Tty":false}`
	_, err = fmt.Fprintf(conn, "POST /exec/%s/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", made.ID, len(body), body)
	in := bufio.NewReaderSize(conn, 64<<10)
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(in, nil); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			err = errors.New(resp.Status)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &rawExec{made.ID, conn, in}, nil
}

// frame reads one piece of output.
func (e *rawExec) frame(out io.Writer) error {
	var head [8]byte
	if _, err := io.ReadFull(e.in, head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(out, e.in, int64(binary.BigEndian.Uint32(head[4:])))
	return err
}

// rawRun runs a process to its exit code.
func (s *streamsSuite) rawRun(ctx context.Context, container string, out io.Writer, cmd ...string) error {
	e, err := s.rawStart(ctx, container, false, cmd...)
	if err != nil {
		return err
	}
	defer e.conn.Close()
	for {
		if err := e.frame(out); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	_, err = s.raw.do(ctx, http.MethodGet, "/exec/"+e.id+"/json", nil)
	return err
}

// kubelet returns client-go's client of the node port, "spdy" or "websocket".
func (s *streamsSuite) kubelet(kind, container string, in bool, cmd ...string) (remotecommand.Executor, error) {
	q := url.Values{"command": cmd, "output": {"1"}, "error": {"1"}}
	if in {
		q.Set("input", "1")
	}
	path := "/v1/exec/" + container
	if pod, ok := s.pods[container]; ok {
		path = "/exec/" + url.PathEscape(s.names) + "/" + url.PathEscape(pod) + "/app" // as a kubelet's
	}
	u, err := url.Parse(s.port + path + "?" + q.Encode())
	if err != nil {
		return nil, err
	}
	cfg := &rest.Config{Host: s.port, BearerToken: s.bearer, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	if kind == "spdy" {
		return remotecommand.NewSPDYExecutor(cfg, http.MethodPost, u)
	}
	return remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, u.String())
}

// ways are the sides of running a command whose output goes to what out makes, which checks it when it is closed.
func (s *streamsSuite) ways(container string, out func() io.WriteCloser, cmd ...string) []side {
	through := func(c *streamclient.Client) func(context.Context) error {
		return func(ctx context.Context) error {
			w := out()
			err := c.Exec(ctx, container, streamclient.ExecOptions{Cmd: cmd, Streams: streamclient.Streams{Stdout: w, Stderr: io.Discard}})
			return errors.Join(err, w.Close())
		}
	}
	kubelet := func(kind string) func(context.Context) error {
		return func(ctx context.Context) error {
			e, err := s.kubelet(kind, container, false, cmd...)
			if err != nil {
				return err
			}
			w := out()
			err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: w, Stderr: io.Discard})
			return errors.Join(err, w.Close())
		}
	}
	sides := []side{
		{"raw", func(ctx context.Context) error {
			w := out()
			return errors.Join(s.rawRun(ctx, container, w, cmd...), w.Close())
		}},
		{"port, SPDY", kubelet("spdy")},
		{"port, WebSocket", kubelet("websocket")},
	}
	if s.through != nil {
		sides = append(sides, side{"tunnel", through(s.through)})
	}
	return sides
}

type sink struct {
	n    int64
	want int64 // -1 is anything
}

func (s *sink) Write(p []byte) (int, error) { s.n += int64(len(p)); return len(p), nil }

func (s *sink) Close() error {
	if s.want >= 0 && s.n != s.want {
		return fmt.Errorf("%d bytes came, of %d", s.n, s.want)
	}
	return nil
}

func sinks(want int64) func() io.WriteCloser {
	return func() io.WriteCloser { return &sink{want: want} }
}

func (s *streamsSuite) execTrue(ctx context.Context, r *Report) error {
	id, err := s.container(ctx, "exec", "/bin/sleep", "86400")
	if err != nil {
		return err
	}
	got, err := s.rounds(ctx, s.n(20), 1, s.ways(id, sinks(0), "true"))
	if err != nil {
		return err
	}
	for name, limit := range map[string]float64{"tunnel": 1.05, "port, SPDY": 1.08, "port, WebSocket": 1.08} {
		if got[name] == nil {
			continue // no tunnel
		}
		s.atMostRaw(r, "exec true, "+name, got, name, limit, p50ms)
	}
	return nil
}

// atMostRaw compares a side with the raw one.
func (s *streamsSuite) atMostRaw(r *Report, title string, got map[string][]Series, name string, limit float64, f func(Series) float64) {
	r.atMost(title, ratio(got[name], got["raw"], f), "times raw p50", limit, max(noise(got[name], f), noise(got["raw"], f)),
		fmt.Sprintf("%.3f ms, raw %.3f ms", median(each(got[name], f)), median(each(got["raw"], f))))
}

func (s *streamsSuite) execEight(ctx context.Context, r *Report) error {
	ids := make(chan string, 8)
	for i := range cap(ids) {
		id, err := s.container(ctx, "eight-"+strconv.Itoa(i), "/bin/sleep", "86400")
		if err != nil {
			return err
		}
		ids <- id
	}
	each8 := func(run func(context.Context, string) error) func(context.Context) error {
		return func(ctx context.Context) error {
			id := <-ids
			defer func() { ids <- id }()
			return run(ctx, id)
		}
	}
	got, err := s.rounds(ctx, s.n(64), 8, []side{
		{"raw", each8(func(ctx context.Context, id string) error { return s.rawRun(ctx, id, io.Discard, "true") })},
		{"tunnel", each8(func(ctx context.Context, id string) error {
			return s.through.Exec(ctx, id, streamclient.ExecOptions{Cmd: []string{"true"}, Streams: streamclient.Streams{Stdout: io.Discard, Stderr: io.Discard}})
		})},
	})
	if err != nil {
		return err
	}
	s.atLeastRaw(r, "8 execs in 8 containers", got, "tunnel", 0.95, Series.Rate, "/s")
	return nil
}

func (s *streamsSuite) atLeastRaw(r *Report, title string, got map[string][]Series, name string, limit float64, f func(Series) float64, unit string) {
	r.atLeast(title, ratio(got[name], got["raw"], f), "of raw rate", limit, max(noise(got[name], f), noise(got["raw"], f)),
		fmt.Sprintf("%.1f %s, raw %.1f %s", median(each(got[name], f)), unit, median(each(got["raw"], f)), unit))
}

func (s *streamsSuite) bulk(ctx context.Context, r *Report) error {
	const size = 100_000_000
	id, err := s.container(ctx, "bulk", "sh", "-c", "head -c "+strconv.Itoa(size)+" /dev/zero >/big; exec sleep 86400")
	if err != nil {
		return err
	}
	// The file is there when one cat of it is whole.
	for {
		w := &sink{want: size}
		if err := s.rawRun(ctx, id, w, "cat", "/big"); err != nil {
			return err
		}
		if w.Close() == nil {
			break
		}
	}
	got, err := s.rounds(ctx, 1, 1, s.ways(id, sinks(size), "cat", "/big"))
	if err != nil {
		return err
	}
	for _, name := range []string{"tunnel", "port, SPDY", "port, WebSocket"} {
		if got[name] == nil {
			continue // no tunnel
		}
		s.atLeastRaw(r, "cat of 100 MB, "+name, got, name, 0.9, rate(size), "MB/s")
	}
	return nil
}

// echo sends a line through an open cat, again as soon as it is back: from where standard input gives it to where
// standard output takes it.
func (s *streamsSuite) echo(ctx context.Context, r *Report) error {
	id, err := s.container(ctx, "echo", "/bin/sleep", "86400")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var open errgroup.Group
	viewers := map[string]*echoer{}
	defer func() {
		for _, v := range viewers {
			close(v.next) // every cat ends, and its viewer with it
		}
		impatient := time.AfterFunc(10*time.Second, cancel)
		_ = open.Wait()
		impatient.Stop()
		cancel()
	}()
	raw, err := s.rawStart(ctx, id, true, "cat")
	if err != nil {
		return err
	}
	defer raw.conn.Close()
	viewer := func(name string, run func(e *echoer) error) {
		e := &echoer{next: make(chan struct{}, 1), done: make(chan struct{}, 1), ended: make(chan error, 1)}
		viewers[name] = e
		open.Go(func() error {
			e.ended <- run(e)
			return nil
		})
	}
	for name, c := range map[string]*streamclient.Client{"tunnel": s.through, "port": s.direct} {
		if c == nil {
			continue // no tunnel, and client-go alone at the port
		}
		viewer(name, func(e *echoer) error {
			return c.Exec(ctx, id, streamclient.ExecOptions{Cmd: []string{"cat"}, Streams: streamclient.Streams{Stdin: e, Stdout: e}})
		})
	}
	for _, kind := range []string{"spdy", "websocket"} {
		exec, err := s.kubelet(kind, id, true, "cat")
		if err != nil {
			return err
		}
		viewer("port, client-go "+kind, func(e *echoer) error {
			return exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: e, Stdout: e, Stderr: &bytes.Buffer{}})
		})
	}
	got := map[string][]Series{}
	n := s.n(500)
	for round := range s.Rounds + 1 {
		series, err := inFlight(ctx, n, 1, timed(func(context.Context) error {
			if _, err := io.WriteString(raw.conn, echoLine); err != nil {
				return err
			}
			return raw.frame(io.Discard)
		}))
		if err != nil {
			return fmt.Errorf("raw: %w", err)
		}
		all := map[string]Series{"raw": series}
		for name, v := range viewers {
			if all[name], err = v.round(ctx, n); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		for name, series := range all {
			if round > 0 {
				got[name] = append(got[name], series)
			}
		}
	}
	if s.pods != nil {
		for name, title := range map[string]string{"port, client-go spdy": "SPDY", "port, client-go websocket": "WebSocket"} {
			s.atMostRaw(r, "line echo, port, "+title, got, name, 1.6, p50ms)
		}
		return nil
	}
	s.atMostRaw(r, "line echo, port", got, "port", 1.6, p50ms)
	for _, name := range []string{"tunnel", "port, client-go spdy", "port, client-go websocket"} {
		r.note("line echo, "+name, ratio(got[name], got["raw"], p50ms), "times raw p50", fmt.Sprintf("%.3f ms", median(each(got[name], p50ms))))
	}
	return nil
}

const echoLine = "a line of some length\n"

// An echoer is standard input and output of a viewer.
type echoer struct {
	next  chan struct{} // capacity 1: the next line may be read
	done  chan struct{} // capacity 1: the round is over
	ended chan error    // capacity 1: the viewer

	// Reading and writing take turns.
	left int
	back int // bytes of the line under way
	sent time.Time
	took []time.Duration
}

// round sends n lines.
func (e *echoer) round(ctx context.Context, n int) (Series, error) {
	e.left, e.took = n, make([]time.Duration, 0, n)
	began := time.Now()
	e.next <- struct{}{}
	select {
	case <-e.done:
		return Series{Latencies: e.took, Elapsed: time.Since(began)}, nil
	case err := <-e.ended:
		return Series{}, errors.Join(errors.New("the viewer has ended"), err)
	case <-ctx.Done():
		return Series{}, ctx.Err()
	}
}

func (e *echoer) Read(p []byte) (int, error) {
	if _, ok := <-e.next; !ok {
		return 0, io.EOF
	}
	e.sent = time.Now()
	return copy(p, echoLine), nil
}

func (e *echoer) Write(p []byte) (int, error) {
	if e.back += len(p); e.back < len(echoLine) {
		return len(p), nil
	}
	e.back = 0
	e.took = append(e.took, time.Since(e.sent))
	if e.left--; e.left == 0 {
		e.done <- struct{}{}
	} else {
		e.next <- struct{}{}
	}
	return len(p), nil
}

// heard tells how much was written to it.
type heard chan int

func (h heard) Write(p []byte) (int, error) { h <- len(p); return len(p), nil }
