package cgroup

import (
	"fmt"
	"io/fs"
	"strings"
)

// version2 reads the one tree of version 2.
func (g *group) version2(dir string) Facts {
	f := Facts{Version: 2, Path: shown(dir)}
	c := &f.CPU
	quota, period, _ := strings.Cut(g.text(dir, "cpu.max"), " ")
	c.Quota, c.Period = scaled(quota, 1000), scaled(period, 1000)
	c.Weight = g.number(dir, "cpu.weight", 1)
	c.Cpus, c.Mems = g.text(dir, "cpuset.cpus.effective"), g.text(dir, "cpuset.mems.effective")
	stat := g.table(dir, "cpu.stat")
	c.Usage, c.User, c.System = scaled(stat["usage_usec"], 1000), scaled(stat["user_usec"], 1000), scaled(stat["system_usec"], 1000)
	c.Periods, c.ThrottledPeriods, c.Throttled = scaled(stat["nr_periods"], 1), scaled(stat["nr_throttled"], 1), scaled(stat["throttled_usec"], 1000)
	c.Pressure = g.pressure(dir, "cpu.pressure")

	m := &f.Memory
	m.Limit, m.Reservation, m.SwapLimit = g.number(dir, "memory.max", 1), g.number(dir, "memory.low", 1), g.number(dir, "memory.swap.max", 1)
	m.Usage, m.Peak, m.Swap = g.number(dir, "memory.current", 1), g.number(dir, "memory.peak", 1), g.number(dir, "memory.swap.current", 1)
	m.WorkingSet = less(m.Usage, scaled(g.table(dir, "memory.stat")["inactive_file"], 1))
	events := g.table(dir, "memory.events")
	m.LimitHits, m.OOMKills = scaled(events["max"], 1), scaled(events["oom_kill"], 1)
	m.Pressure = g.pressure(dir, "memory.pressure")

	f.Pids = Pids{Limit: g.number(dir, "pids.max", 1), Current: g.number(dir, "pids.current", 1)}
	f.IO.Pressure = g.pressure(dir, "io.pressure")
	return f
}

// unlimited is what version 1 has for no limit, and more: the largest size in whole pages.
const unlimited = 1<<63 - 1<<16

// tick is the unit of cpuacct.stat: USER_HZ is 100 on all that Linux runs on.
const tick = 10_000_000

// version1 reads a tree for each controller. A controller that is not there leaves its facts out.
func (g *group) version1(groups map[string]string) (Facts, error) {
	f := Facts{Version: 1}
	dirs := map[string]string{}
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids"} {
		name, ok := groups[c]
		if !ok {
			continue
		}
		for _, root := range []string{c, "cpu,cpuacct", "cpuacct,cpu"} {
			if root != c && !strings.HasPrefix(c, "cpu") || root != c && c == "cpuset" {
				continue
			}
			if _, err := fs.Stat(g.tree, root); err != nil {
				continue
			}
			if dir, ok := g.locate(root, name); ok {
				dirs[c] = dir
				if f.Path == "" {
					f.Path = shown(strings.TrimPrefix(dir, root))
				}
			}
			break
		}
	}
	if len(dirs) == 0 {
		return f, fmt.Errorf("group %q: %w", groups["memory"], ErrGone)
	}
	c, cpu := &f.CPU, dirs["cpu"]
	c.Quota, c.Period, c.Shares = g.number(cpu, "cpu.cfs_quota_us", 1000), g.number(cpu, "cpu.cfs_period_us", 1000), g.number(cpu, "cpu.shares", 1)
	c.Cpus, c.Mems = g.text(dirs["cpuset"], "cpuset.effective_cpus"), g.text(dirs["cpuset"], "cpuset.effective_mems")
	if c.Cpus == "" {
		c.Cpus, c.Mems = g.text(dirs["cpuset"], "cpuset.cpus"), g.text(dirs["cpuset"], "cpuset.mems")
	}
	stat := g.table(cpu, "cpu.stat")
	c.Periods, c.ThrottledPeriods, c.Throttled = scaled(stat["nr_periods"], 1), scaled(stat["nr_throttled"], 1), scaled(stat["throttled_time"], 1)
	c.Usage = g.number(dirs["cpuacct"], "cpuacct.usage", 1)
	used := g.table(dirs["cpuacct"], "cpuacct.stat")
	c.User, c.System = scaled(used["user"], tick), scaled(used["system"], tick)

	m, mem := &f.Memory, dirs["memory"]
	limit := func(name string) *uint64 {
		n := g.number(mem, name, 1)
		if n == nil || *n >= unlimited {
			return nil
		}
		return n
	}
	m.Limit, m.Reservation, m.SwapLimit = limit("memory.limit_in_bytes"), limit("memory.soft_limit_in_bytes"), limit("memory.memsw.limit_in_bytes")
	m.Usage, m.Peak = g.number(mem, "memory.usage_in_bytes", 1), g.number(mem, "memory.max_usage_in_bytes", 1)
	m.Swap = nil
	if both := g.number(mem, "memory.memsw.usage_in_bytes", 1); both != nil {
		m.Swap = less(both, m.Usage)
	}
	m.WorkingSet = less(m.Usage, scaled(g.table(mem, "memory.stat")["total_inactive_file"], 1))
	m.LimitHits, m.OOMKills = g.number(mem, "memory.failcnt", 1), scaled(g.table(mem, "memory.oom_control")["oom_kill"], 1)
	f.Pids = Pids{Limit: g.number(dirs["pids"], "pids.max", 1), Current: g.number(dirs["pids"], "pids.current", 1)}
	return f, nil
}

// shown is a folder as a path from its tree's root.
func shown(dir string) string {
	if dir == "." || dir == "" {
		return "/"
	}
	return "/" + strings.Trim(dir, "/")
}
