package remote

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/droverhq/drover/events/tunnel"
)

// Each message begins with the number of its channel: a byte, or a digit where the rest is base64.
const (
	chanStdin  = remotecommand.StreamStdIn
	chanStdout = remotecommand.StreamStdOut
	chanStderr = remotecommand.StreamStdErr
	chanError  = remotecommand.StreamErr
	chanResize = remotecommand.StreamResize
	chanClose  = remotecommand.StreamClose // v5: the channel named in the next byte is at its end
)

// Base64 forms of the WebSocket protocols, for viewers that can send text alone.
const (
	base64V1 = "base64.channel.k8s.io"
	base64V4 = "v4.base64.channel.k8s.io"
)

// webSocketProtocols returns the subprotocols, the best first.
func webSocketProtocols() []string {
	return append(spdyProtocols(), base64V4, base64V1)
}

// wsLink is a session over a WebSocket.
type wsLink struct {
	ws     *websocket.Conn
	held   *tunnel.Cork
	base64 bool
	v5     bool
	ready  byte // the channel that empty messages go to

	stdin  *pipe
	resize *pipe
	gone   chan struct{}
	once   sync.Once    // closes gone
	by     atomic.Int64 // when writes must be done, ns since the epoch; 0 is never
	late   atomic.Pointer[time.Timer]

	mu    sync.Mutex // one writer at a time
	idle  bool       // nothing was written since the last tick
	ended bool       // a close frame was sent
}

func (s *Session) acceptWebSocket(w http.ResponseWriter, r *http.Request, opts Options) error {
	ws, err := upgrade(w, r, opts, webSocketProtocols())
	if err != nil {
		return err
	}
	protocol := ws.Subprotocol()
	l := &wsLink{
		ws: ws, held: tunnel.CorkOf(ws.NetConn()), gone: make(chan struct{}), ready: chanError,
		base64: protocol == base64V1 || protocol == base64V4,
		v5:     versionOf(protocol) >= 5,
	}
	s.protocol, s.link = protocol, l
	if opts.Stdin {
		l.stdin = newPipe(inputLimit)
		s.input = &input{r: l.stdin}
		s.Stdin = s.input
	}
	if opts.Stderr {
		s.Stderr = output{l, chanStderr}
		l.ready = chanStderr
	}
	if opts.Stdout {
		s.Stdout = output{l, chanStdout}
		l.ready = chanStdout
	}
	if opts.TTY {
		l.resize = newPipe(4 << 10)
		c := make(sizes, 1)
		s.Resize = c
		s.workers.Go(func() { c.decode(l.resize) })
	}
	// An empty message tells that the session stands.
	if err := l.write(l.ready, nil); err != nil {
		_ = ws.Close()
		l.lost()
		s.workers.Wait()
		return err
	}
	s.workers.Go(l.read)
	s.workers.Go(func() { l.keepAlive(opts.KeepAlive) })
	return nil
}

// upgrade makes the WebSocket. On an error the viewer has been told.
func upgrade(w http.ResponseWriter, r *http.Request, opts Options, protocols []string) (*websocket.Conn, error) {
	offered := websocket.Subprotocols(r)
	if len(offered) > 0 && !slices.ContainsFunc(offered, func(p string) bool { return slices.Contains(protocols, p) }) {
		err := fmt.Errorf("none of the protocols %q is spoken here; these are: %q", offered, protocols)
		opts.Fail(w, http.StatusForbidden, err)
		return nil, err
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: opts.Creation,
		ReadBufferSize:   4 << 10,
		WriteBufferSize:  chunk + 64,
		Subprotocols:     protocols,
		CheckOrigin:      opts.CheckOrigin,
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			opts.Fail(w, status, reason)
		},
	}
	ws, err := upgrader.Upgrade(w, r, opts.Header)
	if err != nil {
		return nil, fmt.Errorf("upgrade to WebSocket: %w", err)
	}
	_ = ws.NetConn().SetDeadline(time.Time{})
	return ws, nil
}

