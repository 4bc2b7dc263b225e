package hostinfo

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// readLoad returns the three load averages as the kernel writes them.
func readLoad(fsys fs.FS) ([]string, error) {
	text, err := read(fsys, "proc/loadavg")
	if err != nil {
		return nil, err
	}
	f := strings.Fields(text)
	if len(f) < 3 {
		return nil, fmt.Errorf("proc/loadavg has %d fields, expected 5", len(f))
	}
	for _, s := range f[:3] {
		if _, err := strconv.ParseFloat(s, 64); err != nil {
			return nil, fmt.Errorf("proc/loadavg: %w", err)
		}
	}
	return f[:3:3], nil
}
