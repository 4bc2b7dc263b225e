package hub

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// frame takes in one text frame of a session. b is only lent.
func (h *Hub) frame(s *session, b []byte) {
	r, err := wire.DecodeReply(b)
	id := r.EventID()
	if err != nil || id == "" {
		// What can be read of it is still an answer: without it the caller would wait for the deadline.
		h.malformed.Add(1)
		h.log.WithField("agent", s.agent.id).WithError(err).Debug("hub: a frame is no proper reply")
		if id == "" {
			return
		}
	}
	if sent, ok := s.takePing(id); ok {
		h.ponged(s.agent, r, sent)
		return
	}
	h.settler.room() // a store that is slow slows the agents down, and nothing else
	final := r.Final()
	r.Data = append([]byte(nil), r.Data...)
	h.reply(s.agent.id, r, func(err error) {
		if err == nil && final {
			s.ack(id)
		}
	})
}

// Publish is the door for replies that arrive by POST. It returns nil when the reply is safe, also for a duplicate.
// ErrForbidden if its name does not begin with "reply.". r must not be modified afterwards.
func (h *Hub) Publish(ctx context.Context, agentID string, r *wire.Reply) error {
	if !strings.HasPrefix(r.Name, replyPrefix) {
		return ErrForbidden
	}
	a, err := h.open(ctx, agentID)
	if err != nil {
		return err
	}
	if r.EventID() == "" {
		return fmt.Errorf("%w: it names no previous id", ErrInvalid)
	}
	if s := a.session(); s != nil {
		if sent, ok := s.takePing(r.EventID()); ok {
			h.ponged(a, r, sent)
			return nil
		}
	}
	done := make(chan error, 1)
	h.reply(agentID, r, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reply takes in a reply that is no answer to one of our pings. safe, which must not block, is called once, when the
// reply need not be sent again, or with an error if it has to be.
func (h *Hub) reply(agentID string, r *wire.Reply, safe func(error)) {
	if h.replyHere(agentID, r, safe) {
		return
	}
	if origin := replyReplica(r.Name); origin != 0 && origin != h.replica && h.store.Clustered() {
		h.forward(origin, agentID, r, safe)
		return
	}
	h.orphan(agentID, r, safe)
}

// noted takes note of a final reply, for a replay that is reading the agent's queue meanwhile.
func (h *Hub) noted(agentID, eventID string) {
	if a := h.known(agentID); a != nil {
		a.mu.Lock()
		a.q.answered(eventID)
		a.mu.Unlock()
	}
}

// replyHere takes in the reply to an event that this replica knows of, and reports whether it is one.
func (h *Hub) replyHere(agentID string, r *wire.Reply, safe func(error)) bool {
	a := h.known(agentID)
	if a == nil {
		return false
	}
	id := r.EventID()
	a.mu.Lock()
	defer a.mu.Unlock()
	if waiting, ok := a.q.settling[id]; ok {
		if r.Final() {
			h.duplicates.Add(1)
			a.q.settling[id] = append(waiting, safe)
		} else {
			safe(nil)
		}
		return true
	}
	p := a.q.events[id]
	switch {
	case p == nil:
		return false
	case p.parked != "":
		// The replica that it was given to knows who waits for it.
		a.q.remove(p)
		a.q.answered(id)
		h.forward(replicaNumber(p.parked), agentID, r, safe)
	case !r.Final():
		h.progressed(a, p, r)
		safe(nil)
	case p.origin != 0:
		// The caller waits at another replica, which takes it out of the store's queue.
		a.q.remove(p)
		a.q.answered(id)
		a.pump()
		h.forward(p.origin, agentID, r, safe)
	default:
		a.q.remove(p)
		a.q.answered(id)
		if p.w != nil {
			h.replies.Add(1)
		} else {
			h.late.Add(1)
			h.claims.put(store.EventRef{Agent: agentID, ID: id}, r)
		}
		if !p.passed.IsZero() {
			h.tell(agentID, message{Kind: kindForget, Event: id}) // it may have come through another door
		}
		p.resolve(outcome{reply: r})
		h.settleLocked(a, p, safe)
		a.pump()
	}
	return true
}

// answered takes note of a final reply, for a replay that is reading the store's queue meanwhile.
func (q *queue) answered(id string) {
	if q.replay != nil {
		q.replay[id] = struct{}{}
	}
}

// progressed takes in a progress reply. The caller holds the agent's mu.
func (h *Hub) progressed(a *agent, p *pending, r *wire.Reply) {
	if d := time.Now().Add(p.period); d.After(p.deadline) {
		p.deadline = d
	}
	switch {
	case p.origin != 0:
		h.send(p.origin, message{Kind: kindProgress, Agent: a.id, Event: p.id, Frame: wire.AppendReply(nil, r)})
	case p.w != nil:
		select {
		case p.w.progress <- r:
		default: // the caller is slow; the deadline is extended all the same
		}
	}
}

// orphan takes in a final reply whose event nobody here knows: its caller gave up or its process ended, or it is a
// duplicate. The reply is kept for a while for whoever asks again.
func (h *Hub) orphan(agentID string, r *wire.Reply, safe func(error)) {
	ref := store.EventRef{Agent: agentID, ID: r.EventID()}
	switch {
	case !r.Final():
		safe(nil)
		return
	case h.recent.has(ref):
		h.duplicates.Add(1)
		safe(nil)
		return
	}
	h.late.Add(1)
	h.noted(agentID, ref.ID)
	h.claims.put(ref, r)
	h.settler.add(task{ref: ref, safe: safe})
}

// settleLocked takes an event that has its outcome out of the store's queue. safe may be nil. The caller holds the
// agent's mu.
func (h *Hub) settleLocked(a *agent, p *pending, safe func(error)) {
	ref := store.EventRef{Agent: a.id, ID: p.id}
	if !p.durable || !p.stored && !p.storing {
		h.recent.add(ref)
		if safe != nil {
			safe(nil)
		}
		return
	}
	if a.q.settling == nil {
		a.q.settling = make(map[string][]func(error))
	}
	waiting := a.q.settling[p.id]
	if safe != nil {
		waiting = append(waiting, safe)
	}
	a.q.settling[p.id] = waiting
	if !p.storing { // else it is taken out as soon as it is in
		h.settler.add(task{ref: ref, agent: a})
	}
}

// settled tells everyone that an event is out of the store's queue.
func (h *Hub) settled(t task, err error) {
	if err == nil {
		h.recent.add(t.ref)
	}
	if t.safe != nil {
		t.safe(err)
	}
	if t.agent == nil {
		return
	}
	t.agent.mu.Lock()
	defer t.agent.mu.Unlock()
	waiting := t.agent.q.settling[t.ref.ID]
	delete(t.agent.q.settling, t.ref.ID)
	if len(t.agent.q.settling) == 0 {
		t.agent.q.settling = nil
	}
	for _, safe := range waiting {
		safe(err)
	}
}
