package docker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/droverhq/drover/runtime"
)

// LoadTLS reads ca.pem, cert.pem and key.pem of a directory, as DOCKER_CERT_PATH names one. A missing ca.pem leaves the
// system's roots; a missing pair of the others leaves the client without a certificate. There is no way to switch the
// verification of the daemon off.
func LoadTLS(dir string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	switch {
	case err == nil:
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s: %w: no certificate in it", filepath.Join(dir, "ca.pem"), runtime.ErrInvalid)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("TLS of the docker host: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	switch {
	case err == nil:
		config.Certificates = []tls.Certificate{pair}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("TLS of the docker host: %w: %w", runtime.ErrInvalid, err)
	}
	return config, nil
}
