package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// maxSecrets bounds the secrets of one agent that are valid at a time.
const maxSecrets = 4

// CreateAPIKey makes a key pair for an account. The secret is returned here and never again.
func (s *Store) CreateAPIKey(ctx context.Context, accountID, name string) (key *APIKey, secret string, err error) {
	secret = newSecret()
	key, err = s.APIKeys.Create(ctx, APIKey{
		Name: name, AccountID: accountID, AccessKey: newAccessKey(),
		Secret: newCredential(secret, time.Now().UTC()), State: StateActive,
	})
	return key, secret, err
}

// AuthenticateAPIKey returns the key of the pair, or ErrCredentials.
func (s *Store) AuthenticateAPIKey(ctx context.Context, accessKey, secret string) (*APIKey, error) {
	key, err := s.APIKeys.byKey(ctx, plainKey(accessKey), false)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrCredentials
	}
	if err != nil {
		return nil, err
	}
	if key.State != StateActive || !key.Secret.Matches(secret) {
		return nil, ErrCredentials
	}
	return key, nil
}

// CreateRegistrationToken makes a token, "<public>:<milliseconds>:<secret>", which is returned here and never again.
// Of t it takes AccountID, Description and Expires, where a zero time means never.
func (s *Store) CreateRegistrationToken(ctx context.Context, t RegistrationToken) (rec *RegistrationToken, token string, err error) {
	now := time.Now().UTC()
	public := newAccessKey()
	token = public + ":" + strconv.FormatInt(now.UnixMilli(), 10) + ":" + newSecret()
	rec, err = s.RegistrationTokens.Create(ctx, RegistrationToken{
		AccountID: t.AccountID, Description: t.Description, Expires: t.Expires,
		PublicValue: public, Secret: newCredential(token, now),
	})
	return rec, token, err
}

// CheckRegistrationToken returns the record of a valid token, or ErrCredentials, ErrExpired or ErrRevoked.
func (s *Store) CheckRegistrationToken(ctx context.Context, token string) (*RegistrationToken, error) {
	public, _, _ := strings.Cut(token, ":")
	rec, err := s.RegistrationTokens.byKey(ctx, plainKey(public), false)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrCredentials
	}
	if err != nil {
		return nil, err
	}
	switch {
	case !rec.Secret.Matches(token):
		return nil, ErrCredentials
	case !rec.Revoked.IsZero():
		return nil, ErrRevoked
	case !rec.Expires.IsZero() && time.Now().After(rec.Expires):
		return nil, ErrExpired
	}
	return rec, nil
}

// RegisterAgent binds key to a new agent owned by the token's account, or returns what it is bound to already:
// registering twice is no error and makes no second agent. The agent has no secret yet: see IssueAgentSecret.
func (s *Store) RegisterAgent(ctx context.Context, key string, token *RegistrationToken) (*Register, *Agent, error) {
	if key == "" {
		return nil, nil, errors.New("register agent: empty key")
	}
	reg, agent, err := s.registered(ctx, key)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return reg, agent, err
	}
	regUUID := uuid.NewString()
	agent, err = s.Agents.Create(ctx, Agent{
		UUID: uuid.NewString(), AccountID: token.AccountID, AccessKey: newAccessKey(),
		State: StateRegistering, Connection: ConnectionDisconnected,
	})
	if err != nil {
		return nil, nil, err
	}
	reg, err = s.Registers.Create(ctx, Register{
		UUID: regUUID, KeyDigest: keyDigest(key), AgentID: agent.ID,
		AccountID: token.AccountID, TokenID: token.ID, State: StateActive,
	})
	if err == nil {
		return reg, agent, nil
	}
	// Either someone registered the same key meanwhile, whose agent it is then, or nothing came of it.
	if err := s.Agents.Delete(ctx, agent.ID, 0); err != nil {
		s.log.WithError(err).Warn("store: an agent without a register is left over")
	}
	if errors.Is(err, ErrExists) {
		return s.registered(ctx, key)
	}
	return nil, nil, err
}

