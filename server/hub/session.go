package hub

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/gorilla/websocket"
)

const (
	readBuffer    = 1 << 10 // of each socket: most frames fit, and ten thousand sockets are idle most of the time
	readBufferTLS = 288     // TLS has a buffer of its own before this one; gorilla/websocket makes its own at 256 and less
	writeBuffer   = 4 << 10 // pooled

	maxOutFrames  = 256     // events wait with the agent beyond this
	maxOutBytes   = 1 << 20 // likewise
	maxOutControl = 1024    // frames of any kind: more means that the socket does not drain
	maxPings      = 6       // unanswered ones that are remembered

	closeWait = 2 * time.Second // for the other side to answer a close frame
	maxPooled = 64 << 10        // larger buffers are not kept
)

// An item is a frame that waits for the socket.
type item struct {
	kind int // websocket message type
	data []byte
	sent *pending // told when the frame is written; nil if nobody cares
}

type sentPing struct {
	id [16]byte
	at time.Time // zero: free
}

// A session is one socket of an agent. One goroutine reads; a second one exists only while there is something to
// write, so that an idle agent costs one small stack.
type session struct {
	hub    *Hub
	agent  *agent
	conn   *websocket.Conn
	cork   *corkConn
	names  map[string]struct{} // events the agent subscribed to; shared between sessions
	drover bool                // speaks the socket extension
	slot   int                 // in the wheel
	done   chan struct{}       // closed when the session is over and forgotten
	heard  atomic.Int64        // when the last frame came, in nanoseconds since the epoch

	mu       sync.Mutex // guards what follows
	out      []item
	outBytes int
	acks     []string // ids of events whose final reply is safe
	writing  bool     // the writer is running
	broken   bool     // nothing can be written any more
	stuck    bool     // the agent has more events, for when there is room
	reason   string   // why we ended it
	beats    int      // pings sent
	pings    [maxPings]sentPing
	probe    string // payload of a pong that someone waits for
	probed   chan struct{}
}

// subscribed reports whether the agent asked for events of this name.
func (s *session) subscribed(name string) bool {
	_, ok := s.names[name]
	return ok
}

// room reports whether another event may be queued. If not, the agent is told when it may.
func (s *session) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) < maxOutFrames && s.outBytes < maxOutBytes {
		return true
	}
	s.stuck = true
	return false
}

// send queues a frame. It never blocks. A socket that does not drain is closed.
func (s *session) send(it item) {
	s.mu.Lock()
	if s.broken {
		s.mu.Unlock()
		return
	}
	if len(s.out) >= maxOutControl {
		s.mu.Unlock()
		s.hub.slowClosed.Add(1)
		s.kill("it does not take what is sent to it")
		return
	}
	s.out = append(s.out, it)
	s.outBytes += len(it.data)
	s.startWriter()
	s.mu.Unlock()
}

// ack queues the acknowledgement of a final reply. Several of them share a frame.
func (s *session) ack(eventID string) {
	if !s.drover {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return
	}
	s.acks = append(s.acks, eventID)
	s.startWriter()
}

// startWriter makes sure that someone writes. The caller holds mu.
func (s *session) startWriter() {
	if !s.writing {
		s.writing = true
		s.hub.sockets.Go(s.write)
	}
}

// write writes until nothing is left.
func (s *session) write() {
	var spare []item
	for {
		s.mu.Lock()
		batch, acks := s.out, s.acks
		if len(batch) == 0 && len(acks) == 0 || s.broken {
			s.writing = false
			s.out, s.acks, s.outBytes = nil, nil, 0
			s.mu.Unlock()
			return
		}
		s.out, s.acks, s.outBytes = spare[:0], nil, 0
		stuck := s.stuck
		s.stuck = false
		s.mu.Unlock()

		if err := s.writeBatch(batch, acks); err != nil {
			s.failed(err)
			continue
		}
		for _, it := range batch {
			if it.sent != nil {
				s.agent.written(it.sent)
			}
		}
		clear(batch)
		spare = batch
		if stuck {
			s.agent.kick()
		}
	}
}

func (s *session) writeBatch(batch []item, acks []string) error {
	s.cork.cork()
	for _, it := range batch {
		var err error
		switch it.kind {
		case websocket.TextMessage:
			err = s.conn.WriteMessage(it.kind, it.data)
		default:
			err = s.conn.WriteControl(it.kind, it.data, time.Now().Add(s.hub.t.Write))
		}
		if err != nil {
			return err
		}
		if it.kind == websocket.CloseMessage {
			// Nothing may follow. Let the other side answer, but not for long; the reader ends the session.
			err = errors.Join(s.cork.uncork(), s.cork.finish(time.Now().Add(closeWait)))
			s.mu.Lock()
			s.broken = true
			s.mu.Unlock()
			return err
		}
	}
	// Acknowledgements come last: an event that is pushed again while its reply is on the way must not arrive after
	// the agent was told to forget it.
	for len(acks) > 0 {
		n := min(len(acks), 256)
		if err := s.conn.WriteMessage(websocket.TextMessage, wire.AppendAck(nil, wire.Ack{IDs: acks[:n]})); err != nil {
			return err
		}
		acks = acks[n:]
	}
	return s.cork.uncork()
}

