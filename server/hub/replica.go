package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// Kinds of messages between replicas.
const (
	kindEvent    = "event"    // push this event to the agent you hold
	kindTook     = "took"     // the event is with the replica that holds the agent
	kindRefused  = "refused"  // it cannot be pushed
	kindForget   = "forget"   // nobody waits for the event any more
	kindProgress = "progress" // a progress reply to your event
	kindReply    = "reply"    // request: the final reply to your event
	kindProbe    = "probe"    // request: does the agent answer on a socket of yours?
	kindClose    = "close"    // close the agent's socket
)

// Answers to requests.
const (
	answerYes = "yes"
	answerNo  = "no"
)

const (
	passAgain    = 5 * time.Second // until an event that the other replica did not confirm is passed again
	forwardTries = 3
	originSlack  = 5 * time.Second // an event of another replica is given up here this long after it was there
)

// A message goes from one replica to another.
type message struct {
	Kind     string          `json:"kind"`
	From     uint32          `json:"from"`
	Agent    string          `json:"agent"`
	Event    string          `json:"event,omitempty"`
	Frame    json.RawMessage `json:"frame,omitempty"` // an event or a reply
	Deadline int64           `json:"deadline,omitempty"`
	Period   int64           `json:"period,omitempty"` // both in milliseconds
	Durable  bool            `json:"durable,omitempty"`
	Answered bool            `json:"answered,omitempty"`
	Code     string          `json:"code,omitempty"`
}

var errNoAnswer = errors.New("the other replica does not answer")

// A replica takes messages on subject, and answers to its forwardings on answerSubject; one subscription, subjects,
// has both, so that they stay in order.
func subject(replica uint32) string { return "drover.hub." + replicaName(replica) + ".m" }

func answerSubject(replica uint32, n uint64) string {
	return "drover.hub." + replicaName(replica) + answerInfix + strconv.FormatUint(n, 10)
}

const answerInfix = ".a."

func subjects(replica uint32) string { return "drover.hub." + replicaName(replica) + ".>" }

func (h *Hub) encode(m message) []byte {
	m.From = h.replica
	b, err := json.Marshal(m)
	if err != nil {
		// Every field is ours or was checked to be JSON.
		h.log.WithError(err).Error("hub: a message to another replica cannot be encoded")
	}
	return b
}

// send sends a message to a replica and does not care whether it arrives: whoever needs to know asks again.
func (h *Hub) send(replica uint32, m message) {
	if err := h.store.Publish(subject(replica), h.encode(m)); err != nil {
		h.log.WithError(err).Debug("hub: a message to another replica got lost")
	}
}

// tell sends a message to the replica that holds the agent, if another one does.
func (h *Hub) tell(agentID string, m message) {
	if replica, ok := h.holder(agentID); ok {
		m.Agent = agentID
		h.send(replica, m)
	}
}

// holder returns the other replica that holds the agent.
func (h *Hub) holder(agentID string) (replica uint32, ok bool) {
	if h.replicas == nil {
		return 0, false
	}
	name, ok := h.replicas.Holder(agentID)
	if !ok || name == replicaName(h.replica) {
		return 0, false
	}
	n := replicaNumber(name)
	return n, n != 0
}

// pass hands the events in line to the replica that holds the agent. The caller holds the agent's mu.
func (h *Hub) pass(a *agent) {
	if len(a.q.line) == 0 {
		return
	}
	replica, ok := h.holder(a.id)
	if !ok {
		return
	}
	now := time.Now()
	for len(a.q.line) > 0 {
		p := a.q.line[0]
		if !p.gone && !p.ready {
			return
		}
		a.q.line = a.q.line[1:]
		if p.gone {
			continue
		}
		p.passed = now
		h.send(replica, message{
			Kind: kindEvent, Agent: a.id, Event: p.id, Frame: p.frame, Deadline: p.deadline.UnixMilli(),
			Period: p.period.Milliseconds(), Durable: p.durable, Answered: p.answered,
		})
	}
	a.q.line = nil
}

// moved is called when another replica took the agent, or lost it.
func (h *Hub) moved(agentID string) {
	if !h.running() {
		return // Run looks at all agents when it is that far
	}
	a := h.known(agentID)
	replica, held := h.holder(agentID)
	if a == nil {
		if !held {
			h.watchOver(agentID)
		}
		return
	}
	a.mu.Lock()
	if s := a.sess; s != nil {
		taken := held && a.held
		a.mu.Unlock()
		if taken {
			s.kill("another replica has the agent now")
		}
		return
	}
	if held {
		a.health.lostAt = time.Time{} // its new replica sees to it
	} else {
		a.health.lost(time.Now())
	}
	a.repass()
	a.mu.Unlock()
	if held {
		h.log.WithField("agent", agentID).WithField("replica", replicaName(replica)).Debug("hub: another replica holds the agent")
	}
}

// repass puts in line again what was passed to a replica. The caller holds mu.
func (a *agent) repass() {
	for _, p := range a.q.events {
		p.passed, p.taken = time.Time{}, false
	}
	a.q.realign()
	a.pump()
}

