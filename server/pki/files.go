package pki

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// recheck is how often a handshake looks whether the files of [Files] changed.
const recheck = 10 * time.Second

// Files serves a certificate that the operator keeps in two PEM files, and takes up a new one when the files change.
type Files struct {
	certFile, keyFile string
	now               func() time.Time

	mu      sync.Mutex // guards the following fields
	cert    *tls.Certificate
	modTime time.Time // the later of the two files
	checked time.Time
}

// NewFiles reads the pair and fails where it is not one. A nil now means the machine's clock.
func NewFiles(certFile, keyFile string, now func() time.Time) (*Files, error) {
	if now == nil {
		now = time.Now
	}
	f := &Files{certFile: certFile, keyFile: keyFile, now: now}
	mod, err := f.stat()
	if err != nil {
		return nil, fmt.Errorf("pki: server certificate: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("pki: server certificate %s with key %s: %w", certFile, keyFile, err)
	}
	f.cert, f.modTime, f.checked = &cert, mod, now()
	return f, nil
}

// TLSConfig returns a server configuration as [Issuer.TLSConfig] does. While a changed pair cannot be read, the last
// good one is served.
func (f *Files) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current(), nil },
	}
}

func (f *Files) current() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Sub(f.checked) < recheck {
		return f.cert
	}
	f.checked = now
	mod, err := f.stat()
	if err != nil || mod.Equal(f.modTime) {
		return f.cert
	}
	// Half of the pair may be written yet: the times are kept only with a pair that fits.
	if cert, err := tls.LoadX509KeyPair(f.certFile, f.keyFile); err == nil {
		f.cert, f.modTime = &cert, mod
	}
	return f.cert
}

func (f *Files) stat() (time.Time, error) {
	cert, err := os.Stat(f.certFile)
	if err != nil {
		return time.Time{}, err
	}
	key, err := os.Stat(f.keyFile)
	if err != nil {
		return time.Time{}, err
	}
	if key.ModTime().After(cert.ModTime()) {
		return key.ModTime(), nil
	}
	return cert.ModTime(), nil
}
