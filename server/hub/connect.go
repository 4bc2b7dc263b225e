package hub

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

const (
	websocketText = websocket.TextMessage

	maxNames    = 256 // event names of one subscription
	maxNameSets = 256 // different subscriptions that are remembered
	readQueue   = 30 * time.Second
)

var errEnough = errors.New("too many events")

// ServeWS upgrades the subscribe request of an authenticated agent and takes over its socket. It returns when the
// upgrade is done or refused: 409 if the agent is connected from another live place, 503 while shutting down.
func (h *Hub) ServeWS(w http.ResponseWriter, r *http.Request, agentID string) {
	a, err := h.open(r.Context(), agentID)
	if err != nil {
		refuseHTTP(w, statusOf(err), Code(err), err.Error())
		return
	}
	names := h.nameSet(r.URL.Query()["eventNames"])
	if len(names) == 0 {
		refuseHTTP(w, http.StatusUnprocessableEntity, "MissingRequired", "eventNames names no event")
		return
	}
	// One newcomer at a time: two that come at once would both find nobody connected.
	select {
	case a.door <- struct{}{}:
		defer func() { <-a.door }()
	case <-r.Context().Done():
		return
	}
	if h.connected(a) {
		h.refused.Add(1)
		h.log.WithField("agent", agentID).WithField("address", r.RemoteAddr).
			Warn("hub: an agent's credentials are used from a second place; the newcomer is refused")
		refuseHTTP(w, http.StatusConflict, "AgentConnected",
			"this agent is connected from another place and answers there; if this machine is a copy of that one, reset its identity")
		return
	}
	s := h.upgrade(w, r, a, names)
	if s == nil {
		return
	}
	h.attach(s, r)
}

func statusOf(err error) int {
	switch Code(err) {
	case wire.CodeNotFound:
		return http.StatusUnauthorized
	case wire.CodeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// refuseHTTP answers with an error body of the REST API's form.
func refuseHTTP(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	// An error means that the other side is gone.
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": uuid.NewString(), "type": "error", "links": struct{}{}, "actions": struct{}{},
		"status": status, "code": code, "message": text, "detail": nil,
	})
}

// nameSet returns the set of event names. Agents of one kind ask for the same ones and share the set.
func (h *Hub) nameSet(given []string) map[string]struct{} {
	var names []string
	for _, name := range given {
		// What follows a semicolon is the server's to say.
		if name, _, _ = strings.Cut(name, ";"); name != "" && len(names) < maxNames {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	key := strings.Join(names, "\n")
	h.mu.Lock()
	defer h.mu.Unlock()
	if set := h.nameSets[key]; set != nil {
		return set
	}
	set := make(map[string]struct{}, len(names))
	for _, name := range names {
		set[strings.Clone(name)] = struct{}{}
	}
	if len(h.nameSets) < maxNameSets {
		h.nameSets[key] = set
	}
	return set
}

// connected reports whether the agent answers on a socket it has already, on whatever replica. A socket that does not
// is closed.
func (h *Hub) connected(a *agent) bool {
	if a.session() != nil {
		return h.aliveHere(a)
	}
	replica, ok := h.holder(a.id)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(h.base, h.t.Probe+passAgain)
	defer cancel()
	answer, err := h.store.Request(ctx, subject(replica), h.encode(message{Kind: kindProbe, Agent: a.id}))
	return err == nil && string(answer) == answerYes
}

// aliveHere reports whether the agent answers on its socket here, and closes the socket if not.
func (h *Hub) aliveHere(a *agent) bool {
	s := a.session()
	if s == nil {
		return false
	}
	if s.answers(uuid.NewString(), h.t.Probe) {
		return true
	}
	h.staleClosed.Add(1)
	s.kill("it did not answer, and the agent came back")
	<-s.done // the reader ends at once when its socket is closed
	return false
}

// upgrade makes a session of the request, or answers it with an error and returns nil.
func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request, a *agent, names map[string]struct{}) *session {
	drover := r.Header.Get(wire.HeaderProtocol) == wire.Protocol
	var header http.Header
	if drover {
		header = http.Header{}
		header.Set(wire.HeaderVersion, h.cfg.Version)
		header.Set(wire.HeaderProtocol, wire.Protocol)
		header.Set(wire.HeaderTime, time.Now().UTC().Format(time.RFC3339Nano))
	}
	up := websocket.Upgrader{
		// It reads from the buffer that the hijacker brings: no size of its own.
		WriteBufferSize: writeBuffer, WriteBufferPool: &h.writeBuffers,
		// Agents are no browsers: they authenticate with every request and send no cookie that could be borrowed.
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			refuseHTTP(w, status, http.StatusText(status), reason.Error())
		},
	}
	hj := &corkHijacker{ResponseWriter: w, timeout: h.t.Write, pool: &h.corkBuffers}
	conn, err := up.Upgrade(hj, r, header)
	if err != nil {
		return nil // answered
	}
	s := &session{hub: h, agent: a, conn: conn, cork: hj.conn, names: names, drover: drover, done: make(chan struct{})}
	s.heard.Store(time.Now().UnixNano())
	return s
}

