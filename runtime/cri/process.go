package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// spawnWait is how long a process may take to appear before nobody looks for it any more.
const spawnWait = 10 * time.Second

// A processWatch finds out which process of the host an exec has become, since CRI does not tell: the new child of the
// container's shim. Execs of one container are begun one after another meanwhile, as the shim does anyway.
type processWatch struct {
	id      string
	done    chan struct{} // closed when the exec ended
	found   chan struct{} // closed when pid is set or nobody looks any more
	pid     int
	started string // to tell the process from a later one with its number
}

// spawns serialises the beginnings of execs, a lock a container.
type spawns struct {
	mu    sync.Mutex
	locks map[string]*spawn
}

type spawn struct {
	mu   sync.Mutex
	refs int
}

func (s *spawns) lock(id string) (unlock func()) {
	s.mu.Lock()
	if s.locks == nil {
		s.locks = map[string]*spawn{}
	}
	l := s.locks[id]
	if l == nil {
		l = &spawn{}
		s.locks[id] = l
	}
	l.refs++
	s.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.refs--; l.refs == 0 {
			delete(s.locks, id)
		}
	}
}

// watchProcess returns nil if the host's processes cannot be seen. The caller calls finish.
func (e *Engine) watchProcess(ctx context.Context, id string) *processWatch {
	_, v, err := e.status(ctx, id)
	if err != nil || !e.owns(v.Pid, id) {
		return nil
	}
	shim := parent(v.Pid)
	if shim <= 1 {
		return nil
	}
	unlock := e.spawning.lock(id)
	before := children(shim)
	w := &processWatch{id: id, done: make(chan struct{}), found: make(chan struct{})}
	go func() {
		defer close(w.found)
		defer unlock()
		deadline := time.NewTimer(spawnWait)
		defer deadline.Stop()
		for delay := 2 * time.Millisecond; ; delay = min(delay*2, 50*time.Millisecond) {
			for _, pid := range children(shim) {
				if !slices.Contains(before, pid) && e.owns(pid, id) {
					w.pid, w.started = pid, startTime(pid)
					return
				}
			}
			select {
			case <-w.done:
				return
			case <-deadline.C:
				return
			case <-time.After(delay):
			}
		}
	}()
	return w
}

// finish waits for the search and, with end, ends the process and all that it has started: SIGHUP first, SIGKILL after
// the grace (5 s for 0).
func (w *processWatch) finish(end bool, grace time.Duration) {
	if end { // it may be on its way still
		select {
		case <-w.found:
		case <-time.After(time.Second):
		}
	}
	close(w.done)
	<-w.found
	if !end || w.pid == 0 || startTime(w.pid) != w.started {
		return
	}
	if grace <= 0 {
		grace = 5 * time.Second
	}
	victims := map[int]string{}
	collect(w.pid, victims)
	signalAll(victims, syscall.SIGHUP)
	over := time.After(grace) // ctx has ended already: the grace is the bound
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting && alive(victims); {
		select {
		case <-over:
			waiting = false
		case <-tick.C:
		}
	}
	collect(w.pid, victims)
	signalAll(victims, syscall.SIGKILL)
}

// collect gathers a process and its descendants, with their start times.
func collect(pid int, into map[int]string) {
	started := startTime(pid)
	if started == "" {
		return
	}
	into[pid] = started
	for _, child := range children(pid) {
		collect(child, into)
	}
}

func signalAll(victims map[int]string, sig syscall.Signal) {
	for pid, started := range victims {
		if startTime(pid) == started {
			_ = syscall.Kill(pid, sig) // gone is as good as signalled
		}
	}
}

func alive(victims map[int]string) bool {
	for pid, started := range victims {
		if startTime(pid) == started {
			return true
		}
	}
	return false
}

// children lists the direct children of a process.
func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // a fixed pattern is never malformed
	var out []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for word := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(word); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// statFields are the fields of /proc/PID/stat behind the name, nil for a process that is gone or a zombie.
func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	i := strings.LastIndexByte(string(b), ')')
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return nil
	}
	return fields
}

func parent(pid int) int {
	if f := statFields(pid); f != nil {
		n, _ := strconv.Atoi(f[1]) // the kernel's own number
		return n
	}
	return 0
}

func startTime(pid int) string {
	if f := statFields(pid); f != nil {
		return f[19]
	}
	return ""
}
