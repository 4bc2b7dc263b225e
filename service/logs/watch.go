package logs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollEvery is how often followed files are looked at where inotify says nothing: on network file systems, through
// overlays, and for links that are pointed elsewhere.
const pollEvery = time.Second

// fadeFor is how long a file that was replaced is read on while the new one is still empty: whoever writes keeps the
// old one open until it is told of the rotation.
const fadeFor = time.Minute

var errClosed = errors.New("the log service is stopping")

// watches holds what is followed now: each file is watched and open once, however many follow it.
type watches struct {
	jail Jail

	mu     sync.Mutex // guards the fields below
	byName map[string]*watch
	dirs   map[string]int // watched directories and how many watches need them
	notify *fsnotify.Watcher
	stop   context.CancelFunc
	done   chan struct{} // closed when the loop ended; nil while it does not run
	closed bool
}

func newWatches(jail Jail) *watches {
	return &watches{jail: jail, byName: map[string]*watch{}, dirs: map[string]int{}}
}

// A watch is one followed name and the files that it has named, oldest first: followers still drain old ones.
type watch struct {
	owner *watches
	name  string
	refs  int    // guarded by owner.mu
	dir   string // watched directory, "" if inotify is of no use; guarded by owner.mu

	mu      sync.Mutex    // guards the fields below
	changed chan struct{} // closed and replaced at every change
	current *generation   // nil while no file has the name
	fading  *generation   // the one before, while current is empty; may be nil
	fadeEnd time.Time
	failed  error // ends all followers
}

// A generation is one file that had the name. Its descriptor is shared: followers read it at offsets of their own.
type generation struct {
	file *os.File
	info fs.FileInfo

	// Guarded by the watch's mu.
	refs      int
	next      *generation // the file that took the name after this one
	size      int64       // at the last check
	read      int64       // furthest offset that a follower has reached since the last truncation
	truncated int         // how often the file became shorter
	modified  time.Time   // at the last check
	touched   int         // how often it was modified and is as long as before: it may be another file's content
}

// follow starts to follow name. The caller calls release.
func (w *watches) follow(name string) (*watch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errClosed
	}
	if have := w.byName[name]; have != nil {
		have.refs++
		return have, nil
	}
	f := &watch{owner: w, name: name, refs: 1, changed: make(chan struct{})}
	w.start()
	f.check()
	f.dir = w.watchDir(f)
	w.byName[name] = f
	return f, nil
}

// start runs the loop if it does not run yet. Callers hold mu.
func (w *watches) start() {
	if w.done != nil {
		return
	}
	// Without inotify (no instances left, no such file system) polling alone does the work.
	if n, err := fsnotify.NewWatcher(); err == nil {
		w.notify = n
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.done = cancel, make(chan struct{})
	go w.loop(ctx, w.notify, w.done)
}

// watchDir asks inotify for the directory that the file really is in. Callers hold mu.
func (w *watches) watchDir(f *watch) string {
	f.mu.Lock()
	g := f.current
	f.mu.Unlock()
	if w.notify == nil || g == nil {
		return ""
	}
	dir := filepath.Dir(g.realPath())
	if w.dirs[dir] == 0 {
		if err := w.notify.Add(dir); err != nil {
			return ""
		}
	}
	w.dirs[dir]++
	return dir
}

// release ends one follower's interest, and the watch with the last one.
func (f *watch) release() {
	w := f.owner
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.refs--; f.refs > 0 {
		return
	}
	delete(w.byName, f.name)
	if f.dir != "" {
		if w.dirs[f.dir]--; w.dirs[f.dir] == 0 {
			delete(w.dirs, f.dir)
			if w.notify != nil { // else the loop has ended, and its watches with it
				_ = w.notify.Remove(f.dir) // gone already if the directory is
			}
		}
	}
	f.mu.Lock()
	f.unref(f.fading)
	f.unref(f.current)
	f.current, f.fading = nil, nil
	f.mu.Unlock()
	if len(w.byName) == 0 {
		w.halt()
	}
}

// halt ends the loop and waits for it. Callers hold mu.
func (w *watches) halt() {
	if w.done == nil {
		return
	}
	w.stop()
	<-w.done
	w.done, w.notify = nil, nil
}

// close ends all followers and waits for the loop.
func (w *watches) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, f := range w.byName {
		f.mu.Lock()
		f.failed = errClosed
		f.broadcast()
		f.mu.Unlock()
	}
	w.halt()
	return nil
}

