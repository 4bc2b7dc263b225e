package logs

import (
	"context"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	heapMetric = "/memory/classes/heap/objects:bytes"
	heapEvery  = 5 * time.Millisecond
)

// boundMemory cancels the returned context when this process has come to hold more than most bytes of heap, garbage
// included, and expired then tells so. The caller calls stop, which waits.
func boundMemory(ctx context.Context, most int64) (bound context.Context, expired func() bool, stop func()) {
	bound, cancel := context.WithCancel(ctx)
	over := false
	var wg sync.WaitGroup
	wg.Go(func() {
		sample := []metrics.Sample{{Name: heapMetric}}
		tick := time.NewTicker(heapEvery)
		defer tick.Stop()
		for {
			select {
			case <-bound.Done():
				return
			case <-tick.C:
				metrics.Read(sample)
				if sample[0].Value.Uint64() > uint64(most) {
					over = true
					cancel()
					return
				}
			}
		}
	})
	return bound, func() bool { return over }, func() { cancel(); wg.Wait() }
}
