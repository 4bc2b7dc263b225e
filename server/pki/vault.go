package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Vault keeps small named secrets. Implementations are safe for use by several processes at once.
type Vault interface {
	// Load returns the secret of that name, or an error that is fs.ErrNotExist where there is none.
	Load(name string) ([]byte, error)
	// Create keeps data under name unless a secret of that name exists, and returns the one that is kept: of two
	// processes that create at once, both get the same answer.
	Create(name string, data []byte) ([]byte, error)
}

// Dir is a folder as a [Vault]: one file of mode 0600 for each secret. The folder is made, with mode 0700, when the
// first secret is.
type Dir string

// Load implements [Vault]. A file that others than its owner may read is refused.
func (d Dir) Load(name string) ([]byte, error) {
	path, err := d.path(name)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("pki: %s holds a secret and has mode %04o: others may read it; set it to 0600", path, mode)
	}
	return os.ReadFile(path)
}

// Create implements [Vault]. What it keeps is on the disk when it returns.
func (d Dir) Create(name string, data []byte) ([]byte, error) {
	path, err := d.path(name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(string(d), ".new-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("pki: write %s: %w", path, err)
	}
	// A link, unlike a rename, never replaces what another process kept in the meantime.
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("pki: write %s: %w", path, err)
	}
	return d.Load(name)
}

func (d Dir) path(name string) (string, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("pki: %q is no name of a secret", name)
	}
	return filepath.Join(string(d), name), nil
}
