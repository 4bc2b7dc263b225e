package tarcopy

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Size returns how many bytes of contents [Pack] would copy.
func Size(ctx context.Context, src string) (int64, error) {
	var total int64
	err := filepath.WalkDir(src, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// Pack writes src, a file or a directory with all that is below it, as a tar stream. The stream calls it as; if as is "",
// src has to be a directory, and the stream holds what is in it but not the directory itself. Links are copied as links.
func Pack(ctx context.Context, w io.Writer, src, as string, o Options) (Totals, error) {
	p := &packer{ctx: ctx, tar: tar.NewWriter(w), o: &o, linked: map[inode]string{}, buf: make([]byte, chunk)}
	err := filepath.WalkDir(src, func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, name)
		if err != nil {
			return err
		}
		if rel == "." {
			rel = ""
		}
		if target := join(as, filepath.ToSlash(rel)); target != "" {
			return p.add(name, target)
		}
		return nil
	})
	if err == nil {
		err = p.tar.Close()
	}
	return p.totals, err
}

type inode struct{ device, number uint64 }

type packer struct {
	ctx    context.Context //nolint:containedctx // of the one call of Pack
	tar    *tar.Writer
	o      *Options
	linked map[inode]string // names of files that have several
	buf    []byte
	totals Totals
}

// add writes one entry.
func (p *packer) add(name, target string) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return p.file(name, target)
	case mode.IsDir():
		return p.header(info, target+"/", "")
	case mode&fs.ModeSymlink != 0:
		link, err := os.Readlink(name)
		if err != nil {
			return err
		}
		p.totals.Files++
		return p.header(info, target, link)
	case mode&fs.ModeNamedPipe != 0:
		p.totals.Files++
		return p.header(info, target, "")
	default:
		p.o.skipped(name, kindOf(mode))
		return nil
	}
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSocket != 0:
		return "it is a socket"
	case mode&fs.ModeDevice != 0:
		return "it is a device"
	}
	return "it is no file"
}

func (p *packer) header(info fs.FileInfo, target, link string) error {
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	p.tidy(h, target)
	return p.tar.WriteHeader(h)
}

// tidy makes a header one of ours: names of users say nothing in a container, and the time of the last access nothing at
// all.
func (p *packer) tidy(h *tar.Header, target string) {
	h.Name, h.Format = target, tar.FormatPAX
	h.Uname, h.Gname, h.AccessTime, h.ChangeTime = "", "", time.Time{}, time.Time{}
	if !p.o.Owner {
		h.Uid, h.Gid = 0, 0
	}
}

// file writes a regular file, or a link to one that was written under another of its names.
func (p *packer) file(name, target string) error {
	// Whoever puts a link or a pipe there meanwhile does not make us follow the one or wait for the other.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s changed while it was read", name)
	}
	h, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	p.tidy(h, target)
	p.totals.Files++
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // 32 bits on other systems
		if first, ok := p.linked[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.tar.WriteHeader(h)
		}
		p.linked[id] = target
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := transfer(p.ctx, p.tar, io.LimitReader(f, h.Size), p.buf, p.o)
	p.totals.Bytes += n
	if err == nil && n < h.Size {
		return fmt.Errorf("%s became shorter while it was read", name)
	}
	return err
}

// transfer copies, and tells of it.
func transfer(ctx context.Context, dst io.Writer, src io.Reader, buf []byte, o *Options) (int64, error) {
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
			o.moved(n)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Rename copies a tar stream, a copy of the file or directory of, and calls that as.
func Rename(ctx context.Context, w io.Writer, r io.Reader, of, as string, o Options) (Totals, error) {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	var b base
	var totals Totals
	buf := make([]byte, chunk)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return totals, out.Close()
		}
		if err != nil {
			return totals, err
		}
		rest, err := b.below(h, of)
		if err != nil {
			return totals, err
		}
		if h.Name = join(as, rest); h.Name == "" {
			continue
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		} else {
			totals.Files++
		}
		if h.Typeflag == tar.TypeLink {
			if rest, err = b.rest(h.Linkname); err != nil {
				return totals, err
			}
			h.Linkname = join(as, rest)
		}
		if !o.Owner {
			h.Uid, h.Gid = 0, 0
		}
		h.Uname, h.Gname, h.Format = "", "", tar.FormatPAX
		if err := out.WriteHeader(h); err != nil {
			return totals, err
		}
		n, err := transfer(ctx, out, in, buf, &o)
		totals.Bytes += n
		if err != nil {
			return totals, err
		}
	}
}