// registered returns what a registration key is bound to.
func (s *Store) registered(ctx context.Context, key string) (*Register, *Agent, error) {
	reg, err := s.Registers.byKey(ctx, keyDigest(key), true)
	if err != nil {
		return nil, nil, err
	}
	agent, err := s.Agents.Get(reg.AgentID)
	if err != nil {
		return nil, nil, fmt.Errorf("agent of register %s: %w", reg.ID, err)
	}
	return reg, agent, nil
}

// IssueAgentSecret makes a fresh secret for an agent. Secrets issued before stay valid until a later one is first
// used; at most four are valid at a time.
func (s *Store) IssueAgentSecret(ctx context.Context, agentID string) (accessKey, secret string, err error) {
	secret = newSecret()
	agent, err := s.Agents.Update(ctx, agentID, func(a *Agent) error {
		a.Secrets = append(a.Secrets, newCredential(secret, time.Now().UTC()))
		if len(a.Secrets) > maxSecrets {
			// The one in use must go on working, so drop the oldest that nobody used.
			i := slices.IndexFunc(a.Secrets, func(c Credential) bool { return !c.Used })
			a.Secrets = slices.Delete(a.Secrets, i, i+1)
		}
		return nil
	})
	if err != nil {
		return "", "", err
	}
	return agent.AccessKey, secret, nil
}

// AuthenticateAgent returns the agent of the key pair, or ErrCredentials. The first use of a secret is written down,
// so ctx bounds a write then.
func (s *Store) AuthenticateAgent(ctx context.Context, accessKey, secret string) (*Agent, error) {
	agent, i, err := s.matchAgent(ctx, accessKey, secret, false)
	if err != nil {
		return nil, err
	}
	if i < 0 && s.Clustered() {
		// Another replica may have issued the secret a moment ago.
		if agent, i, err = s.matchAgent(ctx, accessKey, secret, true); err != nil {
			return nil, err
		}
	}
	if i < 0 {
		return nil, ErrCredentials
	}
	if i == 0 && agent.Secrets[0].Used {
		return agent, nil
	}
	return s.Agents.Update(ctx, agent.ID, func(a *Agent) error {
		i := slices.IndexFunc(a.Secrets, func(c Credential) bool { return c.Matches(secret) })
		if i < 0 {
			return ErrCredentials
		}
		a.Secrets = a.Secrets[i:]
		a.Secrets[0].Used = true
		return nil
	})
}

// matchAgent returns the agent of accessKey and which of its secrets is secret, or -1.
func (s *Store) matchAgent(ctx context.Context, accessKey, secret string, fresh bool) (*Agent, int, error) {
	agent, err := s.Agents.byKey(ctx, plainKey(accessKey), fresh)
	if errors.Is(err, ErrNotFound) {
		return nil, -1, ErrCredentials
	}
	if err != nil {
		return nil, -1, err
	}
	return agent, slices.IndexFunc(agent.Secrets, func(c Credential) bool { return c.Matches(secret) }), nil
}

// RemoveAgent removes an agent with its register, hosts and containers: its key stops working. Its stored events go
// too. Interrupted half-way, it can be called again.
func (s *Store) RemoveAgent(ctx context.Context, agentID string) error {
	var errs []error
	for _, host := range s.HostsOfAgent(agentID) {
		for _, c := range s.ContainersOfHost(host.ID) {
			errs = append(errs, ignoreGone(s.Containers.Delete(ctx, c.ID, 0)))
		}
		errs = append(errs, ignoreGone(s.Hosts.Delete(ctx, host.ID, 0)))
	}
	for _, reg := range s.Registers.find(registerByAgent, agentID) {
		errs = append(errs, ignoreGone(s.Registers.Delete(ctx, reg.ID, 0)))
	}
	errs = append(errs, s.PurgeEvents(ctx, agentID))
	if err := errors.Join(errs...); err != nil {
		return err // the agent stays, so that the rest can be found again
	}
	return s.Agents.Delete(ctx, agentID, 0)
}

func ignoreGone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
