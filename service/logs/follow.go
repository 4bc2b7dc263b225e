package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// A follower reads one followed name from an offset on, across rotation and truncation.
type follower struct {
	watch     *watch
	gen       *generation
	offset    int64
	truncated int
	touched   int
	told      bool // of the file that took the name

	// The bytes before offset. That they are still there tells a file that has grown from one that was truncated and
	// has outgrown its old size since.
	mark    [64]byte
	markLen int
}

// Notes of a follower, for people.
const (
	noteReplaced  = "has been replaced;  following new file"
	noteAppeared  = "has appeared;  following new file"
	noteTruncated = "file truncated"
)

// newFollower takes hold of the current file. from chooses the offset to begin at, given the file and its size.
func newFollower(w *watch, from func(f io.ReaderAt, size int64) (int64, error)) (*follower, error) {
	f := &follower{watch: w}
	w.mu.Lock()
	f.gen = w.current
	var size int64
	if f.gen != nil {
		f.gen.refs++
		f.truncated, f.touched = f.gen.truncated, f.gen.touched
		size = f.gen.size
	}
	w.mu.Unlock()
	if f.gen == nil {
		return f, nil
	}
	var err error
	if f.offset, err = from(f.gen.file, size); err != nil {
		return f, err
	}
	n := min(f.offset, int64(len(f.mark)))
	if k, err := f.gen.file.ReadAt(f.mark[:n], f.offset-n); err == nil {
		f.markLen = k
	}
	return f, nil
}

func (f *follower) close() {
	f.watch.mu.Lock()
	f.watch.unref(f.gen)
	f.watch.mu.Unlock()
	f.watch.release()
}

// buffers are lent to followers while there is something to read, so that idle ones cost none.
type buffers struct{ sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}}
}

// run calls emit with what is new until ctx ends, nothing came for idle, or emit fails. note gets what happened to the
// file. emit's bytes are valid during the call.
func (f *follower) run(ctx context.Context, pool *buffers, idle time.Duration, emit func([]byte) error, note func(string)) error {
	var timer *time.Timer
	var expired <-chan time.Time
	if idle > 0 {
		timer = time.NewTimer(idle)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		// Ask for the change channel first: what changes after the read below closes it.
		now := f.look()
		if now.failed != nil {
			return now.failed
		}
		n, err := f.drain(ctx, now, pool, emit, note)
		if err != nil {
			return err
		}
		f.reached()
		if now.replaced && !f.told {
			f.told = true
			note(noteReplaced)
		}
		// Only what was given up before the read above is read to its end.
		if (f.gen == nil || now.givenUp) && f.step(note) {
			continue
		}
		if n > 0 && timer != nil {
			timer.Reset(idle)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-expired:
			return &LimitError{Key: "app.logs.idle-timeout", Limit: idle.String()}
		case <-now.changed:
		}
	}
}

// A glance is what a follower knows of its file at one moment.
type glance struct {
	changed   chan struct{}
	failed    error
	size      int64
	truncated int
	touched   int
	replaced  bool // another file has the name
	givenUp   bool // and nobody writes to this one any more
}

func (f *follower) look() glance {
	w := f.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	g := glance{changed: w.changed, failed: w.failed}
	if f.gen != nil {
		g.size, g.truncated, g.touched = f.gen.size, f.gen.truncated, f.gen.touched
		g.replaced = f.gen.next != nil
		g.givenUp = g.replaced && w.fading != f.gen
	}
	return g
}

// drain emits what the file has beyond the offset.
func (f *follower) drain(ctx context.Context, now glance, pool *buffers, emit func([]byte) error, note func(string)) (total int64, err error) {
	if f.gen == nil {
		return 0, nil
	}
	if now.truncated != f.truncated {
		f.truncated = now.truncated
		f.restart(note)
	}
	if f.offset >= now.size && now.touched == f.touched && !now.replaced {
		return 0, nil
	}
	f.touched = now.touched
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	for ctx.Err() == nil {
		n, err := f.gen.file.ReadAt(*buf, f.offset-int64(f.markLen))
		if err != nil && !errors.Is(err, io.EOF) {
			return total, err
		}
		if n < f.markLen || !bytes.Equal((*buf)[:f.markLen], f.mark[:f.markLen]) {
			f.outgrown()
			f.restart(note)
			continue
		}
		if fresh := (*buf)[f.markLen:n]; len(fresh) > 0 {
			f.offset += int64(len(fresh))
			total += int64(len(fresh))
			f.markLen = copy(f.mark[:], (*buf)[max(0, n-len(f.mark)):n])
			if eerr := emit(fresh); eerr != nil {
				return total, eerr
			}
		}
		if err != nil {
			return total, nil
		}
	}
	return total, context.Cause(ctx)
}

// restart begins the file anew.
func (f *follower) restart(note func(string)) {
	f.offset, f.markLen = 0, 0
	note(noteTruncated)
}

// outgrown tells the watch of a truncation that it has not seen, unless it or another follower has by now.
func (f *follower) outgrown() {
	f.watch.mu.Lock()
	defer f.watch.mu.Unlock()
	if f.truncated == f.gen.truncated {
		f.gen.truncated++
		f.gen.read = 0
		if fi, err := f.gen.file.Stat(); err == nil {
			f.gen.size = fi.Size()
		}
		f.watch.broadcast()
	}
	f.truncated = f.gen.truncated
}

// reached tells the watch how far the file was read, so that a truncation below it is seen.
func (f *follower) reached() {
	if f.gen == nil {
		return
	}
	f.watch.mu.Lock()
	defer f.watch.mu.Unlock()
	if f.truncated == f.gen.truncated {
		f.gen.read = max(f.gen.read, f.offset)
	}
}

// step goes on to the file that took the name, if there is one, after the old one was drained.
func (f *follower) step(note func(string)) bool {
	f.watch.mu.Lock()
	defer f.watch.mu.Unlock()
	next, what := f.watch.current, noteAppeared
	if f.gen != nil {
		next, what = f.gen.next, noteReplaced
	}
	if next == nil {
		return false
	}
	next.refs++
	f.watch.unref(f.gen)
	f.gen, f.offset, f.markLen, f.truncated, f.touched = next, 0, 0, next.truncated, next.touched
	if !f.told {
		note(what)
	}
	f.told = false
	return true
}
