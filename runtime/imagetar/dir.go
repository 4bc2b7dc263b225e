package imagetar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Directory streams a directory as tar, as an image's root: owners by number, modes, times, links and devices as
// they are; sockets are left out. It takes d over and closes it. Symlinks are stored, never followed: what is opened
// stays within d. The caller closes the result, which also ends the walk.
func Directory(d *os.File) (io.ReadCloser, error) {
	// By its descriptor, and not by its name, which may mean another directory by now.
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", d.Fd()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open directory: %w", err), d.Close())
	}
	return stream(func(out *tar.Writer) error {
		w := &treeWriter{root: root, out: out, linked: map[inode]string{}}
		return fs.WalkDir(root.FS(), ".", w.visit)
	}, root, d), nil
}

// stream runs write in a goroutine, which the reader's Close ends and waits for, and closes what it is given then.
func stream(write func(*tar.Writer) error, closers ...io.Closer) io.ReadCloser {
	r, w := io.Pipe()
	t := &dirTar{PipeReader: r, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		out := tar.NewWriter(w)
		err := write(out)
		if err == nil {
			err = out.Close()
		}
		for _, c := range closers {
			err = errors.Join(err, c.Close())
		}
		w.CloseWithError(err) // nil: io.EOF
	}()
	return t
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

// A treeWriter writes what a walk visits.
type treeWriter struct {
	root   *os.Root
	out    *tar.Writer
	linked map[inode]string // first name of files with several
	owner  bool             // everything belongs to root: the files are a user's, and the image is not
}

func (w *treeWriter) visit(name string, entry fs.DirEntry, err error) error {
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
		if target, err = w.root.Readlink(name); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name, header.Uname, header.Gname = name, "", ""
	if w.owner {
		header.Uid, header.Gid = 0, 0
	}
	if info.IsDir() {
		header.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // of another width elsewhere
		if first, ok := w.linked[id]; ok {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
		} else {
			w.linked[id] = name
		}
	}
	if err := w.out.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	return writeContent(w.root, name, header.Size, w.out)
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
