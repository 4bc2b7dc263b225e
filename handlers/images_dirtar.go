package handlers

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// tarDirectory streams a directory as tar, as an image's root: owners by number, modes, times, links and devices as
// they are; sockets are left out. It takes d over and closes it. Symlinks are stored, never followed: what is opened
// stays within d. The caller closes the result, which also ends the walk.
func tarDirectory(d *os.File) (io.ReadCloser, error) {
	// By its descriptor, and not by its name, which may mean another directory by now.
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", d.Fd()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open directory: %w", err), d.Close())
	}
	r, w := io.Pipe()
	t := &dirTar{PipeReader: r, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		out := tar.NewWriter(w)
		err := writeTree(root, out)
		if err == nil {
			err = out.Close()
		}
		w.CloseWithError(errors.Join(err, root.Close(), d.Close())) // nil: io.EOF
	}()
	return t, nil
}

// A dirTar is the reader of a directory's tar.
type dirTar struct {
	*io.PipeReader
	done chan struct{}
}

// Close ends the walk and waits for it.
func (t *dirTar) Close() error {
	err := t.PipeReader.Close()
	<-t.done
	return err
}

// inode names a file that may have several names.
type inode struct{ dev, ino uint64 }

func writeTree(root *os.Root, out *tar.Writer) error {
	linked := map[inode]string{} // first name of files with several
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSocket != 0 {
			return nil
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = root.Readlink(name); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		header.Name, header.Uname, header.Gname = name, "", ""
		if info.IsDir() {
			header.Name += "/"
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
			id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // of another width elsewhere
			if first, ok := linked[id]; ok {
				header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
			} else {
				linked[id] = name
			}
		}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			return nil
		}
		return writeContent(root, name, header.Size, out)
	})
}

// writeContent writes a file's content; one that changed its size meanwhile is an error.
func writeContent(root *os.Root, name string, size int64, out io.Writer) error {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(out, f, size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read", name)
	}
	return err
}
