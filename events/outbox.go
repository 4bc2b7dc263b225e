package events

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/utils/keyed"
)

// outbox holds final replies from when they are made until the server has them, and remembers what was answered. What
// is to be sent next waits in queue, for whoever holds a connection.
type outbox struct {
	log    logrus.FieldLogger
	counts *counters
	queue  *keyed.Queue[*entry]
	seed   maphash.Seed
	seq    atomic.Uint64

	mu          sync.Mutex
	journal     *journal          // nil until open
	pending     map[uint64]*entry // by hash of the event's id
	oldest      *entry
	newest      *entry
	bytes       int64             // of pending
	limit       int64             // of bytes
	cached      int64             // of pending, in memory and in the journal
	unstored    int64             // of pending, in memory alone
	answered    map[uint64]uint64 // hash of the event's id -> seq, of what was taken
	kept        fifo[keptReply]
	keptAt      map[uint64]keptReply // by seq
	keptSize    int64
	keptLimit   int64
	graves      fifo[grave]
	waiting     map[*entry]struct{}
	dropReplies []uint64 // that are of no use in the bbolt file any more
	dropDone    []uint64
	emptied     []chan struct{}
	connected   bool          // to a server that should take replies
	room        chan struct{} // closed when bytes fell below window; nil while nobody waits

	complained time.Time // of a failing journal

	dirty chan struct{} // there is something to look after
	quit  chan struct{} // asks run to end
	gone  chan struct{} // it did
}

func newOutbox(log logrus.FieldLogger, counts *counters) *outbox {
	return &outbox{
		log: log, counts: counts, queue: keyed.NewQueue[*entry](), seed: maphash.MakeSeed(),
		pending: map[uint64]*entry{}, answered: map[uint64]uint64{}, waiting: map[*entry]struct{}{},
		keptAt: map[uint64]keptReply{}, dirty: make(chan struct{}, 1),
		quit: make(chan struct{}), gone: make(chan struct{}),
	}
}

func (o *outbox) hash(id string) uint64 { return maphash.String(o.seed, id) }

// open brings in what an earlier process left. It must be called once, before anything else.
func (o *outbox) open(ctx context.Context, path string) error {
	j, replies, done, err := openJournal(ctx, path, o.log)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.journal, o.limit, o.keptLimit = j, maxPendingBytes, maxKept
	if !j.disk {
		o.limit, o.keptLimit = maxMemoryBytes, maxKeptMemory
	}
	o.answered = make(map[uint64]uint64, len(done))
	taken := make(map[uint64]*tombstone, len(done))
	last := uint64(0)
	for i := range done {
		t := &done[i]
		taken[t.seq] = t
		last = max(last, t.seq)
		o.buryLocked(t.seq, o.hash(t.id), t.at)
	}
	var kept []keptReply
	for i := range replies {
		r := &replies[i]
		last = max(last, r.seq)
		switch t := taken[r.seq]; {
		case t == nil:
			o.addLocked(&entry{record: r.record, stored: true, place: r.place})
		case r.place.inBolt():
			o.dropReplies = append(o.dropReplies, r.seq)
		default:
			kept = append(kept, keptReply{seq: r.seq, size: r.size, at: t.at, place: r.place})
		}
	}
	for _, k := range kept[max(0, len(kept)-maxKeptCount):] {
		o.keepLocked(k)
	}
	o.seq.Store(last)
	o.evictLocked(time.Now())
	if n := len(o.pending); n > 0 {
		o.log.WithField("replies", n).Info("replies of an earlier run are still to be taken")
	}
	return nil
}

// verdict says what is known of an event.
type verdict uint8

const (
	unknown  verdict = iota
	offered          // answered, and the reply is on its way
	repeated         // answered, and the kept reply was put on its way again
	buried           // answered, and the reply is kept no more
)

// lookup looks for an answer to ev, and sends it again where there is one.
func (o *outbox) lookup(ev *wire.Event) verdict {
	h := o.hash(ev.ID)
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.pending[h]; e != nil && e.id == ev.ID {
		switch {
		case e.kind == kindPassing: // it was told to come again, and here it is
			o.removeLocked(e)
			return unknown
		case e.state == stateSent && time.Since(e.sentAt) > crossing:
			o.requeueLocked(e)
			return repeated
		case e.state == stateWaiting:
			o.wakeLocked(e)
		}
		return offered
	}
	seq, ok := o.answered[h]
	if !ok {
		return unknown
	}
	k, ok := o.keptAt[seq]
	if !ok {
		return buried
	}
	frame, err := o.journal.get(k.place, seq, k.size)
	if err != nil {
		return buried
	}
	r, err := decodeRecord(frame)
	if err != nil || r.id != ev.ID {
		return buried
	}
	r.frame, r.key, r.deadline = frame, laneOf(ev), time.Now().Add(time.Hour)
	o.addLocked(&entry{record: r, kind: kindRepeat})
	return repeated
}

