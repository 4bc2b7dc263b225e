package imagetar

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/droverhq/drover/runtime"
)

// Open opens what path names, which must be below one of the allowed folders; no symlink leads out of it. The caller
// closes the result.
func Open(allowed []string, path string) (*os.File, error) {
	root, rel, err := below(allowed, path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO without a writer must not hold us
	if err != nil {
		return nil, fileError(path, err)
	}
	return f, nil
}

// Create makes a file that does not exist yet, as Open does with one that does.
func Create(allowed []string, path string) (f *os.File, remove func() error, err error) {
	root, rel, err := below(allowed, path)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	f, err = root.OpenFile(rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	return f, func() error {
		root, rel, err := below(allowed, path)
		if err != nil {
			return err
		}
		defer root.Close()
		return root.Remove(rel)
	}, nil
}

// below opens the allowed folder that a path is in.
func below(allowed []string, path string) (*os.Root, string, error) {
	if path == "" {
		return nil, "", invalid("path", "missing")
	}
	clean := filepath.Clean(path)
	if !filepath.IsAbs(clean) {
		return nil, "", invalid("path", "is not absolute")
	}
	for _, folder := range allowed {
		rel, err := filepath.Rel(filepath.Clean(folder), clean)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		root, err := os.OpenRoot(folder)
		if err != nil {
			return nil, "", fileError(path, err)
		}
		return root, rel, nil
	}
	if len(allowed) == 0 {
		return nil, "", invalid("path", "this host allows no folder for that")
	}
	return nil, "", invalid("path", "is not under "+strings.Join(allowed, " or ")+", which this host allows for that")
}

func invalid(op, message string) error {
	return &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: message}
}

// fileError words what went wrong with a file of the host.
func fileError(path string, err error) error {
	out := &runtime.Error{Op: path, Message: innermost(err), Cause: err}
	switch {
	case errors.Is(err, os.ErrNotExist):
		out.Kind, out.Message = runtime.ErrNotFound, "there is no such file on the host"
	case errors.Is(err, os.ErrExist):
		out.Kind, out.Message = runtime.ErrConflict, "exists on the host"
	case errors.Is(err, os.ErrPermission):
		out.Kind = runtime.ErrInvalid
	case strings.Contains(innermost(err), "escapes"):
		out.Kind, out.Message = runtime.ErrInvalid, "leads out of the folder that this host allows"
	}
	return out
}

// Source opens a root file system below the allowed folders as a tar stream of at most most bytes: a directory, or a
// file that is a tar, packed or not. The caller closes it.
func Source(allowed []string, path string, most int64) (*Bounded, error) {
	f, err := Open(allowed, path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		var r io.ReadCloser
		if r, err = Directory(f); err != nil {
			return nil, err
		}
		return Bound(r, most, path), nil
	case !info.Mode().IsRegular():
		err = &runtime.Error{Op: path, Kind: runtime.ErrInvalid, Message: "is neither a file nor a directory"}
	default:
		return Unpack(f, most, path)
	}
	return nil, errors.Join(err, f.Close())
}

// BuildContext opens a build context below the allowed folders: a directory, of which it returns the Dockerfile's path
// too, or a file that is a tar, packed or not. The caller closes it.
func BuildContext(allowed []string, path, dockerfile string, most int64) (*Bounded, string, error) {
	f, err := Open(allowed, path)
	if err != nil {
		return nil, "", err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		r, name, err := Context(ContextSource{Dir: f, Dockerfile: dockerfile})
		if err != nil {
			return nil, "", err
		}
		return Bound(r, most, path), name, nil
	case !info.Mode().IsRegular():
		err = &runtime.Error{Op: path, Kind: runtime.ErrInvalid, Message: "is neither a file nor a directory"}
	default:
		b, err := Unpack(f, most, path)
		return b, dockerfile, err
	}
	return nil, "", errors.Join(err, f.Close())
}
