package logs

import (
	"context"
	"fmt"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	heapMetric = "/memory/classes/heap/objects:bytes"
	heapEvery  = 5 * time.Millisecond
	heapSlack  = 64 << 20 // what others may allocate meanwhile, and garbage
)

// boundMemory ends the returned context, with the limit as its cause, when this process has come to hold much more
// memory than app.logs.sort-memory allows a command: awk keeps what its program tells it to, and cannot be asked how
// much that is. It looks at its context every thousand steps, so a program that is written to double a string again and
// again is faster than this. The caller calls stop, which waits.
func (e *env) boundMemory(ctx context.Context) (bound context.Context, stop func()) {
	limit := e.limits.SortMemory
	if limit <= 0 {
		return ctx, func() {}
	}
	bound, cancel := context.WithCancelCause(ctx)
	sample := []metrics.Sample{{Name: heapMetric}}
	heap := func() uint64 { metrics.Read(sample); return sample[0].Value.Uint64() }
	most := heap() + 2*uint64(limit) + heapSlack
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(heapEvery)
		defer tick.Stop()
		for {
			select {
			case <-bound.Done():
				return
			case <-tick.C:
				if heap() > most {
					cancel(&LimitError{Key: keySortMemory, Limit: fmt.Sprintf("%d MB", limit>>20)})
					return
				}
			}
		}
	})
	return bound, func() { cancel(nil); wg.Wait() }
}
