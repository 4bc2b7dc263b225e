package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events/wire"
)

const (
	outgoing     = 256 << 10 // bytes that wait for the writer before senders do
	closeTimeout = time.Second
	keepScratch  = 256 << 10 // the reader's buffer is given up above this
)

// errClosing is what senders get from a session that ends.
var errClosing = errors.New("the connection is closing")

// session is one WebSocket. Its goroutines are one reader, one writer and one supervisor, which drops the link when
// either direction is dead; serve runs them and waits for them.
type session struct {
	ws       *websocket.Conn
	raw      *flushConn
	interval time.Duration
	opened   time.Time
	drover   bool
	version  string
	skew     time.Duration

	pinged  atomic.Int64 // when the last ping was sent, nanoseconds since the epoch; 0 once it was answered
	rtt     atomic.Int64
	useful  atomic.Bool  // an event came
	leaving atomic.Int64 // nanoseconds that a server on its way down asks to be left alone; -1 for logout

	mu      sync.Mutex
	queue   [][]byte      // guarded by mu, as is the rest; frames in order
	waiting int           // bytes in queue
	ping    bool          // a ping is due
	pong    []byte        // a pong is due, with this payload; nil if not
	closing []byte        // a close frame is due, after the queue
	room    chan struct{} // closed when the writer made room; nil while nobody waits
	err     error         // why the session ended
	signal  chan struct{} // there is something to write
	dead    chan struct{} // closed with err
	said    chan struct{} // closed when the close frame is out
}

func newSession(ws *websocket.Conn, raw *flushConn, interval time.Duration) *session {
	s := &session{
		ws: ws, raw: raw, interval: interval, opened: time.Now(),
		signal: make(chan struct{}, 1), dead: make(chan struct{}), said: make(chan struct{}),
	}
	raw.gather(s.patience())
	raw.alive()
	ws.SetReadLimit(hardLimit)
	ws.SetPingHandler(func(payload string) error {
		raw.alive()
		s.mu.Lock()
		s.pong = append(make([]byte, 0, 1), payload...)
		s.mu.Unlock()
		s.wake()
		return nil
	})
	ws.SetPongHandler(func(string) error {
		raw.alive()
		if sent := s.pinged.Swap(0); sent != 0 {
			s.rtt.Store(time.Now().UnixNano() - sent)
		}
		return nil
	})
	ws.SetCloseHandler(func(code int, _ string) error {
		s.shut(code)
		return nil
	})
	return s
}

// patience is how long either direction may be dead.
func (s *session) patience() time.Duration { return s.interval * 5 / 2 }

// serve reads until the session ends and returns why. frame is called for each text frame, whose bytes are good until
// it returns; it must not block.
func (s *session) serve(frame func([]byte)) error {
	var wg sync.WaitGroup
	wg.Go(s.write)
	wg.Go(s.supervise)
	err := s.read(frame)
	var ce *websocket.CloseError
	if errors.As(err, &ce) && ce.Code != websocket.CloseAbnormalClosure { // let the writer answer it
		t := time.NewTimer(closeTimeout)
		select {
		case <-s.said:
		case <-s.dead:
		case <-t.C:
		}
		t.Stop()
	}
	s.fail(err)
	wg.Wait()
	return s.cause()
}

// fail ends the session; the first reason stays.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
		close(s.dead)
	}
	s.mu.Unlock()
	_ = s.raw.Conn.Close() // frees whoever blocks in a read or a write
}

func (s *session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *session) read(frame func([]byte)) error {
	scratch := &bytes.Buffer{}
	for {
		_, r, err := s.ws.NextReader()
		if err != nil {
			return err
		}
		scratch.Reset()
		// One byte beyond the limit tells the decoder that the frame is too large.
		if _, err := scratch.ReadFrom(io.LimitReader(r, wire.MaxFrame+1)); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		s.raw.alive()
		if b := bytes.TrimSpace(scratch.Bytes()); len(b) > 0 {
			frame(b)
		}
		if scratch.Cap() > keepScratch {
			scratch = &bytes.Buffer{}
		}
	}
}

