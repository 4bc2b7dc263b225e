package hostinfo

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Usage is the use of one file system in bytes.
type Usage struct {
	Total int64
	Used  int64
	Free  int64 // that an ordinary user may still take
}

// Percentage returns how much is used of what can be used, as df does.
func (u Usage) Percentage() float64 {
	if u.Used+u.Free <= 0 {
		return 0
	}
	return 100 * float64(u.Used) / float64(u.Used+u.Free)
}

// Disk is the use of the host's disks.
type Disk struct {
	Devices map[string]Usage // by device, as "/dev/sda1" or a ZFS data set
	// Storage is the file system where containers live.
	Storage *Usage
}

// A mount is one line of the mount table.
type mount struct{ device, point, kind string }

// readDisk reads the mounts of the host's first process, and the use of each device once.
func readDisk(fsys fs.FS, root, engineRoot string, usage func(string) (Usage, error)) (*Disk, error) {
	text, err := read(fsys, "proc/1/mounts")
	if err != nil {
		if text, err = read(fsys, "proc/mounts"); err != nil {
			return nil, err
		}
	}
	d := &Disk{Devices: make(map[string]Usage)}
	var failed error
	for _, m := range onePerDevice(parseMounts(text)) {
		u, err := usage(path.Join(root, m.point))
		if err != nil {
			failed = fmt.Errorf("statfs %s: %w", m.point, err)
			continue
		}
		if u.Total > 0 {
			d.Devices[m.device] = u
		}
	}
	for _, dir := range []string{engineRoot, "/"} {
		if dir == "" {
			continue
		}
		if u, err := usage(path.Join(root, dir)); err == nil && u.Total > 0 {
			d.Storage = &u
			break
		}
	}
	return d, failed
}

// parseMounts keeps the mounts that use a disk of this host. File systems of the network and of FUSE are left out: one
// that hangs would block statfs for ever.
func parseMounts(text string) []mount {
	var ms []mount
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		m := mount{device: unescape(f[0]), point: unescape(f[1]), kind: f[2]}
		switch {
		case m.kind == "squashfs" || m.kind == "iso9660" || strings.HasPrefix(m.kind, "fuse"):
		case m.kind == "zfs", strings.HasPrefix(m.device, "/dev/"):
			ms = append(ms, m)
		}
	}
	return ms
}

// onePerDevice keeps the mount nearest to the root for each device: containers bind parts of a device to many places.
func onePerDevice(ms []mount) []mount {
	slices.SortStableFunc(ms, func(a, b mount) int { return len(a.point) - len(b.point) })
	seen := make(map[string]bool)
	return slices.DeleteFunc(ms, func(m mount) bool {
		was := seen[m.device]
		seen[m.device] = true
		return was
	})
}

// unescape undoes the octal escapes of the mount table.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// statfs is the Usage of the kernel.
func statfs(name string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return Usage{}, err
	}
	size := int64(st.Bsize)
	total, free := int64(st.Blocks)*size, int64(st.Bfree)*size
	return Usage{Total: total, Used: total - free, Free: int64(st.Bavail) * size}, nil
}
