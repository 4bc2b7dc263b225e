package logs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var lsOptions = optionTable{
	short: "1aAdhlrtSinsgGoLFpU",
	long: map[string]string{
		"all": "a", "almost-all": "A", "directory": "d", "human-readable": "h", "reverse": "r", "color": "1?",
	},
}

type lsSpec struct {
	all, almost, self, human, long, reverse, noOwner, noGroup, numeric bool
	by                                                                 byte // 0 name, t, S, U
}

type lsEntry struct {
	name   string
	info   fs.FileInfo
	target string
}

func ls(_ context.Context, e *env, args []Word) (int, error) {
	opts, operands, err := lsOptions.parse("ls", args, nil)
	if err != nil {
		return 2, err
	}
	var s lsSpec
	for _, o := range opts {
		switch o.name {
		case "1", "L":
		case "a":
			s.all = true
		case "A":
			s.almost = true
		case "d":
			s.self = true
		case "h":
			s.human = true
		case "l":
			s.long = true
		case "r":
			s.reverse = true
		case "n":
			s.long, s.numeric = true, true
		case "g":
			s.long, s.noOwner = true, true
		case "o":
			s.long, s.noGroup = true, true
		case "G":
			s.noGroup = true
		case "t", "S", "U":
			s.by = o.name[0]
		default:
			return 2, &Refusal{Reason: "ls: option -" + o.name + " is not allowed"}
		}
	}
	names := []string{e.service.jail.Roots[0]}
	if len(operands) > 0 {
		if names, err = e.expand(operands); err != nil {
			return 2, err
		}
	}
	code := 0
	var files, dirs []lsEntry
	for _, name := range names {
		fi, err := e.service.jail.Stat(name)
		if err != nil {
			e.errf("cannot access '%s': %s", name, reason(err))
			code = 2
			continue
		}
		if fi.IsDir() && !s.self {
			dirs = append(dirs, lsEntry{name: name, info: fi})
		} else {
			files = append(files, lsEntry{name: name, info: fi})
		}
	}
	s.sort(files)
	s.sort(dirs)
	s.write(e, files, false)
	for i, d := range dirs {
		if len(dirs) > 1 || len(files) > 0 || code != 0 {
			if i > 0 || len(files) > 0 {
				fmt.Fprintln(e.out)
			}
			fmt.Fprintf(e.out, "%s:\n", d.name)
		}
		entries, err := s.read(e, d.name)
		if err != nil {
			e.errf("cannot open directory '%s': %s", d.name, reason(err))
			code = 2
			continue
		}
		s.write(e, entries, true)
	}
	return code, nil
}

