package hostinfo

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
)

// Memory is in bytes; nil is unknown.
type Memory struct {
	Total      int64
	Free       *int64
	Available  *int64
	Buffers    *int64
	Cached     *int64
	Active     *int64
	Inactive   *int64
	SwapTotal  *int64
	SwapFree   *int64
	SwapCached *int64
}

// readMemory reads proc/meminfo.
func readMemory(fsys fs.FS) (*Memory, error) {
	text, err := read(fsys, "proc/meminfo")
	if err != nil {
		return nil, err
	}
	m := &Memory{}
	fields := map[string]**int64{
		"MemFree": &m.Free, "MemAvailable": &m.Available, "Buffers": &m.Buffers, "Cached": &m.Cached,
		"Active": &m.Active, "Inactive": &m.Inactive,
		"SwapTotal": &m.SwapTotal, "SwapFree": &m.SwapFree, "SwapCached": &m.SwapCached,
	}
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		kb, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil || kb < 0 || kb > 1<<53 {
			continue
		}
		bytes := kb * 1024
		if key == "MemTotal" {
			m.Total = bytes
		} else if p := fields[key]; p != nil {
			*p = &bytes
		}
	}
	if m.Total == 0 {
		return nil, errors.New("proc/meminfo has no MemTotal")
	}
	return m, nil
}
