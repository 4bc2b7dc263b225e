package hub

import (
	"context"
	"errors"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/utils/backoff"
	"github.com/gorilla/websocket"
)

// writeState writes down the connection state of an agent, in its record and in those of its hosts.
func (h *Hub) writeState(ctx context.Context, a *agent) {
	if _, held := h.holder(a.id); held && a.session() == nil {
		return // it is the other replica's to say
	}
	err := h.writeAgent(ctx, a)
	for _, host := range h.store.HostsOfAgent(a.id) {
		if err == nil {
			err = h.writeHostState(ctx, a, host.ID)
		}
	}
	if err == nil || errors.Is(err, store.ErrNotFound) || ctx.Err() != nil {
		return
	}
	h.log.WithField("agent", a.id).WithError(err).Warn("hub: the state of an agent cannot be written down; trying again")
	if backoff.Sleep(ctx, time.Second) == nil {
		h.states.add(a)
	}
}

func (h *Hub) writeAgent(ctx context.Context, a *agent) error {
	var from string
	rec, err := h.store.Agents.Update(ctx, a.id, func(rec *store.Agent) error {
		if rec.State == store.StateRemoved {
			return store.ErrUnchanged
		}
		from = rec.Connection
		a.mu.Lock()
		defer a.mu.Unlock()
		if rec.Connection != a.health.state {
			rec.Connection, rec.Since = a.health.state, a.health.since
			rec.State = agentState(a.health.state)
			rec.LastSeen = a.lastSeen
		}
		if a.sess != nil {
			rec.Version, rec.Drover, rec.RemoteAddr = a.version, a.drover, a.remote
		}
		return nil
	})
	if err == nil && from != rec.Connection && from != "" {
		h.log.WithField("agent", a.id).WithField("from", from).WithField("to", rec.Connection).Info("hub: an agent's connection changed")
	}
	return err
}

func (h *Hub) writeHostState(ctx context.Context, a *agent, hostID string) error {
	_, err := h.store.Hosts.Update(ctx, hostID, func(host *store.Host) error {
		if host.State == store.StateRemoved || host.AgentID != a.id {
			return store.ErrUnchanged
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.stateOf(host)
		return nil
	})
	return err
}

// stateOf sets what a host's record says of its agent. A host that the agent does not report any more, because its
// identity was reset, counts as disconnected. The caller holds mu.
func (a *agent) stateOf(host *store.Host) {
	state := a.health.state
	if a.hostUUID != "" && host.UUID != a.hostUUID {
		state = store.ConnectionDisconnected
	}
	if host.Connection != state {
		host.Connection, host.AgentState = state, agentState(state)
		host.LastSeen = a.lastSeen
	}
	if a.sess != nil && a.version != "" {
		host.AgentVersion = a.version
	}
}

// follow takes in the changes of records that the hub acts on.
func (h *Hub) follow(changes <-chan store.Change) {
	for c := range changes {
		switch rec := c.Record.(type) {
		case *store.Container:
			h.containerChanged(rec)
		case *store.Agent:
			if rec.State == store.StateRemoved {
				h.agentRemoved(c.ID)
			}
		case nil:
			if c.Type == store.TypeAgent {
				h.agentRemoved(c.ID)
			}
		}
	}
}

// agentRemoved ends everything that concerns an agent.
func (h *Hub) agentRemoved(id string) {
	h.mu.Lock()
	a := h.agents[id]
	delete(h.agents, id)
	h.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	for _, p := range a.q.events {
		a.q.remove(p)
		p.resolve(outcome{err: ErrUnknownAgent})
	}
	s := a.sess
	a.mu.Unlock()
	if s != nil {
		s.shut(websocket.ClosePolicyViolation, "the agent was removed")
	}
}

// containerChanged lets the next report of the container's host count, even if it says the same as the last one.
func (h *Hub) containerChanged(c *store.Container) {
	host, err := h.store.Hosts.Get(c.HostID)
	if err != nil {
		return
	}
	a := h.known(host.AgentID)
	if a == nil {
		return
	}
	a.mu.Lock()
	a.taken = 0
	_, ask := a.skipped[c.ID]
	ask = ask && !busy(c)
	if ask {
		delete(a.skipped, c.ID)
	}
	s := a.sess
	a.mu.Unlock()
	if ask && s != nil {
		// Something happened to it while the server was at work on it; see what became of it.
		s.ping(time.Now(), &pingOptions{instances: true})
	}
}
