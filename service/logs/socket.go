package logs

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const (
	pingEvery  = 20 * time.Second // below the idle limits of the proxies in between
	pongWait   = 60 * time.Second
	writeWait  = 30 * time.Second
	maxMessage = 64 << 10
	maxPending = 16 // commands that wait for their turn on one connection
	maxFrame   = 64 << 10
)

// A control is a message of the client in the subprotocol: a command line or a structured request to run, or stop.
type control struct {
	Run  json.RawMessage `json:"run,omitempty"`
	Stop bool            `json:"stop,omitempty"`
}

// A notice is a text message of the server in the subprotocol. Output comes in binary frames between them.
type notice struct {
	Start string  `json:"start,omitempty"` // the command that begins
	Error string  `json:"error,omitempty"` // one line of diagnostics
	End   *ending `json:"end,omitempty"`
}

// An ending is the last message of a command.
type ending struct {
	Exit    int    `json:"exit"`
	Lines   int64  `json:"lines"`
	Bytes   int64  `json:"bytes"`
	Read    int64  `json:"read"`
	Stopped bool   `json:"stopped,omitempty"` // by the client
	Error   string `json:"error,omitempty"`   // why it was refused or cut short
}

// socket serves one WebSocket: commands run one after another; a new one takes the place of a follow.
func (d *Door) socket(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		fail(w, http.StatusUpgradeRequired, "this is a WebSocket: send a command such as \"tail -n 100 FILE\" as a text message")
		return
	}
	conn, err := d.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	c := &connection{door: d, conn: conn, framed: conn.Subprotocol() == Subprotocol, who: caller(r), remote: address(r)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close()
		return
	}
	// Not in the request's goroutine: that holds 8 KiB of buffers and a large stack for as long as it lives.
	until, _ := r.Context().Value(untilKey{}).(context.Context)
	d.sockets.Go(func() {
		err := guard(func() error { c.serve(d.ctx, until); return nil })
		var bug *panicError
		if errors.As(err, &bug) {
			d.cfg.Log.Errorf("log service: panic: %v\n%s", bug.value, bug.stack)
			_ = conn.Close()
		}
	})
}

// A connection is one WebSocket. Its reader is serve, its writer is the running command; control frames of the reader and
// the keep-alive go in between its writes. Every write is whole frames under mu.
type connection struct {
	door   *Door
	conn   *websocket.Conn
	framed bool
	who    Caller
	remote string

	mu sync.Mutex // one writer at a time

	waiting struct {
		sync.Mutex
		frames []byte // control frames for who holds mu
	}
}

// serve blocks until the socket is closed and its command has ended. until, which may be nil, ends it too.
func (c *connection) serve(ctx, until context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	if until != nil {
		defer context.AfterFunc(until, cancel)()
	}
	var wg sync.WaitGroup
	commands := make(chan []byte, maxPending)
	var current stopper
	wg.Go(func() {
		defer cancel()
		for {
			select {
			case <-ctx.Done():
				return
			case message := <-commands:
				if err := c.command(ctx, message, &current); err != nil {
					return
				}
			}
		}
	})
	stopPings := c.keepAlive()
	defer stopPings()
	// The reader below ends with the connection only, so whoever ends first closes it.
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	c.read(commands, &current)
	cancel()
	wg.Wait()
	stop()
	_ = c.conn.Close() // closed already in most cases
}

