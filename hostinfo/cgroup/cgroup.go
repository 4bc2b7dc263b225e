package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Facts are what is known of the control groups of a process. What a kernel or a version does not tell is nil; so is a
// limit that is not set. Sizes are bytes, times are nanoseconds, counters grow from the making of the group.
type Facts struct {
	Version int    `json:"version"` // 1 or 2
	Path    string `json:"path"`    // of the group below its tree's root
	CPU     CPU    `json:"cpu"`
	Memory  Memory `json:"memory"`
	Pids    Pids   `json:"pids"`
	IO      IO     `json:"io"`
}

// CPU is processor time.
type CPU struct {
	Quota            *uint64   `json:"quota,omitempty"`  // of Period; nil is no limit
	Period           *uint64   `json:"period,omitempty"` // nanoseconds
	Shares           *uint64   `json:"shares,omitempty"` // version 1
	Weight           *uint64   `json:"weight,omitempty"` // version 2
	Cpus             string    `json:"cpus,omitempty"`   // "0-3"
	Mems             string    `json:"mems,omitempty"`
	Usage            *uint64   `json:"usage,omitempty"`
	User             *uint64   `json:"user,omitempty"`
	System           *uint64   `json:"system,omitempty"`
	Periods          *uint64   `json:"periods,omitempty"`
	ThrottledPeriods *uint64   `json:"throttledPeriods,omitempty"`
	Throttled        *uint64   `json:"throttled,omitempty"`
	Pressure         *Pressure `json:"pressure,omitempty"`
}

// Memory is memory.
type Memory struct {
	Limit       *uint64   `json:"limit,omitempty"`
	Reservation *uint64   `json:"reservation,omitempty"`
	SwapLimit   *uint64   `json:"swapLimit,omitempty"` // of swap alone in version 2, of both in version 1
	Usage       *uint64   `json:"usage,omitempty"`
	WorkingSet  *uint64   `json:"workingSet,omitempty"` // without the file cache that is not in use
	Peak        *uint64   `json:"peak,omitempty"`
	Swap        *uint64   `json:"swap,omitempty"`
	LimitHits   *uint64   `json:"limitHits,omitempty"` // how often the limit stood in the way
	OOMKills    *uint64   `json:"oomKills,omitempty"`
	Pressure    *Pressure `json:"pressure,omitempty"`
}

// Pids are processes and threads.
type Pids struct {
	Limit   *uint64 `json:"limit,omitempty"`
	Current *uint64 `json:"current,omitempty"`
}

// IO is input and output.
type IO struct {
	Pressure *Pressure `json:"pressure,omitempty"`
}

// Pressure is how much of the time was spent waiting: by some of the processes, and by all of them at once.
type Pressure struct {
	Some Stall  `json:"some"`
	Full *Stall `json:"full,omitempty"`
}

// A Stall is a share of time, in percent over the last 10, 60 and 300 seconds, and the whole of it in nanoseconds.
type Stall struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

const (
	maxFile   = 64 << 10 // what is read of a file
	maxNumber = 1e15     // beyond it, a share or a time is nonsense; so is NaN
)

// ErrGone says that there is no such process, or no such group.
var ErrGone = errors.New("no such control group")

// Read tells the facts of the process pid. tree is the root of the cgroup trees, /sys/fs/cgroup, and proc is /proc of the
// same machine. id is part of the name of the group, as a container's id is: it finds the group where this process is in
// a cgroup namespace of its own and is told paths that lead nowhere.
func Read(tree, proc fs.FS, pid int, id string) (Facts, error) {
	text, err := read(proc, strconv.Itoa(pid)+"/cgroup")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Facts{}, fmt.Errorf("process %d: %w", pid, ErrGone)
		}
		return Facts{}, fmt.Errorf("control groups of process %d: %w", pid, err)
	}
	groups := parseGroups(text)
	g := group{tree: tree, id: id}
	if _, err := fs.Stat(tree, "cgroup.controllers"); err == nil {
		dir, ok := g.locate(".", groups[""])
		if !ok {
			return Facts{}, fmt.Errorf("group %q: %w", groups[""], ErrGone)
		}
		return g.version2(dir), nil
	}
	return g.version1(groups)
}

