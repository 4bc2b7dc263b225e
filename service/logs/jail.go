package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrOutside says that a path is in none of the roots, or leaves them through a symbolic link.
var ErrOutside = errors.New("outside the log roots")

const maxLinks = 40 // as the kernel's own limit

// A Jail opens files below a few directories and nowhere else. Paths are absolute, as the people of the host know
// them; Prefix is where the host's root is mounted. Every open goes through [os.Root], so neither "..", nor a symbolic
// link in any component, nor a directory that is replaced while it is walked, leads out. A link is followed as long as
// its target is in a root too. Only regular files are opened, and none of a kernel file system such as /proc.
//
// The zero value has no roots and opens nothing. A Jail is safe for concurrent use and holds no descriptors.
type Jail struct {
	Prefix string   // "" is the process's own root
	Roots  []string // absolute, as the host sees them
	Pods   Pods     // what names that begin with pod: mean; nil: there are no such names

	// Of the jail of one container's logs: names must be only or below it, or be the engine's file of the container
	// with the id linked.
	only, linked string
}

var errIsDir = errors.New("is a directory")

// Open opens a regular file for reading. The caller closes it.
func (j Jail) Open(name string) (*os.File, error) {
	return j.open(name, os.O_RDONLY)
}

// OpenAppend opens an existing regular file for appending. The caller closes it.
func (j Jail) OpenAppend(name string) (*os.File, error) {
	return j.open(name, os.O_WRONLY|os.O_APPEND)
}

func (j Jail) open(name string, flag int) (*os.File, error) {
	var file *os.File
	within := j.within
	if j.isPod(name) {
		within = j.openPod
	}
	err := within(name, func(root *os.Root, rel string) error {
		// O_NONBLOCK: a FIFO must not hold the open until somebody writes.
		f, err := root.OpenFile(rel, flag|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := regular(f); err != nil {
			return errors.Join(err, f.Close())
		}
		file = f
		return nil
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	}
	return file, nil
}

// regular refuses what is no plain file of a plain file system.
func regular(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return errIsDir
	}
	if !fi.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	switch int64(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.BPF_FS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC:
		return errors.New("on a kernel file system")
	}
	return nil
}

// Stat describes what name is, following links inside the roots.
func (j Jail) Stat(name string) (fs.FileInfo, error) {
	if j.isPod(name) {
		info, err := j.statPod(name)
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: name, Err: cause(err)}
		}
		return info, nil
	}
	return j.stat(name, j.within)
}

// StatFile is Stat of what Open opens: a pod's container is the file that it writes now.
func (j Jail) StatFile(name string) (fs.FileInfo, error) {
	if j.isPod(name) {
		return j.stat(name, j.openPod)
	}
	return j.stat(name, j.within)
}

func (j Jail) stat(name string, within func(string, func(*os.Root, string) error) error) (fs.FileInfo, error) {
	var info fs.FileInfo
	err := within(name, func(root *os.Root, rel string) (err error) {
		info, err = root.Stat(rel)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: cause(err)}
	}
	return info, nil
}

// ReadDir lists a directory, sorted by name, at most limit entries; more than those is an error.
func (j Jail) ReadDir(name string, limit int) ([]fs.FileInfo, error) {
	var infos []fs.FileInfo
	var err error
	if j.isPod(name) {
		infos, err = j.readPod(name, limit)
	} else {
		err = j.within(name, func(root *os.Root, rel string) (err error) {
			infos, err = readDir(root, rel, limit)
			return err
		})
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: cause(err)}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return infos, nil
}

func readDir(root *os.Root, rel string, limit int) (infos []fs.FileInfo, err error) {
	d, err := root.Open(rel)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(limit + 1)
	if err != nil && len(entries) == 0 && !errors.Is(err, fs.ErrClosed) {
		if fi, serr := d.Stat(); serr == nil && fi.IsDir() {
			return nil, nil // empty
		}
		return nil, err
	}
	if len(entries) > limit {
		return nil, fmt.Errorf("more than %d entries", limit)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil { // else it is gone already
			infos = append(infos, fi)
		}
	}
	return infos, nil
}

// Readlink returns the target of a link as it is written.
func (j Jail) Readlink(name string) (string, error) {
	if j.isPod(name) {
		return "", nil // where the engine keeps its files is nobody's business
	}
	var target string
	dir, base := path.Split(path.Clean(name))
	err := j.within(dir, func(root *os.Root, rel string) (err error) {
		target, err = root.Readlink(path.Join(rel, base))
		return err
	})
	return target, err
}

