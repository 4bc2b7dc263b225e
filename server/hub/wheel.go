package hub

import (
	"context"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// wheelSlots is how many parts an interval has: each part serves an equal share of the sessions, so that ten thousand
// pings are spread over the five seconds.
const wheelSlots = 50

// A wheel is the one clock of all sessions.
type wheel struct {
	mu    sync.Mutex // guards what follows
	slots [wheelSlots][]*session
	next  int
}

func (w *wheel) add(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.slot = w.next
	w.next = (w.next + 1) % wheelSlots
	w.slots[s.slot] = append(w.slots[s.slot], s)
}

func (w *wheel) remove(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	slot := w.slots[s.slot]
	for i := range slot {
		if slot[i] == s {
			last := len(slot) - 1
			slot[i], slot[last] = slot[last], nil
			w.slots[s.slot] = slot[:last]
			return
		}
	}
}

// all returns every session.
func (w *wheel) all() []*session {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*session
	for _, slot := range w.slots {
		out = append(out, slot...)
	}
	return out
}

// run serves one slot after the other until ctx ends.
func (w *wheel) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval / wheelSlots)
	defer ticker.Stop()
	var batch []*session
	for slot := 0; ; slot = (slot + 1) % wheelSlots {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.mu.Lock()
		batch = append(batch[:0], w.slots[slot]...)
		w.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		now := time.Now()
		keepAlive := appendKeepAlive(nil, now) // one frame for all of them
		for _, s := range batch {
			s.beat(now, keepAlive)
		}
		clear(batch)
	}
}

// beat is a session's turn of the wheel.
func (s *session) beat(now time.Time, keepAlive []byte) {
	silent := now.Sub(time.Unix(0, s.heard.Load()))
	if silent > s.hub.t.Ping*5/2 {
		s.hub.staleClosed.Add(1)
		s.kill("it went silent")
		return
	}
	s.send(item{kind: websocket.TextMessage, data: keepAlive})
	if silent > s.hub.t.Ping {
		s.send(item{kind: websocket.PingMessage})
	}
	s.ping(now, nil)
}
