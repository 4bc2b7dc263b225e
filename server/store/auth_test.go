package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

func TestAgentSecretsRollOver(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	agent, ak, first := storetest.Agent(t, s, "key-1")
	auth := func(secret string) error {
		got, err := s.AuthenticateAgent(ctx, ak, secret)
		if err == nil && got.ID != agent.ID {
			t.Errorf("authenticated as %s, want %s", got.ID, agent.ID)
		}
		return err
	}
	if err := auth(first); err != nil {
		t.Fatalf("first secret: %v", err)
	}
	// Registering again gives the same agent a fresh secret; the old one works until the fresh one is used.
	reg, again, err := s.RegisterAgent(ctx, "key-1", &store.RegistrationToken{AccountID: "1a1"})
	if err != nil || again.ID != agent.ID || reg.AgentID != agent.ID {
		t.Fatalf("registered again: %v, %v, %v", reg, again, err)
	}
	_, second, err := s.IssueAgentSecret(ctx, agent.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := auth(first); err != nil {
		t.Errorf("old secret before the fresh one is used: %v", err)
	}
	if err := auth(second); err != nil {
		t.Errorf("fresh secret: %v", err)
	}
	if err := auth(first); !errors.Is(err, store.ErrCredentials) {
		t.Errorf("old secret after the fresh one was used: %v, want ErrCredentials", err)
	}
	// However often an agent asks, the secret in use goes on working, and so does the last one given.
	var last string
	for range 10 {
		if _, last, err = s.IssueAgentSecret(ctx, agent.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := auth(second); err != nil {
		t.Errorf("secret in use: %v", err)
	}
	if err := auth(last); err != nil {
		t.Errorf("last secret: %v", err)
	}
	if err := auth("nonsense"); !errors.Is(err, store.ErrCredentials) {
		t.Errorf("wrong secret: %v, want ErrCredentials", err)
	}
	if _, err := s.AuthenticateAgent(ctx, "nobody", last); !errors.Is(err, store.ErrCredentials) {
		t.Errorf("wrong access key: %v, want ErrCredentials", err)
	}
}

func TestRegisteringTwiceMakesOneAgent(t *testing.T) {
	url := storetest.NATS(t)
	var stores []*store.Store
	for range 2 {
		stores = append(stores, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}))
	}
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			reg, _, err := stores[i%2].RegisterAgent(t.Context(), "one-key", &store.RegistrationToken{AccountID: "1a1"})
			if err != nil && !errors.Is(err, store.ErrNotFound) { // the agent's record may be on its way to this replica
				t.Error(err)
				return
			}
			if reg != nil {
				ids[i] = reg.AgentID
			}
		})
	}
	wg.Wait()
	for _, s := range stores {
		waitFor(t, "one agent", func() bool { return s.Agents.Len() == 1 })
		waitFor(t, "one register", func() bool { return s.Registers.Len() == 1 })
		for _, id := range ids {
			if id != "" && id != s.Agents.List()[0].ID {
				t.Errorf("registered as %s, but the agent is %s", id, s.Agents.List()[0].ID)
			}
		}
	}
}

func TestCredentialsWorkOnTheOtherReplicaAtOnce(t *testing.T) {
	ctx := t.Context()
	url := storetest.NATS(t)
	a := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
	b := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
	for range 20 {
		_, ak, secret := storetest.Agent(t, a, time.Now().String())
		if _, err := b.AuthenticateAgent(ctx, ak, secret); err != nil {
			t.Fatalf("agent: %v", err)
		}
		key, secret, err := a.CreateAPIKey(ctx, "1a1", "cli")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.AuthenticateAPIKey(ctx, key.AccessKey, secret); err != nil {
			t.Fatalf("API key: %v", err)
		}
	}
}

func TestRegistrationTokens(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	rec, token, err := s.CreateRegistrationToken(ctx, store.RegistrationToken{AccountID: "1a1", Description: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(token, ":"); n != 2 {
		t.Errorf("token has %d colons, want 2 as Rancher's", n)
	}
	if got, err := s.CheckRegistrationToken(ctx, token); err != nil || got.ID != rec.ID {
		t.Errorf("check: %v, %v", got, err)
	}
	for _, bad := range []string{"", ":", "::", token + "x", token[:len(token)-1], rec.PublicValue, rec.PublicValue + ":1:x"} {
		if _, err := s.CheckRegistrationToken(ctx, bad); !errors.Is(err, store.ErrCredentials) {
			t.Errorf("check %q: %v, want ErrCredentials", bad, err)
		}
	}
	if _, err := s.RegistrationTokens.Update(ctx, rec.ID, func(t *store.RegistrationToken) error { t.Revoked = time.Now(); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckRegistrationToken(ctx, token); !errors.Is(err, store.ErrRevoked) {
		t.Errorf("revoked: %v, want ErrRevoked", err)
	}
	_, token, err = s.CreateRegistrationToken(ctx, store.RegistrationToken{AccountID: "1a1", Expires: time.Now().Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckRegistrationToken(ctx, token); !errors.Is(err, store.ErrExpired) {
		t.Errorf("expired: %v, want ErrExpired", err)
	}
}

func TestSecretsAreNotOnDisk(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, _, agentSecret := storetest.Agent(t, s, "the-registration-key")
	_, keySecret, err := s.CreateAPIKey(ctx, "1a1", "admin")
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := s.CreateRegistrationToken(ctx, store.RegistrationToken{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	secrets := []string{"the-registration-key", agentSecret, keySecret, token[strings.LastIndex(token, ":")+1:]}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		for _, secret := range secrets {
			if strings.Contains(string(data), secret) {
				t.Errorf("%s holds a secret in clear", path)
			}
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("walked %d files: %v", files, err)
	}
}

func TestRemoveAgentRemovesWhatItReported(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	agent, ak, secret := storetest.Agent(t, s, "k")
	host, err := s.Hosts.Create(ctx, store.Host{UUID: "u", AgentID: agent.ID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Containers.Create(ctx, store.Container{UUID: "c", HostID: host.ID}); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveAgent(ctx, agent.ID); err != nil {
		t.Fatal(err)
	}
	if n := s.Agents.Len() + s.Hosts.Len() + s.Containers.Len() + s.Registers.Len(); n != 0 {
		t.Errorf("%d records are left", n)
	}
	if _, err := s.AuthenticateAgent(ctx, ak, secret); !errors.Is(err, store.ErrCredentials) {
		t.Errorf("the removed agent's key: %v, want ErrCredentials", err)
	}
	_, again, err := s.RegisterAgent(ctx, "k", &store.RegistrationToken{})
	if err != nil || again.ID == agent.ID {
		t.Errorf("registering after removal: %v, %v; want a new agent", again, err)
	}
}
