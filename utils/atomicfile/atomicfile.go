// Package atomicfile replaces files so that a reader, or the next start after a crash or a power loss, finds either the
// old content or the new one, whole.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Write replaces the file at path by data with the permissions perm, whatever the umask is. The data goes to a new file
// beside it, to the disk, and then takes the name; the folder is synchronised last, so that the name is on the disk when
// Write returns. The folder must exist. A symbolic link at path is replaced and not followed. On an error before the
// rename the old content is still there; a temporary file is left behind only by the death of the process.
func Write(path string, data []byte, perm fs.FileMode) error {
	tmp, err := fill(path, data, perm)
	if err == nil {
		if err = os.Rename(tmp, path); err != nil {
			err = errors.Join(err, os.Remove(tmp))
		} else {
			err = SyncDir(filepath.Dir(path))
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// fill makes a temporary file beside path that holds data, on the disk.
func fill(path string, data []byte, perm fs.FileMode) (string, error) {
	// CreateTemp makes files with 0600: what is not complete is nobody else's business.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm.Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// SyncDir makes what was created, renamed or removed in a folder last over a power loss. Filesystems that cannot
// synchronise a folder are taken as they are.
func SyncDir(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
