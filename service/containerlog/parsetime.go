package containerlog

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// ParseTime reads what people and servers give for since and until: RFC 3339, seconds since 1970 with an optional
// fraction, or how long ago ("10m"). The zero time is returned for "" and "0"; anything else is runtime.ErrInvalid.
func ParseTime(text string) (time.Time, error) {
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-d), nil
	}
	whole, frac, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	nanos := int64(0)
	if err == nil && frac != "" {
		nanos, err = strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	}
	if err != nil || nanos < 0 || seconds < 0 || seconds > math.MaxInt64/int64(time.Second) {
		return time.Time{}, fmt.Errorf("time %.60q: want 2026-11-20T13:51:00Z, seconds since 1970, or how long ago (10m): %w", text, runtime.ErrInvalid)
	}
	return time.Unix(seconds, nanos), nil
}
