package fake

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// Stats returns numbers that grow with the time since the start, as if the container used a tenth of a core.
func (e *Engine) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	op := "stats of " + id
	if err := e.enter(ctx, "Stats", op); err != nil {
		return runtime.Stats{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return runtime.Stats{}, err
	}
	if !c.running {
		return runtime.Stats{}, &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "the container does not run"}
	}
	now := time.Now()
	used := max(uint64(now.Sub(c.started)), 1)
	limit := uint64(e.info.MemoryBytes)
	if c.spec.Resources.Memory > 0 {
		limit = uint64(c.spec.Resources.Memory)
	}
	s := runtime.Stats{
		ID: c.id, Time: now, CPUTotal: used/10 + 1, CPUUser: used / 20, CPUSystem: used / 20, PerCPU: []uint64{used / 20, used / 20},
		Memory: 1 << 20, MemoryLimit: limit, Pids: 1, ReadBytes: 4096, WriteBytes: 4096,
	}
	if c.ip != "" {
		s.Networks = []runtime.NetworkStats{{Name: "eth0", RxBytes: used / 1e6, RxPackets: used / 1e9, TxBytes: used / 1e6, TxPackets: used / 1e9}}
	}
	return s, nil
}

// Top lists the main process.
func (e *Engine) Top(ctx context.Context, id string, _ []string) ([]string, [][]string, error) {
	op := "top " + id
	if err := e.enter(ctx, "Top", op); err != nil {
		return nil, nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return nil, nil, err
	}
	if !c.running {
		return nil, nil, &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "Container " + c.id + " is not running"}
	}
	return []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		[][]string{{"root", strconv.Itoa(c.pid), "1", "0", c.started.Format("15:04"), "?", "00:00:00", strings.Join(c.command, " ")}}, nil
}
