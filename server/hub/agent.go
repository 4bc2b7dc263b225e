package hub

import (
	"sync"
	"time"

	"github.com/droverhq/drover/server/store"
)

// An agent is what this replica knows of one agent: its socket if it is connected here, the events that wait for its
// answer, and its connection state.
type agent struct {
	h  *Hub
	id string

	door    chan struct{} // capacity 1: held while a newcomer is let in
	reports sync.Mutex    // held by the worker that takes in its reports
	holding sync.Mutex    // held while the other replicas are told who holds the agent

	mu   sync.Mutex // guards what follows
	sess *session   // nil: not connected here
	held bool       // the other replicas know that it is connected here
	q    queue

	health   health
	lastSeen time.Time
	version  string
	drover   bool
	remote   string // address

	hostUUID       string  // that it reported last
	engineless     bool    // that host's engine is not known yet
	hostReport     *report // waits for a worker
	instanceReport *report
	taken          uint64              // hash of the last report that is in the records as it is
	skipped        map[string]struct{} // containers whose events came while the server worked on them
}

// agent returns the agent with id, or ErrUnknownAgent.
func (h *Hub) agent(id string) (*agent, error) {
	h.mu.RLock()
	a := h.agents[id]
	h.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	rec, err := h.store.Agents.Get(id)
	if err != nil || rec.State == store.StateRemoved {
		return nil, ErrUnknownAgent
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.agents[id]; a != nil {
		return a, nil
	}
	a = &agent{
		h: h, id: id, door: make(chan struct{}, 1),
		health:   health{state: rec.Connection, since: rec.Since},
		lastSeen: rec.LastSeen, version: rec.Version, drover: rec.Drover, remote: rec.RemoteAddr,
	}
	a.q.shared = h.store.Clustered()
	h.agents[id] = a
	return a, nil
}

// known returns the agent with id if this replica ever had to do with it.
func (h *Hub) known(id string) *agent {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.agents[id]
}

// answered says that the agent made a round trip.
func (a *agent) answered(now time.Time) {
	a.mu.Lock()
	a.lastSeen = now
	changed := a.health.answered(now)
	a.mu.Unlock()
	if changed {
		a.h.states.add(a)
	}
}

// missed says that a ping went unanswered.
func (a *agent) missed(now time.Time) {
	a.mu.Lock()
	changed := a.health.missed(now, a.h.t.FailedPings)
	a.mu.Unlock()
	if changed {
		a.h.states.add(a)
	}
}

// tick moves the connection state on where only time passes. It returns the socket that is to be closed, if any.
func (a *agent) tick(now time.Time) {
	a.mu.Lock()
	changed := a.health.tick(now, a.h.t.Hold, a.h.t.DisconnectAfter)
	s := a.sess
	gone := a.health.state == store.ConnectionDisconnected
	a.mu.Unlock()
	if changed {
		a.h.states.add(a)
	}
	if changed && gone && s != nil {
		s.kill("it did not answer pings")
	}
}

// attached makes s the agent's socket. Events are pushed after replayed.
func (a *agent) attached(s *session, version, remote string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sess = s
	a.version, a.drover, a.remote = version, s.drover, remote
	a.taken = 0
	a.q.connect(!s.drover)
}

// detached takes note that s is gone.
func (a *agent) detached(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sess != s {
		return
	}
	a.sess, a.held = nil, false
	a.health.lost(time.Now())
	a.q.disconnect()
}

// session returns the agent's socket, or nil.
func (a *agent) session() *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sess
}

// host returns the record of the host that the agent reported last.
func (a *agent) host() (*store.Host, bool) {
	a.mu.Lock()
	id := a.hostUUID
	a.mu.Unlock()
	if id == "" {
		return nil, false
	}
	host, err := a.h.store.HostByUUID(id)
	return host, err == nil && host.AgentID == a.id
}
