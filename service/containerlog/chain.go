package containerlog

import (
	"context"
	"sync"
	"time"
)

// ahead is how many files a follow opens before it has read up to them. An open file outlives its removal, so a slow
// reader loses nothing until dockerd has rotated that many times; it also keeps the space of that many files in use.
const ahead = 8

// A chain keeps track of the files that follow one another while somebody reads the first of them.
type chain struct {
	base string

	mu     sync.Mutex // guards the following
	files  []*logFile // opened and not yet taken, the oldest first
	newest fileID     // of the last file that is known
	broken bool       // nobody can say which file came after newest
}

// extend opens the files that appeared. It is cheap if there is none.
func (c *chain) extend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.files) < ahead && !c.broken {
		id, err := identifyName(c.base)
		if err != nil || id == c.newest {
			return // in the middle of a rotation, or none
		}
		l, err := successor(c.base, c.newest)
		if err != nil {
			c.broken = true
			return
		}
		c.files = append(c.files, l)
		c.newest = l.id
	}
}

// next hands over the next file, nil if there is none. broken says that some may be missing after the last one.
func (c *chain) next() (l *logFile, broken bool) {
	c.extend()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.files) == 0 {
		return nil, c.broken
	}
	l = c.files[0]
	c.files = c.files[1:]
	return l, false
}

// restart begins anew with the file id.
func (c *chain) restart(id fileID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	closeAll(c.files)
	c.files, c.newest, c.broken = nil, id, false
}

// track extends the chain whenever w says that something happened, or at each tick if w is nil, and passes it on to
// wake. It returns when ctx ends.
func (c *chain) track(ctx context.Context, w *watch, poll time.Duration, wake chan<- struct{}) {
	var changed <-chan struct{}
	var ticks <-chan time.Time
	if w != nil {
		changed = w.changed
	} else {
		t := time.NewTicker(poll)
		defer t.Stop()
		ticks = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-ticks:
		}
		select {
		case wake <- struct{}{}:
		default:
		}
		c.extend()
	}
}
