package containerlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A handmade log is a file that the test writes as dockerd would.
type handmade struct {
	t       testing.TB
	base    string
	f       *os.File
	running atomic.Bool
	started time.Time
	gone    atomic.Bool
	n       int // records so far
	clock   time.Time
}

func newHandmade(t testing.TB) *handmade {
	t.Helper()
	h := &handmade{t: t, base: filepath.Join(t.TempDir(), "x-json.log"), started: time.Now(), clock: stampTest}
	h.running.Store(true)
	h.open()
	t.Cleanup(func() { h.f.Close() })
	return h
}

func (h *handmade) State(context.Context, string) (runtime.ContainerStatus, error) {
	if h.gone.Load() {
		return runtime.ContainerStatus{}, fmt.Errorf("x: %w", runtime.ErrNotFound)
	}
	return runtime.ContainerStatus{ID: "x", Running: h.running.Load(), StartedAt: h.started, LogPath: h.base, LogDriver: "json-file"}, nil
}

func (h *handmade) open() {
	f, err := os.OpenFile(h.base, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	h.f = f
}

// write appends records, numbered.
func (h *handmade) write(n int) {
	h.t.Helper()
	var b bytes.Buffer
	for range n {
		b.WriteString(h.record(fmt.Sprintf("line %d\n", h.n)))
		h.n++
	}
	h.raw(b.String())
}

func (h *handmade) record(line string) string {
	h.clock = h.clock.Add(time.Millisecond)
	return record(line, "stdout", h.clock)
}

func (h *handmade) raw(s string) {
	h.t.Helper()
	if _, err := h.f.WriteString(s); err != nil {
		h.t.Fatal(err)
	}
}

// rotate renames the files as dockerd does and keeps that many.
func (h *handmade) rotate(keep int, compress bool) {
	h.t.Helper()
	h.f.Close()
	for i := keep - 1; i > 1; i-- {
		for _, ext := range []string{"", ".gz"} {
			_ = os.Rename(fmt.Sprintf("%s.%d%s", h.base, i-1, ext), fmt.Sprintf("%s.%d%s", h.base, i, ext))
		}
	}
	if keep > 1 {
		if err := os.Rename(h.base, h.base+".1"); err != nil {
			h.t.Fatal(err)
		}
	} else if err := os.Remove(h.base); err != nil {
		h.t.Fatal(err)
	}
	if compress {
		b, err := os.ReadFile(h.base + ".1")
		if err != nil {
			h.t.Fatal(err)
		}
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Extra = fmt.Appendf(nil, `{"lastTime":%q}`, h.clock.Format(time.RFC3339Nano))
		_, _ = w.Write(b)
		w.Close()
		if err := os.WriteFile(h.base+".1.gz", z.Bytes(), 0o600); err != nil {
			h.t.Fatal(err)
		}
		os.Remove(h.base + ".1")
	}
	h.open()
}

// A tail is a follow under way.
type tail struct {
	t    testing.TB
	mu   sync.Mutex
	text strings.Builder
	gaps int
	gate chan struct{} // if not nil, each entry takes a token
	done chan error
	stop context.CancelFunc
}

func follow(t testing.TB, r *Reader, id string, q Query, gate chan struct{}) *tail {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &tail{t: t, done: make(chan error, 1), stop: cancel, gate: gate}
	q.Follow = true
	q.Gap = func() { f.mu.Lock(); f.gaps++; f.mu.Unlock() }
	go func() {
		f.done <- r.Entries(ctx, id, q, func(e *Entry) error {
			if f.gate != nil {
				select {
				case <-f.gate:
				case <-ctx.Done():
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.text.Write(e.Line)
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-f.done })
	return f
}

func (f *tail) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}

func (f *tail) want(text string) {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for f.String() != text {
		if time.Now().After(deadline) {
			f.t.Fatalf("got  %.2000q\nwant %.2000q", f.String(), text)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// ends waits for the follow to end by itself.
func (f *tail) ends() {
	f.t.Helper()
	select {
	case err := <-f.done:
		if err != nil {
			f.t.Errorf("the follow ended with %v", err)
		}
		f.done <- nil
	case <-time.After(patience):
		f.t.Fatal("the follow did not end")
	}
}

func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// bothWays runs a test with inotify and with polling.
func bothWays(t *testing.T, test func(t *testing.T, deaf bool)) {
	for _, deaf := range []bool{false, true} {
		t.Run(map[bool]string{false: "inotify", true: "polling"}[deaf], func(t *testing.T) { test(t, deaf) })
	}
}

func handReader(h *handmade, deaf bool) *Reader {
	r := New(Config{Containers: h, Poll: 10 * time.Millisecond})
	r.deaf = deaf
	return r
}

func TestFollowsWhatIsAdded(t *testing.T) {
	bothWays(t, func(t *testing.T, deaf bool) {
		h := newHandmade(t)
		h.write(3)
		f := follow(t, handReader(h, deaf), "x", Query{}, nil)
		f.want(numbered(0, 3))
		h.write(2)
		f.want(numbered(0, 5))
		// A record that comes in two pieces.
		rec := h.record("in two\n")
		h.raw(rec[:20])
		time.Sleep(20 * time.Millisecond)
		h.raw(rec[20:])
		f.want(numbered(0, 5) + "in two\n")
		h.running.Store(false)
		h.raw(h.record("last words\n"))
		f.touch(h)
		f.ends()
		f.want(numbered(0, 5) + "in two\nlast words\n")
	})
}

// touch does what dockerd does when a container changes: it writes a file beside the log.
func (f *tail) touch(h *handmade) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(h.base), "config.v2.json"), []byte("{}"), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func TestFollowsRotation(t *testing.T) {
	bothWays(t, func(t *testing.T, deaf bool) {
		for _, compress := range []bool{false, true} {
			h := newHandmade(t)
			f := follow(t, handReader(h, deaf), "x", Query{}, nil)
			for range 20 {
				h.write(3)
				f.want(numbered(0, h.n))
				h.write(2) // right before the rotation
				h.rotate(3, compress)
				h.write(1)
			}
			f.want(numbered(0, h.n))
			if f.gaps != 0 {
				t.Errorf("%d gaps", f.gaps)
			}
		}
	})
}

// TestSlowFollowerKeepsRotatedFiles rotates files away while their reader is stuck: as they are open, nothing is lost.
func TestSlowFollowerKeepsRotatedFiles(t *testing.T) {
	h := newHandmade(t)
	h.write(1)
	gate := make(chan struct{}, 10_000)
	f := follow(t, handReader(h, false), "x", Query{}, gate)
	for i := range ahead - 1 {
		h.write(2)
		h.rotate(2, false)
		h.write(1)
		if i < 3 {
			time.Sleep(20 * time.Millisecond)
		} else {
			// The files are opened by their notice, whatever the reader does.
			time.Sleep(100 * time.Millisecond)
		}
	}
	for range 1000 {
		gate <- struct{}{}
	}
	f.want(numbered(0, h.n))
	if f.gaps != 0 {
		t.Errorf("%d gaps", f.gaps)
	}
}

func TestGapIsTold(t *testing.T) {
	h := newHandmade(t)
	h.write(1)
	gate := make(chan struct{}, 10_000)
	f := follow(t, handReader(h, false), "x", Query{}, gate)
	for range 4 * ahead {
		h.write(2)
		h.rotate(2, false)
		time.Sleep(10 * time.Millisecond)
	}
	h.write(1)
	last := fmt.Sprintf("line %d\n", h.n-1)
	for range 1000 {
		gate <- struct{}{}
	}
	deadline := time.Now().Add(patience)
	for !strings.HasSuffix(f.String(), last) {
		if time.Now().After(deadline) {
			t.Fatalf("never came to the end: %q", f.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.mu.Lock()
	gaps := f.gaps
	f.mu.Unlock()
	if gaps != 1 {
		t.Errorf("%d gaps told", gaps)
	}
	// In order and nothing twice.
	previous := -1
	for line := range strings.Lines(f.String()) {
		var n int
		if _, err := fmt.Sscanf(line, "line %d\n", &n); err != nil || n <= previous {
			t.Fatalf("line %q after %d", line, previous)
		}
		previous = n
	}
}

func TestFollowsCopytruncate(t *testing.T) {
	bothWays(t, func(t *testing.T, deaf bool) {
		h := newHandmade(t)
		h.write(50)
		f := follow(t, handReader(h, deaf), "x", Query{}, nil)
		f.want(numbered(0, 50))
		if err := os.Truncate(h.base, 0); err != nil {
			t.Fatal(err)
		}
		h.write(3)
		f.want(numbered(0, 53))
		// Truncated and grown past the old place before anybody looked: told by its content.
		if err := os.Truncate(h.base, 0); err != nil {
			t.Fatal(err)
		}
		h.write(60)
		f.want(numbered(0, 113))
	})
}

func TestFollowEndsWithTheContainer(t *testing.T) {
	for name, end := range map[string]func(h *handmade){
		"stopped": func(h *handmade) { h.running.Store(false) },
		"removed": func(h *handmade) { h.gone.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, deaf bool) {
				h := newHandmade(t)
				h.write(1)
				f := follow(t, handReader(h, deaf), "x", Query{}, nil)
				f.want(numbered(0, 1))
				h.write(1)
				end(h)
				f.touch(h)
				f.ends()
				f.want(numbered(0, 2))
			})
		})
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	h := newHandmade(t)
	h.write(1)
	f := follow(t, handReader(h, false), "x", Query{}, nil)
	f.want(numbered(0, 1))
	f.stop()
	if err := <-f.done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	f.done <- nil
}

func TestFollowFromTheEnd(t *testing.T) {
	h := newHandmade(t)
	h.write(5)
	torn := h.record("torn\n")
	h.raw(torn[:10])
	f := follow(t, handReader(h, false), "x", Query{LogOptions: runtime.LogOptions{Tail: -1}}, nil)
	time.Sleep(20 * time.Millisecond)
	h.raw(torn[10:])
	f.want("torn\n")
	h.write(1)
	f.want("torn\nline 5\n")
}

func TestFollowHereAndUntil(t *testing.T) {
	h := newHandmade(t)
	h.write(5)
	f := follow(t, handReader(h, false), "x", Query{LogOptions: runtime.LogOptions{Until: h.clock.Add(2500 * time.Microsecond)}}, nil)
	h.write(5)
	f.ends()
	f.want(numbered(0, 7))
}

// TestCursorResumes takes each entry's cursor in turn and reads on from it: after rotation, compression and truncation.
func TestCursorResumes(t *testing.T) {
	for name, change := range map[string]func(h *handmade){
		"nothing":    func(*handmade) {},
		"rotated":    func(h *handmade) { h.rotate(3, false); h.write(2) },
		"compressed": func(h *handmade) { h.rotate(3, true); h.write(2) },
		"twice":      func(h *handmade) { h.rotate(3, true); h.write(2); h.rotate(3, true); h.write(2) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandmade(t)
			h.write(30)
			r := handReader(h, false)
			var cursors []string
			if err := r.Entries(t.Context(), "x", Query{}, func(e *Entry) error {
				cursors = append(cursors, e.Cursor())
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			change(h)
			for i, c := range cursors {
				var got strings.Builder
				if err := r.Copy(t.Context(), "x", Query{Cursor: c}, &got, nil); err != nil {
					t.Fatal(err)
				}
				if want := numbered(i+1, h.n); got.String() != want {
					t.Fatalf("after entry %d: got %q, want %q", i, got.String(), want)
				}
			}
		})
	}
	r := handReader(newHandmade(t), false)
	for _, c := range []string{"x", "c1.2.3", "c1.2.3.!", "c1.2.3.4.5", "c1.2.zzzzzzzzzzzzz.4"} {
		if err := r.Entries(t.Context(), "x", Query{Cursor: c}, nil); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("cursor %q: %v", c, err)
		}
	}
}

// TestMarksResumeACopy cuts a copy again and again and goes on at the last mark: nothing is lost, nothing comes twice.
func TestMarksResumeACopy(t *testing.T) {
	h := newHandmade(t)
	h.write(20_000)
	h.rotate(4, false)
	h.write(20_000)
	r := handReader(h, false)
	cut := errors.New("cut")
	var all strings.Builder
	cursor, copies := "", 0
	for done := false; !done; copies++ {
		var pending strings.Builder
		marks := 0
		err := r.Copy(t.Context(), "x", Query{Cursor: cursor, Mark: func(c string) error {
			if marks++; marks == 2 {
				return cut // what was written since the first mark is not confirmed, and comes again
			}
			all.WriteString(pending.String())
			cursor = c
			return nil
		}}, &pending, nil)
		if done = err == nil; !done && !errors.Is(err, cut) {
			t.Fatal(err)
		}
	}
	if all.String() != numbered(0, h.n) {
		t.Errorf("%d bytes in %d copies, want %d", all.Len(), copies, len(numbered(0, h.n)))
	}
	if copies < 4 {
		t.Errorf("%d copies only", copies)
	}
}

func TestFilterIsGrep(t *testing.T) {
	h := newHandmade(t)
	var want strings.Builder
	re := regexp.MustCompile(`needle [0-9]+ "q" \\ é|^x{3}`)
	long := strings.Repeat("é", pieceSize/2-4)
	lines := []string{"hay\n", "a needle 7 \"q\" \\ é\n", "xxx\n", "\n", " xxx\n", "needle\n", long + "needle 8 \"q\" \\ é" + long + "\n", long + "nothing\n", "needle 9 \"q\" \\ é"}
	for i := range 270 {
		line := lines[i%len(lines)]
		if re.MatchString(strings.TrimSuffix(line, "\n")) {
			want.WriteString(line)
		}
		for len(line) > pieceSize {
			h.raw(h.record(line[:pieceSize]))
			line = line[pieceSize:]
		}
		h.raw(h.record(line))
		if !strings.HasSuffix(line, "\n") {
			// A line that never ended is one of its own only if the container ended: end it.
			h.raw(h.record("\n"))
			want.WriteString("\n")
		}
		if i == 100 {
			h.rotate(4, true)
		}
	}
	for _, expr := range []string{re.String(), "(" + re.String() + ")", "needle [0-9]+", "nothing", "(?i)NEEDLE 8"} {
		want.Reset()
		q := Query{Filter: regexp.MustCompile(expr)}
		r := handReader(h, false)
		if err := r.Entries(t.Context(), "x", Query{Join: true}, func(e *Entry) error {
			if q.Filter.Match(bytes.TrimSuffix(e.Line, []byte("\n"))) {
				want.Write(e.Line)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		if err := r.Copy(t.Context(), "x", q, &got, nil); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() || want.Len() == 0 {
			t.Errorf("%s: %d bytes, want %d", expr, got.Len(), want.Len())
		}
		q.Tail = 60
		got.Reset()
		if err := r.Copy(t.Context(), "x", q, &got, nil); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(want.String(), got.String()) {
			t.Errorf("%s: the tail is not the end of the whole", expr)
		}
	}
}

func TestRequiredLiteral(t *testing.T) {
	for expr, want := range map[string]string{
		"abc":            "abc",
		"a.c":            "a",
		"^foo.*barbaz$":  "barbaz",
		"(foo|bar)qux":   "qux",
		"(?i)abc":        "",
		"a*":             "",
		"(hello)+":       "hello",
		"(?:hello){2,}x": "hello",
		"x{0,3}":         "",
		`say "hi" now!`:  " now!",
		"<tag>":          "tag",
		"é":              "",
		"":               "",
		"status=5[0-9]+": "status=5",
	} {
		if got := string(newFilter(regexp.MustCompile(expr)).literal); got != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