// Glob returns the names that match a path.Match pattern, sorted, at most limit of them. Directories of the pattern
// without a meta character must be in a root.
func (j Jail) Glob(pattern string, limit int) ([]string, error) {
	names := []string{"/"}
	parts := strings.Split(strings.Trim(pattern, "/"), "/")
	switch {
	case j.isPod(pattern):
		start, below, err := j.globStart(pattern)
		if err != nil {
			return nil, &fs.PathError{Op: "glob", Path: pattern, Err: cause(err)}
		}
		names, parts = []string{start}, below
	case !path.IsAbs(pattern):
		return nil, &fs.PathError{Op: "glob", Path: pattern, Err: ErrOutside}
	}
	for i, part := range parts {
		if part == ".." || part == "." || part == "" {
			return nil, &fs.PathError{Op: "glob", Path: pattern, Err: errors.New("a pattern has no empty, . or .. component")}
		}
		var next []string
		for _, dir := range names {
			if !strings.ContainsAny(part, `*?[\`) {
				next = append(next, path.Join(dir, part))
				continue
			}
			infos, err := j.ReadDir(dir, maxDirEntries)
			if errors.Is(err, fs.ErrNotExist) || (err != nil && i < len(parts)-1 && !errors.Is(err, ErrOutside)) {
				continue
			}
			if err != nil {
				return nil, err
			}
			for _, fi := range infos {
				if strings.HasPrefix(fi.Name(), ".") && !strings.HasPrefix(part, ".") {
					continue
				}
				ok, err := path.Match(part, fi.Name())
				if err != nil {
					return nil, &fs.PathError{Op: "glob", Path: pattern, Err: err}
				}
				if ok {
					next = append(next, path.Join(dir, fi.Name()))
				}
				if limit > 0 && len(next) > limit {
					return nil, &LimitError{Key: keyMaxFiles, Limit: fmt.Sprintf("%s matches more than %d names", pattern, limit)}
				}
			}
		}
		names = next
	}
	var found []string
	for _, name := range names {
		if _, err := j.Stat(name); err == nil {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, nil
}

const maxDirEntries = 10_000

// within finds the root that holds name, with every link resolved, and calls f with the path below it.
func (j Jail) within(name string, f func(root *os.Root, rel string) error) error {
	if !path.IsAbs(name) {
		return ErrOutside
	}
	if strings.ContainsRune(name, 0) {
		return errors.New("a NUL byte in the name")
	}
	name = path.Clean(name)
	for range maxLinks {
		dir, rel, ok := j.locate(name)
		if !ok {
			return ErrOutside
		}
		root, err := os.OpenRoot(j.Prefix + dir)
		if err != nil {
			return err
		}
		target, err := firstLink(root, dir, rel)
		if err == nil && target == "" {
			err = f(root, rel)
		}
		if cerr := root.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		if target == "" {
			return nil
		}
		name = target
	}
	return errors.New("too many symbolic links")
}

// locate picks the longest root that holds name.
func (j Jail) locate(name string) (dir, rel string, ok bool) {
	if id := path.Base(path.Dir(name)); j.linked != "" && id == j.linked && strings.HasPrefix(path.Base(name), id+"-json.log") {
		return path.Dir(path.Dir(name)), path.Join(id, path.Base(name)), true
	}
	if j.only != "" && name != j.only && !strings.HasPrefix(name, j.only+"/") {
		return "", "", false
	}
	for _, r := range j.Roots {
		r = path.Clean(r)
		if !path.IsAbs(r) || len(r) < len(dir) {
			continue
		}
		if name == r {
			dir, rel, ok = r, ".", true
		} else if below, found := strings.CutPrefix(name, strings.TrimSuffix(r, "/")+"/"); found {
			dir, rel, ok = r, below, true
		}
	}
	return dir, rel, ok
}

// firstLink walks rel below root and returns the absolute path that its first symbolic link leads to, with the rest
// of rel appended; "" if there is none. What is missing is left to the caller's own call to report.
func firstLink(root *os.Root, dir, rel string) (string, error) {
	if rel == "." {
		return "", nil
	}
	parts := strings.Split(rel, "/")
	for i := range parts {
		at := path.Join(parts[:i+1]...)
		fi, err := root.Lstat(at)
		if err != nil {
			return "", err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := root.Readlink(at)
		if err != nil {
			return "", err
		}
		if !path.IsAbs(target) {
			target = path.Join(dir, path.Dir(at), target)
		}
		return path.Join(append([]string{target}, parts[i+1:]...)...), nil
	}
	return "", nil
}

// cause strips the path that an inner error names, which is one that the caller does not know.
func cause(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}