func (s *lsSpec) read(e *env, dir string) ([]lsEntry, error) {
	infos, err := e.service.jail.ReadDir(dir, maxDirEntries)
	if err != nil {
		return nil, err
	}
	var out []lsEntry
	if s.all {
		self, err := e.service.jail.Stat(dir)
		if err != nil {
			return nil, err
		}
		parent, err := e.service.jail.Stat(path.Dir(dir))
		if err != nil {
			parent = self // outside the roots: nothing is told of it
		}
		out = append(out, lsEntry{name: ".", info: self}, lsEntry{name: "..", info: parent})
	}
	for _, fi := range infos {
		if strings.HasPrefix(fi.Name(), ".") && !s.all && !s.almost {
			continue
		}
		entry := lsEntry{name: fi.Name(), info: fi}
		if s.long && fi.Mode()&fs.ModeSymlink != 0 {
			if entry.target, err = e.service.jail.Readlink(path.Join(dir, fi.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		out = append(out, entry)
	}
	s.sort(out)
	return out, nil
}

func (s *lsSpec) sort(entries []lsEntry) {
	if s.by == 'U' {
		return
	}
	slices.SortStableFunc(entries, func(a, b lsEntry) int {
		c := 0
		switch s.by {
		case 't':
			c = b.info.ModTime().Compare(a.info.ModTime())
		case 'S':
			c = cmp.Compare(b.info.Size(), a.info.Size())
		}
		if c == 0 {
			c = cmp.Compare(a.name, b.name)
		}
		if s.reverse {
			return -c
		}
		return c
	})
}

// write prints entries. The writer keeps its first error for the flush at the end.
func (s *lsSpec) write(e *env, entries []lsEntry, total bool) {
	if !s.long {
		for _, entry := range entries {
			fmt.Fprintln(e.out, entry.name)
		}
		return
	}
	var blocks int64
	rows := make([][]string, len(entries))
	width := make([]int, 5)
	for i, entry := range entries {
		links, uid, gid := uint64(1), "0", "0"
		if st, ok := entry.info.Sys().(*syscall.Stat_t); ok {
			links, uid, gid = uint64(st.Nlink), strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
			blocks += st.Blocks
		}
		if !s.numeric {
			uid, gid = userName(uid), groupName(gid)
		}
		size := strconv.FormatInt(entry.info.Size(), 10)
		if s.human {
			size = human(entry.info.Size())
		}
		rows[i] = []string{lsMode(entry.info.Mode()), strconv.FormatUint(links, 10), uid, gid, size}
		for j, cell := range rows[i] {
			width[j] = max(width[j], len(cell))
		}
	}
	if total {
		sum := strconv.FormatInt(blocks/2, 10)
		if s.human {
			sum = human(blocks * 512)
		}
		fmt.Fprintf(e.out, "total %s\n", sum)
	}
	for i, entry := range entries {
		fmt.Fprintf(e.out, "%s %*s ", rows[i][0], width[1], rows[i][1])
		if !s.noOwner {
			fmt.Fprintf(e.out, "%-*s ", width[2], rows[i][2])
		}
		if !s.noGroup {
			fmt.Fprintf(e.out, "%-*s ", width[3], rows[i][3])
		}
		fmt.Fprintf(e.out, "%*s %s %s", width[4], rows[i][4], lsTime(entry.info.ModTime()), entry.name)
		if entry.target != "" {
			fmt.Fprintf(e.out, " -> %s", entry.target)
		}
		fmt.Fprintln(e.out)
	}
}

// lsTime is the form of the C locale: the year instead of the time for what is not within the last half year.
func lsTime(t time.Time) string {
	now := time.Now()
	if t.After(now) || now.Sub(t) > 31556952*time.Second/2 {
		return t.Format("Jan _2  2006")
	}
	return t.Format("Jan _2 15:04")
}

func lsMode(m fs.FileMode) string {
	out := []byte("----------")
	switch {
	case m.IsDir():
		out[0] = 'd'
	case m&fs.ModeSymlink != 0:
		out[0] = 'l'
	case m&fs.ModeNamedPipe != 0:
		out[0] = 'p'
	case m&fs.ModeSocket != 0:
		out[0] = 's'
	case m&fs.ModeCharDevice != 0:
		out[0] = 'c'
	case m&fs.ModeDevice != 0:
		out[0] = 'b'
	}
	const rwx = "rwxrwxrwx"
	for i := range rwx {
		if m&(1<<(8-i)) != 0 {
			out[i+1] = rwx[i]
		}
	}
	special := func(at int, set bool, with, without byte) {
		if set && out[at] == 'x' {
			out[at] = with
		} else if set {
			out[at] = without
		}
	}
	special(3, m&fs.ModeSetuid != 0, 's', 'S')
	special(6, m&fs.ModeSetgid != 0, 's', 'S')
	special(9, m&fs.ModeSticky != 0, 't', 'T')
	return string(out)
}

const units = "KMGTP"

// human rounds up, as ls does: one decimal below ten, none above.
func human(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	div := int64(1024)
	for i := range len(units) {
		whole, rest := n/div, n%div
		if tenths := whole*10 + (rest*10+div-1)/div; tenths < 100 {
			return fmt.Sprintf("%d.%d%c", tenths/10, tenths%10, units[i])
		}
		if rest > 0 {
			whole++
		}
		if whole < 1024 || i == len(units)-1 {
			return fmt.Sprintf("%d%c", whole, units[i])
		}
		div *= 1024
	}
	return ""
}

func userName(id string) string {
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(id string) string {
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
