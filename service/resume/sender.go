package resume

import (
	"errors"
	"fmt"
	"sync"
)

// A Conn is one connection of a stream. Send and Close may be called at the same time; Close ends a Send.
type Conn interface {
	// Send sends one message. The parts make up its data.
	Send(channel byte, parts ...[]byte) error
	Close() error
}

// A holder is a Conn that can collect what is sent into fewer writes.
type holder interface {
	Hold()
	Release() error
}

// ErrEnded says that a stream takes no more.
var ErrEnded = errors.New("the stream has ended")

// ErrUnknown says that the other end claims to have received what was never sent, or is not kept any more.
var ErrUnknown = errors.New("the stream cannot be continued from there")

// A Sender is one direction of a stream.
type Sender struct {
	lossy bool

	turn sync.Mutex // held while sending on conn

	mu     sync.Mutex // never held while sending
	change sync.Cond
	ring   ring
	sent   int64 // position up to which conn was sent
	conn   Conn  // nil while there is none
	busy   bool  // a record is being sent, and must stay in the ring
	next   int64 // position behind that record
	acked  int64
	ended  error
}

// NewSender returns a sender that keeps up to limit bytes, and a record at least. A lossy one drops the oldest while
// there is no connection, where others wait.
func NewSender(limit int, lossy bool) *Sender {
	s := &Sender{lossy: lossy, ring: ring{limit: max(limit, int(Size(MaxData)))}}
	s.change.L = &s.mu
	return s
}

// Write sends p on a channel, now or after the next Attach. It waits for room.
func (s *Sender) Write(channel byte, p []byte) error {
	for more := true; more; more = len(p) > 0 {
		part := p[:min(len(p), MaxData)]
		p = p[len(part):]
		if err := s.add(channel, part); err != nil {
			return err
		}
	}
	s.flush()
	return nil
}

func (s *Sender) add(channel byte, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ended == nil && !s.ring.fits(len(p)) {
		if s.lossy && s.conn == nil && !s.busy {
			_, _, _, next := s.ring.record(s.ring.tail)
			s.ring.release(next)
			continue
		}
		if s.conn != nil && s.sent < s.ring.head {
			s.mu.Unlock()
			s.flush()
			s.mu.Lock()
			continue
		}
		s.change.Wait()
	}
	if s.ended != nil {
		return s.ended
	}
	s.ring.add(channel, p)
	return nil
}

// flush sends what was not sent yet. Whoever does it does so for all.
func (s *Sender) flush() {
	s.turn.Lock()
	defer s.turn.Unlock()
	var held holder
	for {
		s.mu.Lock()
		conn := s.conn // only begin, which waits for its turn, puts another one there
		if conn == nil || s.sent == s.ring.head {
			s.mu.Unlock()
			if held != nil && held.Release() != nil && conn != nil {
				s.Detach(conn)
			}
			return
		}
		channel, a, b, next := s.ring.record(s.sent)
		s.busy, s.next = true, next
		more := next < s.ring.head
		s.mu.Unlock()
		if h, ok := conn.(holder); ok && more && held == nil {
			held = h
			h.Hold()
		}
		err := conn.Send(channel, a, b)
		s.mu.Lock()
		s.busy = false
		if err == nil && s.conn == conn {
			s.sent = next
			s.release()
		} else {
			s.change.Broadcast() // a lossy write may wait for the record to be free
		}
		s.mu.Unlock()
		if err != nil {
			s.Detach(conn)
		}
	}
}

// Trim gives back the memory of a ring that is empty. It is for the moments in which nothing happens.
func (s *Sender) Trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring.tail == s.ring.head {
		s.ring.buf = nil
	}
}

// Attach goes on with a new connection instead of the one before, which it closes, for a peer that has received so much,
// and needs nothing before acked any more. hello is sent first; it is told where the sender goes on. A conn that breaks at
// once is no error.
func (s *Sender) Attach(conn Conn, received, acked int64, hello func(from int64) (channel byte, data []byte)) error {
	s.mu.Lock()
	old := s.conn
	s.mu.Unlock()
	if old != nil {
		_ = old.Close() // ends its Send
	}
	if err := s.begin(conn, received, acked, hello); err != nil {
		return err
	}
	s.flush()
	return nil
}

func (s *Sender) begin(conn Conn, received, acked int64, hello func(int64) (byte, []byte)) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	from := max(received, s.ring.tail)
	switch {
	case s.ended != nil:
		s.mu.Unlock()
		return s.ended
	case acked < 0 || acked > received || received > s.ring.head || !s.ring.boundary(from) || received < s.ring.tail && !s.lossy:
		s.mu.Unlock()
		return fmt.Errorf("%w: position %d of %d to %d", ErrUnknown, received, s.ring.tail, s.ring.head)
	}
	s.sent, s.conn = from, conn
	s.acked = max(s.acked, acked)
	s.release()
	s.change.Broadcast()
	s.mu.Unlock()
	if hello != nil {
		if channel, data := hello(from); conn.Send(channel, data) != nil {
			s.Detach(conn)
		}
	}
	return nil
}

// Detach closes conn, and keeps what is written from now on for the next one. It reports whether conn was in use.
func (s *Sender) Detach(conn Conn) bool {
	s.mu.Lock()
	used := conn != nil && s.conn == conn
	if used {
		s.conn = nil
		s.change.Broadcast()
	}
	s.mu.Unlock()
	_ = conn.Close()
	return used
}

// Attached reports whether there is a connection.
func (s *Sender) Attached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// Acked notes that the peer needs nothing before a position any more.
func (s *Sender) Acked(position int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	if s.busy {
		sent = s.next // the peer may be faster than the return of Send
	}
	if position > sent {
		return fmt.Errorf("%w: %d were acknowledged, and %d sent", ErrUnknown, position, sent)
	}
	s.acked = max(s.acked, position)
	s.release()
	return nil
}

// release forgets what is both sent and acknowledged.
func (s *Sender) release() {
	if position := min(s.acked, s.sent); position > s.ring.tail {
		s.ring.release(position)
		s.change.Broadcast()
	}
}

// Send sends what is no record on the present connection, and drops it where there is none.
func (s *Sender) Send(channel byte, data []byte) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil && conn.Send(channel, data) != nil {
		s.Detach(conn)
	}
}

// End makes writes fail that wait and that come, with err or ErrEnded, and closes the connection.
func (s *Sender) End(err error) {
	if err == nil {
		err = ErrEnded
	}
	s.mu.Lock()
	if s.ended == nil {
		s.ended = err
	}
	conn := s.conn
	s.conn = nil
	s.change.Broadcast()
	s.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}
