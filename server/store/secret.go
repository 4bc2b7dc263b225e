package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/droverhq/drover/utils/atomicfile"
	"github.com/nats-io/nats.go/jetstream"
)

// The first byte of a secret in the bucket.
const (
	secretPlain  = 0
	secretSealed = 1
)

// Secret returns the named secret of the server (a private key), made by create if there is none. All replicas get
// the same one. Names are letters, digits, dots and dashes.
//
// With the embedded JetStream it is a file with mode 0600 in the data directory, and never enters a stream. Replicas
// of an external cluster can share it through a bucket only: there it is encrypted with [Config.SealKey], and
// readable to whoever may read the bucket if no such key is given.
func (s *Store) Secret(ctx context.Context, name string, create func() ([]byte, error)) ([]byte, error) {
	if !validSecretName(name) {
		return nil, fmt.Errorf("secret %q: not a name", name)
	}
	get, put := s.readSecretFile, s.writeSecretFile
	if s.Clustered() {
		get, put = s.readSecretBucket, s.writeSecretBucket
	}
	value, err := get(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return value, err
	}
	if value, err = create(); err != nil {
		return nil, fmt.Errorf("make secret %s: %w", name, err)
	}
	if err := put(ctx, name, value); !errors.Is(err, ErrExists) {
		return value, err
	}
	return get(ctx, name) // another replica was first
}

func validSecretName(name string) bool {
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '.' && c != '-' {
			return false
		}
	}
	return name != "" && name[0] != '.'
}

func (s *Store) secretPath(name string) string { return filepath.Join(s.cfg.Dir, "keys", name) }

func (s *Store) readSecretFile(_ context.Context, name string) ([]byte, error) {
	value, err := os.ReadFile(s.secretPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	return value, err
}

func (s *Store) writeSecretFile(_ context.Context, name string, value []byte) error {
	path := s.secretPath(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// Nobody else can be writing: the data directory is locked.
	return atomicfile.Write(path, value, 0o600)
}

func (s *Store) readSecretBucket(ctx context.Context, name string) ([]byte, error) {
	e, err := s.secret.Get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read secret %s: %w", name, err)
	}
	value := e.Value()
	switch {
	case len(value) > 0 && value[0] == secretPlain:
		return value[1:], nil
	case len(value) > 0 && value[0] == secretSealed:
		return s.unseal(name, value[1:])
	}
	return nil, fmt.Errorf("secret %s: not one of ours", name)
}

func (s *Store) writeSecretBucket(ctx context.Context, name string, value []byte) error {
	kind := byte(secretPlain)
	if len(s.cfg.SealKey) > 0 {
		kind = secretSealed
		var err error
		if value, err = s.seal(name, value); err != nil {
			return err
		}
	} else {
		s.log.Warnf("store: no seal key is set, so the secret %s lies readable in the NATS cluster", name)
	}
	_, err := s.secret.Create(ctx, name, append([]byte{kind}, value...))
	if errors.Is(err, jetstream.ErrKeyExists) {
		return ErrExists
	}
	return err
}

func (s *Store) aead() (cipher.AEAD, error) {
	if len(s.cfg.SealKey) == 0 {
		return nil, errors.New("it is sealed, and no seal key is set")
	}
	key, err := hkdf.Key(sha256.New, s.cfg.SealKey, nil, "drover secrets", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s *Store) seal(name string, value []byte) ([]byte, error) {
	aead, err := s.aead()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	return aead.Seal(nonce, nonce, value, []byte(name)), nil
}

func (s *Store) unseal(name string, value []byte) ([]byte, error) {
	aead, err := s.aead()
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	if len(value) < aead.NonceSize() {
		return nil, fmt.Errorf("secret %s: too short", name)
	}
	out, err := aead.Open(nil, value[:aead.NonceSize()], value[aead.NonceSize():], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("secret %s: wrong seal key, or damaged: %w", name, err)
	}
	return out, nil
}