// answer puts the final reply to ev on record and queues it. Calls for one key must come one after the other. Where a
// server that is connected is far behind, it waits for a while first: what is not answered yet waits better as an event
// than as a reply.
func (o *outbox) answer(ev *wire.Event, reply *wire.Reply, deadline time.Time) {
	if ev.ReplyTo == "" { // there is nothing to send, only the fact to remember
		now := time.Now()
		t := &tombstone{seq: o.seq.Add(1), id: ev.ID, at: now, failed: reply.Transitioning == wire.TransitioningError}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.buryLocked(t.seq, o.hash(t.id), now)
		o.journal.note(t)
		o.evictLocked(now)
		o.touchLocked()
		return
	}
	o.awaitRoom()
	e := &entry{record: newRecord(o.seq.Add(1), laneOf(ev), reply, deadline)}
	var err error
	e.place, err = o.journal.put(e.frame)
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.stored = err == nil; !e.stored {
		o.complainLocked(err)
	}
	o.addLocked(e)
}

func (o *outbox) complainLocked(err error) {
	o.counts.journalFailures.Add(1)
	if time.Since(o.complained) > 10*time.Second {
		o.complained = time.Now()
		o.log.WithError(err).Error("the journal cannot be written; replies are sent from memory")
	}
}

func (o *outbox) awaitRoom() {
	var patience *time.Timer
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.connected && o.bytes > window {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		if patience == nil {
			patience = time.NewTimer(windowWait)
			defer patience.Stop()
		}
		o.mu.Unlock()
		expired := false
		select {
		case <-room:
		case <-patience.C:
			expired = true
		case <-o.gone:
			expired = true
		}
		o.mu.Lock()
		if expired {
			return
		}
	}
}

// pass offers a reply that is not worth the journal. It never blocks.
func (o *outbox) pass(ev *wire.Event, reply *wire.Reply, deadline time.Time) {
	r := newRecord(o.seq.Add(1), laneOf(ev), reply, deadline)
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.pending[o.hash(r.id)]; e != nil && e.id == r.id {
		return // it has an answer already
	}
	o.addLocked(&entry{record: r, kind: kindPassing})
}

// laneOf returns the key under which the replies to ev are sent one after the other: that of its resource, or its own.
func laneOf(ev *wire.Event) string {
	if key := ev.Key(); key != "" {
		return key
	}
	return "#" + ev.ID
}

// once offers body a single time to a server that takes replies by POST. It reports whether there was room.
func (o *outbox) once(key string, body []byte) bool {
	if o.queue.Len() >= maxPending {
		return false
	}
	o.queue.Push(key, &entry{kind: kindOnce, record: record{key: key, frame: body}})
	return true
}

// addLocked makes e pending and queues it.
func (o *outbox) addLocked(e *entry) {
	h := o.hash(e.id)
	if other := o.pending[h]; other != nil {
		o.removeLocked(other) // one event has one answer
	}
	e.listed = true
	o.pending[h] = e
	if e.older = o.newest; e.older != nil {
		e.older.newer = e
	} else {
		o.oldest = e
	}
	o.newest = e
	o.bytes += int64(e.size)
	o.accountLocked(e, 1)
	if e.stored && o.cached > maxCached {
		o.dropFrameLocked(e)
	}
	e.state = stateQueued
	o.queue.Push(e.key, e)
	for o.oldest != e && (len(o.pending) > maxPending || o.bytes > o.limit) || o.unstored > maxUnstored && o.oldestUnstoredLocked() != e {
		victim := o.oldest
		if o.unstored > maxUnstored {
			victim = o.oldestUnstoredLocked()
		}
		o.expireLocked(victim, "too many replies wait for the server")
	}
	o.touchLocked()
}

func (o *outbox) oldestUnstoredLocked() *entry {
	for e := o.oldest; e != nil; e = e.newer {
		if !e.stored {
			return e
		}
	}
	return nil
}

// accountLocked adds (1) or takes away (-1) the memory that e holds.
func (o *outbox) accountLocked(e *entry, sign int64) {
	switch {
	case !e.stored:
		o.unstored += sign * int64(len(e.frame))
	default:
		o.cached += sign * int64(len(e.frame))
	}
}

