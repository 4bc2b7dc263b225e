package hostinfo

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// CPU describes the processors.
type CPU struct {
	Count       int       // that the host may use
	ModelName   string    // "" if unknown
	MHz         float64   // of the first one; 0 if unknown
	Percentages []float64 // use of each since the sample before, 0 to 100; nil if there is none
}

// with returns a copy with percentages. A nil CPU stays nil unless there are some.
func (c *CPU) with(percentages []float64) *CPU {
	if c == nil && percentages == nil {
		return nil
	}
	var n CPU
	if c != nil {
		n = *c
	}
	n.Percentages = percentages
	if n.Count == 0 {
		n.Count = len(percentages)
	}
	return &n
}

// readCPUInfo reads proc/cpuinfo in its x86, ARM, POWER and s390 forms.
func readCPUInfo(fsys fs.FS) (*CPU, error) {
	text, err := read(fsys, "proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	c := &CPU{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case key == "processor":
			c.Count++
		case strings.HasPrefix(key, "processor "): // s390: "processor 0: version = ..."
			c.Count++
		case (key == "model name" || key == "cpu" || key == "Model" || key == "Hardware") && c.ModelName == "":
			c.ModelName = value
		case (key == "cpu MHz" || key == "clock" || key == "cpu MHz dynamic") && c.MHz == 0:
			c.MHz, _ = strconv.ParseFloat(strings.TrimSuffix(value, "MHz"), 64)
		}
	}
	if c.MHz == 0 {
		// ARM kernels do not say it in cpuinfo.
		if text, err := read(fsys, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"); err == nil {
			if khz, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil {
				c.MHz = khz / 1000
			}
		}
	}
	if c.Count == 0 {
		return nil, errors.New("proc/cpuinfo lists no processor")
	}
	return c, nil
}

// cpuTimes are the busy and total ticks of each processor since boot.
type cpuTimes struct {
	names       []string
	busy, total map[string]uint64
}

// readCPUTimes reads the processors' lines of proc/stat.
func readCPUTimes(fsys fs.FS) (cpuTimes, error) {
	text, err := read(fsys, "proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	t := cpuTimes{busy: make(map[string]uint64), total: make(map[string]uint64)}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.HasPrefix(f[0], "cpu") || f[0] == "cpu" {
			continue
		}
		var total, idle uint64
		// user nice system idle iowait irq softirq steal; guest times are part of user and nice.
		for i, s := range f[1:min(len(f), 9)] {
			v, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return cpuTimes{}, fmt.Errorf("proc/stat, %s: %w", f[0], err)
			}
			total += v
			if i == 3 || i == 4 {
				idle += v
			}
		}
		t.names = append(t.names, f[0])
		t.busy[f[0]], t.total[f[0]] = total-idle, total
	}
	return t, nil
}

// percentages returns the use of each processor between t and now; nil if t is empty. A processor that t does not
// know, or whose counters went back (they do, with hotplug and in some LXC versions), counts as unused.
func (t cpuTimes) percentages(now cpuTimes) []float64 {
	if len(t.names) == 0 || len(now.names) == 0 {
		return nil
	}
	p := make([]float64, len(now.names))
	for i, name := range now.names {
		total, busy := now.total[name], now.busy[name]
		was, ok := t.total[name]
		if !ok || total <= was || busy < t.busy[name] {
			continue
		}
		p[i] = math.Round(min(100, 100*float64(busy-t.busy[name])/float64(total-was))*1000) / 1000
	}
	return p
}