// loop turns notifications and ticks into checks. It takes mu only through TryLock-free copies of the table: halt
// waits for it under mu.
func (w *watches) loop(ctx context.Context, notify *fsnotify.Watcher, done chan struct{}) {
	defer close(done)
	var events chan fsnotify.Event
	var errs chan error
	if notify != nil {
		defer notify.Close()
		events, errs = notify.Events, notify.Errors
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-events:
			w.each(ctx, filepath.Dir(ev.Name))
		case <-errs:
			w.each(ctx, "") // an overflow: look at everything
		case <-tick.C:
			w.each(ctx, "")
		}
	}
}

// each checks the watches of a directory, or all for "".
func (w *watches) each(ctx context.Context, dir string) {
	for !w.mu.TryLock() { // whoever holds mu may be waiting for this very goroutine
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Microsecond):
		}
	}
	var list []*watch
	for _, f := range w.byName {
		if dir == "" || f.dir == dir {
			list = append(list, f)
		}
	}
	w.mu.Unlock()
	for _, f := range list {
		f.check()
	}
}

// check looks at the file and tells the followers if anything is new.
func (f *watch) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	news := false
	if g := f.current; g != nil {
		if fi, err := g.file.Stat(); err == nil {
			if fi.Size() < max(g.size, g.read) {
				g.truncated++
				g.read = 0
				news = true
			}
			if fi.Size() == g.size && !fi.ModTime().Equal(g.modified) {
				g.touched++
				news = true
			}
			news = news || fi.Size() != g.size
			g.size, g.modified = fi.Size(), fi.ModTime()
		}
	}
	if fi, err := f.owner.jail.StatFile(f.name); err == nil && (f.current == nil || !os.SameFile(fi, f.current.info)) {
		if file, err := f.owner.jail.Open(f.name); err == nil {
			f.advance(file)
			news = true
		}
	}
	if f.fade() {
		news = true
	}
	if news {
		f.broadcast()
	}
}

// fade looks at the file that was replaced, and lets go of it once the new one is written to. Callers hold f.mu.
func (f *watch) fade() (news bool) {
	g := f.fading
	if g == nil {
		return false
	}
	if fi, err := g.file.Stat(); err == nil && fi.Size() != g.size {
		g.size, news = fi.Size(), true
	}
	if f.current.size > 0 || time.Now().After(f.fadeEnd) {
		f.unref(g)
		f.fading, news = nil, true
	}
	return news
}

// advance makes file the current generation. Callers hold f.mu.
func (f *watch) advance(file *os.File) {
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return
	}
	next := &generation{file: file, info: info, size: info.Size(), modified: info.ModTime(), refs: 1}
	if old := f.current; old != nil {
		old.next = next
		next.refs++ // held by the link
		f.unref(f.fading)
		f.fading, f.fadeEnd = old, time.Now().Add(fadeFor)
	}
	f.current = next
}

// unref lets go of a generation; the last one closes it and lets go of its successor. Callers hold f.mu.
func (f *watch) unref(g *generation) {
	for g != nil {
		if g.refs--; g.refs > 0 {
			return
		}
		_ = g.file.Close() // only read from
		g = g.next
	}
}

// broadcast wakes all followers. Callers hold f.mu.
func (f *watch) broadcast() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// realPath is where the file is, past all links.
func (g *generation) realPath() string {
	p, err := os.Readlink("/proc/self/fd/" + itoa(int(g.file.Fd())))
	if err != nil {
		return g.file.Name()
	}
	return p
}