// dropFrameLocked frees the memory of a reply that the journal has.
func (o *outbox) dropFrameLocked(e *entry) {
	if e.stored && e.frame != nil {
		o.accountLocked(e, -1)
		e.frame = nil
	}
}

// removeLocked makes e pending no more.
func (o *outbox) removeLocked(e *entry) {
	if !e.listed {
		return
	}
	e.listed = false
	delete(o.pending, o.hash(e.id))
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		o.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		o.newest = e.older
	}
	e.older, e.newer = nil, nil
	o.bytes -= int64(e.size)
	if o.bytes <= window {
		o.makeRoomLocked()
	}
	o.accountLocked(e, -1)
	e.frame = nil
	if e.state == stateWaiting {
		o.wakeLocked(e) // whoever takes it out of the queue sees that it is gone
	}
	e.state = stateGone
	if o.oldest == nil {
		for _, c := range o.emptied {
			close(c)
		}
		o.emptied = nil
	}
}

func (o *outbox) makeRoomLocked() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// setConnected says whether there is a server that should take replies.
func (o *outbox) setConnected(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.connected = on
	if !on {
		o.makeRoomLocked()
	}
}

// taken notes that the server has the replies to these events.
func (o *outbox) taken(ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for _, id := range ids {
		if e := o.pending[o.hash(id)]; e != nil && e.id == id {
			o.counts.taken.Add(1)
			o.finishLocked(e, now)
		}
	}
}

// finishLocked ends e and remembers that its event was answered.
func (o *outbox) finishLocked(e *entry, now time.Time) {
	o.removeLocked(e)
	if e.kind != kindFinal {
		return
	}
	o.buryLocked(e.seq, o.hash(e.id), now)
	o.journal.note(&tombstone{seq: e.seq, id: e.id, at: now, failed: e.failed})
	switch {
	case !e.stored:
	case e.place.inBolt():
		o.dropReplies = append(o.dropReplies, e.seq)
	default:
		o.keepLocked(keptReply{seq: e.seq, size: e.size, at: now, place: e.place})
	}
	o.evictLocked(now)
	o.touchLocked()
}

func (o *outbox) buryLocked(seq, hash uint64, at time.Time) {
	o.answered[hash] = seq
	o.graves.push(grave{seq: seq, hash: hash, at: at})
}

func (o *outbox) keepLocked(k keptReply) {
	o.kept.push(k)
	o.keptAt[k.seq] = k
	o.keptSize += int64(k.size)
}

// evictLocked forgets the oldest of what is over the budgets.
func (o *outbox) evictLocked(now time.Time) {
	for o.kept.len() > 0 && (o.keptSize > o.keptLimit || o.kept.len() > maxKeptCount || now.Sub(o.kept.first().at) > maxKeptAge) {
		k := o.kept.pop()
		delete(o.keptAt, k.seq)
		o.keptSize -= int64(k.size)
	}
	for o.graves.len() > 0 && (o.graves.len() > maxTombstones || now.Sub(o.graves.first().at) > maxTombstoneAge) {
		g := o.graves.pop()
		if o.answered[g.hash] == g.seq {
			delete(o.answered, g.hash)
		}
		if len(o.dropDone) < 4*maxTombstones { // the rest goes with the next start
			o.dropDone = append(o.dropDone, g.seq)
		}
	}
}

// expireLocked gives e up.
func (o *outbox) expireLocked(e *entry, why string) {
	o.counts.expired.Add(1)
	o.log.WithFields(logrus.Fields{"event": e.id, "resource": e.key}).Warn("a reply is given up: " + why)
	o.finishLocked(e, time.Now())
}

// touchLocked tells the committer that there is something to look after.
func (o *outbox) touchLocked() {
	select {
	case o.dirty <- struct{}{}:
	default:
	}
}

// flush waits until the server took everything, ctx ends, or hopeless is closed.
func (o *outbox) flush(ctx context.Context, hopeless <-chan struct{}) {
	o.mu.Lock()
	if o.oldest == nil {
		o.mu.Unlock()
		return
	}
	c := make(chan struct{})
	o.emptied = append(o.emptied, c)
	o.mu.Unlock()
	select {
	case <-c:
	case <-hopeless:
	case <-ctx.Done():
	}
}

// stop lets run write what is left and end.
func (o *outbox) stop() { close(o.quit) }

// unsent returns how many replies the server has not taken.
func (o *outbox) unsent() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending)
}
