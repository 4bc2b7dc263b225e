package eventstest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events/wire"
)

// ErrCut says that a session has ended.
var ErrCut = errors.New("eventstest: the session has ended")

// A Session is one subscription.
type Session struct {
	s    *Server
	ws   *websocket.Conn
	out  chan outFrame
	dead chan struct{}
	once sync.Once
	code atomic.Int64
}

// outFrame is what waits to be written: text, or a close frame.
type outFrame struct {
	kind int
	data []byte
}

func newSession(s *Server, ws *websocket.Conn) *Session {
	return &Session{s: s, ws: ws, out: make(chan outFrame, 4096), dead: make(chan struct{})}
}

// run serves the session to its end.
func (se *Session) run() {
	s := se.s
	s.mu.Lock()
	s.sessions[se] = struct{}{}
	var again [][]byte
	for _, ev := range s.outbox {
		if ev != nil {
			again = append(again, wire.AppendEvent(nil, ev))
		}
	}
	s.notifyLocked()
	s.mu.Unlock()
	select {
	case s.arrivals <- se:
	default:
	}
	var wg sync.WaitGroup
	wg.Go(se.write)
	wg.Go(func() {
		for _, frame := range again {
			if se.PushRaw(context.Background(), frame) != nil {
				return
			}
		}
	})
	se.read()
	se.Cut()
	wg.Wait()
	s.mu.Lock()
	delete(s.sessions, se)
	s.notifyLocked()
	s.mu.Unlock()
}

func (se *Session) write() {
	var tick <-chan time.Time
	if se.s.opts.KeepAlive > 0 {
		t := time.NewTicker(se.s.opts.KeepAlive)
		defer t.Stop()
		tick = t.C
		se.keepAlive()
	}
	for {
		select {
		case frame := <-se.out:
			if se.ws.WriteMessage(frame.kind, frame.data) != nil {
				se.Cut()
				return
			}
		case <-tick:
			se.keepAlive()
		case <-se.dead:
			return
		}
	}
}

// keepAlive writes what cattle writes: a ping that asks for no answer.
func (se *Session) keepAlive() {
	_ = se.ws.WriteMessage(websocket.TextMessage, []byte(`{"id":"k","name":"ping","replyTo":null,"resourceId":null,"resourceType":null,`+
		`"previousIds":null,"data":{"options":{},"resources":[]},"time":1}`))
}

func (se *Session) read() {
	for {
		_, b, err := se.ws.ReadMessage()
		if err != nil {
			var ce *websocket.CloseError
			if errors.As(err, &ce) {
				se.code.Store(int64(ce.Code))
			}
			return
		}
		reply, err := wire.DecodeReply(b)
		if err != nil {
			se.s.tb.Errorf("eventstest: the agent sent %.200q: %v", b, err)
			continue
		}
		if !se.s.opts.Drover {
			se.s.tb.Errorf("eventstest: a Rancher server got a data frame: %.200q", b)
		}
		final := se.s.took(reply, b)
		se.s.mu.Lock()
		ack := final && !se.s.holdAcks && !se.s.pings[reply.EventID()]
		se.s.mu.Unlock()
		if ack {
			_ = se.PushRaw(context.Background(), wire.AppendAck(nil, wire.Ack{IDs: []string{reply.EventID()}}))
		}
	}
}

// Push sends one event.
func (se *Session) Push(ctx context.Context, ev *wire.Event) error {
	if ev.Name == wire.NamePing {
		se.s.mu.Lock()
		se.s.pings[ev.ID] = true
		se.s.mu.Unlock()
	}
	return se.PushRaw(ctx, wire.AppendEvent(nil, ev))
}

// PushRaw sends one frame, of any kind.
func (se *Session) PushRaw(ctx context.Context, frame []byte) error {
	return se.push(ctx, outFrame{websocket.TextMessage, frame})
}

func (se *Session) push(ctx context.Context, f outFrame) error {
	select {
	case se.out <- f:
		return nil
	case <-se.dead:
		return ErrCut
	case <-ctx.Done():
		return ctx.Err()
	}
}

// GoAway announces the server's end.
func (se *Session) GoAway(ctx context.Context, retryAfter time.Duration) error {
	return se.PushRaw(ctx, wire.AppendGoAway(nil, wire.GoAway{RetryAfterMillis: retryAfter.Milliseconds()}))
}

// Close closes with the given WebSocket code, after everything that was pushed.
func (se *Session) Close(code int) {
	_ = se.push(context.Background(), outFrame{websocket.CloseMessage, websocket.FormatCloseMessage(code, "")})
}

// Cut closes the connection without a word.
func (se *Session) Cut() {
	se.once.Do(func() {
		close(se.dead)
		_ = se.ws.Close()
	})
}

// CloseCode returns the WebSocket code that the agent closed with, or 0. It is known once the session has ended.
func (se *Session) CloseCode() int { return int(se.code.Load()) }

// Ended is closed when the session has.
func (se *Session) Ended() <-chan struct{} { return se.dead }
