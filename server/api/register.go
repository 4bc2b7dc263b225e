package api

import (
	"errors"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// Limits of a registration key. Original agents send 128 hex digits.
const (
	minRegisterKey = 16
	maxRegisterKey = 1024
)

func (h *Handler) registerEndpoint() *endpoint {
	return &endpoint{list: h.listRegister, get: getRegister, create: h.createRegister}
}

// createRegister binds a registration key to an agent. The answer never holds the credentials: they are had by the
// list request that names the key, as Rancher's clients ask for them.
func (h *Handler) createRegister(q *request, fields map[string]any) (*resource, error) {
	key := text(fields["key"])
	if len(key) < minRegisterKey {
		return nil, invalid("MinLengthExceeded", "key", "the key has %d characters, want at least %d random ones", len(key), minRegisterKey)
	}
	if len(key) > maxRegisterKey {
		return nil, invalid("MaxLengthExceeded", "key", "the key has %d characters, want at most %d", len(key), maxRegisterKey)
	}
	reg, _, err := h.store.RegisterAgent(q.ctx(), key, q.who.token)
	if err != nil {
		return nil, fromCompute(err)
	}
	res := registerResource(reg)
	res.fields["state"] = store.StateActivating
	res.fields["transitioning"] = wire.TransitioningYes
	return res, nil
}

// listRegister answers with the agent's credentials where the query names the key, and with nothing else ever.
func (h *Handler) listRegister(q *request) ([]*resource, error) {
	key := q.r.URL.Query().Get("key")
	if key == "" {
		return nil, nil
	}
	reg, err := h.store.RegisterByKey(q.ctx(), key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fromCompute(err)
	}
	if reg.AccountID != q.who.accountID {
		return nil, nil
	}
	res := registerResource(reg)
	if reg.State == store.StateActive {
		access, secret, err := h.store.IssueAgentSecret(q.ctx(), reg.AgentID)
		if err != nil {
			return nil, fromCompute(err)
		}
		res.fields["accessKey"], res.fields["secretKey"] = access, secret
		res.fields["key"] = key
	}
	return []*resource{res}, nil
}

func getRegister(q *request, id string) (*resource, error) {
	reg, err := q.h.store.Registers.Get(id)
	if err != nil || reg.AccountID != q.who.accountID {
		return nil, notFound()
	}
	return registerResource(reg), nil
}

func registerResource(reg *store.Register) *resource {
	return &resource{typ: "register", id: reg.ID, fields: map[string]any{
		"uuid": reg.UUID, "kind": "register", "name": nil, "state": reg.State, "accountId": reg.AccountID, "agentId": reg.AgentID,
		"created": reg.Created, "removed": time.Time{}, "transitioning": wire.TransitioningNo, "transitioningMessage": nil,
	}}
}
