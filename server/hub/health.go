package hub

import (
	"time"

	"github.com/droverhq/drover/server/store"
)

// health is the connection state of one agent, as a function of what happened and when. It has no clock of its own.
//
//	online        -> reconnecting  too many pings unanswered, or the socket lost for longer than hold
//	reconnecting  -> disconnected  after a while
//	any           -> online        an answer to a ping
type health struct {
	state  string    // one of store's Connection constants
	since  time.Time // of state
	lostAt time.Time // when the socket was lost and no ping was answered since; zero if it was not
	failed int       // pings unanswered in a row
}

// answered says that the agent made a round trip. It reports whether the state changed.
func (h *health) answered(now time.Time) bool {
	h.failed, h.lostAt = 0, time.Time{}
	return h.set(store.ConnectionOnline, now)
}

// missed says that a ping went unanswered.
func (h *health) missed(now time.Time, limit int) bool {
	h.failed++
	if h.failed < limit || h.state != store.ConnectionOnline {
		return false
	}
	return h.set(store.ConnectionReconnecting, now)
}

// lost says that the socket is gone.
func (h *health) lost(now time.Time) {
	if h.lostAt.IsZero() {
		h.lostAt = now
	}
}

// tick says what time it is.
func (h *health) tick(now time.Time, hold, disconnectAfter time.Duration) bool {
	switch {
	case h.state == store.ConnectionOnline && !h.lostAt.IsZero() && now.Sub(h.lostAt) >= hold:
		return h.set(store.ConnectionReconnecting, now)
	case h.state == store.ConnectionReconnecting && now.Sub(h.since) >= disconnectAfter:
		return h.set(store.ConnectionDisconnected, now)
	}
	return false
}

func (h *health) set(state string, now time.Time) bool {
	if h.state == state {
		return false
	}
	h.state, h.since = state, now
	return true
}

// agentState is the state of an agent's record in a connection state.
func agentState(connection string) string {
	switch connection {
	case store.ConnectionOnline:
		return store.StateActive
	case store.ConnectionReconnecting:
		return store.StateReconnecting
	}
	return store.StateDisconnected
}
