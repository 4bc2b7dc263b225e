package api

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/droverhq/drover/server/store"
)

// registrationUser is the user name under which a registration token is the password.
const registrationUser = "registrationToken"

// keyPrefix tells people what the string is that they found. Access keys are known with and without it.
const keyPrefix = "ak_"

// FormatKey returns an API key as people see it: "ak_<access key>:<secret>".
func FormatKey(accessKey, secret string) string { return keyPrefix + accessKey + ":" + secret }

// An identity is who sent a request.
type identity struct {
	kind      string
	accountID string
	key       *store.APIKey            // of admins and users
	agent     *store.Agent             // of agents
	token     *store.RegistrationToken // of registrations
}

// credentials returns what the Authorization header says: a user and a secret, as Basic or as "Bearer user:secret".
func credentials(r *http.Request) (user, secret string, ok bool) {
	if user, secret, ok = r.BasicAuth(); ok {
		return user, secret, user != ""
	}
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", "", false
	}
	user, secret, ok = strings.Cut(strings.TrimSpace(value), ":")
	return user, secret, ok && user != ""
}

// authenticate finds out who sends a request. Whoever fails too often is told to wait, without another look at what
// they send; other keys from the same address, and those that were good before, go on working.
func (h *Handler) authenticate(r *http.Request, client netip.Addr) (*identity, *apiError) {
	user, secret, ok := credentials(r)
	if !ok {
		return nil, fail(http.StatusUnauthorized, "Unauthorized", "this needs an access key and its secret, or an agent's or registration token's")
	}
	user = strings.TrimPrefix(user, keyPrefix)
	counted := countedUser(user, secret)
	if wait := h.failures.blocked(client, counted, secret); wait > 0 {
		return nil, tooMany(wait)
	}
	who, err := h.identify(r, user, secret)
	switch {
	case err == nil:
		h.failures.succeeded(client, counted, secret)
		return who, nil
	case errors.Is(err, store.ErrExpired): // the secret was right: no guess
		return nil, fail(http.StatusUnauthorized, "Unauthorized", "the registration token has expired")
	case errors.Is(err, store.ErrRevoked):
		return nil, fail(http.StatusUnauthorized, "Unauthorized", "the registration token was revoked")
	case errors.Is(err, store.ErrCredentials), errors.Is(err, store.ErrNotFound):
		if wait := h.failures.failed(client, counted); wait > 0 {
			return nil, tooMany(wait)
		}
		return nil, fail(http.StatusUnauthorized, "Unauthorized", "the access key or its secret is wrong")
	}
	h.log.WithError(err).Error("cannot check credentials")
	e := fail(http.StatusServiceUnavailable, "Service Unavailable", "credentials cannot be checked now")
	e.RetryAfter = 5 * time.Second
	return nil, e
}

// countedUser is the name under which failures are counted: each registration token has its own.
func countedUser(user, secret string) string {
	if user != registrationUser {
		return user
	}
	public, _, _ := strings.Cut(secret, ":")
	return user + ":" + public
}

func tooMany(wait time.Duration) *apiError {
	e := fail(http.StatusTooManyRequests, "Too Many Requests", "too many wrong credentials came from this address")
	e.RetryAfter = wait
	return e
}

func (h *Handler) identify(r *http.Request, user, secret string) (*identity, error) {
	ctx := r.Context()
	if user == registrationUser {
		token, err := h.store.CheckRegistrationToken(ctx, secret)
		if err != nil {
			return nil, err
		}
		return &identity{kind: kindRegistration, accountID: token.AccountID, token: token}, nil
	}
	key, err := h.store.AuthenticateAPIKey(ctx, user, secret)
	if err == nil {
		account, err := h.store.Accounts.Get(key.AccountID)
		if err != nil {
			return nil, err
		}
		if account.State != store.StateActive || account.Kind != kindAdmin && account.Kind != kindUser {
			return nil, store.ErrCredentials
		}
		return &identity{kind: account.Kind, accountID: account.ID, key: key}, nil
	}
	if !errors.Is(err, store.ErrCredentials) {
		return nil, err
	}
	agent, err := h.store.AuthenticateAgent(ctx, user, secret)
	if err != nil {
		return nil, err
	}
	return &identity{kind: kindAgent, accountID: agent.ID, agent: agent}, nil
}
