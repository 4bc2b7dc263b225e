package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
)

// replicaTLS returns how this replica trusts the others: they show certificates of the authority that all share, or
// those that the operator gave each of them for the public name. Nil means plain HTTP, or the system's authorities.
func (s *Server) replicaTLS(p *parts) (*tls.Config, error) {
	if s.cfg.TLS.Mode == TLSOff {
		return nil, nil
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.ca != nil {
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(p.ca) {
			return nil, errors.New("the authority holds no certificate")
		}
	}
	if s.cfg.TLS.Mode == TLSFiles {
		public, err := url.Parse(p.url)
		if err != nil {
			return nil, err
		}
		tc.ServerName = public.Hostname()
	}
	return tc, nil
}
