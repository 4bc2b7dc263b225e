package docker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/versions"

	"github.com/droverhq/drover/runtime"
)

const (
	defaultGrace = 5 * time.Second        // between SIGHUP and SIGKILL
	eofGrace     = 200 * time.Millisecond // for a process that ends when its input does
	killGrace    = 5 * time.Second        // for the kernel and the daemon to notice a SIGKILL
)

// What is known about seeing the daemon's processes in our own /proc.
const (
	seenUnknown int32 = iota
	seenYes
	seenNo
)

// errStuck says that something may be left of a process.
var errStuck = errors.New("not ended")

// The daemon has no call to end an exec, and the end of its connection does not end it. So its processes are found and
// signalled: from here if the daemon's processes are visible here, which shows in the cgroup of the container's own;
// else by a shell in the container that looks for a mark in the environment.

// mark returns the environment variable by which a process is found later, or "" if it is visible from here, or may be
// kept anyway.
func (e *Engine) mark(ctx context.Context, id string, spec runtime.ExecSpec) (string, error) {
	if spec.Keep {
		return "", nil
	}
	seen := e.seen.Load()
	if seen == seenUnknown {
		st, err := e.State(ctx, id)
		if err != nil {
			return "", err
		}
		if st.Pid > 0 {
			seen = seenNo
			if e.contains(st.Pid, st.ID) {
				seen = seenYes
			}
			e.seen.Store(seen)
		}
	}
	if seen == seenYes {
		return "", nil
	}
	if s := e.current.Load(); s != nil && versions.LessThan(s.version, "1.25") { // has no environment for an exec
		return "", nil
	}
	random := make([]byte, 8)
	_, _ = rand.Read(random)
	return "DROVER_EXEC=" + hex.EncodeToString(random), nil
}

// contains reports whether pid is a process of the container, as our own /proc shows it.
func (e *Engine) contains(pid int, containerID string) bool {
	text, err := os.ReadFile(filepath.Join(e.proc, strconv.Itoa(pid), "cgroup"))
	return err == nil && containerID != "" && bytes.Contains(text, []byte(containerID))
}

// end ends the process, unless the spec wants it kept: its input ends, then it gets SIGHUP, and SIGKILL after the
// grace. ctx may have ended. conn is nil if there was none. The error says that something may still run.
func (p *process) end(ctx context.Context, conn *hijacked) error {
	if p.spec.Keep {
		return nil
	}
	grace := p.spec.Grace
	if grace <= 0 {
		grace = defaultGrace
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eofGrace+grace+killGrace+p.engine.cfg.Timeout)
	defer cancel()
	if conn != nil {
		_ = conn.CloseWrite()
		if p.gone(ctx, eofGrace) && p.mark == "" {
			return nil
		}
	}
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGHUP, grace}, {syscall.SIGKILL, killGrace}} {
		err := p.signal(ctx, step.signal)
		if p.gone(ctx, step.wait) && (p.mark == "" || step.signal == syscall.SIGKILL) {
			return nil
		}
		if err != nil && step.signal == syscall.SIGKILL {
			return &runtime.Error{Message: "the process may still run", Cause: errors.Join(errStuck, err)}
		}
	}
	return &runtime.Error{Message: "the process still runs after SIGKILL", Cause: errStuck}
}

// gone waits until nothing of the process is left, and reports whether that is so. Of the children of a process that
// can only be found by its mark nothing is known.
func (p *process) gone(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		st, err := p.inspect(ctx)
		if errors.Is(err, runtime.ErrNotFound) || err == nil && !st.Running && len(p.members(st)) == 0 {
			return true
		}
		if !pause(ctx, delay) {
			return false
		}
	}
}

// signal sends sig to every process of the exec's session.
func (p *process) signal(ctx context.Context, sig syscall.Signal) error {
	if p.mark != "" {
		return p.signalInside(ctx, sig)
	}
	st, err := p.inspect(ctx)
	if err != nil {
		return err
	}
	for _, pid := range p.members(st) {
		target, err := os.FindProcess(pid) // holds on to this very process, so look again whether it is the right one
		if err != nil {
			continue
		}
		if p.member(pid, st) {
			_ = target.Signal(sig)
		}
		_ = target.Release()
	}
	return nil
}

// members lists the live processes of the session that the exec leads, as our own /proc shows them.
func (p *process) members(st execState) []int {
	if p.mark != "" || st.Pid <= 0 {
		return nil
	}
	dir, err := os.Open(p.engine.proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	var pids []int
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && p.member(pid, st) {
				pids = append(pids, pid)
			}
		}
		if err != nil {
			return pids
		}
	}
}

// member reports whether pid is alive, in the exec's session and in its container. The runtime makes every exec the
// leader of a session.
func (p *process) member(pid int, st execState) bool {
	text, err := os.ReadFile(filepath.Join(p.engine.proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	state, session, ok := parseStat(string(text))
	return ok && state != 'Z' && state != 'X' && session == st.Pid && p.engine.contains(pid, st.ContainerID)
}

// parseStat reads the state and the session of a /proc/PID/stat. The name before them may hold anything.
func parseStat(text string) (state byte, session int, ok bool) {
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(text[end+1:]) // state, parent, group, session
	if len(fields) < 4 || len(fields[0]) != 1 {
		return 0, 0, false
	}
	session, err := strconv.Atoi(fields[3])
	return fields[0][0], session, err == nil
}

// signalInside sends sig from within the container to all processes that carry the mark. It needs a shell and cat
// there, and runs as the same user: nobody else may read a process's environment.
func (p *process) signalInside(ctx context.Context, sig syscall.Signal) error {
	script := `for p in /proc/[0-9]*; do case "$(cat $p/environ 2>/dev/null)" in *` + p.mark + `*) kill -` +
		strconv.Itoa(int(sig)) + ` ${p#/proc/} 2>/dev/null;; esac; done; exit 0`
	code, err := p.detached(ctx, []string{"sh", "-c", script})
	if err != nil {
		return err
	}
	if code != 0 {
		return &runtime.Error{Kind: runtime.ErrUnsupported, Message: "the container has no shell to send the signal with"}
	}
	return nil
}

func detachBody() io.Reader { return strings.NewReader(`{"Detach":true}`) }
