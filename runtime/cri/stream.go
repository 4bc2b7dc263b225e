package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/droverhq/drover/runtime"
)

// protocol is the newest that both containerd 1.6 and CRI-O speak over SPDY, whose streams close one by one.
const protocol = "v4.channel.k8s.io"

const lingering = 5 * time.Second // for the last output after the status came

// A session is one use of the streaming server.
type session struct {
	tty       bool
	streams   runtime.Streams
	connected func() // called when the streams are there; may be nil
}

// ends are the streams of a connection.
type ends struct{ status, in, out, err, resize httpstream.Stream }

// open makes all the streams, before anything is sent on one: the server waits for all of them, and what is sent before
// would stand in front of the others.
func (s *session) open(conn httpstream.Connection) (ends, error) {
	var e ends
	for _, x := range []struct {
		kind   string
		to     *httpstream.Stream
		wanted bool
	}{
		{"error", &e.status, true},
		{"stdin", &e.in, s.streams.In != nil},
		{"stdout", &e.out, true},
		{"stderr", &e.err, !s.tty},
		{"resize", &e.resize, s.tty},
	} {
		if !x.wanted {
			continue
		}
		stream, err := conn.CreateStream(http.Header{"Streamtype": {x.kind}})
		if err != nil {
			return e, fmt.Errorf("opening the stream %s: %w", x.kind, err)
		}
		*x.to = stream
	}
	// Nothing is sent on it. The runtime may be done by now and have closed the connection: what it said is there to read.
	_ = e.status.Close()
	return e, nil
}

// run is one session from its beginning to its end. left tells that it was ended from here, by ctx or by a writer that
// failed, and that the process may go on.
func (s *session) run(ctx context.Context, target string) (left bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := dial(ctx, target)
	if err != nil {
		return ctx.Err() != nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	e, err := s.open(conn)
	if err != nil {
		return true, err
	}
	if s.connected != nil {
		s.connected()
	}
	var copies sync.WaitGroup
	s.receive(&copies, e.out, s.streams.Out, cancel)
	if e.err != nil {
		s.receive(&copies, e.err, s.streams.Err, cancel)
	}
	if e.in != nil {
		go func() { // it ends when its reader does or the connection closes; nobody can interrupt a Read
			_, _ = io.Copy(e.in, s.streams.In)
			_ = e.in.Close()
		}()
	}
	if e.resize != nil && s.streams.Resize != nil {
		var sizes sync.WaitGroup
		sizes.Go(func() { s.resize(ctx, e.resize) })
		defer func() { cancel(nil); sizes.Wait() }()
	}
	result := make(chan error, 1)
	go func() { result <- readStatus(e.status) }()
	select {
	case err = <-result:
	case <-ctx.Done():
		_ = conn.Close()
		<-result
		copies.Wait()
		return true, context.Cause(ctx)
	}
	s.drain(ctx, &copies, conn, cancel)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errEnded) {
		return true, cause
	}
	return false, err
}

// errEnded is the cause of the end of a session's ctx when the process has ended.
var errEnded = errors.New("the process has ended")

// drain waits for the last output: a child of the process may hold it open.
func (s *session) drain(ctx context.Context, copies *sync.WaitGroup, conn io.Closer, cancel context.CancelCauseFunc) {
	timer := time.AfterFunc(lingering, func() { cancel(errEnded) })
	defer timer.Stop()
	drained := make(chan struct{})
	go func() { copies.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-ctx.Done():
		_ = conn.Close()
		<-drained
	}
}

// receive copies output until its end. A writer that fails ends the session with its error; that of the connection
// is known elsewhere.
func (s *session) receive(copies *sync.WaitGroup, from io.Reader, to io.Writer, cancel context.CancelCauseFunc) {
	if to == nil {
		to = io.Discard
	}
	w := &writer{to: to}
	copies.Go(func() {
		if _, err := io.Copy(w, from); err != nil && w.err != nil {
			cancel(w.err)
		}
	})
}

// A writer remembers its own error, to tell it from one of what is copied.
type writer struct {
	to  io.Writer
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	w.err = err
	return n, err
}

func (s *session) resize(ctx context.Context, stream io.Writer) {
	enc := json.NewEncoder(stream)
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-s.streams.Resize:
			if !ok || enc.Encode(struct{ Width, Height uint16 }{size.Width, size.Height}) != nil {
				return
			}
		}
	}
}

// dial upgrades a request to SPDY.
func dial(ctx context.Context, target string) (httpstream.Connection, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("the runtime's streaming address: %w", err)
	}
	rt, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{
		Proxier: func(*http.Request) (*url.URL, error) { return nil, nil }, PingPeriod: 10 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Stream-Protocol-Version", protocol)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the runtime's streaming server does not answer", Cause: err}
	}
	defer resp.Body.Close()
	conn, err := rt.NewConnection(resp)
	if err != nil {
		return nil, err
	}
	if got := resp.Header.Get("X-Stream-Protocol-Version"); got != protocol {
		return nil, errors.Join(fmt.Errorf("the runtime's streaming server speaks %q, not %s", got, protocol), conn.Close())
	}
	return conn, nil
}

// readStatus reads the last word of the streaming server: a metav1.Status as JSON.
func readStatus(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return fmt.Errorf("reading the exit status: %w", err)
	}
	if len(b) == 0 {
		return errors.New("the runtime closed the streams without a status")
	}
	var st struct {
		Status  string `json:"status"`
		Message string `json:"message"`
		Reason  string `json:"reason"`
		Details struct {
			Causes []struct {
				Reason  string `json:"reason"`
				Message string `json:"message"`
			} `json:"causes"`
		} `json:"details"`
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return errors.New(string(b))
	}
	if st.Status == "Success" {
		return nil
	}
	for _, cause := range st.Details.Causes {
		if cause.Reason == "ExitCode" {
			if code, err := strconv.Atoi(cause.Message); err == nil {
				return &runtime.ExitError{Code: code}
			}
		}
	}
	switch { // the process never began: the codes of a shell, and of docker
	case strings.Contains(st.Message, "no such file or directory"), strings.Contains(st.Message, "executable file not found"):
		return &runtime.ExitError{Code: 127}
	case strings.Contains(st.Message, "permission denied"), strings.Contains(st.Message, "is a directory"):
		return &runtime.ExitError{Code: 126}
	}
	return errors.New(st.Message)
}
