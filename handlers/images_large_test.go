package handlers_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/droverhq/drover/handlers"
)

// A root file system of 1 GiB goes through in a stream: the agent's memory stays below 64 MiB.
func TestImportOfAGigabyte(t *testing.T) {
	e := dockerEngine(t)
	dir := t.TempDir()
	ref := prefix + newUUID() + ":1"
	forgetImages(t, e, ref)
	const size = 1 << 30
	f, err := os.Create(filepath.Join(dir, "large.tar"))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(512 + size + 1024); err != nil { // content and end of archive are zeros, and a hole is too
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			var m goruntime.MemStats
			goruntime.ReadMemStats(&m)
			most = max(most, m.HeapInuse+m.StackInuse)
			select {
			case <-stop:
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	began := time.Now()
	var made oneImage
	ask(t, newRouter(e, handlers.Options{ImageRoots: []string{dir}}), "image.import", m{"path": f.Name(), "image": ref}, &made)
	close(stop)
	most := <-peak
	t.Logf("1 GiB in %v, at most %.1f MiB of heap and stacks", time.Since(began).Round(time.Millisecond), float64(most)/(1<<20))
	if made.Image.Bytes != 512+size+1024 {
		t.Errorf("%d bytes were imported", made.Image.Bytes)
	}
	if most >= 64<<20 {
		t.Errorf("it took %d bytes of memory", most)
	}
}
