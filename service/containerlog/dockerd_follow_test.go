package containerlog

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
)

// TestFollowsDockerdsRotation follows containers whose log is rotated again and again.
func TestFollowsDockerdsRotation(t *testing.T) {
	const lines = 6000
	script := fmt.Sprintf(`sleep 2; i=0; while [ $i -lt %d ]; do echo "line $i"; [ $((i %% 500)) = 499 ] && sleep 0.2; i=$((i+1)); done`, lines)
	for name, c := range map[string]container{
		"plain":      {script: script, opts: map[string]string{"max-size": "30k", "max-file": "3"}},
		"compressed": {script: script, opts: map[string]string{"max-size": "30k", "max-file": "3", "compress": "true"}},
		"one file":   {script: script, opts: map[string]string{"max-size": "40k", "max-file": "1"}},
		"local":      {script: script, driver: "local", opts: map[string]string{"max-size": "20k", "max-file": "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := realDockerd(t)
			f := follow(t, d.reader(), d.run(c), Query{}, nil)
			f.ends()
			if got, want := f.String(), numbered(0, lines); got != want {
				n := 0
				for n < min(len(got), len(want)) && got[n] == want[n] {
					n++
				}
				t.Errorf("%d bytes, want %d; they differ from %d on: %.100q", len(got), len(want), n, got[n:])
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.gaps != 0 {
				t.Errorf("%d gaps", f.gaps)
			}
		})
	}
}

// TestFollowEndsWhenDockerdSaysSo: a follow ends with its container, also where a restart follows, as dockerd's does.
func TestFollowEndsWhenDockerdSaysSo(t *testing.T) {
	d := realDockerd(t)
	id := d.run(container{script: "echo up; sleep 3600"})
	f := follow(t, d.reader(), id, Query{}, nil)
	f.want("up\n")
	d.call(http.MethodPost, "/containers/"+id+"/restart?t=0", nil, nil)
	f.ends()
	// On a busy machine the next run may have spoken before its start was known.
	if got := f.String(); got != "up\n" && got != "up\nup\n" {
		t.Errorf("until the restart: %q", got)
	}
	f = follow(t, d.reader(), id, Query{}, nil)
	f.want("up\nup\n")
	d.call(http.MethodPost, "/containers/"+id+"/kill", nil, nil)
	f.ends()
	if _, err := d.State(t.Context(), "containerlog-none"); err == nil {
		t.Error("a container that does not exist has a state")
	}
}

// apiReader is the engine's own way of reading logs, as the fallback.
type apiReader struct{ d *dockerd }

func (a apiReader) Logs(_ context.Context, id string, opts runtime.LogOptions, out, errOut io.Writer) error {
	st, err := a.d.State(context.Background(), id)
	if err != nil {
		return err
	}
	for _, c := range a.d.api(id, opts, st.TTY) {
		w := out
		if c.stream == 2 {
			w = errOut
		}
		if _, err := io.WriteString(w, c.data); err != nil {
			return err
		}
	}
	return nil
}

// TestFallbackGivesTheSame reads the same container from its files and through the API.
func TestFallbackGivesTheSame(t *testing.T) {
	d := realDockerd(t)
	for _, tty := range []bool{false, true} {
		id := d.run(container{script: short, tty: tty})
		d.wait(id)
		files := d.reader()
		// Where the host's files are not seen, the engine is asked.
		through := New(Config{Containers: d, Fallback: apiReader{d}, Root: t.TempDir()})
		for name, q := range map[string]Query{
			"plain":      {},
			"timestamps": {LogOptions: runtime.LogOptions{Timestamps: true, Tail: 20}},
			"join":       {Join: true, LogOptions: runtime.LogOptions{Timestamps: true}},
		} {
			var a, b chunks
			if err := files.Copy(t.Context(), id, q, chunkWriter{&a, 1}, chunkWriter{&a, 2}); err != nil {
				t.Fatal(err)
			}
			if err := through.Copy(t.Context(), id, q, chunkWriter{&b, 1}, chunkWriter{&b, 2}); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(a) != fmt.Sprint(b) {
				t.Errorf("%s, tty %v:\nfiles    %.500q\nfallback %.500q", name, tty, a, b)
			}
		}
		// The cursor of one way is good for the other, where the engine writes the lines down in the order of their times:
		// that of two streams is not always so.
		if !tty {
			continue
		}
		var cursors []string
		var texts []string
		if err := files.Entries(t.Context(), id, Query{}, func(e *Entry) error {
			cursors = append(cursors, e.Cursor())
			texts = append(texts, string(e.Line))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{0, len(cursors) / 2, len(cursors) - 1} {
			var got strings.Builder
			if err := through.Copy(t.Context(), id, Query{Cursor: cursors[i]}, &got, &got); err != nil {
				t.Fatal(err)
			}
			if want := strings.Join(texts[i+1:], ""); got.String() != want {
				t.Errorf("after cursor %d: %d bytes, want %d", i, got.Len(), len(want))
			}
		}
	}
}

// TestOtherDriversFallBack: a driver without files goes to the engine, which says what it cannot do.
func TestOtherDriversFallBack(t *testing.T) {
	d := realDockerd(t)
	id := d.run(container{script: "echo x", driver: "none"})
	d.wait(id)
	err := d.reader().Logs(t.Context(), id, runtime.LogOptions{}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `driver "none"`) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkHistory reads a million lines of 100 bytes from the file, and the same through dockerd's API.
func BenchmarkHistory(b *testing.B) {
	d := realDockerd(b)
	id := d.run(container{script: `l=$(head -c 99 /dev/zero | tr '\0' x); yes $l | head -n 1000000`})
	d.wait(id)
	const size = 100_000_000
	b.Run("dockerd", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			resp := d.request(http.MethodGet, "/containers/"+id+"/logs?stdout=1", nil)
			if n, err := io.Copy(struct{ io.Writer }{io.Discard}, resp.Body); err != nil || n != size+8*1_000_000 {
				b.Fatal(n, err)
			}
			resp.Body.Close()
		}
	})
	r := d.reader()
	b.Run("file", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			var n counter
			if err := r.Logs(context.Background(), id, runtime.LogOptions{Stdout: true}, &n, nil); err != nil || n != size {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("tail1000", func(b *testing.B) {
		for b.Loop() {
			var n counter
			if err := r.Logs(context.Background(), id, runtime.LogOptions{Tail: 1000}, &n, nil); err != nil || n != 100_000 {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("since", func(b *testing.B) {
		now := time.Now()
		for b.Loop() {
			var n counter
			if err := r.Logs(context.Background(), id, runtime.LogOptions{Since: now}, &n, nil); err != nil || n != 0 {
				b.Fatal(n, err)
			}
		}
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