// parseGroups reads "4:cpu,cpuacct:/path" into a path for each controller; version 2 is "".
func parseGroups(text []byte) map[string]string {
	groups := map[string]string{}
	for line := range bytes.Lines(text) {
		parts := strings.SplitN(strings.TrimRight(string(line), "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			groups[strings.TrimPrefix(c, "name=")] = parts[2]
		}
	}
	return groups
}

// A group reads the files of one process's groups.
type group struct {
	tree fs.FS
	id   string
}

// locate returns the folder of a path below the root of a tree.
func (g *group) locate(root, name string) (string, bool) {
	for strings.HasPrefix(name, "/..") { // of another cgroup namespace
		name = strings.TrimPrefix(name, "/..")
	}
	name = path.Clean("/" + name)
	dir := path.Join(root, name)
	if name != "/" && (g.id == "" || strings.Contains(name, g.id)) {
		if fi, err := fs.Stat(g.tree, dir); err == nil && fi.IsDir() {
			return dir, true
		}
	}
	if g.id == "" {
		_, err := fs.Stat(g.tree, dir)
		return dir, err == nil
	}
	return g.search(root)
}

const (
	maxFolders = 20_000 // that a search looks at
	maxDepth   = 8
)

// search looks for the folder that has the id in its name.
func (g *group) search(root string) (found string, ok bool) {
	seen := 0
	_ = fs.WalkDir(g.tree, root, func(p string, d fs.DirEntry, err error) error { // what cannot be read is left out
		if err != nil || !d.IsDir() {
			return nil
		}
		if strings.Contains(d.Name(), g.id) {
			found, ok = p, true
			return fs.SkipAll
		}
		if seen++; seen > maxFolders {
			return fs.SkipAll
		}
		if strings.Count(strings.TrimPrefix(p, root), "/") >= maxDepth {
			return fs.SkipDir
		}
		return nil
	})
	return found, ok
}

func read(from fs.FS, name string) ([]byte, error) {
	f, err := from.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// text returns a file without the newline at its end, "" where there is none.
func (g *group) text(dir, name string) string {
	if dir == "" {
		return ""
	}
	b, err := read(g.tree, path.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number returns the number in a file times a unit, nil for "max", for what is no number, and for what is not there.
func (g *group) number(dir, name string, unit uint64) *uint64 { return scaled(g.text(dir, name), unit) }

func scaled(text string, unit uint64) *uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || unit > 0 && n > (1<<64-1)/unit {
		return nil
	}
	n *= unit
	return &n
}

// table returns a file of "name value" lines.
func (g *group) table(dir, name string) map[string]string {
	out := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(g.text(dir, name)))
	for lines.Scan() {
		if k, v, ok := strings.Cut(lines.Text(), " "); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

// pressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the same of full.
func (g *group) pressure(dir, name string) *Pressure {
	var p Pressure
	some := false
	for line := range strings.Lines(g.text(dir, name)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		var s Stall
		for _, f := range fields[1:] {
			k, v, _ := strings.Cut(f, "=")
			n, err := strconv.ParseFloat(v, 64)
			if err != nil || !(n >= 0 && n <= maxNumber) {
				continue
			}
			switch k {
			case "avg10":
				s.Avg10 = n
			case "avg60":
				s.Avg60 = n
			case "avg300":
				s.Avg300 = n
			case "total":
				if t := scaled(v, 1000); t != nil {
					s.Total = *t
				}
			}
		}
		switch fields[0] {
		case "some":
			p.Some, some = s, true
		case "full":
			p.Full = &s
		}
	}
	if !some {
		return nil
	}
	return &p
}

// less is a minus b, and 0 rather than less.
func less(a, b *uint64) *uint64 {
	if a == nil {
		return nil
	}
	n := *a
	if b != nil {
		n -= min(n, *b)
	}
	return &n
}
