package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// yamux's frame header: version, type, flags (2), stream (4), length (4).
const (
	muxHeader   = 12
	muxTypeData = 0
)

// A socket is a WebSocket as the connection that yamux reads and writes. One goroutine reads, one writes, any may ping
// and close. It joins a frame's header to its body, so that a frame is one message and one system call.
type socket struct {
	ws   *websocket.Conn
	held *Cork // of the connection under TLS
	opts Options

	msg io.Reader // rest of the message being read

	head   [muxHeader]byte // header that waits for its body
	headed bool

	last   atomic.Int64 // when a frame last arrived, ns since the epoch
	rtt    atomic.Int64 // of the last ping, ns
	cause  atomic.Pointer[error]
	closed atomic.Bool
}

func newSocket(ws *websocket.Conn, opts Options) *socket {
	s := &socket{ws: ws, held: CorkOf(ws.NetConn()), opts: opts}
	s.alive()
	ws.SetPingHandler(func(data string) error {
		s.alive()
		// A pong that finds no room is one of many; the data that fills the link shows the peer that we live.
		_ = ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		return nil
	})
	ws.SetPongHandler(func(data string) error {
		s.alive()
		if len(data) == 8 {
			sent := int64(binary.BigEndian.Uint64([]byte(data)))
			s.rtt.Store(max(0, time.Now().UnixNano()-sent))
		}
		return nil
	})
	return s
}

// alive notes that something arrived and moves the read deadline.
func (s *socket) alive() {
	now := time.Now()
	s.last.Store(now.UnixNano())
	_ = s.ws.SetReadDeadline(now.Add(s.opts.silence()))
}

func (s *socket) ping() error {
	var data [8]byte
	binary.BigEndian.PutUint64(data[:], uint64(time.Now().UnixNano()))
	return s.ws.WriteControl(websocket.PingMessage, data[:], time.Now().Add(s.opts.PingInterval))
}

// fail remembers why the link ended; the first cause counts.
func (s *socket) fail(err error) error {
	var timeout net.Error
	switch {
	case s.closed.Load():
		err = ErrClosed
	case errors.As(err, &timeout) && timeout.Timeout():
		err = fmt.Errorf("%w: %w", ErrStalled, err)
	}
	s.cause.CompareAndSwap(nil, &err)
	return err
}

func (s *socket) err() error {
	if e := s.cause.Load(); e != nil {
		return *e
	}
	return nil
}

func (s *socket) Read(p []byte) (int, error) {
	for {
		if s.msg == nil {
			kind, r, err := s.ws.NextReader()
			if err != nil {
				return 0, s.readFailed(err)
			}
			s.alive()
			if kind != websocket.BinaryMessage {
				return 0, s.fail(errors.New("tunnel: the peer sent a text frame"))
			}
			s.msg = r
		}
		n, err := s.msg.Read(p)
		if err == io.EOF { //nolint:errorlint // gorilla returns it bare
			s.msg, err = nil, nil
		}
		if err != nil {
			return n, s.readFailed(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// readFailed tells an orderly end, which is io.EOF to yamux, from a broken link.
func (s *socket) readFailed(err error) error {
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseServiceRestart) {
		_ = s.fail(fmt.Errorf("%w: %w", ErrPeerClosed, err))
		return io.EOF
	}
	return s.fail(err)
}

func (s *socket) Write(p []byte) (int, error) {
	if !s.headed && len(p) == muxHeader && p[1] == muxTypeData && binary.BigEndian.Uint32(p[8:]) > 0 {
		copy(s.head[:], p)
		s.headed = true
		return len(p), nil
	}
	_ = s.ws.SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
	w, err := s.ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return 0, s.fail(err)
	}
	if s.headed {
		s.headed = false
		if _, err := w.Write(s.head[:]); err != nil {
			return 0, s.fail(err)
		}
	}
	if _, err := w.Write(p); err != nil {
		return 0, s.fail(err)
	}
	if err := s.held.During(w.Close); err != nil {
		return 0, s.fail(err)
	}
	return len(p), nil
}

// Close says goodbye, if the link takes it, and closes the connection, which ends blocked reads and writes.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	goodbye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	_ = s.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(time.Second))
	return s.ws.Close()
}

// LocalAddr and RemoteAddr are what yamux shows for its streams.
func (s *socket) LocalAddr() net.Addr  { return s.ws.LocalAddr() }
func (s *socket) RemoteAddr() net.Addr { return s.ws.RemoteAddr() }
