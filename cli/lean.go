package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The garbage collector of an agent: its live heap is a few MB, so a smaller growth factor costs little and halves the
// rest, and the limit makes it work harder before a burst grows the process. The limit grows with what is really live,
// so that a host with many containers does not collect without end. GOGC and GOMEMLIMIT win.
const (
	agentGCPercent   = 50
	startGCPercent   = 400 // the first collection is at 16 MB; the default, 4 MB, would be in the middle of connecting
	agentMemoryLimit = 24 << 20
	agentLimitFactor = 4 // of the live heap
)

// tuneMemory sets the limit and the factor of the start, and returns what sets the growth factor once the start is over,
// and keeps the limit in step from time to time.
func tuneMemory(getenv func(string) string) (adjust func()) {
	tunePercent, tuneLimit := getenv("GOGC") == "", getenv("GOMEMLIMIT") == ""
	if tuneLimit {
		debug.SetMemoryLimit(agentMemoryLimit)
	}
	if tunePercent {
		debug.SetGCPercent(startGCPercent)
	}
	return func() {
		if tunePercent {
			debug.SetGCPercent(agentGCPercent)
			tunePercent = false
		}
		if tuneLimit {
			growLimit()
		}
	}
}

// growLimit sets the limit by the live heap of the last collection.
func growLimit() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() == metrics.KindUint64 {
		debug.SetMemoryLimit(max(agentMemoryLimit, agentLimitFactor*int64(live[0].Value.Uint64())))
	}
}

// keepLean gives memory back to the system that a long-running role does not use: a moment after the start what starting
// took, and from time to time what a burst took. See releaseImage for the larger part of both. adjust runs with it.
func keepLean(ctx context.Context, adjust func()) {
	timer := time.NewTimer(3 * time.Second)
	defer timer.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		adjust()
		if round%60 == 0 {
			debug.FreeOSMemory()
		}
		_ = releaseImage() // where the kernel does not take the advice, the pages stay
		timer.Reset(10 * time.Second)
	}
}

// releaseImage unmaps the pages of the program's own code and constants. This program links every role, and Go runs the
// initialisers of all packages, so an agent starts with most of the file mapped and then uses a third of it. The pages
// are clean and backed by the file: what is needed again is mapped again from the page cache (ADR 0008).
func releaseImage() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 00400000-00eda000 r-xp 00000000 fe:00 1234  /usr/bin/drover
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[5] != exe || len(fields[1]) < 4 || fields[1][1] != '-' || fields[1][3] != 'p' {
			continue // what is writable must not be dropped
		}
		from, to, ok := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if !ok || err1 != nil || err2 != nil || end <= start {
			return fmt.Errorf("unknown line in /proc/self/maps: %q", lines.Text())
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, uintptr(start), uintptr(end-start), syscall.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return lines.Err()
}
