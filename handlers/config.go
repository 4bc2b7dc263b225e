package handlers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
)

const (
	// maxConfigOutput is how much of the script's output is kept: the end of it, in bytes.
	maxConfigOutput = 64 << 10
	// configGrace is how long the script may take to end after SIGTERM.
	configGrace = 5 * time.Second
)

// configResult is the reply's data for a script that failed.
type configResult struct {
	ExitCode int    `json:"exitCode"` // -1 if it could not be run or was killed
	Output   string `json:"output"`
}

// configUpdate runs the configuration script with the names of the items. A script that fails is told as a result,
// not as an error, because servers ask again by themselves. Without a script there is nothing to configure.
func (h *handlers) configUpdate(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req configRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	var names []string
	for _, item := range req.Items {
		if item.Name != "" && !slices.Contains(h.opts.Config.SkipItems, item.Name) {
			names = append(names, item.Name)
		}
	}
	script := h.opts.Config.Path
	if len(names) == 0 || script == "" || ev.ReplyTo == "" {
		return nil, nil
	}
	if _, err := os.Stat(script); err != nil {
		return nil, nil
	}
	// One at a time: two would meet at the script's own lock, and one of them fail.
	select {
	case h.configRuns <- struct{}{}:
		defer func() { <-h.configRuns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	code, output, err := h.runConfig(ctx, script, names)
	if err != nil {
		h.log.WithField("script", script).WithError(err).Warn("config update failed")
	}
	if code == 0 && err == nil {
		return nil, nil
	}
	return events.Result{Data: configResult{ExitCode: code, Output: output}, Message: "config update failed"}, nil
}

func (h *handlers) runConfig(ctx context.Context, script string, names []string) (int, string, error) {
	c := h.opts.Config
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	out := &tail{limit: maxConfigOutput}
	cmd := exec.CommandContext(ctx, script, names...)
	cmd.Dir = c.Home
	cmd.Env = append(slices.Clone(c.Env),
		"CATTLE_ACCESS_KEY="+c.AccessKey, "CATTLE_SECRET_KEY="+c.SecretKey, "CATTLE_HOME="+c.Home)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own, so that what the script started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = configGrace
	err := cmd.Run()
	if cmd.Process != nil && ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever is left of the group; usually nobody
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, out.String(), nil
	case ctx.Err() != nil:
		return -1, out.String(), fmt.Errorf("run %s: %w", script, ctx.Err())
	case errors.As(err, &exit):
		return exit.ExitCode(), out.String(), fmt.Errorf("run %s: %w", script, err)
	default:
		return -1, out.String() + err.Error(), fmt.Errorf("run %s: %w", script, err)
	}
}

// tail is a writer that keeps the last limit bytes.
type tail struct {
	limit int
	mu    sync.Mutex
	b     []byte
	cut   bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - t.limit; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
		t.cut = true
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut {
		return "... " + string(t.b)
	}
	return string(t.b)
}
