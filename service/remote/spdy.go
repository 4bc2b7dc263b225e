package remote

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

func itoa(n int) string { return strconv.Itoa(n) }

// spdyProtocols returns the versions that are spoken over SPDY, the best first. Over SPDY v5 is v4: streams could always
// be closed there.
func spdyProtocols() []string {
	return append([]string{remotecommand.StreamProtocolV5Name}, remotecommand.SupportedStreamingProtocols...)
}

// spdyLink is a session over SPDY.
type spdyLink struct {
	conn    httpstream.Connection
	raw     *frameConn
	errors  httpstream.Stream
	outputs []httpstream.Stream
	stdin   *pipe // nil where none was asked for
	gone    chan struct{}
	once    sync.Once // closes gone
}

// lost notes that the viewer is gone; its input has ended.
func (l *spdyLink) lost() {
	l.once.Do(func() {
		close(l.gone)
		if l.stdin != nil {
			l.stdin.close()
		}
	})
}

type newStream struct {
	httpstream.Stream
	replied <-chan struct{}
}

func (s *Session) acceptSPDY(w http.ResponseWriter, r *http.Request, opts Options) error {
	// Handshake writes plain text, so that what it would refuse is refused here.
	if len(r.Header.Values(httpstream.HeaderProtocolVersion)) == 0 {
		err := errors.New("header " + httpstream.HeaderProtocolVersion + " required")
		opts.Fail(w, http.StatusBadRequest, err)
		return err
	}
	protocol, err := httpstream.Handshake(r, w, spdyProtocols())
	if err != nil {
		return err
	}
	for k, v := range opts.Header {
		w.Header()[k] = v
	}
	l := &spdyLink{gone: make(chan struct{})}
	if opts.Stdin {
		l.stdin = newPipe(inputLimit)
	}
	arrived, enough := make(chan newStream), make(chan struct{})
	hijack := &hijacker{ResponseWriter: w, wrap: func(c net.Conn, buffered *bufio.Reader) net.Conn {
		l.raw = newFrameConn(c, buffered, l.lost)
		return l.raw
	}}
	// The library's own pings wait for their answer, which is behind the input that nobody reads, so they stop at the first.
	l.conn = spdy.NewResponseUpgrader().UpgradeResponse(hijack, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
		if l.stdin != nil && stream.Headers().Get(remotecommand.StreamType) == remotecommand.StreamTypeStdin {
			l.raw.divert(stream.Identifier(), l.stdin)
		}
		select {
		case arrived <- newStream{stream, replied}:
			return nil
		case <-enough:
			return errors.New("unexpected stream")
		}
	})
	if l.conn == nil {
		return errors.New("upgrade to SPDY failed")
	}
	s.workers.Go(func() {
		<-l.conn.CloseChan()
		l.lost()
	})
	s.workers.Go(func() { l.keepAlive(opts.KeepAlive) })
	err = s.collect(l, arrived, protocol, opts)
	close(enough)
	if err != nil {
		l.close()
		s.workers.Wait()
		return err
	}
	s.protocol, s.link = protocol, l
	return nil
}

// collect waits for the streams that the viewer announced.
func (s *Session) collect(l *spdyLink, arrived <-chan newStream, protocol string, opts Options) error {
	want := map[string]bool{remotecommand.StreamTypeError: true}
	for kind, asked := range map[string]bool{
		remotecommand.StreamTypeStdin: opts.Stdin, remotecommand.StreamTypeStdout: opts.Stdout,
		remotecommand.StreamTypeStderr: opts.Stderr, remotecommand.StreamTypeResize: opts.TTY && versionOf(protocol) >= 3,
	} {
		if asked {
			want[kind] = true
		}
	}
	got := map[string]httpstream.Stream{}
	timeout := time.NewTimer(opts.Creation)
	defer timeout.Stop()
	for len(want) > 0 {
		select {
		case stream := <-arrived:
			kind := stream.Headers().Get(remotecommand.StreamType)
			if !want[kind] {
				return fmt.Errorf("stream of type %q was not asked for", kind)
			}
			select {
			case <-stream.replied:
			case <-l.gone:
				return ErrGone
			}
			delete(want, kind)
			got[kind] = stream.Stream
		case <-l.gone:
			return ErrGone
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-timeout.C:
			return errors.New("the viewer did not open its streams in time")
		}
	}
	l.errors = got[remotecommand.StreamTypeError]
	if got[remotecommand.StreamTypeStdin] != nil {
		s.input = &input{r: l.stdin}
		s.Stdin = s.input
	}
	if out := got[remotecommand.StreamTypeStdout]; out != nil {
		s.Stdout = out
		l.outputs = append(l.outputs, out)
	}
	if out := got[remotecommand.StreamTypeStderr]; out != nil {
		s.Stderr = out
		l.outputs = append(l.outputs, out)
	}
	if r := got[remotecommand.StreamTypeResize]; r != nil {
		c := make(sizes, 1)
		s.Resize = c
		s.workers.Go(func() { c.decode(r) })
	}
	return nil
}

func (l *spdyLink) status(p []byte) error {
	_, err := l.errors.Write(p)
	return err
}

// shut closes the error stream first: viewers of v1 take the end of the output for the end of everything.
func (l *spdyLink) shut() {
	_ = l.errors.Close()
	for _, out := range l.outputs {
		_ = out.Close()
	}
}

// keepAlive pings an idle viewer; that fails where it is gone.
func (l *spdyLink) keepAlive(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-l.gone:
			return
		case <-tick.C:
			l.raw.ping()
		}
	}
}

func (l *spdyLink) closed() <-chan struct{} { return l.gone }

func (l *spdyLink) deadline(d time.Duration) { _ = l.raw.SetWriteDeadline(time.Now().Add(d)) }

func (l *spdyLink) close() {
	l.deadline(lastWords)
	l.lost() // whoever waits for room in the input waits no longer
	_ = l.conn.Close()
	// Close leaves the connection open until its streams are gone, whenever that is.
	_ = l.raw.Close()
}

// A hijacker wraps the connection that a handler takes over.
type hijacker struct {
	http.ResponseWriter
	wrap func(net.Conn, *bufio.Reader) net.Conn
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	wrapped := h.wrap(conn, rw.Reader)
	return wrapped, bufio.NewReadWriter(bufio.NewReaderSize(wrapped, 4<<10), rw.Writer), nil
}
