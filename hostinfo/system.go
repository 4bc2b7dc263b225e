package hostinfo

import (
	"io/fs"
	"strings"
)

// OS names the system of the host.
type OS struct {
	Name   string // "Debian GNU/Linux 12 (bookworm)"
	Kernel string // "6.1.0-18-amd64"
}

// KernelVersion returns the first n numbers of the kernel's version, as "6.1"; "" if it is unknown.
func (o OS) KernelVersion(n int) string { return Version(o.Kernel, n) }

// Version returns the first n numbers of a version, as "20.10" of "20.10.24+dfsg1". What is missing is left out.
func Version(v string, n int) string {
	end := 0
	for i := 0; i <= len(v); i++ {
		if i < len(v) && v[i] >= '0' && v[i] <= '9' {
			continue
		}
		if i == end || i > 0 && v[i-1] == '.' {
			break
		}
		end = i
		if n--; n == 0 || i == len(v) || v[i] != '.' {
			break
		}
	}
	return v[:end]
}

// readOS reads the kernel's release and etc/os-release.
func readOS(fsys fs.FS) (OS, error) {
	o := OS{Kernel: word(fsys, "proc/sys/kernel/osrelease")}
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		text, err := read(fsys, name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				o.Name = strings.Trim(v, `"'`)
			}
		}
		break
	}
	if o.Kernel == "" {
		_, err := read(fsys, "proc/sys/kernel/osrelease")
		return o, err
	}
	return o, nil
}
