package containerlog

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// A position is a place in a log: a file by its identity, the offset in it, and the time of the entry that ends there.
// The time finds the place again when the file was compressed or the log is read through the engine.
type position struct {
	id   fileID
	off  int64
	nano int64
}

// A fileID tells files apart whatever their names are.
type fileID struct{ dev, ino uint64 }

// String is the form of a cursor: opaque to users, safe in URLs.
func (p position) String() string {
	b := make([]byte, 0, 64)
	b = append(b, 'c')
	b = strconv.AppendUint(b, p.id.dev, 36)
	for _, n := range [...]uint64{p.id.ino, uint64(p.off), uint64(p.nano)} {
		b = append(b, '.')
		b = strconv.AppendUint(b, n, 36)
	}
	return string(b)
}

func parsePosition(s string) (position, error) {
	bad := fmt.Errorf("log cursor %.60q is none of ours: %w", s, runtime.ErrInvalid)
	rest, ok := strings.CutPrefix(s, "c")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 4 {
		return position{}, bad
	}
	var n [4]uint64
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 36, 64)
		if err != nil {
			return position{}, bad
		}
		n[i] = v
	}
	p := position{id: fileID{n[0], n[1]}, off: int64(n[2]), nano: int64(n[3])}
	if p.off < 0 {
		return position{}, bad
	}
	return p, nil
}
