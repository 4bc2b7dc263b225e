package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// A record is what the next life of this process must know of an exec to end it. It is a file under Config.Records, named
// as the exec, for as long as that is under way.
type record struct {
	Container string `json:"container"`
	User      string `json:"user,omitempty"`
	Mark      string `json:"mark,omitempty"`
	Owner     string `json:"owner"` // see owner
}

// owner names a process for as long as the machine runs: its id, and when it was started; "" if it does not live.
func owner(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return pid + "-" + fields[19]
}

// lives reports whether the process that a record names does.
func (r *record) lives() bool {
	pid, _, _ := strings.Cut(r.Owner, "-")
	if n, err := strconv.Atoi(pid); err != nil || n <= 0 {
		return false
	}
	return owner(pid) == r.Owner
}

// note records a process that is not to be kept. A record that cannot be written is no reason not to run it.
func (p *process) note() {
	folder := p.engine.cfg.Records
	if folder == "" || p.spec.Keep || !recordName(p.id) {
		return
	}
	b, _ := json.Marshal(record{Container: p.container, User: p.spec.User, Mark: p.mark, Owner: owner(strconv.Itoa(os.Getpid()))}) // strings only
	name := filepath.Join(folder, p.id)
	err := os.WriteFile(name, b, 0o600)
	if errors.Is(err, fs.ErrNotExist) && os.MkdirAll(folder, 0o700) == nil {
		_ = os.WriteFile(name, b, 0o600)
	}
}

// done drops the record of a process, unless that may still run.
func (p *process) done(stuck bool) {
	folder := p.engine.cfg.Records
	if folder == "" || p.spec.Keep || !recordName(p.id) {
		return
	}
	if !stuck {
		_ = os.Remove(filepath.Join(folder, p.id))
	}
}

// recordName reports whether an exec's id can name a file.
func recordName(id string) bool {
	return id != "" && id == filepath.Base(id) && id[0] != '.'
}

// Sweep ends the processes that an earlier life of this process, which was killed, has left: SIGHUP, and SIGKILL after a
// grace. Those that were to be kept are. It returns when they are gone; what it cannot end now it tries again the next
// time.
func (e *Engine) Sweep(ctx context.Context) error {
	if e.cfg.Records == "" {
		return nil
	}
	entries, err := os.ReadDir(e.cfg.Records)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if err := e.sweep(ctx, entry.Name()); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) sweep(ctx context.Context, id string) error {
	const op = "end what was left"
	name := filepath.Join(e.cfg.Records, id)
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var r record
	if json.Unmarshal(b, &r) != nil || !recordName(id) {
		return os.Remove(name) // cut off by a crash: nothing was started yet, or nothing is known of it
	}
	if r.lives() {
		return nil // it sees to its process itself
	}
	s, err := e.opened(ctx, op)
	if err != nil {
		return err
	}
	p := &process{engine: e, session: s, id: id, container: r.Container, mark: r.Mark, spec: runtime.ExecSpec{User: r.User}}
	st, err := p.inspect(ctx)
	switch {
	case errors.Is(err, runtime.ErrNotFound) || err == nil && !st.Running && len(p.members(st)) == 0:
	case err != nil:
		return e.wrapLong(ctx, op, err)
	default:
		if err := p.end(ctx, nil); err != nil {
			return e.wrapLong(ctx, op, err)
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}
