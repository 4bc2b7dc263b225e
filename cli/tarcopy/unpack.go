package tarcopy

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Unpack writes a tar stream, a copy of the file or directory of, to dst. A directory becomes dst, or is merged into it; a
// file becomes dst, or replaces it, when it is there as a whole. A file never replaces a directory, nor the other way round.
// Names in the archive that lead out of dst, by themselves or over a link, are an error.
func Unpack(ctx context.Context, r io.Reader, of, dst string, o Options) (Totals, error) {
	u := &unpacker{ctx: ctx, o: &o, buf: make([]byte, chunk)}
	defer u.close()
	in := tar.NewReader(r)
	var b base
	for first := true; ; first = false {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF) && first:
			return u.totals, errors.New("the archive is empty")
		case errors.Is(err, io.EOF):
			return u.totals, u.leave("")
		case err != nil:
			return u.totals, err
		}
		rest, err := b.below(h, of)
		if err == nil {
			err = u.next(&b, h, rest, dst, in, first)
		}
		if err != nil {
			return u.totals, err
		}
	}
}

// An unpacker writes below root.
type unpacker struct {
	ctx    context.Context //nolint:containedctx // of the one call of Unpack
	o      *Options
	root   *os.Root
	single bool // the archive is of one file
	// open are the directories that were made and are still being filled, each within the one before: their modes and
	// times come when they are full.
	open   []*tar.Header // named below root
	buf    []byte
	totals Totals
}

func (u *unpacker) close() {
	if u.root != nil {
		_ = u.root.Close()
	}
}

// next takes one entry.
func (u *unpacker) next(b *base, h *tar.Header, rest, dst string, content io.Reader, first bool) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	switch {
	case u.single:
		return fmt.Errorf("the archive of a file holds %q too", h.Name)
	case first && h.Typeflag != tar.TypeDir:
		u.single = true
		if err := u.enter(filepath.Dir(dst)); err != nil {
			return err
		}
		return u.put(b, h, filepath.Base(dst), content)
	case first:
		return u.top(h, dst)
	case rest == "":
		return nil // the directory itself, again
	}
	if err := u.leave(rest); err != nil {
		return err
	}
	return u.put(b, h, rest, content)
}

func (u *unpacker) enter(dir string) error {
	root, err := os.OpenRoot(dir)
	u.root = root
	return err
}

// top makes the directory that everything goes into.
func (u *unpacker) top(h *tar.Header, dst string) error {
	err := os.Mkdir(dst, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	made := err == nil
	if err := u.enter(dst); err != nil {
		return err
	}
	if made {
		made := *h
		made.Name = "."
		u.open = append(u.open, &made)
	}
	return nil
}

// leave finishes the directories that do not contain name.
func (u *unpacker) leave(name string) error {
	for len(u.open) > 0 {
		last := u.open[len(u.open)-1]
		if name != "" && (last.Name == "." || strings.HasPrefix(name, last.Name+"/")) {
			return nil
		}
		u.open = u.open[:len(u.open)-1]
		if err := u.finish(last, last.Name); err != nil {
			return err
		}
	}
	return nil
}

// put writes one entry to name.
func (u *unpacker) put(b *base, h *tar.Header, name string, content io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return u.directory(h, name)
	}
	if err := u.parents(name); err != nil {
		return err
	}
	if old, err := u.root.Lstat(name); err == nil && old.IsDir() {
		return fmt.Errorf("%s is a directory, and is not replaced by a file", u.shown(name))
	}
	temporary := path.Join(path.Dir(name), ".drover-"+rand.Text()[:12])
	var err error
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		err = u.file(h, temporary, content)
	case tar.TypeSymlink:
		err = u.root.Symlink(h.Linkname, temporary)
	case tar.TypeLink:
		var old string
		if old, err = b.rest(h.Linkname); err == nil {
			err = u.root.Link(old, temporary)
		}
	case tar.TypeFifo:
		err = u.pipe(h, temporary)
	default:
		u.o.skipped(u.shown(name), "it is a device, or nothing that a folder can hold")
		return nil
	}
	if err == nil && h.Typeflag == tar.TypeSymlink && u.o.Owner {
		err = u.root.Lchown(temporary, h.Uid, h.Gid)
	}
	if err == nil {
		err = u.root.Rename(temporary, name)
	}
	if err != nil {
		_ = u.root.Remove(temporary) // it may not have come to be
		return fmt.Errorf("%s: %w", u.shown(name), reason(err))
	}
	if h.Typeflag == tar.TypeLink {
		_ = u.root.Remove(temporary) // renaming a link over itself does nothing, and leaves both
	}
	u.totals.Files++
	return nil
}

// reason is an error without the names that the user did not give.
func reason(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// shown is a name for people.
func (u *unpacker) shown(name string) string { return filepath.Join(u.root.Name(), name) }

// parents makes the directories above name that the archive does not mention.
func (u *unpacker) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	if err := u.root.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%s: %w", u.shown(dir), reason(err))
	}
	return nil
}

func (u *unpacker) directory(h *tar.Header, name string) error {
	if err := u.parents(name); err != nil {
		return err
	}
	old, err := u.root.Lstat(name)
	switch {
	case err == nil && old.IsDir():
		return nil // it is merged into what is there, which stays as it is
	case err == nil:
		return fmt.Errorf("%s is no directory, and is not replaced by one", u.shown(name))
	}
	if err := u.root.Mkdir(name, 0o700); err != nil {
		return fmt.Errorf("%s: %w", u.shown(name), reason(err))
	}
	made := *h
	made.Name = name
	u.open = append(u.open, &made)
	return nil
}

func (u *unpacker) file(h *tar.Header, name string, content io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := transfer(u.ctx, f, content, u.buf, u.o)
	u.totals.Bytes += n
	if err == nil && u.o.Owner {
		err = f.Chown(h.Uid, h.Gid)
	}
	if err == nil {
		err = f.Chmod(u.mode(h))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = u.root.Chtimes(name, time.Time{}, h.ModTime)
	}
	return err
}

// pipe makes a named pipe. A root has no call for it, so it is made below the opened parent.
func (u *unpacker) pipe(h *tar.Header, name string) error {
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mkfifoat(int(dir.Fd()), path.Base(name), 0o600); err != nil {
		return err
	}
	return u.finish(h, name)
}

// finish gives what was made its owner, mode and time.
func (u *unpacker) finish(h *tar.Header, name string) error {
	var err error
	if u.o.Owner {
		err = u.root.Chown(name, h.Uid, h.Gid)
	}
	if err == nil {
		err = u.root.Chmod(name, u.mode(h))
	}
	if err == nil {
		err = u.root.Chtimes(name, time.Time{}, h.ModTime)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u.shown(name), reason(err))
	}
	return nil
}

// mode is what a file gets: a program of a container does not become one that runs as whoever copied it.
func (u *unpacker) mode(h *tar.Header) fs.FileMode {
	mode := h.FileInfo().Mode()
	if u.o.Owner {
		return mode & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	}
	return mode & (fs.ModePerm | fs.ModeSticky)
}
