package events

import (
	"sync"
	"time"

	"github.com/droverhq/drover/events/wire"
)

// progressEvery spaces the progress replies of one event.
const progressEvery = 250 * time.Millisecond

// progress sends what a handler reports: the first report at once, later ones at most every progressEvery, the last one
// wins, and none after finish. send is called under mu so that finish can promise that; it must not block.
type progress struct {
	ev   *wire.Event
	send func(*wire.Event, *wire.Reply)

	mu      sync.Mutex
	last    time.Time   // guarded by mu, as is the rest
	pending *wire.Reply // the report that waits
	timer   *time.Timer
	over    bool
}

func (p *progress) Report(message string, percent int) {
	p.queue(wire.NewProgressReply(p.ev, message, percent))
}

func (p *progress) queue(reply *wire.Reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	p.pending = reply
	wait := progressEvery - time.Since(p.last)
	switch {
	case p.timer != nil: // it is on its way
	case wait <= 0:
		p.flushLocked()
	default:
		p.timer = time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.timer = nil
			p.flushLocked()
		})
	}
}

func (p *progress) flushLocked() {
	if p.over || p.pending == nil {
		return
	}
	p.send(p.ev, p.pending)
	p.pending, p.last = nil, time.Now()
}

// finish drops what was not sent yet: the final reply says more.
func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.timer != nil {
		p.timer.Stop()
	}
}
