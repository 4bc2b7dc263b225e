package containerlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A follower yields what is added to a log after its history was read.
type follower struct {
	reader *Reader
	src    source
	file   *logFile // being read; owned
	scan   *scanner
	pipe   *pipeline

	chain   chain
	watch   *watch        // nil where there is no inotify
	wake    chan struct{} // something happened
	asked   time.Time     // when the container's state was last asked for
	rotated bool          // file is no longer the current one, and was not read since that was seen
	window  time.Time     // in which flushes are counted
	flushes int
	mark    []byte // the last bytes that were read, to recognise the file by
	ended   bool   // the container is
}

const (
	markSize = 32
	// A log that is flushed more often than maxFlushes in flushWindow grows faster than its viewer can be told of each
	// line: there are calm pauses then.
	maxFlushes  = 100
	flushWindow = 10 * time.Millisecond
	calm        = time.Millisecond
)

// start begins to keep track of the files, so that none is lost while the history is being read. stop ends it.
func (f *follower) start(ctx context.Context) (stop func()) {
	f.chain.base, f.chain.newest = f.src.base, f.file.id
	f.asked = time.Now()
	if !f.reader.deaf {
		if w, err := f.reader.hub.subscribe(f.src.base); err == nil {
			f.watch = w
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	f.wake = make(chan struct{}, 1)
	var tracker sync.WaitGroup
	tracker.Go(func() { f.chain.track(ctx, f.watch, f.reader.cfg.Poll, f.wake) })
	return func() {
		cancel()
		tracker.Wait()
		if f.watch != nil {
			f.watch.close()
		}
		f.chain.restart(fileID{}) // closes what was not taken
		f.file.close()
	}
}

// run follows until the container or ctx ends.
func (f *follower) run(ctx context.Context) error {
	f.ended = !f.src.status.Running
	for {
		if err := f.catchUp(); err != nil {
			if errors.Is(err, errEnough) {
				return f.pipe.end()
			}
			return err
		}
		if f.ended {
			return f.pipe.end()
		}
		if f.pipe.yielded {
			if f.hasty() {
				// So busy a log is flushed together with what comes in the next moment.
				if err := pause(ctx, calm); err != nil {
					return err
				}
				continue
			}
			if err := f.pipe.idle(); err != nil {
				return err
			}
		}
		if err := f.wait(ctx); err != nil {
			return err
		}
	}
}

// hasty counts a flush, and reports whether there were too many lately.
func (f *follower) hasty() bool {
	now := time.Now()
	if now.Sub(f.window) > flushWindow {
		f.window, f.flushes = now, 0
	}
	f.flushes++
	return f.flushes > maxFlushes
}

// catchUp reads to the end of the newest file.
func (f *follower) catchUp() error {
	if err := f.restartIfTruncated(); err != nil {
		return err
	}
	for {
		if err := f.pipe.drain(f.scan, 0); err != nil {
			return err
		}
		if id, err := identifyName(f.src.base); err != nil || id == f.file.id {
			f.remember()
			return nil // or in the middle of a rotation: there will be another notice
		}
		if !f.rotated {
			// What was written between our last read and the rotation is read first.
			f.rotated = true
			continue
		}
		f.rotated = false
		next, broken := f.chain.next()
		switch {
		case next != nil:
			f.enter(next)
		case broken:
			if err := f.recover(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// enter goes on with l from its beginning.
func (f *follower) enter(l *logFile) {
	f.file.close()
	f.file, f.mark = l, nil
	f.scan.reset(f.scan.format, l.f, l.id, 0)
}

// recover goes on by time where the chain of files is broken.
func (f *follower) recover() error {
	files, err := openSet(f.src.base, math.MaxInt)
	if err != nil {
		return explainOpen(err)
	}
	last := f.pipe.last
	segments, err := planSince(f.src, files, last-margin.Nanoseconds())
	if err != nil {
		closeAll(files)
		return err
	}
	since := f.pipe.since
	f.pipe.since = max(since, last+1)
	f.pipe.gapUnless = last // told if not even the first record is as old
	for _, seg := range segments {
		var in io.Reader
		if in, err = seg.file.reader(seg.off); err != nil {
			err = explainOpen(err)
			break
		}
		f.scan.reset(f.scan.format, in, seg.file.id, seg.off)
		if err = f.pipe.drain(f.scan, 0); err != nil {
			break
		}
	}
	f.pipe.since = since
	f.file.close()
	f.file, f.mark = files[len(files)-1], nil
	closeAll(files[:len(files)-1])
	f.chain.restart(f.file.id)
	return err
}

// restartIfTruncated sees copytruncate, and a dockerd that keeps one file only: the file is shorter than what was read
// of it, or holds something else there.
func (f *follower) restartIfTruncated() error {
	info, err := f.file.f.Stat()
	if err != nil {
		return explainOpen(err)
	}
	at := f.scan.off + int64(f.scan.pending())
	if info.Size() >= at && f.recognised(at) {
		return nil
	}
	if _, err := f.file.reader(0); err != nil {
		return explainOpen(err)
	}
	f.mark = nil
	f.scan.reset(f.scan.format, f.file.f, f.file.id, 0)
	return nil
}

func (f *follower) recognised(at int64) bool {
	if len(f.mark) == 0 {
		return true
	}
	var now [markSize]byte
	_, err := f.file.f.ReadAt(now[:], at-markSize)
	return err == nil && bytes.Equal(now[:], f.mark)
}

func (f *follower) remember() {
	at := f.scan.off + int64(f.scan.pending())
	if at < markSize {
		f.mark = nil
		return
	}
	b := make([]byte, markSize)
	if cap(f.mark) >= markSize {
		b = f.mark[:markSize]
	}
	if _, err := f.file.f.ReadAt(b, at-markSize); err != nil {
		b = nil
	}
	f.mark = b
}

// wait returns when there may be more to read, or when the container has ended.
func (f *follower) wait(ctx context.Context) error {
	every := netting
	if f.watch == nil {
		every = 4 * f.reader.cfg.Poll
	}
	t := time.NewTimer(every - time.Since(f.asked))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-f.wake:
		if f.watch == nil || !f.watch.other.Swap(false) {
			return nil
		}
	case <-t.C:
	}
	f.asked = time.Now()
	st, err := f.reader.cfg.Containers.State(ctx, f.src.status.ID)
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		f.ended = true
	case err != nil: // the engine is away: the file is not
	case !st.Running:
		f.ended = true
	case !st.StartedAt.Equal(f.src.status.StartedAt):
		f.ended = true
		f.pipe.endBefore(st.StartedAt) // what the next run says is another log
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
