package cri

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// Stats returns one sample. CRI tells processor and memory of a container; the network belongs to its pod, and the
// number of processes is read from its control group.
func (e *Engine) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	c, err := e.find(ctx, id)
	if err != nil {
		return runtime.Stats{}, err
	}
	op := "statistics of container " + id
	if c.GetState() != criv1.ContainerState_CONTAINER_RUNNING {
		return runtime.Stats{}, &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "it does not run"}
	}
	resp, err := e.rt.ContainerStats(ctx, &criv1.ContainerStatsRequest{ContainerId: c.GetId()})
	if err != nil {
		return runtime.Stats{}, e.fail(ctx, op, err)
	}
	s := resp.GetStats()
	out := runtime.Stats{
		ID: c.GetId(), Time: moment(s.GetCpu().GetTimestamp()), CPUTotal: s.GetCpu().GetUsageCoreNanoSeconds().GetValue(),
		Memory: s.GetMemory().GetWorkingSetBytes().GetValue(),
	}
	if out.Time.IsZero() {
		out.Time = time.Now()
	}
	if available := s.GetMemory().GetAvailableBytes().GetValue(); available > 0 {
		out.MemoryLimit = out.Memory + available
	} else { // it has no limit but the host's
		out.MemoryLimit = hostMemory()
	}
	if _, v, err := e.status(ctx, c.GetId()); err == nil && e.owns(v.Pid, c.GetId()) {
		out.Pids = e.pids(v.Pid)
	}
	return out, nil
}

// hostMemory returns the size of the host's memory in bytes, 0 if it is unknown.
func hostMemory() uint64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 0
	}
	return uint64(si.Totalram) * uint64(si.Unit)
}

// pids counts the processes in the control group of a process, 0 if it cannot be read: CRI does not tell.
func (e *Engine) pids(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		var file string
		switch {
		case controllers == "":
			file = e.cfg.HostFS + "/sys/fs/cgroup" + group + "/pids.current"
		case slices.Contains(strings.Split(controllers, ","), "pids"):
			file = e.cfg.HostFS + "/sys/fs/cgroup/pids" + group + "/pids.current"
		default:
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return n
		}
	}
	return 0
}
