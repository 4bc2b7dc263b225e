package runtime

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// CopyToContainer copies a regular file, as dstPath or into the directory dstPath. It keeps the mode and belongs to root.
func (m *ModelEngine) CopyToContainer(ctx context.Context, c *Container, srcPath, dstPath string) error {
	if err := m.canCopy(c, dstPath); err != nil {
		return err
	}
	src, err := os.Open(srcPath)
	if err != nil {
		return copyError("copy to container", err)
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return copyError("copy to container", err)
	}
	if !fi.Mode().IsRegular() {
		return &Error{Op: "copy to container", Kind: ErrInvalid, Message: srcPath + " is no regular file"}
	}
	dir, name := path.Split(path.Clean(dstPath))
	st, err := m.copier.StatPath(ctx, c.Id, dstPath)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err == nil && st.Mode.IsDir() {
		dir, name = dstPath, filepath.Base(srcPath)
	}
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		w.CloseWithError(packFile(w, src, fi, name))
	}()
	err = m.copier.CopyTo(ctx, c.Id, dir, r)
	_ = r.CloseWithError(errors.New("the copy has ended"))
	<-packed
	return err
}

func (m *ModelEngine) canCopy(c *Container, ctrPath string) error {
	if c == nil {
		return &Error{Op: "copy", Kind: ErrInvalid, Message: "container is nil"}
	}
	if m.copier == nil {
		return m.lacks("copies no files")
	}
	if !path.IsAbs(ctrPath) {
		return &Error{Op: "copy", Kind: ErrInvalid, Message: "container path must be a abs path"}
	}
	return nil
}

func packFile(w io.Writer, src io.Reader, fi fs.FileInfo, name string) error {
	out := tar.NewWriter(w)
	h := &tar.Header{Name: name, Mode: int64(fi.Mode().Perm()), Size: fi.Size(), ModTime: fi.ModTime(), Format: tar.FormatPAX}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.CopyN(out, src, fi.Size()); err != nil {
		return fmt.Errorf("%s: %d of %d bytes: %w", name, n, fi.Size(), err)
	}
	return out.Close()
}

// CopyFromContainer copies a regular file, following links as the container would, as dstPath or into the directory
// dstPath. A file that is there is replaced at the end, so that nobody sees half of it.
func (m *ModelEngine) CopyFromContainer(ctx context.Context, c *Container, srcPath, dstPath string) error {
	if err := m.canCopy(c, srcPath); err != nil {
		return err
	}
	name := path.Base(path.Clean(srcPath))
	for links := 0; ; links++ {
		st, err := m.copier.StatPath(ctx, c.Id, srcPath)
		if err != nil {
			return err
		}
		if st.Mode&fs.ModeSymlink == 0 {
			break
		}
		if links == maxLinks {
			return &Error{Op: "copy from container", Kind: ErrInvalid, Message: "too many symbol links"}
		}
		if !path.IsAbs(st.LinkTarget) {
			st.LinkTarget = path.Join(path.Dir(path.Clean(srcPath)), st.LinkTarget)
		}
		srcPath = st.LinkTarget
	}
	body, st, err := m.copier.CopyFrom(ctx, c.Id, srcPath)
	if err != nil {
		return err
	}
	defer body.Close()
	in := tar.NewReader(body)
	h, err := in.Next()
	if err != nil {
		return copyError("copy from container", err)
	}
	if h.Typeflag != tar.TypeReg {
		return &Error{Op: "copy from container", Kind: ErrInvalid, Message: srcPath + " is no regular file"}
	}
	if fi, err := os.Stat(dstPath); err == nil && fi.IsDir() {
		dstPath = filepath.Join(dstPath, name)
	}
	return copyError("copy from container", replaceFile(dstPath, in, h.Size, st.Mode.Perm()))
}

func replaceFile(dst string, in io.Reader, size int64, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(dst), ".drover-copy-*")
	if err != nil {
		return err
	}
	n, err := io.Copy(f, in)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), dst)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func copyError(op string, err error) error {
	var ours *Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	var kind error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = ErrNotFound
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrPermission):
		kind = ErrConflict
	}
	return &Error{Op: op, Kind: kind, Message: err.Error(), Cause: err}
}