// failed takes note that a write did not work.
func (s *session) failed(err error) {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		s.hub.slowClosed.Add(1)
		s.kill("it does not take what is sent to it")
		return
	}
	s.kill("the socket failed: " + err.Error())
}

// kill ends the session without ceremony.
func (s *session) kill(reason string) {
	s.mu.Lock()
	s.broken = true
	if s.reason == "" {
		s.reason = reason
	}
	s.mu.Unlock()
	// A connection that is closed already says so; there is nothing to do then.
	_ = s.cork.Close()
}

// shut ends the session with a close frame, after what is queued.
func (s *session) shut(code int, reason string) {
	s.mu.Lock()
	if s.reason == "" {
		s.reason = reason
	}
	s.mu.Unlock()
	s.send(item{kind: websocket.CloseMessage, data: websocket.FormatCloseMessage(code, reason)})
}

// handle makes the session note signs of life.
func (s *session) handle() {
	s.conn.SetReadLimit(wire.MaxFrame + 64<<10)
	s.conn.SetPingHandler(func(data string) error {
		s.heard.Store(time.Now().UnixNano())
		s.send(item{kind: websocket.PongMessage, data: []byte(data)})
		return nil
	})
	s.conn.SetPongHandler(func(data string) error {
		s.heard.Store(time.Now().UnixNano())
		s.gotPong(data)
		return nil
	})
}

// read is the session's goroutine while frames come. It ends the session, or leaves it to wait.
func (s *session) read() {
	for {
		if s.cork.reader.Buffered() == 0 && !s.cork.await(linger) && s.hub.background.start(s.wait) {
			return
		}
		if s.next() != nil {
			s.end()
			return
		}
	}
}

// wait is the session's goroutine while nothing comes.
func (s *session) wait() {
	s.hub.resting.Add(1)
	s.cork.rest()
	s.hub.resting.Add(-1)
	if !s.hub.background.start(s.read) {
		s.read()
	}
}

// next takes in the next frame.
func (s *session) next() error {
	if done, err := s.control(); done || err != nil {
		return err
	}
	kind, r, err := s.conn.NextReader()
	if err != nil {
		return err
	}
	s.heard.Store(time.Now().UnixNano())
	if kind != websocket.TextMessage {
		s.hub.malformed.Add(1)
		return nil // NextReader skips what is left of it
	}
	return s.readFrame(r)
}

// control takes in a ping or a pong, where one is next, and reports whether it was. The library would go on to wait for
// the message after it, deep in its calls, and what an idle agent sends are pings.
func (s *session) control() (bool, error) {
	const final, masked, maxPayload = 0x80, 0x80, 125
	head, err := s.cork.reader.Peek(2)
	if err != nil {
		return false, err
	}
	kind, size := int(head[0]^final), int(head[1]^masked)
	if kind != websocket.PingMessage && kind != websocket.PongMessage || size > maxPayload {
		return false, nil // a message, or nothing that is allowed: the library's
	}
	frame, err := s.cork.reader.Peek(2 + 4 + size)
	if err != nil {
		return false, err
	}
	mask, data := frame[2:6], bytes.Clone(frame[6:])
	for i := range data {
		data[i] ^= mask[i%4]
	}
	if _, err := s.cork.reader.Discard(len(frame)); err != nil {
		return false, err
	}
	handler := s.conn.PongHandler()
	if kind == websocket.PingMessage {
		handler = s.conn.PingHandler()
	}
	return true, handler(string(data))
}

// readFrame reads one frame into a borrowed buffer and takes it in.
func (s *session) readFrame(r io.Reader) error {
	buf, _ := s.hub.buffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxPooled {
			*buf = (*buf)[:0]
			s.hub.buffers.Put(buf)
		}
	}()
	b := *buf
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		*buf = b
		if err == io.EOF {
			s.hub.frame(s, b)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end forgets the session. It runs in the reader's goroutine, last.
func (s *session) end() {
	s.kill("the agent closed it")
	s.hub.wheel.remove(s)
	s.mu.Lock()
	reason := s.reason
	if s.probed != nil {
		close(s.probed)
		s.probed = nil
	}
	s.mu.Unlock()
	s.agent.detached(s)
	s.hub.forget(s, reason)
	close(s.done)
}

// answers sends a WebSocket ping and reports whether the other side answered it within timeout: not whether anything
// came, since a frame may have been under way for long.
func (s *session) answers(payload string, timeout time.Duration) bool {
	s.mu.Lock()
	if s.probed == nil {
		s.probed = make(chan struct{})
		s.probe = payload
	}
	probed, want := s.probed, s.probe
	s.mu.Unlock()
	s.send(item{kind: websocket.PingMessage, data: []byte(want)})
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-probed:
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.broken
	case <-s.done:
	case <-timer.C:
	}
	return false
}

func (s *session) gotPong(payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probed != nil && payload == s.probe {
		close(s.probed)
		s.probed, s.probe = nil, ""
	}
}