// lost notes that the viewer is gone; its input has ended.
func (l *wsLink) lost() {
	l.once.Do(func() {
		close(l.gone)
		for _, p := range []*pipe{l.stdin, l.resize} {
			if p != nil {
				p.close()
			}
		}
	})
}

// read takes the viewer's messages apart until the connection ends.
func (l *wsLink) read() {
	defer l.lost()
	for {
		_, r, err := l.ws.NextReader()
		if err != nil {
			return
		}
		var number [1]byte
		if _, err := io.ReadFull(r, number[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				continue // an empty message
			}
			return
		}
		channel := number[0]
		if l.base64 {
			channel -= '0'
			r = base64.NewDecoder(base64.StdEncoding, r)
		}
		if err := l.dispatch(channel, r); err != nil {
			return
		}
	}
}

func (l *wsLink) dispatch(channel byte, r io.Reader) error {
	to := io.Discard
	switch {
	case channel == chanStdin && l.stdin != nil:
		to = l.stdin
	case channel == chanResize && l.resize != nil:
		to = l.resize
	case channel == chanClose && l.v5:
		var number [1]byte
		if _, err := io.ReadFull(r, number[:]); err != nil {
			return err
		}
		if number[0] == chanStdin && l.stdin != nil {
			l.stdin.close()
		}
	}
	_, err := io.Copy(struct{ io.Writer }{to}, r)
	if errors.Is(err, errPipeClosed) {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}

// keepAlive sends an empty message where nothing was sent for a while: there are proxies that do not count pings.
func (l *wsLink) keepAlive(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-l.gone:
			return
		case <-tick.C:
		}
		if !l.mu.TryLock() {
			continue // somebody is writing
		}
		if l.idle && l.writeLocked(l.ready, nil) != nil {
			l.lost()
		}
		l.idle = true
		l.mu.Unlock()
	}
}

// output is a channel that the viewer reads.
type output struct {
	link    *wsLink
	channel byte
}

func (o output) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := min(len(p)-n, chunk)
		if err := o.link.write(o.channel, p[n:n+m]); err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

func (l *wsLink) write(channel byte, p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writeLocked(channel, p)
}

func (l *wsLink) writeLocked(channel byte, p []byte) error {
	if l.ended {
		return ErrGone
	}
	l.idle = false
	if by := l.by.Load(); by != 0 {
		_ = l.ws.SetWriteDeadline(time.Unix(0, by))
	}
	kind := websocket.BinaryMessage
	if l.base64 {
		kind = websocket.TextMessage
		channel += '0'
	}
	w, err := l.ws.NextWriter(kind)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte{channel}); err != nil {
		return err
	}
	if l.base64 {
		enc := base64.NewEncoder(base64.StdEncoding, w)
		if _, err := enc.Write(p); err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
	} else if _, err := w.Write(p); err != nil {
		return err
	}
	return l.held.During(w.Close)
}

func (l *wsLink) status(p []byte) error { return l.write(chanError, p) }

// shut says goodbye; the viewer's goodbye, or its end, closes gone.
func (l *wsLink) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	_ = l.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(lastWords))
}

func (l *wsLink) closed() <-chan struct{} { return l.gone }

func (l *wsLink) deadline(d time.Duration) {
	by := time.Now().Add(d)
	l.by.Store(by.UnixNano())
	// Of the write under way; gorilla sets that of each that begins, perhaps at this moment to none: look again then.
	_ = l.ws.NetConn().SetWriteDeadline(by)
	t := time.AfterFunc(d, func() { _ = l.ws.NetConn().SetWriteDeadline(time.Now()) })
	if old := l.late.Swap(t); old != nil {
		old.Stop()
	}
}

func (l *wsLink) close() {
	_ = l.ws.Close()
	// A timer that is left keeps the session's buffers for as long as it runs.
	if t := l.late.Swap(nil); t != nil {
		t.Stop()
	}
}
