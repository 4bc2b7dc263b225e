package oom

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxRecord is larger than any record of the kernel's log; a smaller buffer would make the kernel refuse to give it.
const maxRecord = 16 << 10

// Watch calls told for each kill from now on, until ctx ends, and returns nil then. device is /dev/kmsg as this process
// sees it. Records that the kernel threw away before they were read are missed.
func Watch(ctx context.Context, device string, told func(Kill)) error {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("the kernel's log: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = f.Close() })() // which ends the read
	defer f.Close()
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("the kernel's log: %w", err)
	}
	var p Parser
	buf := make([]byte, maxRecord)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EPIPE): // it was overwritten meanwhile: the next is the oldest that is there
			continue
		case err != nil:
			return fmt.Errorf("the kernel's log: %w", err)
		}
		if k, at, ok := p.Feed(string(buf[:n])); ok {
			k.Time = boot().Add(at)
			told(k)
		}
	}
}

// boot is when the clock of the kernel's log began, by the machine's clock of now.
func boot() time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}
