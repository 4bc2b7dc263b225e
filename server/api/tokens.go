package api

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/server/pki"
	"github.com/droverhq/drover/server/store"
)

const (
	// oneLinerName describes the tokens that OneLiner makes, and oneLinerLife is how long they are valid.
	oneLinerName = "one-liner of the server's start"
	oneLinerLife = 30 * 24 * time.Hour
	// A token is kept as a digest. For this long after it was made, the process that made it shows it again: clients of
	// Rancher create it and then read it.
	showFor     = time.Hour
	maxShown    = 1000
	maxTokenAge = 10 * 365 * 24 * 60 * 60 // seconds
	// Tokens that are revoked or have expired can be looked at for this long.
	keepTokens = 30 * 24 * time.Hour
)

func (h *Handler) registrationTokenEndpoint() *endpoint {
	get := func(q *request, id string) (*resource, error) {
		t, err := h.store.RegistrationTokens.Get(id)
		if err != nil {
			return nil, fromCompute(err)
		}
		return h.tokenResource(q.agentBase(), t), nil
	}
	revoke := func(q *request, id string) (*resource, error) {
		t, err := h.store.RegistrationTokens.Update(q.ctx(), id, func(t *store.RegistrationToken) error {
			if t.Revoked.IsZero() {
				t.Revoked = h.now().UTC()
			}
			return nil
		})
		if err != nil {
			return nil, fromCompute(err)
		}
		h.shown.forget(id)
		return h.tokenResource(q.agentBase(), t), nil
	}
	act := func(q *request, id string, _ map[string]any) (*resource, error) { return revoke(q, id) }
	return &endpoint{
		list: func(q *request) ([]*resource, error) {
			var out []*resource
			for _, t := range h.store.RegistrationTokens.List() {
				if t.Revoked.IsZero() || q.wantsRemoved() {
					out = append(out, h.tokenResource(q.agentBase(), t))
				}
			}
			return out, nil
		},
		get:     get,
		create:  h.createToken,
		remove:  revoke,
		actions: map[string]func(*request, string, map[string]any) (*resource, error){"remove": act, "deactivate": act},
	}
}

func (h *Handler) createToken(q *request, fields map[string]any) (*resource, error) {
	t := store.RegistrationToken{AccountID: AdminAccount, Description: text(fields["description"])}
	if t.Description == "" {
		t.Description = text(fields["name"])
	}
	if n, ok := fields["expiresIn"].(int64); ok {
		if n < 1 || n > maxTokenAge {
			return nil, invalid("MinLimitExceeded", "expiresIn", "expiresIn is %d seconds: want 1 to %d", n, maxTokenAge)
		}
		t.Expires = h.now().Add(time.Duration(n) * time.Second).UTC()
	}
	h.purgeTokens(q.ctx())
	rec, token, err := h.store.CreateRegistrationToken(q.ctx(), t)
	if err != nil {
		return nil, fromCompute(err)
	}
	h.shown.add(rec.ID, token)
	return h.tokenResource(q.agentBase(), rec), nil
}

// tokenResource shows a token, and the command that uses it, as long as the process remembers it.
func (h *Handler) tokenResource(base string, t *store.RegistrationToken) *resource {
	state := store.StateActive
	switch {
	case !t.Revoked.IsZero():
		state = store.StateRemoved
	case !t.Expires.IsZero() && h.now().After(t.Expires):
		state = "expired"
	}
	res := &resource{typ: "registrationToken", id: t.ID, fields: map[string]any{
		"kind": "registrationToken", "name": nil, "description": orNil(t.Description), "state": state, "accountId": t.AccountID,
		"publicValue": t.PublicValue, "created": t.Created, "expires": t.Expires, "removed": t.Revoked, "image": h.image(),
		"transitioning": "no", "transitioningMessage": nil, "token": nil, "registrationUrl": nil, "command": nil,
	}}
	if state != store.StateActive {
		return res
	}
	res.actions = []string{"remove", "deactivate"}
	if token := h.shown.get(t.ID); token != "" {
		url := registrationURL(base, token)
		res.fields["token"], res.fields["registrationUrl"], res.fields["command"] = token, url, h.command(url)
	}
	return res
}

