package logs

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Limits bound what one command may cost. A zero field takes the default of [DefaultLimits]; a negative one means no
// limit. The keys are those of application.yaml.
type Limits struct {
	Timeout    time.Duration // app.logs.cmd-timeout: a command that does not follow is ended after it
	Idle       time.Duration // app.logs.idle-timeout: a follow without a line for so long is ended
	MaxRead    int64         // app.logs.max-file-size: bytes read from files
	MaxLines   int           // app.logs.max-line: lines that head and tail give at most
	ByteRate   int64         // app.logs.byte-rate: bytes of output a second
	SortMemory int64         // app.logs.sort-memory: bytes that sort holds before it spills
	SortDisk   int64         // app.logs.sort-disk: bytes that sort may spill
	MaxFiles   int           // app.logs.max-files: files that one command opens
}

// DefaultLimits are the documented defaults.
func DefaultLimits() Limits {
	return Limits{
		Timeout: 5 * time.Second, Idle: 30 * time.Minute, MaxRead: 3000 << 20, MaxLines: 1000, ByteRate: -1,
		SortMemory: 64 << 20, SortDisk: 1 << 30, MaxFiles: 256,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	fill(&l.Timeout, d.Timeout)
	fill(&l.Idle, d.Idle)
	fill(&l.MaxRead, d.MaxRead)
	fill(&l.MaxLines, d.MaxLines)
	fill(&l.ByteRate, d.ByteRate)
	fill(&l.SortMemory, d.SortMemory)
	fill(&l.SortDisk, d.SortDisk)
	fill(&l.MaxFiles, d.MaxFiles)
	return l
}

func fill[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// A LimitError says which limit ended a command.
type LimitError struct {
	Key   string // of application.yaml
	Limit string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("stopped at the limit %s (%s)", e.Key, e.Limit)
}

const (
	keyMaxRead = "app.logs.max-file-size"
	keyTimeout = "app.logs.cmd-timeout"

	keyMaxFiles   = "app.logs.max-files"
	keySortMemory = "app.logs.sort-memory"
)

// A meter counts what one command reads, for all its stages together.
type meter struct {
	max  int64
	read atomic.Int64
}

func (m *meter) add(n int) error {
	if total := m.read.Add(int64(n)); m.max > 0 && total > m.max {
		return readLimit(m.max)
	}
	return nil
}

func readLimit(bytes int64) error {
	return &LimitError{Key: keyMaxRead, Limit: fmt.Sprintf("%d MB", bytes>>20)}
}

// metered is a file as a stage reads it: counted, and ended by ctx.
type metered struct {
	ctx context.Context
	io.ReadCloser
	meter *meter
}

func (r *metered) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(p)
	if merr := r.meter.add(n); merr != nil {
		return n, merr
	}
	return n, err
}
