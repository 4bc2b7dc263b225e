// Package server is Drover's control server: hosts register with it, it pushes events to their agents, and people and
// programs drive containers through its REST API. It composes package store (records and queues), hub (the agents'
// sockets), compute (work on containers), pki (keys) and api (HTTP), and keeps no state of its own.
//
// [New] does no I/O. [Server.Run] blocks until its context ends and owns every goroutine and file it opens: when it
// returns, all are done and closed. Records and events that wait survive it.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/droverhq/drover/events/tunnel"
	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/server/api"
	"github.com/droverhq/drover/server/compute"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/server/pki"
	"github.com/droverhq/drover/server/store"
	"golang.org/x/sync/errgroup"
)

// ErrNotRunning says that a method was called that works only between Ready and the end of Run.
var ErrNotRunning = errors.New("the server is not running")

// A Server is one process of the control server. Its methods are safe for concurrent use.
type Server struct {
	cfg   Config
	ready chan struct{}

	mu    sync.Mutex // guards the following fields
	ran   bool
	parts *parts // nil before Ready and after Run
}

// parts are what a running server is made of.
type parts struct {
	store   *store.Store
	keys    *pki.Keys
	hub     *hub.Hub
	logs    *logs.Proxy
	access  *access.Access
	compute *compute.Engine
	api     *api.Handler
	url     string
	replica string // where other replicas reach this one
	ca      []byte // what agents pin; nil where they need not
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, ready: make(chan struct{})}, nil
}

// Ready is closed when the server listens and all its records are in memory. It stays open where Run fails before.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// URL returns the address that agents are told, without a path; "" while the server is not running.
func (s *Server) URL() string {
	if p, err := s.running(); err == nil {
		return p.url
	}
	return ""
}

// CAPEM returns the certificate that clients must trust to reach the server, in PEM; nil where the system's
// authorities do, with plain HTTP, and while the server is not running.
func (s *Server) CAPEM() []byte {
	if p, err := s.running(); err == nil && p.ca != nil {
		return append([]byte(nil), p.ca...)
	}
	return nil
}

// CAChecksum returns the SHA-256 of CAPEM in hex, as the one-liner carries it, or "" where CAPEM is nil.
func (s *Server) CAChecksum() string {
	if ca := s.CAPEM(); ca != nil {
		return pki.Checksum(ca)
	}
	return ""
}

// OneLiner returns the docker run command that joins a host, with a registration token that is valid for 30 days.
// Every call in the life of the process returns the same line; ErrNotRunning before Ready.
func (s *Server) OneLiner(ctx context.Context) (string, error) {
	p, err := s.running()
	if err != nil {
		return "", err
	}
	return p.api.OneLiner(ctx, p.url)
}

// RotateAdminKey makes a new admin key and revokes those that were made for the same purpose before, so that a lost
// one can be replaced. Keys made through the API stay valid. ErrNotRunning before Ready.
func (s *Server) RotateAdminKey(ctx context.Context) (string, error) {
	p, err := s.running()
	if err != nil {
		return "", err
	}
	return rotateAdminKey(ctx, p.store)
}

func (s *Server) running() (*parts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts == nil {
		return nil, ErrNotRunning
	}
	return s.parts, nil
}

func (s *Server) setParts(p *parts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = p
}

// Run serves until ctx ends, then drains: requests may end within Config.Drain, agents are told to go away and come
// back, and work in progress stays recorded for the next start. It returns nil after an orderly end, and otherwise
// what made it end. It can be called once.
func (s *Server) Run(ctx context.Context) (err error) {
	s.mu.Lock()
	if s.ran {
		s.mu.Unlock()
		return errors.New("server: Run was called twice")
	}
	s.ran = true
	s.mu.Unlock()

	st, err := store.Open(ctx, store.Config{
		Dir: s.cfg.DataDir, URLs: s.cfg.NATS, Replicas: s.cfg.NATSReplicas, SealKey: s.cfg.SealKey, Log: s.cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("server: open the store: %w", err)
	}
	defer func() {
		if cerr := st.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("server: close the store: %w", cerr)
		}
	}()
	keys, err := pki.Open(ctx, st, s.cfg.Now)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	defer ln.Close()
	p := &parts{store: st, keys: keys, url: publicURL(&s.cfg, ln.Addr()), replica: replicaURL(&s.cfg, ln.Addr())}
	tlsConfig, err := s.tls(p)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if tlsConfig != nil {
		ln = tls.NewListener(tunnel.CorkListener(ln), tlsConfig)
	}
	if err := s.compose(p); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	// Last, when nothing that is likely to fail is left: the key is shown once.
	if err := ensureAccounts(ctx, st, s.cfg.OnAdminKey); err != nil {
		return fmt.Errorf("server: make the accounts: %w", err)
	}
	return s.serve(ctx, ln, p)
}