// attach starts a session: it is pinged at once, and gets what waits for it.
func (h *Hub) attach(s *session, r *http.Request) {
	a := s.agent
	log := h.log.WithField("agent", a.id).WithField("address", r.RemoteAddr)
	a.attached(s, strings.Clone(r.Header.Get(wire.HeaderVersion)), strings.Clone(r.RemoteAddr))
	h.wheel.add(s)
	s.handle()
	if !h.background.start(s.read) {
		s.end()
		return
	}
	if h.closed() {
		s.goAway() // Run did not see it any more
	}
	now := time.Now()
	s.send(item{kind: websocketText, data: appendKeepAlive(nil, now)})
	s.ping(now, nil)
	ctx, cancel := context.WithTimeout(h.base, readQueue)
	defer cancel()
	err := a.hold(ctx)
	if err == nil {
		err = h.openLine(ctx, s)
	}
	if err != nil {
		log.WithError(err).Warn("hub: an agent is sent away because its queue cannot be read")
		s.shut(websocket.CloseTryAgainLater, "the queue cannot be read now")
		return
	}
	h.states.add(a) // for what is new besides the state: version, address
	log.Info("hub: agent connected")
}

// openLine begins to push what waits for the agent, and reads what the store's queue has for it besides.
//
// A server that has the agents to itself reads first, and once: what was left by the process before it is older than
// all that it was given itself. Among several, each reconnect has to read the queue, where most is known already or the
// others' to pass on; an agent that cannot stay for long must get something nevertheless, so pushing comes first.
func (h *Hub) openLine(ctx context.Context, s *session) error {
	a := s.agent
	a.mu.Lock()
	first, read := a.q.shared, !a.q.complete
	if first {
		a.beginLocked(s)
	}
	a.mu.Unlock()
	var err error
	if read {
		err = h.replay(ctx, s)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !first && err == nil {
		a.beginLocked(s)
	}
	if a.sess == s {
		a.q.replay = nil
		return err
	}
	a.q.disconnect() // it is gone again; what was read for it is forgotten
	return nil
}

func (a *agent) beginLocked(s *session) {
	if a.sess == s {
		a.q.begin()
		a.pump()
	}
}

// replay takes in what the store's queue holds for the agent.
func (h *Hub) replay(ctx context.Context, s *session) error {
	a := s.agent
	now := time.Now()
	err := h.store.Events(ctx, a.id, func(q store.QueuedEvent) error {
		ev, err := wire.DecodeEvent(q.Data)
		if err != nil && ev.ID == "" {
			h.log.WithError(err).Error("hub: an event in the queue cannot be read and is left out")
			return nil
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		_, settling := a.q.settling[ev.ID]
		_, answered := a.q.replay[ev.ID]
		known := a.q.events[ev.ID]
		switch {
		case a.sess != s:
			return errEnough
		case known != nil:
			if known.seq == 0 {
				known.seq = q.Seq
			}
			return nil
		case settling, answered, q.Origin == replicaName(h.replica):
			return nil // answered since it was read
		}
		p := &pending{
			id: ev.ID, key: ev.Key(), name: ev.Name, frame: q.Data, period: ev.Timeout(h.t.CallTimeout), seq: q.Seq,
			deadline: q.Deadline, durable: true, answered: ev.ReplyTo != "", ready: true, stored: true, foreign: true,
		}
		if h.replicas.Alive(q.Origin) {
			// It may be answered by now; whoever took it knows, and passes it on if it is not.
			p.parked = q.Origin
		}
		if now.After(q.Deadline) && p.parked == "" {
			h.settleLocked(a, p, nil)
			return nil
		}
		if err := a.q.add(p); err != nil {
			h.log.WithField("agent", a.id).Warn("hub: too many events wait for an agent; the rest stays in the queue")
			return errEnough
		}
		a.pump() // does nothing before the line is open
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// hold tells the other replicas that the agent is here.
func (a *agent) hold(ctx context.Context) error {
	a.holding.Lock()
	defer a.holding.Unlock()
	if err := a.h.replicas.Hold(ctx, a.id); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = a.sess != nil
	return nil
}

// release takes hold back, unless a new session came.
func (a *agent) release(ctx context.Context) error {
	a.holding.Lock()
	defer a.holding.Unlock()
	if a.session() != nil {
		return nil
	}
	return a.h.replicas.Release(ctx, a.id)
}

// forget is the last that is done about a session.
func (h *Hub) forget(s *session, reason string) {
	ctx, cancel := context.WithTimeout(h.base, passAgain)
	defer cancel()
	log := h.log.WithField("agent", s.agent.id).WithField("reason", reason)
	if err := s.agent.release(ctx); err != nil && h.base.Err() == nil {
		log.WithError(err).Warn("hub: the other replicas do not know that an agent is gone")
	}
	log.Info("hub: agent disconnected")
}

// closeHere closes the agent's socket on this replica.
func (h *Hub) closeHere(agentID string) {
	if a := h.known(agentID); a != nil {
		if s := a.session(); s != nil {
			s.shut(websocket.ClosePolicyViolation, "the server ended the session")
		}
	}
}

// Disconnect closes the agent's socket, on whatever replica it is: after its removal, say.
func (h *Hub) Disconnect(ctx context.Context, agentID string) error {
	select {
	case <-h.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.closeHere(agentID)
	h.tell(agentID, message{Kind: kindClose})
	return nil
}

// goAway tells the agent that the server shuts down.
func (s *session) goAway() {
	if s.drover {
		s.send(item{kind: websocketText, data: wire.AppendGoAway(nil, wire.GoAway{RetryAfterMillis: goAwayMillis})})
	}
	s.shut(websocket.CloseGoingAway, "the server shuts down")
}
