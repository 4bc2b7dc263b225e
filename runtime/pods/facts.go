package pods

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/droverhq/drover/runtime"
)

// facts are what the host's file system tells of a running container. Nothing is run in a container and nothing is
// written to one. They never change.
type facts struct {
	pid     int
	tz      runtime.TzInfo
	alpine  runtime.AlpineStatus
	pid1    string
	zombies int
	reaps   bool
}

func (f *facts) fill(c *runtime.Container) {
	c.Tz, c.Alpine, c.Pid1Name = f.tz, f.alpine, f.pid1
	c.ZombieCount, c.Pid1CanRecycleZombieProcesses = f.zombies, f.reaps
}

// gather finds out the facts of new containers, and counts zombies anew with every tick, until ctx ends. It is not part
// of a refresh: a slow disk delays facts, not the map.
func (s *Store) gather(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.factsNow: // after every change of the map, and with every tick
		}
		s.gatherAll(ctx)
	}
}

func (s *Store) gatherAll(ctx context.Context) {
	containers := s.state.Load().containers
	s.mu.Lock()
	before := s.facts
	s.mu.Unlock()
	now := make(map[string]*facts, len(containers))
	news := false
	for _, c := range containers {
		if ctx.Err() != nil {
			return
		}
		if c.IsSandbox() || !c.IsRunning() {
			continue
		}
		f := before[c.Id]
		if f == nil || f.pid != c.State.Pid {
			f, news = s.find(c), true
		} else if zombies := countZombies(s.proc(), f.pid); zombies != f.zombies {
			again := *f
			again.zombies, again.reaps = zombies, reaps(c, f.pid1, zombies)
			f, news = &again, true
		}
		now[c.Id] = f
	}
	if !news && len(now) == len(before) {
		return
	}
	s.mu.Lock()
	s.facts = now // replaced, never changed
	s.mu.Unlock()
	if news {
		poke(s.refreshNow)
	}
}

func (s *Store) proc() string { return s.cfg.HostFS + "/proc" }

func (s *Store) find(c *runtime.Container) *facts {
	f := &facts{pid: c.State.Pid, tz: timezone(c), alpine: alpine(c)}
	f.pid1 = processName(s.proc(), f.pid)
	f.zombies = countZombies(s.proc(), f.pid)
	f.reaps = reaps(c, f.pid1, f.zombies)
	return f
}

// readInside reads a small regular file of a container, through links as the container sees them.
func readInside(c *runtime.Container, name string) ([]byte, error) {
	host, err := runtime.TransferToHostPathForContainer(c, name, true)
	if err != nil {
		return nil, err
	}
	// A link that was put there since, and a pipe that nobody writes to, must not be followed or waited for.
	f, err := os.OpenFile(host, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("no regular file"))
	}
	return io.ReadAll(io.LimitReader(f, 256<<10))
}

func alpine(c *runtime.Container) runtime.AlpineStatus {
	host, err := runtime.TransferToHostPathForContainer(c, "/etc/alpine-release", true)
	if err != nil {
		return runtime.AlpineStatusUnknown
	}
	switch _, err := os.Lstat(host); {
	case err == nil:
		return runtime.AlpineStatusYes
	case !errors.Is(err, fs.ErrNotExist):
		return runtime.AlpineStatusUnknown
	}
	// Not there: is the container visible at all?
	root, err := runtime.TransferToHostPathForContainer(c, "/.", true)
	if err != nil {
		root = path.Dir(path.Dir(host))
	}
	if _, err := os.Lstat(root); err != nil {
		return runtime.AlpineStatusUnknown
	}
	return runtime.AlpineStatusNo
}

// processName is the base name of a process's program, as it was called.
func processName(proc string, pid int) string {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cmdline"))
	first, _, _ := bytes.Cut(b, []byte{0})
	if err != nil || len(first) == 0 {
		b, err = os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "comm"))
		if err != nil {
			return ""
		}
		first = bytes.TrimSpace(b)
	}
	return path.Base(string(first))
}

const maxZombies = 100 // more are not counted

// countZombies counts the children of a process that have ended and were not waited for; -1 if that cannot be told.
func countZombies(proc string, pid int) int {
	lists, err := filepath.Glob(filepath.Join(proc, strconv.Itoa(pid), "task", "*", "children"))
	if err != nil || len(lists) == 0 {
		return -1
	}
	n := 0
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for child := range strings.FieldsSeq(string(b)) {
			stat, err := os.ReadFile(filepath.Join(proc, child, "stat"))
			if err != nil {
				continue
			}
			if i := bytes.LastIndexByte(stat, ')'); i >= 0 && bytes.HasPrefix(stat[i+1:], []byte(" Z")) {
				if n++; n == maxZombies {
					return n
				}
			}
		}
	}
	return n
}

// reaps guesses from the name of the first process, and from what it has left, whether it waits for the children of
// others: only those that are made for it are known to.
func reaps(c *runtime.Container, pid1 string, zombies int) bool {
	if c.PidMode == "host" {
		return true
	}
	switch strings.TrimPrefix(pid1, "-") {
	case "systemd", "init", "tini", "tini-static", "dumb-init", "docker-init", "catatonit", "s6-svscan", "runsvdir", "supervisord", "bash", "sh", "dash", "ash":
		return zombies <= 0
	}
	return false
}