// compose makes the parts that need no I/O.
func (s *Server) compose(p *parts) (err error) {
	p.compute, err = compute.New(compute.Config{Store: p.store, Log: s.cfg.Log, Now: s.cfg.Now})
	if err != nil {
		return err
	}
	p.hub, err = hub.New(hub.Config{Store: p.store, Version: s.cfg.Version, Log: s.cfg.Log, Timings: s.cfg.Timings})
	if err != nil {
		return err
	}
	p.compute.Use(p.hub)
	clients, err := s.replicaTLS(p)
	if err != nil {
		return err
	}
	p.access, err = access.New(access.Config{
		Store: p.store, Key: p.keys.APIKey(), URL: p.replica, TLS: clients, Log: s.cfg.Log, Now: s.cfg.Now,
	})
	if err != nil {
		return err
	}
	p.logs, err = logs.New(logs.Config{
		Hosts: api.Registered(p.store), Token: s.cfg.LogToken, Locate: s.cfg.LogLocate, Tunnel: p.access.ServeHost, Log: s.cfg.Log,
		Key: p.keys.APIKey(), Now: s.cfg.Now,
	})
	if err != nil {
		return err
	}
	p.api, err = api.New(api.Config{
		Store: p.store, Hub: p.hub, Compute: p.compute, APICert: p.keys.APIPublicPEM(), CA: p.ca, Image: s.cfg.Image,
		TrustedProxies: s.cfg.TrustedProxies, Version: s.cfg.Version, Web: s.cfg.Web, Log: s.cfg.Log, Now: s.cfg.Now,
		PublicURL: s.cfg.URL, Logs: p.logs, Access: p.access,
	})
	return err
}

// tls returns nil for plain HTTP, and sets the authority that agents pin.
func (s *Server) tls(p *parts) (*tls.Config, error) {
	switch s.cfg.TLS.Mode {
	case TLSOff:
		return nil, nil
	case TLSFiles:
		if s.cfg.TLS.CAFile != "" {
			ca, err := os.ReadFile(s.cfg.TLS.CAFile)
			if err != nil {
				return nil, err
			}
			p.ca = ca
		}
		files, err := pki.NewFiles(s.cfg.TLS.CertFile, s.cfg.TLS.KeyFile, s.cfg.Now)
		if err != nil {
			return nil, err
		}
		return files.TLSConfig(), nil
	}
	p.ca = p.keys.CAPEM()
	u, err := url.Parse(p.url)
	if err != nil {
		return nil, err
	}
	issuer, err := pki.NewIssuer(p.keys, certificateNames(&s.cfg, u.Hostname()), s.cfg.Now)
	if err != nil {
		return nil, err
	}
	return issuer.TLSConfig(), nil
}

func (s *Server) serve(ctx context.Context, ln net.Listener, p *parts) error {
	// Requests outlive ctx by the drain time, agents' sockets outlive the requests, so that those can finish.
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	agents, endAgents := context.WithCancel(context.WithoutCancel(ctx))
	defer endAgents()

	srv := &http.Server{
		Handler:           p.api,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          log.New(io.Discard, "", 0), // port scans and broken handshakes
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return orderly(agents, "hub", p.hub.Run(agents)) })
	group.Go(func() error { return orderly(agents, "compute", p.compute.Run(agents)) })
	group.Go(func() error { p.access.Follow(agents); return nil })
	group.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("server: serve: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-gctx.Done()
		s.setParts(nil)
		p.api.Shutdown()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
		defer cancel()
		err := srv.Shutdown(drain)
		p.access.Close()
		endAgents()
		endRequests()
		p.api.Wait()
		p.logs.Wait()
		if err != nil {
			s.cfg.Log.WithError(err).Warn("requests were cut off at shutdown")
			_ = srv.Close()
		}
		return nil
	})
	s.setParts(p)
	close(s.ready)
	s.cfg.Log.WithField("url", p.url).Info("the server is ready")
	return group.Wait()
}

// orderly keeps an error that is no consequence of ctx's end.
func orderly(ctx context.Context, part string, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return fmt.Errorf("server: %s: %w", part, err)
}
