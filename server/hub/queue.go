package hub

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/droverhq/drover/events/wire"
)

const (
	// A Drover agent queues by itself, but not without end; an original one drops what comes while its 250 workers are
	// busy, pings too, so far fewer may be under way.
	windowDrover   = 512
	windowOriginal = 100

	maxEvents     = 32 << 10 // that wait for one agent
	maxEventBytes = 64 << 20
)

// An outcome is how a Call ends: a final reply or an error.
type outcome struct {
	reply *wire.Reply
	err   error
}

// A waiter is a Call that waits.
type waiter struct {
	done     chan outcome     // capacity 1
	progress chan *wire.Reply // what does not fit is left out
}

// A pending is an event without a final reply.
type pending struct {
	id, key, name string
	frame         json.RawMessage // the event as it goes over the wire
	period        time.Duration   // by which progress extends the deadline
	answered      bool            // a final reply is expected; false: Send
	foreign       bool            // it comes from the store's queue or another replica

	// guarded by the agent's mu
	durable  bool   // it belongs in the queue of the store, unless it is answered at once
	origin   uint32 // the replica that passed it on; 0: none
	parked   string // the replica it was given to, which will say whether it is still open; "": it needs no say
	deadline time.Time
	seq      uint64    // in the store's queue
	order    uint64    // in which it came to this replica
	ready    bool      // it may be pushed
	storing  bool      // it is on its way into the store's queue
	stored   bool      // it is there
	home     bool      // it was given to this replica
	sent     bool      // pushed to the socket that is open now
	pushes   int       // how often it was pushed
	passed   time.Time // when it was passed to the replica that holds the agent; zero: it was not
	taken    bool      // that replica has it
	gone     bool      // has its outcome
	w        *waiter   // nil: nobody waits here
}

// resolve ends p for whoever waits. The caller holds the agent's mu and has taken p out of the queue.
func (p *pending) resolve(o outcome) {
	p.gone = true
	if p.w != nil {
		p.w.done <- o
		p.w = nil
	}
}

// A queue is the events of one agent: all of them by id, and in line those that may be pushed. The agent's mu guards it.
type queue struct {
	events map[string]*pending
	bytes  int
	count  uint64 // of events so far

	line     []*pending            // in order, ready or still being stored
	serial   bool                  // the agent drops an event for a resource that it is at work on
	keys     map[string][]*pending // serial: resources that an event is under way for, and what waits behind it
	turns    []*pending            // serial: their resource is kept for them
	inFlight int
	open     bool // connected, and what waited is in line
	shared   bool // other replicas may store events for the agent, and push them
	complete bool // all that is in the store's queue is here too

	settling map[string][]func(error) // answered, still in the store's queue; called when they are not any more
	replay   map[string]struct{}      // answered since a replay began; nil: none is under way
}

// add takes p in at the end of the line.
func (q *queue) add(p *pending) error {
	if len(q.events) >= maxEvents || q.bytes+len(p.frame) > maxEventBytes {
		return ErrFull
	}
	if q.events == nil {
		q.events = make(map[string]*pending)
	}
	q.count++
	p.order = q.count
	q.events[p.id] = p
	q.bytes += len(p.frame)
	if p.parked == "" {
		q.line = append(q.line, p)
	}
	return nil
}

// remove takes p out, wherever it is, and lets go what waited for it.
func (q *queue) remove(p *pending) {
	if q.events[p.id] != p {
		return
	}
	delete(q.events, p.id)
	q.bytes -= len(p.frame)
	if len(q.events) == 0 {
		q.events = nil // let a once large map go
	}
	p.gone = true // those in line are skipped by it
	if p.sent {
		q.left(p)
	}
}

// left takes note that p, which was pushed, is no longer under way.
func (q *queue) left(p *pending) {
	p.sent = false
	q.inFlight--
	if q.serial && p.key != "" {
		q.release(p.key)
	}
}

// release gives a resource to the first that waits for it.
func (q *queue) release(key string) {
	behind := q.keys[key]
	for len(behind) > 0 && behind[0].gone {
		behind = behind[1:]
	}
	if len(behind) == 0 {
		delete(q.keys, key)
		return
	}
	q.turns = append(q.turns, behind[0])
	q.keys[key] = behind[1:]
}

// next returns the event to push next, and marks it as under way; nil if there is none or the window is full.
func (q *queue) next() *pending {
	window := windowDrover
	if q.serial {
		window = windowOriginal
	}
	if !q.open || q.inFlight >= window {
		return nil
	}
	p := q.nextTurn()
	if p == nil {
		p = q.nextInLine()
	}
	if p != nil {
		p.sent = true
		p.pushes++
		q.inFlight++
	}
	return p
}

func (q *queue) nextTurn() *pending {
	for len(q.turns) > 0 {
		p := q.turns[0]
		q.turns = q.turns[1:]
		if !p.gone {
			return p
		}
		q.release(p.key)
	}
	q.turns = nil
	return nil
}

func (q *queue) nextInLine() *pending {
	for len(q.line) > 0 {
		p := q.line[0]
		if !p.gone && !p.ready {
			return nil // it keeps its place until it is stored
		}
		q.line = q.line[1:]
		if p.gone {
			continue
		}
		if !q.serial || p.key == "" {
			return p
		}
		if behind, busy := q.keys[p.key]; busy {
			q.keys[p.key] = append(behind, p)
			continue
		}
		if q.keys == nil {
			q.keys = make(map[string][]*pending)
		}
		q.keys[p.key] = nil
		return p
	}
	q.line = nil
	return nil
}

// unpark puts in line what waits for the word of a replica that is gone, and reports whether there was anything.
func (q *queue) unpark(replica string) bool {
	found := false
	for _, p := range q.events {
		if p.parked == replica {
			p.parked = ""
			found = true
			q.line = append(q.line, p)
		}
	}
	slices.SortFunc(q.line, inOrder)
	return found
}

// connect prepares for a new socket: nothing is under way on it, and nothing is pushed before begin.
func (q *queue) connect(serial bool) {
	q.disconnect()
	q.serial = serial
	q.replay = make(map[string]struct{})
}

// begin puts everything in line that waits, in the order of the store's queue, and opens the line.
func (q *queue) begin() {
	q.realign()
	q.open = true
	q.complete = !q.shared
}

// realign forms the line anew.
func (q *queue) realign() {
	q.line, q.keys, q.turns, q.inFlight = nil, nil, nil, 0
	for _, p := range q.events {
		p.sent = false
		if p.parked == "" {
			q.line = append(q.line, p)
		}
	}
	slices.SortFunc(q.line, inOrder)
}

// inOrder compares events: those from the store's queue come first, in its order, and then those that were given to
// this replica, as they came. Only events of one replica have an order among each other.
func inOrder(a, b *pending) int {
	if a.foreign != b.foreign {
		if a.foreign {
			return -1
		}
		return 1
	}
	if a.foreign {
		return cmp.Or(cmp.Compare(a.seq-1, b.seq-1), cmp.Compare(a.order, b.order)) // passed on, not read: last
	}
	return cmp.Compare(a.order, b.order)
}

// disconnect closes the line. Where other replicas may be the next to push them, events that were not given to this
// one are forgotten: they are with the replica that they came from, or in the store's queue.
func (q *queue) disconnect() {
	q.open = false
	for _, p := range q.events {
		p.sent = false
		if q.shared && !p.home {
			q.remove(p)
		}
	}
	q.replay = nil
	q.realign()
}
