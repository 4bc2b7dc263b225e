package logs

import (
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
		f.truncated = f.gen.truncated
		size = f.gen.size
	}
	w.mu.Unlock()
	if f.gen == nil {
		return f, nil
	}
	var err error
	f.offset, err = from(f.gen.file, size)
	return f, err
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
		f.watch.mu.Lock()
		changed, failed := f.watch.changed, f.watch.failed
		f.watch.mu.Unlock()
		if failed != nil {
			return failed
		}
		n, err := f.drain(ctx, pool, emit, note)
		if err != nil {
			return err
		}
		f.reached()
		if f.step(note) {
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
		case <-changed:
		}
	}
}

// drain emits what the file has beyond the offset.
func (f *follower) drain(ctx context.Context, pool *buffers, emit func([]byte) error, note func(string)) (total int64, err error) {
	if f.gen == nil {
		return 0, nil
	}
	f.watch.mu.Lock()
	size, truncated := f.gen.size, f.gen.truncated
	f.watch.mu.Unlock()
	if truncated != f.truncated {
		f.truncated, f.offset = truncated, 0
		note(noteTruncated)
	}
	if f.offset >= size && f.gen.next == nil {
		return 0, nil
	}
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	for ctx.Err() == nil {
		n, err := f.gen.file.ReadAt(*buf, f.offset)
		if n > 0 {
			f.offset += int64(n)
			total += int64(n)
			if eerr := emit((*buf)[:n]); eerr != nil {
				return total, eerr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, context.Cause(ctx)
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
	f.gen, f.offset, f.truncated = next, 0, next.truncated
	note(what)
	return true
}
