package register

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/droverhq/drover/utils/atomicfile"
)

const apiCertTimeout = 10 * time.Second

// parseAPICert returns the first public key of a PEM text, encoded anew. Rancher's server writes the key twice in one
// answer, and its error pages are no keys.
func parseAPICert(body []byte) ([]byte, error) {
	block, _ := pem.Decode(body)
	if block == nil {
		return nil, fmt.Errorf("no PEM in it: %s", said(body))
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("PEM type %q and not PUBLIC KEY", cut(block.Type, 40))
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("not a public key: %w", err)
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 1024 {
			return nil, fmt.Errorf("an RSA key of %d bits signs nothing", key.N.BitLen())
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("a key that signs nothing (%T)", key)
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), nil
}

// fetchAPICert downloads the public key of host access tokens and stores it. The stored one stays on any error. It tries
// once: nothing that waits for a slow server here would be worth the delay.
func (j *joiner) fetchAPICert(ctx context.Context, c *http.Client, apiURL string) error {
	from := apiURL + "/scripts/api.crt"
	ctx, cancel := context.WithTimeout(ctx, apiCertTimeout)
	defer cancel()
	a, err := j.request(ctx, "download "+from, c, -1, get(from))
	if err != nil {
		return err
	}
	if a.cut != nil {
		return fmt.Errorf("download %s: %w", from, a.cut)
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("download %s: HTTP %d: %s", from, a.status, said(a.body))
	}
	key, err := parseAPICert(a.body)
	if err != nil {
		return fmt.Errorf("download %s: %w", from, err)
	}
	file := filepath.Join(j.cfg.StateDir, fileAPICert)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, key) {
		return nil
	}
	return atomicfile.Write(file, key, 0o600)
}

// haveAPICert reports whether a good key is stored.
func (j *joiner) haveAPICert() bool {
	b, err := readBounded(filepath.Join(j.cfg.StateDir, fileAPICert))
	if err != nil {
		return false
	}
	_, err = parseAPICert(b)
	return err == nil
}
