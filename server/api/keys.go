package api

import (
	"net/http"
	"time"

	"github.com/droverhq/drover/server/store"
)

func (h *Handler) apiKeyEndpoint() *endpoint {
	revoke := func(q *request, id string) (*resource, error) {
		if q.who.key != nil && q.who.key.ID == id {
			return nil, fail(http.StatusConflict, "InvalidState", "this is the key of this very request: use another to revoke it")
		}
		k, err := h.store.APIKeys.Get(id)
		if err != nil {
			return nil, fromCompute(err)
		}
		if err := h.store.APIKeys.Delete(q.ctx(), id, 0); err != nil {
			return nil, fromCompute(err)
		}
		res := h.keyResource(k)
		res.fields["state"], res.actions = store.StateRemoved, nil
		return res, nil
	}
	act := func(q *request, id string, _ map[string]any) (*resource, error) { return revoke(q, id) }
	return &endpoint{
		list: func(q *request) ([]*resource, error) {
			var out []*resource
			for _, k := range h.store.APIKeys.List() {
				out = append(out, h.keyResource(k))
			}
			return out, nil
		},
		get: func(q *request, id string) (*resource, error) {
			k, err := h.store.APIKeys.Get(id)
			if err != nil {
				return nil, fromCompute(err)
			}
			return h.keyResource(k), nil
		},
		create: func(q *request, fields map[string]any) (*resource, error) {
			account := UserAccount
			if text(fields["accountKind"]) == kindAdmin {
				account = AdminAccount
			}
			k, secret, err := h.store.CreateAPIKey(q.ctx(), account, text(fields["name"]))
			if err != nil {
				return nil, fromCompute(err)
			}
			res := h.keyResource(k)
			res.fields["secretValue"] = secret // here and never again
			return res, nil
		},
		remove:  revoke,
		actions: map[string]func(*request, string, map[string]any) (*resource, error){"remove": act, "deactivate": act},
	}
}

func (h *Handler) keyResource(k *store.APIKey) *resource {
	kind := ""
	if a, err := h.store.Accounts.Get(k.AccountID); err == nil {
		kind = a.Kind
	}
	return &resource{typ: "apiKey", id: k.ID, actions: []string{"remove", "deactivate"}, fields: map[string]any{
		"kind": "apiKey", "name": orNil(k.Name), "publicValue": keyPrefix + k.AccessKey, "secretValue": nil, "state": k.State,
		"accountId": k.AccountID, "accountKind": kind, "created": k.Created, "removed": time.Time{},
		"transitioning": "no", "transitioningMessage": nil,
	}}
}

// accountEndpoint shows accounts as typ: account, or project, which is the account that owns everything.
func (h *Handler) accountEndpoint(typ string) *endpoint {
	show := func(a *store.Account) *resource {
		res := &resource{typ: typ, id: a.ID, fields: map[string]any{
			"name": a.Name, "kind": a.Kind, "state": a.State, "created": a.Created, "removed": time.Time{},
			"transitioning": "no", "transitioningMessage": nil,
		}}
		if typ == "project" {
			res.links = []string{"hostStats"}
		}
		return res
	}
	visible := func(q *request, a *store.Account) bool {
		if typ == "project" {
			return a.ID == AdminAccount
		}
		return q.who.kind == kindAdmin || a.ID == q.who.accountID
	}
	e := &endpoint{
		list: func(q *request) ([]*resource, error) {
			var out []*resource
			for _, a := range h.store.Accounts.List() {
				if visible(q, a) {
					out = append(out, show(a))
				}
			}
			return out, nil
		},
		get: func(q *request, id string) (*resource, error) {
			a, err := h.store.Accounts.Get(id)
			if err != nil || !visible(q, a) {
				return nil, notFound()
			}
			return show(a), nil
		},
	}
	if typ == "project" {
		e.links = map[string]func(*request, string) error{"hoststats": func(q *request, id string) error {
			if _, err := e.get(q, id); err != nil {
				return err
			}
			return projectStats(q)
		}}
	}
	return e
}
