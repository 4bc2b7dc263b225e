package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An input is what a process is to read, and can be ended from outside.
type input struct {
	from  io.Reader
	read  atomic.Int64
	ended atomic.Bool
}

func (i *input) Read(p []byte) (int, error) {
	if i.ended.Load() {
		return 0, io.EOF
	}
	n, err := i.from.Read(p)
	i.read.Add(int64(n))
	return n, err
}

// relieve keeps an exec from hanging whose process ended before it read its input: containerd's shim keeps the reading
// end of the pipe, so it never hears that nobody reads, and the exit code waits behind the input. A pipe of the shim
// with content that no process below it has open is such a one; what is in it is taken out. It blocks until ctx ends.
func (e *Engine) relieve(ctx context.Context, id string, in *input) {
	_, v, err := e.status(ctx, id)
	if err != nil || !e.owns(v.Pid, id) {
		return
	}
	shim := parent(v.Pid)
	if shim <= 1 {
		return
	}
	const first, longest = 500 * time.Millisecond, 30 * time.Second
	last, wait := int64(0), first
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		now := in.read.Load()
		if now != last { // it flows
			last, wait = now, first
			continue
		}
		wait = min(2*wait, longest)
		if now == 0 {
			continue
		}
		for _, pipe := range abandoned(shim) {
			in.ended.Store(true)
			drain(ctx, pipe)
		}
	}
}

// abandoned returns the reading ends of the pipes that nobody but the shim has, with content.
func abandoned(shim int) []*os.File {
	ends := map[string][]string{} // descriptors of the shim by pipe
	for fd, target := range descriptors(shim) {
		if strings.HasPrefix(target, "pipe:") {
			ends[target] = append(ends[target], fd)
		}
	}
	var out []*os.File
	for target, fds := range ends {
		if len(fds) < 2 { // the shim has one end alone
			continue
		}
		// Opening a pipe by its link for reading gives a reading end, whichever end the link is of.
		f, err := os.OpenFile(fds[0], os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if content(f) == 0 || openBelow(shim, target) {
			_ = f.Close() // nothing was done with it
			continue
		}
		out = append(out, f)
	}
	return out
}

// content returns how many bytes a pipe holds.
func content(pipe *os.File) int {
	conn, err := pipe.SyscallConn() // Fd would take the deadlines away
	if err != nil {
		return 0
	}
	n := 0
	if err := conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		return 0
	}
	return n
}

// descriptors returns the open files of a process: path below /proc to what it is.
func descriptors(pid int) map[string]string {
	out := map[string]string{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir) // a process that is gone has none
	for _, en := range entries {
		if _, err := strconv.Atoi(en.Name()); err != nil {
			continue
		}
		if target, err := os.Readlink(filepath.Join(dir, en.Name())); err == nil {
			out[filepath.Join(dir, en.Name())] = target
		}
	}
	return out
}

func openBelow(pid int, target string) bool {
	for _, child := range children(pid) {
		for _, t := range descriptors(child) {
			if t == target {
				return true
			}
		}
		if openBelow(child, target) {
			return true
		}
	}
	return false
}

// drain reads until ctx ends or the last writer is gone, and closes the pipe.
func drain(ctx context.Context, pipe *os.File) {
	defer pipe.Close()
	stop := context.AfterFunc(ctx, func() { _ = pipe.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		if _, err := pipe.Read(buf); err != nil && !errors.Is(err, syscall.EAGAIN) {
			return
		}
	}
}
