package docker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/versions"

	"github.com/droverhq/drover/runtime"
)

// Stats takes one sample; runtime.ErrConflict if the container does not run. Daemons before API 1.41 need a second or
// two for it.
func (e *Engine) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	op := "stats of " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return runtime.Stats{}, err
	}
	var stats runtime.Stats
	err = e.read(ctx, op, func(ctx context.Context, s *session) error {
		query := "stream=0"
		if versions.GreaterThanOrEqualTo(s.version, "1.41") {
			query += "&one-shot=1"
		}
		raw, err := e.relay(ctx, s, "/containers/"+id+"/stats", query)
		if err != nil {
			return err
		}
		stats, err = decodeStats(raw)
		return err
	})
	if err != nil {
		return runtime.Stats{}, err
	}
	if known(stats.Time).IsZero() {
		return runtime.Stats{}, &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "the container does not run"}
	}
	return stats, nil
}

// decodeStats reads what the daemon says of a container's use.
func decodeStats(raw []byte) (runtime.Stats, error) {
	var s container.StatsResponse
	if err := json.Unmarshal(raw, &s); err != nil {
		return runtime.Stats{}, err
	}
	return statsOf(&s), nil
}

func statsOf(s *container.StatsResponse) runtime.Stats {
	out := runtime.Stats{
		ID:          s.ID,
		Time:        s.Read,
		CPUTotal:    s.CPUStats.CPUUsage.TotalUsage,
		CPUUser:     s.CPUStats.CPUUsage.UsageInUsermode,
		CPUSystem:   s.CPUStats.CPUUsage.UsageInKernelmode,
		PerCPU:      s.CPUStats.CPUUsage.PercpuUsage,
		Memory:      s.MemoryStats.Usage,
		MemoryLimit: s.MemoryStats.Limit,
		Pids:        s.PidsStats.Current,
	}
	// As the docker CLI counts: pages of files that nobody uses now are not the container's need. cgroup v1 and v2
	// name them differently.
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if inactive, ok := s.MemoryStats.Stats[key]; ok {
			if inactive < out.Memory {
				out.Memory -= inactive
			}
			break
		}
	}
	for _, entry := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(entry.Op) {
		case "read":
			out.ReadBytes += entry.Value
		case "write":
			out.WriteBytes += entry.Value
		}
	}
	for name, n := range s.Networks {
		out.Networks = append(out.Networks, runtime.NetworkStats{
			Name:    name,
			RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors, RxDropped: n.RxDropped,
			TxBytes: n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors, TxDropped: n.TxDropped,
		})
	}
	sortNetworks(out.Networks)
	return out
}

func sortNetworks(list []runtime.NetworkStats) {
	slices.SortFunc(list, func(a, b runtime.NetworkStats) int { return strings.Compare(a.Name, b.Name) })
}
