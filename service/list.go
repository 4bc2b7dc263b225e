package service

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"

	"github.com/droverhq/drover/runtime"
)

const (
	// listFiles is the longest list.
	listFiles = 10_000
	// listBytes bounds how much of a directory's archive is read, where there is no other way to list it.
	listBytes = 256 << 20
)

// list tells what is directly in a directory of a container, or of a file itself. A running container is looked into from
// the host; the engine can only give a directory with all that is below it.
func (s *Service) list(ctx context.Context, engine runtime.Copier, st runtime.ContainerStatus, name string) (files []File, truncated bool, err error) {
	if st.Pid > 0 {
		root := filepath.Join("/", s.cfg.Root, "proc", strconv.Itoa(st.Pid), "root")
		if files, truncated, err := listIn(root, name); err == nil {
			return files, truncated, nil
		}
		// Whatever hinders us, the engine knows better, or says it properly.
	}
	archive, stat, err := engine.CopyFrom(ctx, st.ID, name)
	if err != nil {
		return nil, false, err
	}
	defer archive.Close()
	if !stat.Mode.IsDir() {
		return []File{fileOf(name, stat)}, false, nil
	}
	return listArchive(archive, name)
}

// listIn lists a directory below root. Links in the container are followed as the container sees them, and cannot lead
// out of it.
func listIn(root, name string) ([]File, bool, error) {
	handle, err := pathrs.OpenInRoot(root, name)
	if err != nil {
		return nil, false, err
	}
	defer handle.Close()
	info, err := handle.Stat()
	if err != nil {
		return nil, false, err
	}
	if !info.IsDir() {
		return nil, false, fs.ErrInvalid // the engine says more of a file: a link's target
	}
	dir, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(handle.Fd())))
	if err != nil {
		return nil, false, err
	}
	defer dir.Close()
	self, err := dir.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer self.Close()
	names, err := self.Readdirnames(listFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	truncated := len(names) > listFiles
	files := make([]File, 0, len(names))
	for _, entry := range names[:min(len(names), listFiles)] {
		info, err := dir.Lstat(entry)
		if err != nil {
			continue // removed meanwhile
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			target, _ = dir.Readlink(entry)
		}
		files = append(files, fileOf(path.Join(name, entry), runtime.FileStat{
			Name: entry, Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime(), LinkTarget: target,
		}))
	}
	sortFiles(files)
	return files, truncated, nil
}

// listArchive lists what is directly in the directory whose archive it reads.
func listArchive(archive io.Reader, name string) ([]File, bool, error) {
	in := tar.NewReader(io.LimitReader(archive, listBytes))
	files := []File{}
	for {
		h, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			sortFiles(files)
			return files, false, nil
		case errors.Is(err, io.ErrUnexpectedEOF) || len(files) == listFiles:
			sortFiles(files)
			return files, true, nil
		case err != nil:
			return nil, false, err
		}
		// Names begin with that of the directory itself, which is "/" or "." for the root.
		full := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
		if path.Clean(name) != "/" {
			_, full, _ = strings.Cut(full, "/")
		}
		if full == "" || full == "." || strings.Contains(full, "/") {
			continue
		}
		files = append(files, fileOf(path.Join(name, full), runtime.FileStat{
			Name: full, Size: h.Size, Mode: h.FileInfo().Mode(), Mtime: h.ModTime, LinkTarget: h.Linkname,
		}))
	}
}

func sortFiles(files []File) {
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
}
