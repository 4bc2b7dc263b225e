// Package storetest opens stores for tests: embedded ones in a temporary directory, and several that share one NATS
// server, which listens on a loopback port.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/nats-io/nats-server/v2/server"
)

const patience = time.Minute

// Open returns an embedded store that is closed with the test.
func Open(tb testing.TB) *store.Store {
	tb.Helper()
	return OpenConfig(tb, store.Config{Dir: tb.TempDir()})
}

// OpenConfig returns a store that is closed with the test.
func OpenConfig(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := store.Open(ctx, cfg)
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
	})
	return s
}

// NATS starts a NATS server with JetStream on a free loopback port and returns its URL.
func NATS(tb testing.TB) string {
	tb.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: tb.TempDir(),
		NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		tb.Fatalf("NATS server: %v", err)
	}
	srv.Start()
	tb.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(patience) {
		tb.Fatal("NATS server did not start")
	}
	return srv.ClientURL()
}

// Agent registers an agent and returns it with its key pair.
func Agent(tb testing.TB, s *store.Store, key string) (agent *store.Agent, accessKey, secret string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, agent, err := s.RegisterAgent(ctx, key, &store.RegistrationToken{AccountID: "1a1"})
	if err != nil {
		tb.Fatalf("register agent: %v", err)
	}
	if accessKey, secret, err = s.IssueAgentSecret(ctx, agent.ID); err != nil {
		tb.Fatalf("issue secret: %v", err)
	}
	return agent, accessKey, secret
}
