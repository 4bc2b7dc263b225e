package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
)

func (h *Handler) agentEndpoint() *endpoint {
	visible := func(q *request, id string) (*store.Agent, error) {
		if q.who.kind == kindAgent && id != q.who.agent.ID {
			return nil, notFound()
		}
		a, err := h.store.Agents.Get(id)
		if err != nil {
			return nil, fromCompute(err)
		}
		return a, nil
	}
	remove := func(q *request, id string) (*resource, error) {
		a, err := visible(q, id)
		if err != nil {
			return nil, err
		}
		res := h.agentResource(q, a)
		if err := h.removeAgent(q, a.ID); err != nil {
			return nil, err
		}
		res.fields["state"], res.actions = store.StateRemoved, nil
		return res, nil
	}
	return &endpoint{
		list: func(q *request) ([]*resource, error) {
			if q.who.kind == kindAgent {
				return []*resource{h.agentResource(q, q.who.agent)}, nil
			}
			var out []*resource
			for _, a := range h.store.Agents.List() {
				out = append(out, h.agentResource(q, a))
			}
			return out, nil
		},
		get: func(q *request, id string) (*resource, error) {
			a, err := visible(q, id)
			if err != nil {
				return nil, err
			}
			return h.agentResource(q, a), nil
		},
		remove:  remove,
		actions: map[string]func(*request, string, map[string]any) (*resource, error){"remove": func(q *request, id string, _ map[string]any) (*resource, error) { return remove(q, id) }},
	}
}

// agentResource is an agent as the account may see it: an agent sees little more than that it exists.
func (h *Handler) agentResource(q *request, a *store.Agent) *resource {
	res := &resource{typ: "agent", id: a.ID, fields: map[string]any{"uuid": a.UUID, "name": nil, "kind": "registeredAgent", "state": a.State}}
	if q.who.kind == kindAgent {
		return res
	}
	seen := a.LastSeen
	if t := h.hub.LastSeen(a.ID); t.After(seen) {
		seen = t
	}
	for name, v := range map[string]any{
		"uri": "event://" + a.UUID, "managedConfig": true, "accountId": a.AccountID, "connection": a.Connection, "since": a.Since,
		"lastSeen": seen, "version": orNil(a.Version), "remoteAddr": orNil(a.RemoteAddr), "quarantine": orNil(a.Quarantine),
		"created": a.Created, "removed": time.Time{}, "transitioning": wire.TransitioningNo, "transitioningMessage": nil,
	} {
		res.fields[name] = v
	}
	res.actions = []string{"remove"}
	return res
}

// servePublish takes a reply from an agent.
func servePublish(q *request) error {
	q.w.quiet = true
	body, err := readBody(q.w, q.r, maxReplyBody)
	if err != nil {
		return err
	}
	r, err := wire.DecodeReply(body)
	if err != nil {
		var field *wire.FieldError
		if errors.As(err, &field) {
			return invalid("InvalidFormat", field.Field, "%v", err)
		}
		return fail(http.StatusBadRequest, "InvalidBodyContent", "the body is no reply: %v", err)
	}
	if r.Name == "" {
		return invalid("MissingRequired", "name", "name is missing")
	}
	if err := q.h.hub.Publish(q.ctx(), q.who.agent.ID, r); err != nil {
		return fromHub(err)
	}
	// The reply is not echoed: agents throw the echo away, and it may be large.
	return q.writeResource(http.StatusCreated, &resource{typ: "publish", id: r.ID, fields: map[string]any{"name": r.Name}})
}

// serveContainerEvent takes the news of a container from an agent.
func serveContainerEvent(q *request) error {
	q.w.quiet = true
	body, err := readBody(q.w, q.r, maxEventBody)
	if err != nil {
		return err
	}
	in, err := parseInput(body)
	if err != nil {
		return err
	}
	if _, err := q.h.accept(q.h.types["containerEvent"], in, false); err != nil {
		return err
	}
	var ev hub.ContainerEvent
	if err := json.Unmarshal(body, &ev); err != nil {
		return fail(http.StatusUnprocessableEntity, "InvalidFormat", "the event cannot be read: %v", err)
	}
	if ev.ExternalID == "" {
		return invalid("MissingRequired", "externalId", "externalId is missing")
	}
	if err := q.h.hub.ContainerEvent(q.ctx(), q.who.agent.ID, ev); err != nil {
		return fromHub(err)
	}
	return q.writeResource(http.StatusCreated, &resource{typ: "containerEvent", fields: map[string]any{
		"externalId": ev.ExternalID, "externalStatus": ev.ExternalStatus, "state": "created", "transitioning": wire.TransitioningNo,
	}})
}

// fromHub turns an error of the hub into an answer.
func fromHub(err error) error {
	switch {
	case errors.Is(err, hub.ErrForbidden):
		return forbidden("%v", err)
	case errors.Is(err, hub.ErrUnknownAgent):
		return fail(http.StatusForbidden, "CantVerifyAgent", "%v", err)
	case errors.Is(err, hub.ErrReference):
		return invalid("InvalidReference", "hostId", "%v", err)
	case errors.Is(err, hub.ErrInvalid):
		return invalid("InvalidFormat", "", "%v", err)
	case errors.Is(err, hub.ErrFull), errors.Is(err, hub.ErrClosed):
		e := fail(http.StatusServiceUnavailable, "Service Unavailable", "%v", err)
		e.RetryAfter = retryBusy
		return e
	}
	return err
}
