package containerlog

import (
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A hub shares one inotify instance among all follows: a host has only 128 of them by default. It is open while there
// is somebody to tell.
type hub struct {
	mu      sync.Mutex
	watcher *fsnotify.Watcher
	loop    chan struct{} // closed when the loop of watcher ended
	byDir   map[string]map[*watch]struct{}
}

// A watch tells one follow that something happened in the directory of its log.
type watch struct {
	hub  *hub
	dir  string
	base string

	changed chan struct{} // something happened; capacity 1
	other   atomic.Bool   // to a file that is none of the log's: dockerd wrote down a change of the container
}

// subscribe watches the directory of the file base. It fails where inotify does; the caller polls then.
func (h *hub) subscribe(base string) (*watch, error) {
	w := &watch{hub: h, dir: filepath.Dir(base), base: filepath.Base(base), changed: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watcher == nil {
		fw, err := fsnotify.NewWatcher()
		if err != nil {
			return nil, err
		}
		h.watcher, h.loop, h.byDir = fw, make(chan struct{}), map[string]map[*watch]struct{}{}
		go h.run(fw, h.loop)
	}
	set := h.byDir[w.dir]
	if set == nil {
		if err := h.watcher.Add(w.dir); err != nil {
			h.closeIfIdle()
			return nil, err
		}
		set = map[*watch]struct{}{}
		h.byDir[w.dir] = set
	}
	set[w] = struct{}{}
	return w, nil
}

// close ends the watch; the last one ends the inotify instance, and waits for its goroutine.
func (w *watch) close() {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	set := h.byDir[w.dir]
	delete(set, w)
	if len(set) == 0 {
		delete(h.byDir, w.dir)
		// The directory may be gone, and its watch with it.
		_ = h.watcher.Remove(w.dir)
	}
	h.closeIfIdle()
}

// closeIfIdle is called with mu held.
func (h *hub) closeIfIdle() {
	if len(h.byDir) > 0 || h.watcher == nil {
		return
	}
	fw, loop := h.watcher, h.loop
	h.watcher, h.loop = nil, nil
	_ = fw.Close()
	h.mu.Unlock() // the loop may be waiting for it
	<-loop
	h.mu.Lock()
}

// A container that writes without pause gives an event for each line. Above calmEvents within calmTime the hub takes
// breath for as long: whoever follows such a container has enough to read meanwhile.
const (
	calmEvents = 64
	calmTime   = 2 * time.Millisecond
)

func (h *hub) run(fw *fsnotify.Watcher, done chan<- struct{}) {
	defer close(done)
	started, events := time.Now(), 0
	for {
		select {
		case ev, ok := <-fw.Events:
			if !ok {
				return
			}
			h.tell(fw, filepath.Dir(ev.Name), filepath.Base(ev.Name))
		case _, ok := <-fw.Errors:
			if !ok {
				return
			}
			h.tellAll(fw) // events were lost: let everybody look
		}
		if events++; events < calmEvents {
			continue
		}
		if now := time.Now(); now.Sub(started) < calmTime {
			pause := time.NewTimer(calmTime)
			<-pause.C
		}
		started, events = time.Now(), 0
	}
}

func (h *hub) tell(fw *fsnotify.Watcher, dir, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watcher != fw {
		return
	}
	for w := range h.byDir[dir] {
		w.wake(!strings.HasPrefix(name, w.base))
	}
}

func (h *hub) tellAll(fw *fsnotify.Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watcher != fw {
		return
	}
	for _, set := range h.byDir {
		for w := range set {
			w.wake(true)
		}
	}
}

func (w *watch) wake(other bool) {
	if other {
		w.other.Store(true)
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