// read takes messages until the socket ends.
func (c *connection) read(commands chan<- []byte, current *stopper) {
	c.conn.SetReadLimit(maxMessage)
	alive := func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) }
	c.conn.SetPongHandler(alive)
	c.conn.SetPingHandler(func(data string) error { return c.control(websocket.PongMessage, []byte(data)) })
	c.conn.SetCloseHandler(func(code int, _ string) error {
		return c.control(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""))
	})
	if alive("") != nil {
		return
	}
	for {
		kind, message, err := c.conn.ReadMessage()
		if err != nil || alive("") != nil {
			return
		}
		if kind != websocket.TextMessage {
			continue // as the old service does
		}
		if c.framed {
			var m control
			if err := json.Unmarshal(message, &m); err != nil || (m.Run == nil) == !m.Stop {
				if c.notify(notice{Error: `want {"run": "COMMAND"}, {"run": {...}} or {"stop": true}`}) != nil {
					return
				}
				continue
			}
			if m.Stop {
				current.stop()
				continue
			}
			message = m.Run
		} else {
			current.stopFollow()
		}
		select {
		case commands <- message:
		default:
			if c.tell("too many commands wait on this connection") != nil {
				return
			}
		}
	}
}

// keepAlive pings so that proxies on the way do not cut an idle follow, until stop. A timer does it: an idle
// connection has no goroutine for it.
func (c *connection) keepAlive() (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	stopped := false
	timer = time.AfterFunc(pingEvery, func() {
		err := c.control(websocket.PingMessage, nil)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			_ = c.conn.Close() // ends the reader
		} else if !stopped {
			timer.Reset(pingEvery)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// A stopper ends the command that runs now.
type stopper struct {
	mu      sync.Mutex
	cancel  context.CancelFunc
	follow  bool
	stopped bool
}

func (s *stopper) begin(cancel context.CancelFunc, follow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel, s.follow, s.stopped = cancel, follow, false
}

func (s *stopper) end() (stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel = nil
	return s.stopped
}

func (s *stopper) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.stopped = true
		s.cancel()
	}
}

func (s *stopper) stopFollow() {
	s.mu.Lock()
	follow := s.follow
	s.mu.Unlock()
	if follow {
		s.stop()
	}
}

// command runs one message. Its error is one of the socket.
func (c *connection) command(ctx context.Context, message []byte, current *stopper) error {
	text, p, err := c.door.parse(ctx, message, c.framed)
	if text == "" && err == nil {
		return nil // an empty line
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var result Result
	if c.framed {
		if werr := c.notify(notice{Start: text}); werr != nil {
			return werr
		}
	}
	stopped := false
	if err == nil {
		current.begin(cancel, follows(p))
		var sinkErr error
		sink := Sink{Out: frames{c}, Err: func(line string) { sinkErr = errors.Join(sinkErr, c.tell(line)) }}
		result, err = c.door.run(ctx, c.who, c.remote, text, p, sink)
		stopped = current.end()
	} else {
		result.ExitCode = 2
		c.door.audit(Record{Time: time.Now(), Who: c.who.Name, Client: c.remote, Node: c.door.cfg.Node, Command: text, Exit: 2}, err)
	}
	if stopped && errors.Is(err, context.Canceled) {
		err = nil
	}
	if !c.framed {
		if err != nil && !errors.Is(err, context.Canceled) {
			return c.tell(err.Error())
		}
		return nil
	}
	end := &ending{Exit: result.ExitCode, Lines: result.OutLines, Bytes: result.OutBytes, Read: result.ReadBytes, Stopped: stopped}
	if err != nil {
		end.Error = err.Error()
	}
	return c.notify(notice{End: end})
}

// parse reads a message: a command line, or a structured request in JSON.
func (d *Door) parse(ctx context.Context, message []byte, framed bool) (text string, p *Pipeline, err error) {
	message = bytes.TrimSpace(message)
	if framed && bytes.HasPrefix(message, []byte(`"`)) {
		var line string
		if err := json.Unmarshal(message, &line); err != nil {
			return string(message), nil, &Refusal{Reason: "request: " + err.Error()}
		}
		message = []byte(strings.TrimSpace(line))
	}
	text = string(message)
	if text == "" {
		return "", nil, nil
	}
	if !utf8.ValidString(text) {
		return strings.ToValidUTF8(text, "?"), nil, &Refusal{Reason: "the command line is not UTF-8"}
	}
	if message[0] != '{' {
		p, err = Parse(text)
		return text, p, err
	}
	req, err := ParseRequest(message)
	if err != nil {
		return text, nil, err
	}
	if err := req.resolve(ctx, &d.cfg); err != nil {
		return text, nil, err
	}
	p, err = req.Pipeline(time.Now())
	return text, p, err
}

// tell sends one line of diagnostics: on its own channel in the subprotocol, as a line else.
func (c *connection) tell(line string) error {
	if c.framed {
		return c.notify(notice{Error: line})
	}
	_, err := frames{c}.Write([]byte(line + "\n"))
	return err
}

func (c *connection) notify(n notice) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	c.mu.Lock()
	return errors.Join(c.flush(appendFrame(nil, websocket.TextMessage, b)), c.unlock())
}

// control sends a control frame: now, or after the write that is under way. It does not wait for a slow client, and
// forgets frames that such a client asks for too often.
func (c *connection) control(opcode int, payload []byte) error {
	c.waiting.Lock()
	if len(c.waiting.frames) < 1<<10 {
		c.waiting.frames = appendFrame(c.waiting.frames, opcode, payload)
	}
	c.waiting.Unlock()
	if !c.mu.TryLock() {
		return nil
	}
	return c.unlock()
}

// unlock lets the next writer in, once the control frames that came meanwhile are sent.
func (c *connection) unlock() error {
	for {
		c.waiting.Lock()
		frames := c.waiting.frames
		c.waiting.frames = nil
		c.waiting.Unlock()
		var err error
		if len(frames) > 0 {
			err = c.flush(frames)
		}
		c.mu.Unlock()
		c.waiting.Lock()
		more := len(c.waiting.frames) > 0
		c.waiting.Unlock()
		if err != nil || !more || !c.mu.TryLock() {
			return err
		}
	}
}

// frames writes output: blocks of lines as binary frames in the subprotocol, a text message a line else. Many frames
// go to the socket in one write.
type frames struct{ *connection }

func (f frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	n, err := f.writeLocked(p)
	return n, errors.Join(err, f.unlock())
}

func (f frames) writeLocked(p []byte) (written int, err error) {
	lent := f.door.frames.Get().(*[]byte)
	buf := (*lent)[:0]
	defer func() {
		if cap(buf) <= 4*maxFrame {
			*lent = buf
			f.door.frames.Put(lent)
		}
	}()
	for len(p) > 0 {
		buf = buf[:0]
		n := 0
		if f.framed {
			n = wholeLines(p, maxFrame)
			buf = appendFrame(buf, websocket.BinaryMessage, p[:n])
		} else {
			for n < len(p) && len(buf) < maxFrame {
				end := lineEnd(p, n)
				buf = appendFrame(buf, websocket.TextMessage, textLine(p[n:end]))
				n = end
			}
		}
		if err := f.flush(buf); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// wholeLines returns how much of p goes in one frame: up to max bytes of whole lines, or max bytes of a longer line.
func wholeLines(p []byte, limit int) int {
	if len(p) <= limit {
		return len(p)
	}
	if i := bytes.LastIndexByte(p[:limit], '\n'); i >= 0 {
		return i + 1
	}
	return limit
}

// textLine is a line as a text message: without its line end, and valid UTF-8, which the protocol demands.
func textLine(line []byte) []byte {
	line = bytes.TrimSuffix(chomp(line), []byte("\r"))
	if utf8.Valid(line) {
		return line
	}
	return bytes.ToValidUTF8(line, []byte("\uFFFD"))
}

// flush writes frames. Callers hold mu.
func (c *connection) flush(frames []byte) error {
	raw := c.conn.NetConn()
	if err := raw.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	_, err := raw.Write(frames)
	return err
}

// appendFrame appends one unfragmented, unmasked frame, RFC 6455 §5.2.
func appendFrame(b []byte, opcode int, payload []byte) []byte {
	b = append(b, 0x80|byte(opcode))
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}