// agentBase is the address that agents are told.
func (q *request) agentBase() string { return q.h.agentBase(q.target.base) }

func (h *Handler) agentBase(seen string) string {
	if v := h.setting(settingHost); v != "" {
		return v
	}
	if h.cfg.PublicURL != "" {
		return h.cfg.PublicURL
	}
	return seen
}

func registrationURL(base, token string) string { return base + "/" + v1 + "/scripts/" + token }

// command is the line that joins a host.
//
// The agent needs the engine's socket and a place for its state, and nothing that --privileged gives. It shares the
// host's network because what it tells of the host (its name, its address, its traffic) must be the host's and not a
// container's, and because a server on loopback, or a resolver or proxy of the host there, is out of reach otherwise.
func (h *Handler) command(url string) string {
	args := []string{
		"docker run -d --name drover-agent --restart=unless-stopped --net=host",
		"-v /var/run/docker.sock:/var/run/docker.sock -v /var/lib/drover:/var/lib/drover",
	}
	if h.cfg.CA != nil {
		args = append(args, "-e CATTLE_CA_CHECKSUM="+pki.Checksum(h.cfg.CA))
	}
	return strings.Join(append(args, h.image(), url), " ")
}

func (h *Handler) image() string {
	if v := h.setting(settingImage); v != "" {
		return v
	}
	return h.cfg.Image
}

// OneLiner returns the command that joins a host to the server at base, unless a setting names another address. The
// token in it is valid for 30 days. Calls return the same line for an hour.
func (h *Handler) OneLiner(ctx context.Context, base string) (string, error) {
	now := h.now()
	for _, t := range h.store.RegistrationTokens.List() {
		if t.Description != oneLinerName {
			continue
		}
		if token := h.shown.get(t.ID); token != "" && t.Revoked.IsZero() {
			return h.command(registrationURL(h.agentBase(base), token)), nil
		}
	}
	h.purgeTokens(ctx)
	rec, token, err := h.store.CreateRegistrationToken(ctx, store.RegistrationToken{
		AccountID: AdminAccount, Description: oneLinerName, Expires: now.Add(oneLinerLife).UTC(),
	})
	if err != nil {
		return "", fmt.Errorf("make a registration token: %w", err)
	}
	h.shown.add(rec.ID, token)
	return h.command(registrationURL(h.agentBase(base), token)), nil
}

// purgeTokens deletes the tokens that have been of no use for long.
func (h *Handler) purgeTokens(ctx context.Context) {
	before := h.now().Add(-keepTokens)
	for _, t := range h.store.RegistrationTokens.List() {
		revoked := !t.Revoked.IsZero() && t.Revoked.Before(before)
		expired := !t.Expires.IsZero() && t.Expires.Before(before)
		if !revoked && !expired {
			continue
		}
		if err := h.store.RegistrationTokens.Delete(ctx, t.ID, t.Revision); err != nil {
			h.log.WithError(err).WithField("token", t.ID).Debug("cannot delete an old token")
		}
	}
}

// shownTokens are the tokens that were made a short while ago, by id. They are in memory alone.
type shownTokens struct {
	now func() time.Time

	mu     sync.Mutex // guards the following field
	tokens map[string]shownToken
}

type shownToken struct {
	token string
	until time.Time
}

func newShownTokens(now func() time.Time) *shownTokens {
	return &shownTokens{now: now, tokens: map[string]shownToken{}}
}

func (s *shownTokens) add(id, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for id, t := range s.tokens {
		if now.After(t.until) || len(s.tokens) >= maxShown {
			delete(s.tokens, id)
		}
	}
	s.tokens[id] = shownToken{token: token, until: now.Add(showFor)}
}

func (s *shownTokens) get(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[id]
	if s.now().After(t.until) {
		return ""
	}
	return t.token
}

func (s *shownTokens) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, id)
}
