package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// A Limiter changes the limits of a container that is there; an optional capability.
type Limiter interface {
	// UpdateLimits changes what is set and leaves the rest. A limit that the engine cannot change is ErrUnsupported, and
	// nothing is changed then.
	UpdateLimits(ctx context.Context, id string, limits LimitsUpdate) error
}

// A LimitsUpdate are the limits to change; nil leaves one as it is. A running container keeps its processes.
type LimitsUpdate struct {
	CPUShares         *int64  `json:"cpuShares,omitempty"`         // 2 to 262144
	CPUQuota          *int64  `json:"cpuQuota,omitempty"`          // microseconds a period; -1: none
	CPUPeriod         *int64  `json:"cpuPeriod,omitempty"`         // microseconds, 1000 to 1000000
	CpusetCpus        *string `json:"cpusetCpus,omitempty"`        // "0-2,4"
	CpusetMems        *string `json:"cpusetMems,omitempty"`        // "0"
	Memory            *int64  `json:"memory,omitempty"`            // bytes, 4 MiB at least
	MemoryReservation *int64  `json:"memoryReservation,omitempty"` // bytes
	MemorySwap        *int64  `json:"memorySwap,omitempty"`        // bytes with memory; -1: no limit
	PidsLimit         *int64  `json:"pidsLimit,omitempty"`         // -1: none
}

// String names what is set, for a log.
func (l LimitsUpdate) String() string {
	b, _ := json.Marshal(l) // numbers and strings only
	return string(b)
}

// ParseLimits reads a LimitsUpdate from JSON. What is unknown, or cannot be, is ErrInvalid with the field's name.
func ParseLimits(text []byte) (LimitsUpdate, error) {
	var l LimitsUpdate
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field != "" {
			return l, limitError("%s: want %s, not %s", kind.Field, kind.Type, kind.Value)
		}
		return l, limitError("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return l, limitError("there is more after the object")
	}
	return l, l.Check()
}

func limitError(format string, args ...any) error {
	return &Error{Op: "limits", Kind: ErrInvalid, Message: fmt.Sprintf(format, args...)}
}

// Check returns ErrInvalid for limits that no engine takes.
func (l *LimitsUpdate) Check() error {
	set := false
	for _, n := range []struct {
		name      string
		value     *int64
		low, high int64
		none      bool // -1 is good too
	}{
		{"cpuShares", l.CPUShares, 2, 262144, false},
		{"cpuQuota", l.CPUQuota, 1000, math.MaxInt64, true},
		{"cpuPeriod", l.CPUPeriod, 1000, 1000000, false},
		{"memory", l.Memory, 4 << 20, math.MaxInt64, false},
		{"memoryReservation", l.MemoryReservation, 1, math.MaxInt64, false},
		{"memorySwap", l.MemorySwap, 4 << 20, math.MaxInt64, true},
		{"pidsLimit", l.PidsLimit, 1, math.MaxInt32, true},
	} {
		if n.value == nil {
			continue
		}
		set = true
		if v := *n.value; (v < n.low || v > n.high) && (!n.none || v != -1) {
			also := ""
			if n.none {
				also = ", or -1 for none"
			}
			return limitError("%s: %d: want %d to %d%s", n.name, v, n.low, n.high, also)
		}
	}
	for name, v := range map[string]*string{"cpusetCpus": l.CpusetCpus, "cpusetMems": l.CpusetMems} {
		if v == nil {
			continue
		}
		set = true
		if *v == "" || len(*v) > 1024 || strings.Trim(*v, "0123456789,-") != "" {
			return limitError("%s: %.40q: want numbers and ranges like 0-2,4", name, *v)
		}
	}
	if !set {
		return limitError("nothing is to be changed")
	}
	if l.Memory != nil && l.MemorySwap != nil && *l.MemorySwap != -1 && *l.MemorySwap < *l.Memory {
		return limitError("memorySwap: %d is memory and swap together, and less than memory", *l.MemorySwap)
	}
	return nil
}
