package hostinfo

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// hostKey returns the public half of the host's key, which is made at the first call on a host.
func (c *Collector) hostKey() (string, error) {
	if c.cfg.StateDir == "" {
		return "", nil
	}
	name := filepath.Join(c.cfg.StateDir, "host.key")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = newHostKey(name); errors.Is(err, fs.ErrExist) {
			b, err = os.ReadFile(name) // another process was first
		}
	}
	if err != nil {
		return "", fmt.Errorf("host key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return "", fmt.Errorf("%s is not PEM", name)
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", fmt.Errorf("host key: %w", err)
	}
	// The block's type does not fit its bytes; that is what servers know.
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pub})), nil
}

// newHostKey writes a new key under name, whole or not at all.
func newHostKey(name string) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	f, err := os.CreateTemp(filepath.Dir(name), ".host.key-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o400)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	// A link, unlike a rename, fails where another process was first: the key must never change.
	return b, os.Link(f.Name(), name)
}
