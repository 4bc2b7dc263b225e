package remote

import (
	"bytes"
	"context"
	"os"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"
)

// TestCyclesLeaveNothing opens and closes sessions and looks at what is left of them.
func TestCyclesLeaveNothing(t *testing.T) {
	srv := serve(t, Options{}, cat)
	cycles := func(n int) {
		for i := range n {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			var out bytes.Buffer
			err := executor(t, srv, allKinds[i%2*4], "in&out").StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("x"), Stdout: &out})
			cancel()
			if err != nil || out.String() != "x" {
				t.Fatalf("cycle %d: %q, %v", i, out.String(), err)
			}
		}
	}
	look := func() (goroutines, files int, heap uint64) {
		time.Sleep(6 * time.Second) // client-go's pingers notice the end at their next tick
		goruntime.GC()
		goruntime.GC()
		var m goruntime.MemStats
		goruntime.ReadMemStats(&m)
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return goruntime.NumGoroutine(), len(fds), m.HeapAlloc
	}
	cycles(200)
	g0, f0, h0 := look()
	const more = 1000
	cycles(more)
	g1, f1, h1 := look()
	t.Logf("after %d cycles more: goroutines %d to %d, descriptors %d to %d, heap %d to %d KiB", more, g0, g1, f0, f1, h0>>10, h1>>10)
	if g1 > g0+5 || f1 > f0+5 || h1 > h0+more*2<<10 {
		t.Error("something is left of each session")
	}
}
