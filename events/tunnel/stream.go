package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// A stream is one connection of a session. It is a net.Conn with CloseWrite.
type stream struct {
	mux     *yamux.Stream
	release func() // gives the slot back
	held    Cork

	closed atomic.Bool
	once   sync.Once
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.mux.Read(p)
	if err != nil {
		err = s.explain(err)
	}
	return n, err
}

func newStream(mux *yamux.Stream, release func()) *stream {
	s := &stream{mux: mux, release: release}
	s.held.write, s.held.most = s.write, chunk
	return s
}

func (s *stream) cork() *Cork { return &s.held }

// Write implements net.Conn.
func (s *stream) Write(p []byte) (int, error) { return s.held.take(p) }

// write sends p in pieces, so that other streams get their turn in between.
func (s *stream) write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := s.mux.Write(p[n:min(len(p), n+chunk)])
		n += m
		if err != nil {
			return n, s.explain(err)
		}
	}
	return n, nil
}

// explain gives yamux's errors the form that net/http and io expect.
func (s *stream) explain(err error) error {
	switch {
	case err == io.EOF: //nolint:errorlint // yamux returns it bare
		switch {
		case s.closed.Load():
			return net.ErrClosed
		case s.mux.Session().IsClosed():
			// yamux ends its streams with EOF when the link is lost: what is cut off must not look whole.
			return fmt.Errorf("%w: the tunnel ended in the middle of a stream", io.ErrUnexpectedEOF)
		}
		return io.EOF
	case s.closed.Load() || errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed
	case errors.Is(err, yamux.ErrConnectionReset):
		return fmt.Errorf("%w: %w", ErrReset, err)
	default:
		return err
	}
}

// CloseWrite tells the peer that no more will come; what the peer still sends can be read for a few seconds.
func (s *stream) CloseWrite() error { return s.mux.Close() }

// Close ends both directions. What the peer sends afterwards is dropped, and soon resets its side.
func (s *stream) Close() error {
	var err error
	s.once.Do(func() {
		s.closed.Store(true)
		err = s.mux.Close()
		// yamux's Close leaves a blocked Read alone: this ends it.
		_ = s.mux.SetDeadline(time.Unix(1, 0))
		s.release()
	})
	return err
}

func (s *stream) LocalAddr() net.Addr                { return s.mux.LocalAddr() }
func (s *stream) RemoteAddr() net.Addr               { return s.mux.RemoteAddr() }
func (s *stream) SetDeadline(t time.Time) error      { return s.deadline(s.mux.SetDeadline, t) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.deadline(s.mux.SetReadDeadline, t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.deadline(s.mux.SetWriteDeadline, t) }

func (s *stream) deadline(set func(time.Time) error, t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}
