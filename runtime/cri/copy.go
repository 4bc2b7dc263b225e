package cri

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
	"strconv"
	"strings"
	"syscall"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"

	"github.com/droverhq/drover/runtime"
)

// root opens the root of a running container as its first process sees it, mounts and all. It needs no program in the
// container, and this process must see the host's processes.
func (e *Engine) root(ctx context.Context, id, op string) (*os.File, error) {
	c, err := e.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := running(c, op); err != nil {
		return nil, err
	}
	_, v, err := e.status(ctx, c.GetId())
	if err != nil {
		return nil, err
	}
	if !e.owns(v.Pid, c.GetId()) {
		return nil, unsupported("a CRI runtime copies no files, and this agent does not see the processes of the host (hostPID)")
	}
	return os.OpenFile("/proc/"+strconv.Itoa(v.Pid)+"/root", os.O_RDONLY|syscall.O_DIRECTORY, 0)
}

// CopyTo unpacks a tar stream into a directory of a running container. Nothing of the stream gets out of it.
func (e *Engine) CopyTo(ctx context.Context, id, dir string, stream io.Reader) error {
	op := "copying to container " + id
	root, err := e.root(ctx, id, op)
	if err != nil {
		return err
	}
	defer root.Close()
	handle, err := pathrs.OpenatInRoot(root, dir)
	if err != nil {
		return fileError(op, err)
	}
	defer handle.Close()
	into, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(handle.Fd())))
	if err != nil {
		return fileError(op, err)
	}
	defer into.Close()
	return fileError(op, unpack(ctx, into, tar.NewReader(stream)))
}

func fileError(op string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var kind error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = runtime.ErrNotFound
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrPermission):
		kind = runtime.ErrConflict
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, tar.ErrHeader), errors.Is(err, errBadName):
		kind = runtime.ErrInvalid
	}
	return &runtime.Error{Op: op, Kind: kind, Message: err.Error(), Cause: err}
}

var errBadName = errors.New("a name in the archive leads out of the directory")

func unpack(ctx context.Context, into *os.Root, in *tar.Reader) error {
	type stamp struct {
		name   string
		header *tar.Header
	}
	var dirs []stamp // their times are set last: filling a directory changes them
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(strings.TrimPrefix(h.Name, "/"))
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%w: %s", errBadName, h.Name)
		}
		if err := place(into, name, h, in); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, stamp{name, h})
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := into.Chtimes(dirs[i].name, dirs[i].header.ModTime, dirs[i].header.ModTime); err != nil {
			return err
		}
	}
	return nil
}

// place makes one entry of an archive.
func place(into *os.Root, name string, h *tar.Header, content io.Reader) error {
	mode := h.FileInfo().Mode()
	if h.Typeflag != tar.TypeDir {
		if dir := filepath.Dir(name); dir != "." {
			if err := into.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if err := into.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := into.Mkdir(name, mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeReg:
		f, err := into.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := into.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return into.Lchown(name, h.Uid, h.Gid)
	case tar.TypeLink:
		target := filepath.Clean(strings.TrimPrefix(h.Linkname, "/"))
		if !filepath.IsLocal(target) {
			return fmt.Errorf("%w: %s", errBadName, h.Linkname)
		}
		return into.Link(target, name)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("%w: %s is a device or a pipe", errBadName, h.Name)
	}
	if err := into.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	if err := into.Chmod(name, mode); err != nil {
		return err
	}
	return into.Chtimes(name, h.ModTime, h.ModTime)
}

// open resolves a path inside the container but for a symbolic link as its last component, which is left alone.
func openInside(root *os.File, name string) (dir *os.Root, base string, err error) {
	clean := path.Clean("/" + name)
	parent, base := path.Split(clean)
	if base == "" {
		base = "."
	}
	handle, err := pathrs.OpenatInRoot(root, parent)
	if err != nil {
		return nil, "", err
	}
	defer handle.Close()
	dir, err = os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(handle.Fd())))
	return dir, base, err
}

// StatPath tells what a path is, without following a final symbolic link.
func (e *Engine) StatPath(ctx context.Context, id, name string) (runtime.FileStat, error) {
	op := "looking at " + name + " in container " + id
	root, err := e.root(ctx, id, op)
	if err != nil {
		return runtime.FileStat{}, err
	}
	defer root.Close()
	dir, base, err := openInside(root, name)
	if err != nil {
		return runtime.FileStat{}, fileError(op, err)
	}
	defer dir.Close()
	st, err := fileStat(dir, base, name)
	return st, fileError(op, err)
}

func fileStat(dir *os.Root, base, name string) (runtime.FileStat, error) {
	fi, err := dir.Lstat(base)
	if err != nil {
		return runtime.FileStat{}, err
	}
	st := runtime.FileStat{Name: path.Base(path.Clean("/" + name)), Size: fi.Size(), Mode: fi.Mode(), Mtime: fi.ModTime()}
	if fi.Mode()&fs.ModeSymlink != 0 {
		st.LinkTarget, err = dir.Readlink(base)
	}
	return st, err
}

// CopyFrom packs a path of a running container while it is read. The caller closes the stream.
func (e *Engine) CopyFrom(ctx context.Context, id, name string) (io.ReadCloser, runtime.FileStat, error) {
	op := "copying from container " + id
	root, err := e.root(ctx, id, op)
	if err != nil {
		return nil, runtime.FileStat{}, err
	}
	defer root.Close()
	dir, base, err := openInside(root, name)
	if err != nil {
		return nil, runtime.FileStat{}, fileError(op, err)
	}
	st, err := fileStat(dir, base, name)
	if err != nil {
		return nil, runtime.FileStat{}, errors.Join(fileError(op, err), dir.Close())
	}
	r, w := io.Pipe()
	p := &packing{PipeReader: r, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := pack(ctx, dir, base, st.Name, w)
		_ = dir.Close() // only read from
		w.CloseWithError(fileError(op, err))
	}()
	return p, st, nil
}

// A packing is the reading end of an archive that is made as it is read. Close ends the making and waits for it.
type packing struct {
	*io.PipeReader
	done chan struct{}
}

func (p *packing) Close() error {
	err := p.PipeReader.Close()
	<-p.done
	return err
}

func pack(ctx context.Context, dir *os.Root, base, as string, w io.Writer) error {
	out := tar.NewWriter(w)
	err := fs.WalkDir(dir.FS(), base, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, name)
		if err != nil {
			return err
		}
		return packOne(dir, out, name, path.Join(as, rel), fi)
	})
	return errors.Join(err, out.Close())
}

func packOne(dir *os.Root, out *tar.Writer, name, as string, fi fs.FileInfo) error {
	link := ""
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		var err error
		if link, err = dir.Readlink(name); err != nil {
			return err
		}
	case !fi.Mode().IsRegular() && !fi.IsDir():
		return nil // sockets, pipes and devices are not content
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = as, "", ""
	if fi.IsDir() {
		h.Name += "/"
	}
	if !fi.Mode().IsRegular() {
		return out.WriteHeader(h)
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	// A file that grows is cut at the size of its header; one that shrinks is an error, not an endless wait.
	n, err := io.CopyN(out, f, h.Size)
	if err != nil {
		return fmt.Errorf("%s: %d of %d bytes: %w", as, n, h.Size, err)
	}
	return nil
}