// watchOver begins to follow the state of an agent that no replica holds, and of which the records say that it is
// connected.
func (h *Hub) watchOver(agentID string) {
	rec, err := h.store.Agents.Get(agentID)
	if err != nil || rec.Connection == store.ConnectionDisconnected {
		return
	}
	a, err := h.agent(agentID)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sess == nil {
		a.health.lost(time.Now())
	}
}

// lost is called when a replica is gone. What it was to say about parked events it will not say any more.
func (h *Hub) lost(replica string) {
	if !h.running() {
		return
	}
	for _, a := range h.all() {
		a.mu.Lock()
		if a.q.unpark(replica) {
			a.pump()
		}
		a.mu.Unlock()
	}
}

// handle takes in a message of another replica. It must not block.
func (h *Hub) handle(in store.Message) {
	if _, number, ok := strings.Cut(in.Subject, answerInfix); ok {
		h.forwarded(number, in)
		return
	}
	var m message
	if err := json.Unmarshal(in.Data, &m); err != nil {
		h.log.WithError(err).Warn("hub: a message of another replica cannot be read")
		return
	}
	switch m.Kind {
	case kindEvent:
		h.passedEvent(m)
	case kindReply:
		h.passedReply(m, in.Answer)
	case kindProgress:
		if r, err := wire.DecodeReply(m.Frame); err == nil {
			h.replyHere(m.Agent, r, func(error) {})
		}
	case kindProbe:
		h.background.start(func() { h.probed(m.Agent, in.Answer) })
	case kindClose:
		h.closeHere(m.Agent)
	case kindTook, kindRefused, kindForget:
		h.passedNote(m)
	}
}

// passedEvent takes in an event that another replica wants pushed.
func (h *Hub) passedEvent(m message) {
	ref := store.EventRef{Agent: m.Agent, ID: m.Event}
	if r := h.claims.take(ref); r != nil {
		h.forward(m.From, m.Agent, r, func(error) {})
		return
	}
	a := h.known(m.Agent)
	ev, err := wire.DecodeEvent(m.Frame)
	if a == nil || err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sess == nil {
		return // it has moved on; the sender will hear of that
	}
	if _, settling := a.q.settling[m.Event]; settling {
		return // answered already
	}
	if p := a.q.events[m.Event]; p != nil {
		if p.w == nil && !p.home {
			p.origin, p.deadline = m.From, time.UnixMilli(m.Deadline).Add(originSlack)
			if p.parked != "" {
				p.parked = ""
				a.q.line = append(a.q.line, p)
				a.pump()
			}
			h.send(m.From, message{Kind: kindTook, Agent: m.Agent, Event: m.Event})
		}
		return
	}
	p := &pending{
		id: m.Event, key: ev.Key(), name: ev.Name, frame: m.Frame, period: time.Duration(m.Period) * time.Millisecond,
		durable: m.Durable, answered: m.Answered, origin: m.From, ready: true, stored: true, foreign: true,
		deadline: time.UnixMilli(m.Deadline).Add(originSlack),
	}
	if err := a.q.add(p); err != nil {
		h.send(m.From, message{Kind: kindRefused, Agent: m.Agent, Event: m.Event, Code: Code(err)})
		return
	}
	h.send(m.From, message{Kind: kindTook, Agent: m.Agent, Event: m.Event})
	a.pump()
}

// passedNote takes in what another replica says about an event.
func (h *Hub) passedNote(m message) {
	a := h.known(m.Agent)
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.q.events[m.Event]
	if p == nil {
		return
	}
	switch m.Kind {
	case kindTook:
		p.taken = true
	case kindRefused:
		a.q.remove(p)
		h.refuse(a, p, errorOf(m.Code))
	case kindForget:
		if p.w == nil {
			a.q.remove(p)
			a.pump()
		}
	}
}

// passedReply takes in the final reply to an event of ours.
func (h *Hub) passedReply(m message, answer func([]byte)) {
	r, err := wire.DecodeReply(m.Frame)
	if err != nil {
		h.malformed.Add(1)
	}
	if a := h.known(m.Agent); a != nil {
		if s := a.session(); s != nil {
			if sent, ok := s.takePing(r.EventID()); ok {
				h.ponged(a, r, sent)
				answer([]byte(answerYes))
				return
			}
		}
	}
	here := h.replyHere(m.Agent, r, func(err error) {
		if err == nil {
			answer([]byte(answerYes))
		}
	})
	if here {
		return
	}
	if h.recent.has(store.EventRef{Agent: m.Agent, ID: r.EventID()}) {
		h.duplicates.Add(1)
		answer([]byte(answerYes))
		return
	}
	answer([]byte(answerNo))
}

// probed answers whether the agent is alive on a socket of ours. One that is not is closed.
func (h *Hub) probed(agentID string, answer func([]byte)) {
	alive := false
	if a := h.known(agentID); a != nil {
		alive = h.aliveHere(a)
	}
	if alive {
		answer([]byte(answerYes))
		return
	}
	answer([]byte(answerNo))
}

// errorOf is the opposite of Code, for what another replica may say.
func errorOf(code string) error {
	switch code {
	case wire.CodeUnsupported:
		return ErrUnsupported
	case wire.CodeBusy:
		return ErrFull
	}
	return fmt.Errorf("the replica that holds the agent refused the event: %s", code)
}
