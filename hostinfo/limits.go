package hostinfo

import (
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// limits are those of the outermost cgroup; zero and nil mean none.
type limits struct {
	memory int64  // bytes
	used   *int64 // bytes, without the inactive file cache
	cpus   int
}

// readLimits reads cgroup v1, v2 and hybrid hierarchies, controller by controller: in a hybrid one each controller is
// in one of the two.
func readLimits(fsys fs.FS) limits {
	const root = "sys/fs/cgroup/"
	var l limits
	switch {
	case exists(fsys, root+"memory/memory.limit_in_bytes"):
		l.memory, l.used = memoryLimit(fsys, root+"memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
	case exists(fsys, root+"memory.max"):
		l.memory, l.used = memoryLimit(fsys, root, "memory.max", "memory.current", "inactive_file")
	case exists(fsys, root+"unified/memory.max"):
		l.memory, l.used = memoryLimit(fsys, root+"unified/", "memory.max", "memory.current", "inactive_file")
	}
	quota, period := "", ""
	switch {
	case exists(fsys, root+"cpu/cpu.cfs_quota_us"):
		quota, period = word(fsys, root+"cpu/cpu.cfs_quota_us"), word(fsys, root+"cpu/cpu.cfs_period_us")
	case exists(fsys, root+"cpu,cpuacct/cpu.cfs_quota_us"):
		quota, period = word(fsys, root+"cpu,cpuacct/cpu.cfs_quota_us"), word(fsys, root+"cpu,cpuacct/cpu.cfs_period_us")
	default:
		quota, period, _ = strings.Cut(word(fsys, root+"cpu.max"), " ")
	}
	if q, err := strconv.ParseFloat(quota, 64); err == nil && q > 0 {
		if p, err := strconv.ParseFloat(period, 64); err == nil && p > 0 {
			l.cpus = int(min(math.Ceil(q/p), math.MaxInt32))
		}
	}
	for _, name := range []string{"cpuset/cpuset.effective_cpus", "cpuset/cpuset.cpus", "cpuset.cpus.effective"} {
		if n := countSet(word(fsys, root+name)); n > 0 {
			if l.cpus == 0 || n < l.cpus {
				l.cpus = n
			}
			break
		}
	}
	return l
}

func memoryLimit(fsys fs.FS, dir, limit, usage, inactive string) (int64, *int64) {
	max, err := strconv.ParseInt(word(fsys, dir+limit), 10, 64)
	if err != nil || max <= 0 {
		return 0, nil // "max", or unreadable
	}
	used, err := strconv.ParseInt(word(fsys, dir+usage), 10, 64)
	if err != nil {
		return max, nil
	}
	if text, err := read(fsys, dir+"memory.stat"); err == nil {
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == inactive {
				if v, err := strconv.ParseInt(f[1], 10, 64); err == nil && v <= used {
					used -= v
				}
			}
		}
	}
	return max, &used
}

// apply narrows a sample to the limits. A limit beyond what there is (v1 writes 2^63-4096 for none) does nothing.
func (l limits) apply(s *Sample) {
	if m := s.Memory; m != nil && l.memory > 0 && l.memory < m.Total {
		n := *m
		n.Total = l.memory
		if l.used != nil {
			free := max(0, l.memory-*l.used)
			n.Free, n.Available = &free, &free
		}
		s.Memory = &n
	}
	if c := s.CPU; c != nil && l.cpus > 0 && l.cpus < c.Count {
		n := *c
		n.Count = l.cpus
		s.CPU = &n
	}
}

// countSet counts the members of a list as "0-3,8".
func countSet(list string) int {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return 0
		}
		b := a
		if ranged {
			if b, err = strconv.Atoi(last); err != nil || b < a {
				return 0
			}
		}
		n += b - a + 1
	}
	return n
}

func exists(fsys fs.FS, name string) bool {
	_, err := fs.Stat(fsys, name)
	return err == nil
}

// word returns the content of a small file without surrounding space, "" if it cannot be read.
func word(fsys fs.FS, name string) string {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
