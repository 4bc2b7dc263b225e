package access

import (
	"net/http"
	"sync"

	"github.com/droverhq/drover/events/tunnel"
)

// A link is the tunnel of one agent, at this replica.
type link struct {
	agent     string
	session   *tunnel.Session
	transport *http.Transport
	forget    func() // takes back what the other replicas know of it

	once   sync.Once
	kill   chan struct{} // closed by end
	reason string        // set before kill is closed
}

// end closes the tunnel, in its watcher's goroutine.
func (l *link) end(reason string) {
	l.once.Do(func() {
		l.reason = reason
		close(l.kill)
	})
}

// ServeTunnel upgrades the request of an authenticated agent to its tunnel. It returns when the upgrade is done or
// refused. An older tunnel of the agent is closed, at whatever replica it is.
func (a *Access) ServeTunnel(w http.ResponseWriter, r *http.Request, agentID string) {
	if err := a.admit(); err != nil {
		err.Write(w)
		return
	}
	session, err := a.tunnels.Accept(w, r, nil)
	if err != nil {
		a.mu.Lock()
		a.opening--
		a.mu.Unlock()
		a.watchers.Done()
		a.cfg.Log.WithError(err).WithField("agent", agentID).Debug("access: no tunnel")
		return // answered
	}
	l := &link{agent: agentID, session: session, transport: session.Transport(), kill: make(chan struct{})}
	l.transport.MaxIdleConns, l.transport.MaxIdleConnsPerHost = idleStreams, idleStreams
	a.attach(l)
}

// idleStreams is how many streams of a tunnel are kept for the next request.
const idleStreams = 4

// admit lets one more tunnel in, and counts its watcher.
func (a *Access) admit() *Error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return problem(http.StatusServiceUnavailable, CodeClosing, "the server is shutting down")
	case len(a.links)+a.opening >= a.cfg.MaxTunnels:
		return problem(http.StatusServiceUnavailable, "TooManyTunnels", "this server holds as many tunnels as it may")
	}
	a.opening++
	a.watchers.Add(1)
	return nil
}

// attach makes l the tunnel of its agent.
func (a *Access) attach(l *link) {
	l.forget = a.announce(subject(l.agent), l.end)
	a.mu.Lock()
	a.opening--
	old := a.links[l.agent]
	a.links[l.agent] = l
	close(a.arrived)
	a.arrived = make(chan struct{})
	closed := a.closed
	a.mu.Unlock()
	go a.watch(l)
	if old != nil {
		old.end("the agent opened another one")
	}
	if closed {
		l.end("the server shuts down")
	}
	a.cfg.Log.WithField("agent", l.agent).Info("access: tunnel open")
}

// watch waits for the end of a tunnel and cleans up after it.
func (a *Access) watch(l *link) {
	defer a.watchers.Done()
	select {
	case <-l.session.Done():
	case <-l.kill:
	}
	a.mu.Lock()
	if a.links[l.agent] == l {
		delete(a.links, l.agent)
	}
	a.mu.Unlock()
	l.forget()
	log := a.cfg.Log.WithField("agent", l.agent)
	if err := l.session.Err(); err != nil {
		log = log.WithError(err)
	}
	select {
	case <-l.kill:
		log = log.WithField("reason", l.reason)
	default:
	}
	_ = l.session.Close() // why it ended is known
	l.transport.CloseIdleConnections()
	log.Info("access: tunnel closed")
}

// here returns the tunnel of an agent, if this replica has it, and what is closed when another tunnel comes.
func (a *Access) here(agentID string) (*link, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.links[agentID], a.arrived
}
