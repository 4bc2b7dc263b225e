package hostinfo

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Counters are what a host counts since its boot, read at one time. Zero means unknown.
type Counters struct {
	Time                  time.Time
	User, System, Total   uint64 // time of all processors at work, in nanoseconds; System has what is not User
	PerCPU                []uint64
	MemoryUsed            uint64 // bytes that no other process could have
	MemoryTotal           uint64
	Tasks                 uint64
	ReadBytes, WriteBytes uint64 // of the disks
	Interfaces            []Interface
}

// An Interface is the counters of one network interface.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

const (
	nanosPerTick = uint64(time.Second / 100) // USER_HZ is 100 wherever Linux runs
	sectorSize   = 512                       // in proc/diskstats, whatever the disk's own is
)

// ReadCounters reads the counters of the host whose root is fsys. What cannot be read stays zero, but for the processors:
// without them there is an error.
func ReadCounters(fsys fs.FS) (*Counters, error) {
	c := &Counters{Time: time.Now()}
	text, err := read(fsys, "proc/stat")
	if err != nil {
		return nil, err
	}
	if err := c.processors(text); err != nil {
		return nil, err
	}
	if m, err := readMemory(fsys); err == nil {
		c.MemoryTotal = uint64(m.Total)
		if m.Available != nil && *m.Available <= m.Total {
			c.MemoryUsed = uint64(m.Total - *m.Available)
		}
	}
	if text, err := read(fsys, "proc/loadavg"); err == nil {
		if f := strings.Fields(text); len(f) > 3 {
			_, tasks, _ := strings.Cut(f[3], "/")
			c.Tasks, _ = strconv.ParseUint(tasks, 10, 64)
		}
	}
	if text, err := read(fsys, "proc/diskstats"); err == nil {
		c.disks(text, func(name string) bool {
			_, err := fs.Stat(fsys, "sys/block/"+name+"/device")
			return err == nil
		})
	}
	// Process 1 has the host's network, also where this process has one of its own.
	text, err = read(fsys, "proc/1/net/dev")
	if err != nil {
		text, err = read(fsys, "proc/net/dev")
	}
	if err == nil {
		c.networks(text)
	}
	return c, nil
}

// processors reads proc/stat.
func (c *Counters) processors(text string) error {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		n, err := numbers(f[1:min(len(f), 9)])
		if err != nil {
			return fmt.Errorf("proc/stat, %s: %w", f[0], err)
		}
		n = append(n, make([]uint64, 8-len(n))...)
		// user nice system idle iowait irq softirq steal
		user, system := (n[0]+n[1])*nanosPerTick, (n[2]+n[5]+n[6]+n[7])*nanosPerTick
		if f[0] == "cpu" {
			c.User, c.System, c.Total = user, system, user+system
		} else {
			c.PerCPU = append(c.PerCPU, user+system)
		}
	}
	if c.Total == 0 && len(c.PerCPU) == 0 {
		return fmt.Errorf("proc/stat lists no processor")
	}
	return nil
}

// disks reads proc/diskstats. Partitions and what is made of other disks would be counted twice.
func (c *Counters) disks(text string, real func(name string) bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || !real(f[2]) {
			continue
		}
		if n, err := numbers([]string{f[5], f[9]}); err == nil {
			c.ReadBytes += n[0] * sectorSize
			c.WriteBytes += n[1] * sectorSize
		}
	}
}

// networks reads proc/net/dev.
func (c *Counters) networks(text string) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(f) < 12 || name == "lo" {
			continue
		}
		if n, err := numbers(f[:12]); err == nil {
			c.Interfaces = append(c.Interfaces, Interface{
				Name: name, RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
				TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
			})
		}
	}
	slices.SortFunc(c.Interfaces, func(a, b Interface) int { return strings.Compare(a.Name, b.Name) })
}

func numbers(fields []string) ([]uint64, error) {
	out := make([]uint64, 0, 12)
	for _, s := range fields {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}
