package cli

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/droverhq/drover/server/pki"
	"github.com/droverhq/drover/utils/atomicfile"
)

// doorTLS says how a port of a node speaks TLS.
type doorTLS struct {
	Mode     string // off, own or files
	CertFile string
	KeyFile  string
}

// A doorCertificate is what a port of a node shows. Nil is plain HTTP.
type doorCertificate struct {
	config *tls.Config
	caFile string // what clients may trust; "" with files of the operator's
}

// open reads or makes the certificate. dir is where an authority of the node's own is kept, names are what the
// certificate is for beside the addresses at which clients reach the port.
func (t doorTLS) open(ctx context.Context, dir string, names []string) (*doorCertificate, error) {
	switch t.Mode {
	case "", "off":
		return nil, nil
	case "files":
		if t.CertFile == "" || t.KeyFile == "" {
			return nil, errors.New("TLS with files needs both the certificate and the key")
		}
		files, err := pki.NewFiles(t.CertFile, t.KeyFile, nil)
		if err != nil {
			return nil, err
		}
		return &doorCertificate{config: files.TLSConfig()}, nil
	}
	keys, err := pki.OpenCA(ctx, folderVault(dir), nil)
	if err != nil {
		return nil, err
	}
	ca := filepath.Join(dir, "ca.crt")
	if err := atomicfile.Write(ca, keys.CAPEM(), 0o644); err != nil {
		return nil, err
	}
	issuer, err := pki.NewIssuer(keys, names, nil)
	if err != nil {
		return nil, err
	}
	return &doorCertificate{config: issuer.TLSConfig(), caFile: ca}, nil
}

// pin is the SHA-256 of what a server may trust this port by: the node's own authority, or the operator's certificate
// of the moment. It is "" for plain HTTP.
func (c *doorCertificate) pin() string {
	if c == nil {
		return ""
	}
	cert, err := c.config.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil || len(cert.Certificate) == 0 {
		return ""
	}
	der := cert.Certificate[0]
	if c.caFile != "" {
		der = cert.Certificate[len(cert.Certificate)-1]
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// A folderVault keeps the secrets of a node in files that only it may read.
type folderVault string

// Secret implements [pki.Vault].
func (v folderVault) Secret(_ context.Context, name string, create func() ([]byte, error)) ([]byte, error) {
	file := filepath.Join(string(v), name)
	secret, err := os.ReadFile(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := os.MkdirAll(string(v), 0o700); err != nil {
		return nil, err
	}
	if secret, err = create(); err != nil {
		return nil, err
	}
	// Two that start at once must end up with one secret: a link is made once.
	fresh := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := atomicfile.Write(fresh, secret, 0o600); err != nil {
		return nil, err
	}
	err = os.Link(fresh, file)
	if rerr := os.Remove(fresh); err == nil || errors.Is(err, fs.ErrExist) {
		err = rerr
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}
