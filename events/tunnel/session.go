package tunnel

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"
)

// Why a session or a stream ended.
var (
	ErrClosed     = errors.New("tunnel: closed")                   // this side closed it
	ErrPeerClosed = errors.New("tunnel: the peer closed the link") // in order
	ErrStalled    = errors.New("tunnel: the link stalled")         // nothing arrived, or it took nothing, for too long
	ErrReset      = errors.New("tunnel: the peer reset the stream")
)

// A Session is one live link. Its methods are safe for concurrent use.
type Session struct {
	opts  Options
	sock  *socket
	mux   *yamux.Session
	since time.Time
	slots chan struct{} // one for each stream that this side may open

	accepted atomic.Int64 // open streams that the peer opened
	opened   atomic.Int64 // all streams that ever were
	refused  atomic.Int64

	workers sync.WaitGroup
}

// newSession takes ws over. The side that dialled is yamux's client; either may open streams.
func newSession(ws *websocket.Conn, opts Options, dialled bool) (*Session, error) {
	limitUnsent(ws.NetConn())
	sock := newSocket(ws, opts)
	open := yamux.Server
	if dialled {
		open = yamux.Client
	}
	mux, err := open(sock, opts.mux())
	if err != nil {
		return nil, errors.Join(err, ws.Close())
	}
	s := &Session{opts: opts, sock: sock, mux: mux, since: time.Now(), slots: make(chan struct{}, opts.MaxStreams)}
	s.workers.Go(s.pings)
	return s, nil
}

func (s *Session) pings() {
	tick := time.NewTicker(s.opts.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.mux.CloseChan():
			return
		case <-tick.C:
			// A ping that finds no room is no loss: the deadlines judge the link.
			_ = s.sock.ping()
		}
	}
}

// DialContext opens a stream to the peer; network and addr are ignored, so that it fits [http.Transport]. It waits for
// a free slot and for ctx. The caller closes the stream, which is a net.Conn with CloseWrite.
func (s *Session) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.mux.CloseChan():
		return nil, s.Err()
	}
	type opened struct {
		mux *yamux.Stream
		err error
	}
	got := make(chan opened)
	s.workers.Go(func() {
		mux, err := s.mux.OpenStream()
		select {
		case got <- opened{mux, err}:
		case <-ctx.Done():
			if err == nil {
				_ = mux.Close()
			}
			<-s.slots
		}
	})
	select {
	case o := <-got:
		if o.err != nil {
			<-s.slots
			if s.mux.IsClosed() {
				return nil, s.Err()
			}
			return nil, o.err
		}
		s.opened.Add(1)
		return newStream(o.mux, func() { <-s.slots }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Transport returns a new transport whose connections are streams of s; the host of a request's URL does not matter.
// The caller closes its idle connections; they end with the session too.
func (s *Session) Transport() *http.Transport {
	return &http.Transport{
		DialContext:         s.DialContext,
		MaxIdleConns:        8,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     time.Minute,
		WriteBufferSize:     chunk,
		ReadBufferSize:      chunk,
		DisableCompression:  true,
	}
}

// Listener returns the streams that the peer opens. Closing it closes the session.
func (s *Session) Listener() net.Listener { return listener{s} }

type listener struct{ s *Session }

func (l listener) Addr() net.Addr { return l.s.mux.Addr() }
func (l listener) Close() error   { return l.s.Close() }

func (l listener) Accept() (net.Conn, error) {
	for {
		mux, err := l.s.mux.AcceptStream()
		if err != nil {
			return nil, l.s.Err()
		}
		l.s.opened.Add(1)
		if l.s.accepted.Add(1) > int64(l.s.opts.MaxStreams) {
			l.s.accepted.Add(-1)
			l.s.refused.Add(1)
			_ = mux.Close()
			continue
		}
		return newStream(mux, func() { l.s.accepted.Add(-1) }), nil
	}
}

// GoAway tells the peer to open no more streams; those that are open go on.
func (s *Session) GoAway() error { return s.mux.GoAway() }

// Close ends the session and all its streams, and waits for its goroutines.
func (s *Session) Close() error {
	_ = s.sock.fail(ErrClosed)
	err := s.mux.Close()
	// yamux returns at once if it is closing already: its socket must be shut in any case.
	_ = s.sock.Close()
	s.workers.Wait()
	return err
}

// Done is closed when the session ended, for whatever reason.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// Err tells why the session ended; nil while it lives.
func (s *Session) Err() error {
	if !s.mux.IsClosed() {
		return nil
	}
	if err := s.sock.err(); err != nil {
		return err
	}
	return ErrClosed
}

// Stats are the figures of a session.
type Stats struct {
	Since     time.Time
	LastFrame time.Time     // when something last arrived
	RTT       time.Duration // of the last ping; 0 before the first
	Streams   int           // open now, both directions
	Opened    int64         // streams that ever were
	Refused   int64         // beyond MaxStreams
}

// Stats returns the figures of now.
func (s *Session) Stats() Stats {
	return Stats{
		Since:     s.since,
		LastFrame: time.Unix(0, s.sock.last.Load()),
		RTT:       time.Duration(s.sock.rtt.Load()),
		Streams:   s.mux.NumStreams(),
		Opened:    s.opened.Load(),
		Refused:   s.refused.Load(),
	}
}
