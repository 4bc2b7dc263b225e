package registry

import (
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// errNotTLS is how net/http words it, so that fail knows it.
var errNotTLS = errors.New("server gave HTTP response to HTTPS client")

// A guard lets nothing go out without TLS but to hosts that were named as insecure, and to this machine. The library
// would take any private address for insecure. A host whose certificate was refused is not asked without TLS then: what
// it answers to that says nothing. The library does not wait for that for long, so the guard does.
type guard struct {
	*http.Transport
	insecure func(host string) bool

	mu      sync.Mutex
	refused map[string]error         // by host; guarded by mu
	asking  map[string]chan struct{} // by host: the first request with TLS, until it is answered; guarded by mu
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Host
	if r.URL.Scheme == "http" {
		err := g.withoutTLS(r)
		if err == nil && !g.insecure(host) && !isLoopback(r.URL.Hostname()) {
			err = errNotTLS
		}
		if err != nil {
			if r.Body != nil {
				_ = r.Body.Close()
			}
			return nil, err
		}
		return g.Transport.RoundTrip(r)
	}
	defer g.ask(host)()
	resp, err := g.Transport.RoundTrip(r)
	if err != nil && isCertificate(err) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.refused == nil {
			g.refused = map[string]error{}
		}
		g.refused[host] = err
	}
	return resp, err
}

// ask notes that a host is being asked with TLS, until the function that it returns is called.
func (g *guard) ask(host string) (answered func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asking[host] != nil {
		return func() {}
	}
	if g.asking == nil {
		g.asking = map[string]chan struct{}{}
	}
	done := make(chan struct{})
	g.asking[host] = done
	return func() {
		g.mu.Lock()
		delete(g.asking, host)
		g.mu.Unlock()
		close(done)
	}
}

// withoutTLS waits until the host has answered with TLS, if it is being asked, and returns why its certificate was refused.
func (g *guard) withoutTLS(r *http.Request) error {
	g.mu.Lock()
	asking := g.asking[r.URL.Host]
	g.mu.Unlock()
	if asking != nil {
		select {
		case <-asking:
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused[r.URL.Host]
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func isCertificate(err error) bool {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	return errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid)
}
