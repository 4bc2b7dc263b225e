package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/utils/keyed"
)

const (
	pingQueue   = 1024 // pings that may wait
	pingWorkers = 4
)

// keepDecoded is how many events wait as they are; beyond it only their frames wait, which are half as large.
const keepDecoded = 64

// job is an event that waits or runs.
type job struct {
	ev      *wire.Event // nil if frame is kept instead
	frame   []byte
	arrived time.Time
	size    int64
}

// event returns the event, which was whole when it came.
func (j *job) event() *wire.Event {
	if j.ev == nil {
		j.ev, _ = wire.DecodeEvent(j.frame)
		j.frame = nil
	}
	return j.ev
}

// dispatcher carries events from the reader to the router's handlers and their replies to the outbox.
type dispatcher struct {
	log    logrus.FieldLogger
	router *Router
	outbox *outbox
	counts *counters
	lane   *lane
	cfg    *Config

	// fleeting sends a reply that is not waited for: to a ping, of progress, to an event without an id. It may block
	// while the connection is slow, but not beyond its end; progress must not block, and is dropped instead.
	fleeting func(ev *wire.Event, reply *wire.Reply, mayBlock bool)
	// handBack reports whether events that are not answered come again by themselves: a Drover server keeps them.
	handBack func() bool

	queue *keyed.Queue[*job]
	pings chan *job

	mu       sync.Mutex
	flying   map[uint64]struct{} // guarded by mu, as is the rest; hashes of ids that wait, run, or are on their way to the journal
	queued   int
	bytes    int64
	workers  int
	pingers  int
	closed   bool           // to events
	deaf     bool           // to pings too
	finished sync.WaitGroup // workers
	pinging  sync.WaitGroup

	work   context.Context // of handlers
	cancel context.CancelFunc
}

func newDispatcher(cfg *Config, counts *counters, o *outbox) *dispatcher {
	d := &dispatcher{
		log: cfg.Log, router: cfg.Router, outbox: o, counts: counts, lane: newLane(), cfg: cfg,
		queue: keyed.NewQueue[*job](), pings: make(chan *job, pingQueue), flying: map[uint64]struct{}{},
	}
	d.work, d.cancel = context.WithCancel(context.Background())
	return d
}

// submit takes an event from the reader, decoded and as it came. It never blocks. It keeps neither frame nor ev.Data,
// which are the reader's.
func (d *dispatcher) submit(ev *wire.Event, frame []byte) {
	d.counts.events.Add(1)
	if ev.Name == wire.NamePing || strings.HasPrefix(ev.Name, wire.NamePing+";") {
		d.submitPing(ev)
		return
	}
	j := &job{arrived: time.Now(), size: int64(len(frame)) + 256}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		d.refuseLocked(ev)
		return
	}
	id := d.outbox.hash(ev.ID)
	if _, ok := d.flying[id]; ok {
		d.counts.joined.Add(1)
		return
	}
	switch d.outbox.lookup(ev) {
	case offered, repeated:
		d.counts.repeated.Add(1)
		return
	case buried:
		d.counts.repeated.Add(1)
		d.pass(ev, wire.CodeConflict, "this event was answered before; its reply is not kept any longer, and it did not run again")
		return
	}
	if d.queued >= d.cfg.QueueEvents || d.bytes+j.size > d.cfg.QueueBytes && d.queued > 0 {
		d.counts.busy.Add(1)
		d.pass(ev, wire.CodeBusy, fmt.Sprintf("the agent is busy: %d events wait; try again later", d.queued))
		return
	}
	if d.queued < keepDecoded {
		ev.Data = bytes.Clone(ev.Data)
		j.ev = ev
	} else {
		j.frame = bytes.Clone(frame)
	}
	d.flying[id] = struct{}{}
	d.queued++
	d.bytes += j.size
	if d.queue.Push(ev.Key(), j) && d.workers < d.cfg.Workers {
		d.workers++
		d.finished.Go(d.worker)
	}
}

func (d *dispatcher) submitPing(ev *wire.Event) {
	if ev.ReplyTo == "" {
		d.counts.keepAlives.Add(1)
		return
	}
	d.counts.pings.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		return
	}
	if len(d.pings) > 0 && d.pingers < pingWorkers || d.pingers == 0 {
		d.pingers++
		d.pinging.Go(d.pinger)
	}
	ev.Data = bytes.Clone(ev.Data)
	select {
	case d.pings <- &job{ev: ev, arrived: time.Now()}:
	default:
		d.counts.busy.Add(1)
		d.fleeting(ev, wire.NewErrorReply(ev, wire.CodeBusy, "the agent is busy: too many pings wait"), false)
	}
}

