package remote

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/droverhq/drover/events/tunnel"
	"github.com/droverhq/drover/service/resume"
)

const (
	protocolV5 = remotecommand.StreamProtocolV5Name
	// inputWindow is how much a viewer may send before it is acknowledged. What is acknowledged has nearly all been read
	// by the process, so that reading the connection never waits for that.
	inputWindow = 4 * resume.AckEvery
)

var errProtocol = errors.New("the viewer does not keep to the protocol")

// keptLink is a session over one WebSocket after another.
type keptLink struct {
	keeper  *Keeper
	opts    Options
	admit   func(*http.Request) error
	id, key string

	out    *resume.Sender
	stdin  *pipe // nil if not asked for
	resize *pipe
	due    chan struct{} // an acknowledgement is due
	gone   chan struct{}
	once   sync.Once // closes gone

	mu       sync.Mutex
	conn     *keptConn // whose records are taken
	received int64
	acked    int64
	grace    *time.Timer // runs while there is no connection
	late     *time.Timer // ends the writes
}

// A keptConn is one connection of a session. It implements resume.Conn, and collects several records into one write.
type keptConn struct {
	ws *websocket.Conn
	*tunnel.Cork
}

func (c *keptConn) Send(channel byte, parts ...[]byte) error {
	w, err := c.ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte{channel}); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return c.During(w.Close)
}

func (c *keptConn) Close() error { return c.ws.Close() }

// bye says how the connection ends.
func (c *keptConn) bye(code int, reason string) {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(lastWords))
}

// serve serves a connection until it ends.
func (l *keptLink) serve(ws *websocket.Conn, received int64, first bool) {
	c := &keptConn{ws, tunnel.CorkOf(ws.NetConn())}
	defer c.Close()
	l.mu.Lock()
	l.conn = c // from now on the one before adds nothing to what was received
	if l.grace != nil {
		l.grace.Stop()
	}
	l.mu.Unlock()
	quiet := l.opts.KeepAlive * 5 / 2
	err := l.out.Attach(c, received, received, func(from int64) (byte, []byte) {
		h := resume.Hello{
			Session: l.id, From: from, Window: inputWindow,
			Grace: l.keeper.opts.Grace.Milliseconds(), Quiet: quiet.Milliseconds(),
		}
		if first {
			h.Key = l.key
		}
		l.mu.Lock()
		h.Received, h.Acked = l.received, l.acked
		l.mu.Unlock()
		b, _ := json.Marshal(h) // strings and numbers only
		return resume.ChanHello, b
	})
	if err != nil {
		c.bye(resume.CloseEnded, ErrNotKept.Error())
		return
	}
	stop := make(chan struct{})
	var acker sync.WaitGroup
	acker.Go(func() { l.acknowledge(stop) })
	err = l.read(c, quiet)
	close(stop)
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
		l.lost()
	}
	l.left(c)
	acker.Wait()
}

// left notes the end of a connection. A viewer that has no other has the grace to come back.
func (l *keptLink) left(c *keptConn) {
	l.out.Detach(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != c {
		return
	}
	l.conn = nil
	select {
	case <-l.gone:
		return
	default:
	}
	if l.grace == nil {
		l.grace = time.AfterFunc(l.keeper.opts.Grace, l.lost)
	} else {
		l.grace.Reset(l.keeper.opts.Grace)
	}
}

func (l *keptLink) lost() {
	l.once.Do(func() {
		close(l.gone)
		for _, p := range []*pipe{l.stdin, l.resize} {
			if p != nil {
				p.close()
			}
		}
	})
}

// acknowledge sends what is due, and something where nothing was due for a while. It has a goroutine of its own: reading
// a connection must never wait for writing to it, which may wait for its peer's reading.
func (l *keptLink) acknowledge(stop <-chan struct{}) {
	tick := time.NewTicker(l.opts.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			l.out.Trim()
		case <-l.due:
		}
		l.mu.Lock()
		p := resume.Ack(l.acked)
		l.mu.Unlock()
		l.out.Send(resume.ChanAck, p)
	}
}

// settle finds out whether an acknowledgement is due. What was received and not acknowledged, and what was acknowledged
// and not read, is bounded, and so the pipe always has room.
func (l *keptLink) settle() {
	l.mu.Lock()
	due := l.received-l.acked >= resume.AckEvery && (l.stdin == nil || l.stdin.unread() <= resume.AckEvery)
	if due {
		l.acked = l.received
	}
	l.mu.Unlock()
	if !due {
		return
	}
	select {
	case l.due <- struct{}{}:
	default:
	}
}

// read takes the viewer's messages until the connection ends, which is what it returns.
func (l *keptLink) read(c *keptConn, quiet time.Duration) error {
	c.ws.SetReadLimit(resume.MaxData + 1)
	buf := make([]byte, 0, 512)
	for {
		_ = c.ws.SetReadDeadline(time.Now().Add(quiet))
		_, r, err := c.ws.NextReader()
		if err != nil {
			return err
		}
		if buf, err = readAll(buf[:0], r); err != nil {
			return err
		}
		if len(buf) == 0 {
			continue
		}
		if err := l.take(c, buf[0], buf[1:]); err != nil {
			c.bye(websocket.ClosePolicyViolation, err.Error())
			return err
		}
	}
}

// readAll is io.ReadAll into buf, which it may replace.
func readAll(buf []byte, r io.Reader) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF { //nolint:errorlint // it is bare
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// take takes one message, whole.
func (l *keptLink) take(c *keptConn, channel byte, p []byte) error {
	if channel == resume.ChanAck {
		position, err := resume.ParseAck(p)
		if err != nil {
			return err
		}
		return l.out.Acked(position)
	}
	if err := l.record(c, channel, p); err != nil {
		return err
	}
	l.settle()
	return nil
}

func (l *keptLink) record(c *keptConn, channel byte, p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != c {
		return errors.New("another connection has taken over")
	}
	size := resume.Size(len(p))
	if l.received+size-l.acked > inputWindow {
		return errProtocol
	}
	switch {
	case channel == chanStdin && l.stdin != nil:
		_, _ = l.stdin.Write(p) // has room; one that is closed takes nothing more
	case channel == chanResize && l.resize != nil:
		_, _ = l.resize.Write(p)
	case channel == chanClose && len(p) == 1 && p[0] == chanStdin && l.stdin != nil:
		l.stdin.close()
	}
	l.received += size
	return nil
}

// consumed is the process's end of standard input.
type consumed struct{ link *keptLink }

func (c consumed) Read(p []byte) (int, error) {
	n, err := c.link.stdin.Read(p)
	c.link.settle()
	return n, err
}

type keptOutput struct {
	link    *keptLink
	channel byte
}

func (o keptOutput) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := o.link.out.Write(o.channel, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (l *keptLink) status(p []byte) error { return l.out.Write(chanError, p) }

// shut leaves it to the viewer to close: until it does, it may not have received everything.
func (l *keptLink) shut() {}

func (l *keptLink) closed() <-chan struct{} { return l.gone }

func (l *keptLink) deadline(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late != nil {
		l.late.Stop()
	}
	l.late = time.AfterFunc(d, func() { l.out.End(ErrGone) })
}

func (l *keptLink) close() {
	l.keeper.forget(l.id)
	l.lost()
	l.mu.Lock()
	c := l.conn
	for _, t := range []*time.Timer{l.grace, l.late} {
		if t != nil {
			t.Stop()
		}
	}
	l.mu.Unlock()
	if c != nil {
		c.bye(websocket.CloseNormalClosure, "")
	}
	l.out.End(nil)
}