// supervise pings, and drops the link when it is silent for too long. It has no part in reading or writing, so that
// neither can keep it from its work.
func (s *session) supervise() {
	ping := time.NewTicker(s.interval)
	defer ping.Stop()
	look := time.NewTimer(s.patience())
	defer look.Stop()
	for {
		select {
		case <-s.dead:
			return
		case <-ping.C:
			s.mu.Lock()
			s.ping = true
			s.mu.Unlock()
			s.wake()
		case <-look.C:
			left := s.patience() - time.Since(time.Unix(0, s.raw.life.Load()))
			if left <= 0 {
				s.fail(fmt.Errorf("%w for %s", errSilent, s.patience()))
				return
			}
			look.Reset(left)
		}
	}
}

func (s *session) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// send queues frame. Where the writer is far behind it waits for room until ctx or the session ends; with a nil ctx it
// does not wait and returns errClosing. The session keeps frame.
func (s *session) send(ctx context.Context, frame []byte) error {
	s.mu.Lock()
	for s.waiting > outgoing && s.err == nil && s.closing == nil && ctx != nil {
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.dead:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
	}
	if s.err != nil || s.closing != nil || s.waiting > outgoing {
		s.mu.Unlock()
		return errClosing
	}
	s.queue = append(s.queue, frame)
	s.waiting += len(frame)
	s.mu.Unlock()
	s.wake()
	return nil
}

// write is the only writer. It takes all that waits at once and flushes when nothing more came meanwhile.
func (s *session) write() {
	var frames [][]byte
	for {
		s.mu.Lock()
		frames, s.queue = s.queue, frames[:0]
		ping, pong, closing := s.ping, s.pong, s.closing
		s.ping, s.pong = false, nil
		s.waiting = 0
		if s.room != nil {
			close(s.room)
			s.room = nil
		}
		s.mu.Unlock()

		if len(frames) == 0 && !ping && pong == nil {
			err := s.raw.Flush()
			if err == nil && closing != nil {
				s.writeClose(closing)
				return
			}
			if err != nil {
				s.fail(fmt.Errorf("writing: %w", err))
				return
			}
			select {
			case <-s.signal:
				continue
			case <-s.dead:
				return
			}
		}
		if err := s.writeAll(frames, ping, pong); err != nil {
			s.fail(fmt.Errorf("writing: %w", err))
			return
		}
		clear(frames)
	}
}

func (s *session) writeAll(frames [][]byte, ping bool, pong []byte) error {
	never := time.Time{} // the connection beneath sets its own deadlines
	if pong != nil {
		if err := s.ws.WriteControl(websocket.PongMessage, pong, never); err != nil {
			return err
		}
	}
	if ping {
		s.pinged.CompareAndSwap(0, time.Now().UnixNano())
		if err := s.ws.WriteControl(websocket.PingMessage, nil, never); err != nil {
			return err
		}
	}
	for _, f := range frames {
		if err := s.ws.WriteMessage(websocket.TextMessage, f); err != nil {
			return err
		}
	}
	return nil
}

// writeClose sends the close frame and gives the other side a moment to answer, which ends the reader.
func (s *session) writeClose(frame []byte) {
	if s.ws.WriteControl(websocket.CloseMessage, frame, time.Time{}) == nil && s.raw.Flush() == nil {
		close(s.said)
		t := time.NewTimer(closeTimeout)
		defer t.Stop()
		select {
		case <-s.dead:
			return
		case <-t.C:
		}
	}
	s.fail(errClosing)
}

// shut begins the close handshake, after everything that was queued. The session ends soon after.
func (s *session) shut(code int) {
	if code == websocket.CloseNoStatusReceived {
		code = websocket.CloseNormalClosure
	}
	s.mu.Lock()
	if s.closing == nil {
		s.closing = websocket.FormatCloseMessage(code, "")
	}
	s.mu.Unlock()
	s.wake()
}
