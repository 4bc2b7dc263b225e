package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/netutil"

	"github.com/droverhq/drover/events/tunnel"
	"github.com/droverhq/drover/service/node"
	"github.com/droverhq/drover/service/token"
)

// maxPortConns bounds the connections of the node port.
const maxPortConns = 1024

// A nodePort is the port app.http.port of this host. What it serves asks who comes: see portAuth.
type nodePort struct {
	handler http.Handler
	cfg     *Config
	names   []string // of this host, for its own certificate
	address string
	log     logrus.FieldLogger

	listener net.Listener
	active   sync.WaitGroup // requests, for which http.Server.Close does not wait
}

// newNodePort returns the port, or nil where it is not configured. names are what clients may call this host.
func newNodePort(cfg *Config, names []string, handler http.Handler, log logrus.FieldLogger) (*nodePort, error) {
	if !cfg.portConfigured() {
		return nil, nil
	}
	c := &cfg.Port
	switch {
	case c.TLS == "files" && (c.CertFile == "" || c.KeyFile == ""):
		return nil, errors.New("app.http.tls is files: app.http.cert-file and app.http.key-file are needed")
	case c.TLS != "files" && (c.CertFile != "" || c.KeyFile != ""):
		return nil, fmt.Errorf("app.http.cert-file and app.http.key-file are for app.http.tls=files, and it is %s", c.TLS)
	case c.TLS == "off" && c.ClientCA != "":
		return nil, errors.New("app.http.client-ca-file needs TLS, and app.http.tls is off")
	case c.TLS == "off" && !loopback(c.Listen):
		return nil, errors.New("app.http.tls is off, which is for a port on loopback alone: set app.http.listen to 127.0.0.1")
	}
	return &nodePort{
		handler: handler, cfg: cfg, names: names, address: net.JoinHostPort(c.Listen, strconv.Itoa(cfg.Node.HTTPPort)), log: log,
	}, nil
}

func loopback(listen string) bool {
	ip, err := netip.ParseAddr(listen)
	return listen == "localhost" || err == nil && ip.IsLoopback()
}

// portAuth is who comes through the node port and what they may do: everything with a client certificate of the
// authority, what the token says with a token.
func portAuth(cfg *PortConfig, hosts ...string) (func(*http.Request) (*token.Claims, error), error) {
	byToken := func(*http.Request) (*token.Claims, error) { return nil, errors.New("no client certificate was shown") }
	if cfg.TokenKey != "" {
		key, err := token.ReadKey(cfg.TokenKey)
		if err != nil {
			return nil, err
		}
		byToken = node.TokenAuth(key, slices.DeleteFunc(hosts, func(h string) bool { return h == "" })...)
	}
	return func(r *http.Request) (*token.Claims, error) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return byToken(r)
		}
		cert := r.TLS.VerifiedChains[0][0]
		if len(cfg.ClientNames) > 0 && !slices.ContainsFunc(append(cert.DNSNames, cert.Subject.CommonName), func(name string) bool {
			return slices.Contains(cfg.ClientNames, name)
		}) {
			return nil, fmt.Errorf("the client certificate of %q is not one of app.http.client-names", cert.Subject.CommonName)
		}
		return node.Everything(cert.Subject.CommonName), nil
	}, nil
}

// listen takes the address and reads or makes the certificate.
func (p *nodePort) listen(ctx context.Context) (net.Addr, error) {
	conf, err := p.tls(ctx)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	l = netutil.LimitListener(l, maxPortConns)
	if conf != nil {
		l = tls.NewListener(tunnel.CorkListener(l), conf)
	}
	p.listener = l
	return l.Addr(), nil
}

// tls returns nil for plain HTTP.
func (p *nodePort) tls(ctx context.Context) (*tls.Config, error) {
	c := &p.cfg.Port
	names := slices.DeleteFunc(append([]string{"localhost", "127.0.0.1", "::1"}, p.names...), func(n string) bool { return n == "" })
	cert, err := (doorTLS{Mode: c.TLS, CertFile: c.CertFile, KeyFile: c.KeyFile}).open(ctx, filepath.Join(p.cfg.Agent.StateDir, "port"), names)
	if err != nil || cert == nil {
		return nil, err
	}
	if cert.caFile != "" {
		p.log.WithFields(logrus.Fields{"ca": cert.caFile, "sha256": cert.pin()}).Info("the node port has a certificate of its own authority")
	}
	conf := cert.config
	if c.ClientCA != "" {
		text, err := os.ReadFile(c.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("app.http.client-ca-file: %w", err)
		}
		conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !conf.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("app.http.client-ca-file: %s holds no certificate", c.ClientCA)
		}
		if c.TokenKey == "" {
			conf.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	return conf, nil
}

// run serves until ctx ends and every request has ended. It closes the listener.
func (p *nodePort) run(ctx context.Context) error {
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.active.Add(1)
			defer p.active.Done()
			p.handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 15 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // its end ends streams
		ErrorLog:    stdlog.New(io.Discard, "", 0),                     // port scans
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	err := srv.Serve(p.listener)
	stop()
	_ = srv.Close() // again at most
	p.active.Wait()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// reload takes nothing: certificates in files are read again by themselves.
func (p *nodePort) reload(*Config) error { return nil }
