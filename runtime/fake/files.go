package fake

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// maxFile bounds a file in memory.
const maxFile = 256 << 20

// files are those of one container.
type files struct {
	mu   sync.Mutex
	tree map[string]*file // by clean absolute path; parents are always there
}

type file struct {
	mode  fs.FileMode
	data  []byte
	link  string
	mtime time.Time
}

func newFiles() *files {
	f := &files{tree: map[string]*file{}}
	for _, dir := range []string{"/", "/tmp", "/etc", "/root", "/var/log", "/bin"} {
		f.mkdir(dir)
	}
	f.write("/etc/hostname", []byte("fake\n"))
	return f
}

// mkdir makes a directory and its parents.
func (f *files) mkdir(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mkdirLocked(dir)
}

func (f *files) mkdirLocked(dir string) {
	for ; f.tree[dir] == nil; dir = path.Dir(dir) {
		f.tree[dir] = &file{mode: fs.ModeDir | 0o755, mtime: time.Now()}
		if dir == "/" {
			return
		}
	}
}

func (f *files) write(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mkdirLocked(path.Dir(name))
	f.tree[name] = &file{mode: 0o644, data: data, mtime: time.Now()}
}

func (f *files) read(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.tree[name]
	if n != nil && n.link != "" {
		n = f.tree[path.Join(path.Dir(name), n.link)]
	}
	switch {
	case n == nil:
		return nil, fmt.Errorf("%s: No such file or directory", name)
	case n.mode.IsDir():
		return nil, fmt.Errorf("%s: Is a directory", name)
	}
	return slices.Clone(n.data), nil
}

func (f *files) stat(name string) (runtime.FileStat, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.tree[name]
	if n == nil {
		return runtime.FileStat{}, fmt.Errorf("%s: No such file or directory", name)
	}
	return runtime.FileStat{Name: path.Base(name), Size: int64(len(n.data)), Mode: n.mode, Mtime: n.mtime, LinkTarget: n.link}, nil
}

// unpack puts the entries of a tar stream under dir.
func (f *files) unpack(dir string, r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		name := path.Join(dir, path.Join("/", h.Name))
		n := &file{mode: h.FileInfo().Mode(), link: h.Linkname, mtime: h.ModTime}
		if h.Typeflag == tar.TypeReg {
			if n.data, err = io.ReadAll(io.LimitReader(archive, maxFile)); err != nil {
				return err
			}
		}
		f.mu.Lock()
		f.mkdirLocked(path.Dir(name))
		if old := f.tree[name]; old == nil || !old.mode.IsDir() || !n.mode.IsDir() {
			f.tree[name] = n
		}
		f.mu.Unlock()
	}
}

// pack writes name, and what is under it, as a tar stream.
func (f *files) pack(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for p := range f.tree {
		if p == name || strings.HasPrefix(p, strings.TrimSuffix(name, "/")+"/") {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	var buf bytes.Buffer
	archive := tar.NewWriter(&buf)
	for _, p := range names {
		n := f.tree[p]
		h := &tar.Header{
			Name: path.Join(path.Base(name), strings.TrimPrefix(p, name)), Mode: int64(n.mode.Perm()), ModTime: n.mtime,
			Typeflag: tar.TypeReg, Size: int64(len(n.data)), Linkname: n.link,
		}
		switch {
		case n.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case n.link != "":
			h.Typeflag, h.Size = tar.TypeSymlink, 0
		}
		if err := archive.WriteHeader(h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := archive.Write(n.data); err != nil {
				return nil, err
			}
		}
	}
	err := archive.Close()
	return buf.Bytes(), err
}

// tree finds a container's files.
func (e *Engine) tree(ctx context.Context, method, op, id string) (*files, error) {
	if err := e.enter(ctx, method, op); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return nil, err
	}
	return c.files, nil
}

// CopyTo unpacks a tar stream into a directory of a container.
func (e *Engine) CopyTo(ctx context.Context, id, dir string, archive io.Reader) error {
	op := "copy to " + id + ":" + dir
	f, err := e.tree(ctx, "CopyTo", op, id)
	if err != nil {
		return err
	}
	dir = path.Join("/", dir)
	if stat, err := f.stat(dir); err != nil || !stat.Mode.IsDir() {
		kind := runtime.ErrNotFound
		if err == nil {
			kind = runtime.ErrInvalid
		}
		return &runtime.Error{Op: op, Kind: kind, Message: "no such directory", Cause: err}
	}
	if err := f.unpack(dir, archive); err != nil {
		return &runtime.Error{Op: op, Message: "read the archive: " + err.Error(), Cause: err}
	}
	return nil
}

// CopyFrom returns a path of a container as a tar stream.
func (e *Engine) CopyFrom(ctx context.Context, id, name string) (io.ReadCloser, runtime.FileStat, error) {
	op := "copy from " + id + ":" + name
	f, err := e.tree(ctx, "CopyFrom", op, id)
	if err != nil {
		return nil, runtime.FileStat{}, err
	}
	name = path.Join("/", name)
	stat, err := f.stat(name)
	if err != nil {
		return nil, runtime.FileStat{}, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: err.Error()}
	}
	data, err := f.pack(name)
	if err != nil {
		return nil, runtime.FileStat{}, &runtime.Error{Op: op, Message: err.Error(), Cause: err}
	}
	return io.NopCloser(bytes.NewReader(data)), stat, nil
}

// StatPath tells what a path of a container is.
func (e *Engine) StatPath(ctx context.Context, id, name string) (runtime.FileStat, error) {
	op := "stat " + id + ":" + name
	f, err := e.tree(ctx, "StatPath", op, id)
	if err != nil {
		return runtime.FileStat{}, err
	}
	stat, err := f.stat(path.Join("/", name))
	if err != nil {
		return stat, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: err.Error()}
	}
	return stat, nil
}
