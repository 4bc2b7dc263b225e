package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

const maxLinks = 40 // as the kernel's own limit

// TransferToHostPathForContainer returns where a path of a container is on this process's file system, so that it can
// be read without entering the container. It never leads out of the container: ".." stops at its root, and every
// symbolic link before the last component is followed as the container itself would, through its own mounts. With
// respectSymbol a link as the last component is followed too. A path that does not exist is mapped as far as it does.
//
// The answer holds for the moment: whoever opens it must not follow a link that was put there since (O_NOFOLLOW, or an
// [os.Root] of its directory).
func TransferToHostPathForContainer(c *Container, ctrPath string, respectSymbol bool) (string, error) {
	if !path.IsAbs(ctrPath) {
		return "", &Error{Kind: ErrInvalid, Message: "container path must be a abs path"}
	}
	if strings.ContainsRune(ctrPath, 0) {
		return "", &Error{Kind: ErrInvalid, Message: "container path holds a NUL byte"}
	}
	m := hostMapper{mounts: c.Mounts, merged: c.MergedDir}
	if c.Runtime == Runc && c.MergedDir == "" && c.State.Pid > 0 {
		// The root of the first process shows the container with all its mounts.
		m = hostMapper{merged: c.HostFS + "/proc/" + strconv.Itoa(c.State.Pid) + "/root"}
		if path.Clean(ctrPath) == "/" {
			return "", &Error{Kind: ErrInvalid, Message: "container path '/' is disallowed"}
		}
	}
	resolved, err := m.resolve(ctrPath, respectSymbol)
	if err != nil {
		return "", err
	}
	return m.host(resolved)
}

// A hostMapper maps clean absolute paths of a container to the host.
type hostMapper struct {
	mounts []*MountPoint
	merged string
}

// host maps a path whose links are resolved: the mount with the longest destination decides.
func (m hostMapper) host(ctrPath string) (string, error) {
	base, rest, best := m.merged, ctrPath, -1
	for _, mount := range m.mounts {
		dest := path.Clean("/" + mount.Destination)
		if len(dest) <= best {
			continue
		}
		if below, ok := strings.CutPrefix(ctrPath, strings.TrimSuffix(dest, "/")); ok && (below == "" || below[0] == '/') {
			base, rest, best = mount.Source, below, len(dest)
		}
	}
	if base == "" {
		return "", &Error{Kind: ErrNotFound, Message: fmt.Sprintf("%s is not in any mount volume", ctrPath)}
	}
	if rest == "" || rest == "/" {
		return base, nil
	}
	return strings.TrimSuffix(base, "/") + rest, nil
}

// resolve walks the path component by component, as the kernel would with the container's root.
func (m hostMapper) resolve(ctrPath string, last bool) (string, error) {
	done, todo := "/", strings.Split(ctrPath, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		if final(todo) && !last {
			return next, nil
		}
		target, err := m.readlink(next)
		if err != nil {
			return "", err
		}
		if target == "" {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &Error{Kind: ErrInvalid, Message: "too many symbol links"}
		}
		if path.IsAbs(target) {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, nil
}

// final tells whether no component is left.
func final(todo []string) bool {
	for _, part := range todo {
		if part != "" && part != "." {
			return false
		}
	}
	return true
}

// readlink returns where a link points to, "" for what is no link or is not there.
func (m hostMapper) readlink(ctrPath string) (string, error) {
	host, err := m.host(ctrPath)
	if err != nil {
		if errors.Is(err, ErrNotFound) { // a directory between two mounts, without a root
			return "", nil
		}
		return "", err
	}
	fi, err := os.Lstat(host)
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return "", nil
	}
	target, err := os.Readlink(host)
	if err != nil {
		return "", &Error{Kind: ErrNotFound, Message: "reading a link of the container", Cause: err}
	}
	return target, nil
}