// malformed answers a frame that could not be read, as far as its sender can be told.
func (d *dispatcher) malformed(ev *wire.Event, err error) {
	d.counts.malformed.Add(1)
	d.log.WithError(err).WithFields(logrus.Fields{"event": ev.ID, "name": ev.Name}).Warn("malformed event")
	if ev.ReplyTo == "" {
		return
	}
	if ev.ID == "" {
		d.fleeting(ev, wire.NewErrorReply(ev, wire.CodeInvalid, err.Error()), false)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.flying[d.outbox.hash(ev.ID)]; !ok && d.outbox.lookup(ev) == unknown { // a whole copy of it has its own answer
		d.pass(ev, wire.CodeInvalid, err.Error())
	}
}

// pass answers an event that does not run.
func (d *dispatcher) pass(ev *wire.Event, code, text string) {
	if ev.ReplyTo != "" {
		d.counts.replies.Add(1)
		d.outbox.pass(ev, wire.NewErrorReply(ev, code, text), d.deadline(ev, time.Now()))
	}
}

// deadline says until when the reply to ev is worth sending.
func (d *dispatcher) deadline(ev *wire.Event, arrived time.Time) time.Time {
	byEvent, byUs := arrived.Add(d.router.timeout(ev)), time.Now().Add(d.cfg.ReplyTTL)
	if byEvent.After(byUs) {
		return byEvent
	}
	return byUs
}

func (d *dispatcher) worker() {
	for {
		t, err := d.queue.Pop(d.work)
		if err != nil {
			return
		}
		j := t.Value
		d.mu.Lock()
		d.queued--
		d.bytes -= j.size
		d.mu.Unlock()
		d.counts.running.Add(1)
		d.run(j)
		d.counts.running.Add(-1)
		t.Done()
	}
}

func (d *dispatcher) run(j *job) {
	ctx, ev := d.work, j.event()
	if strings.HasPrefix(ev.Name, "compute.instance.") && d.cfg.Serialize() {
		ctx = context.WithValue(ctx, laneKey{}, d.lane)
	}
	p := &progress{ev: ev, send: d.progress}
	reply := d.router.serve(ctx, ev, j.arrived, p)
	p.finish()
	if d.work.Err() != nil && reply.Code == wire.CodeUnavailable && d.handBack() {
		d.settle(ev.ID) // it was interrupted, and comes again
		return
	}
	d.counts.replies.Add(1)
	d.outbox.answer(ev, reply, d.deadline(ev, j.arrived))
	d.settle(ev.ID)
}

func (d *dispatcher) settle(id string) {
	d.mu.Lock()
	delete(d.flying, d.outbox.hash(id))
	d.mu.Unlock()
}

func (d *dispatcher) progress(ev *wire.Event, reply *wire.Reply) {
	if ev.ReplyTo != "" {
		d.counts.progress.Add(1)
		d.fleeting(ev, reply, false)
	}
}

func (d *dispatcher) pinger() {
	for j := range d.pings {
		d.counts.running.Add(1)
		reply := d.router.serve(d.work, j.ev, j.arrived, noProgress{})
		d.counts.running.Add(-1)
		d.counts.replies.Add(1)
		d.fleeting(j.ev, reply, true)
	}
}

// drain takes no more events, but still pings, and waits until those that wait and run are done, or ctx ends. Those that still run then
// are cancelled and get grace to end; those that still wait are handed back. It reports whether every handler ended.
func (d *dispatcher) drain(ctx context.Context, grace time.Duration) bool {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.queue.Close()

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.finished.Wait()
		d.mu.Lock()
		d.deaf = true
		close(d.pings)
		d.mu.Unlock()
		d.pinging.Wait()
	}()
	select {
	case <-ended:
		d.cancel()
		return true
	case <-ctx.Done():
	}
	d.cancel()
	waiting := d.queue.Drain()
	d.mu.Lock()
	for _, j := range waiting {
		d.refuseLocked(j.event())
	}
	d.queued, d.bytes = 0, 0
	d.mu.Unlock()
	if len(waiting) > 0 {
		d.log.WithField("events", len(waiting)).Warn("shutting down with events that did not run")
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-ended:
		return true
	case <-t.C:
		return false
	}
}

// drained reports whether drain was called.
func (d *dispatcher) drained() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// refuseLocked hands back an event that will not run: a Drover server delivers it again, another is told at once.
func (d *dispatcher) refuseLocked(ev *wire.Event) {
	if !d.handBack() {
		d.pass(ev, wire.CodeUnavailable, "the agent is shutting down; try again later")
	}
}

// load returns how much waits.
func (d *dispatcher) load() (events int, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queued, d.bytes
}

// checkEvent says what makes an event of the server unusable, beyond what the decoder found.
func checkEvent(ev *wire.Event) error {
	switch {
	case ev.ID == "":
		return &wire.FieldError{Field: "id", Want: "a string", Got: "nothing"}
	case ev.Name == "":
		return &wire.FieldError{Field: "name", Want: "a string", Got: "nothing"}
	}
	return nil
}

var errSilent = errors.New("the link went silent")
