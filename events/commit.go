package events

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/droverhq/drover/events/wire"
)

// answer is the entry of a final reply to ev. settled is called once it is on record, and before it is offered a second
// time or its event's id can arrive unnoticed.
func answer(ev *wire.Event, reply *wire.Reply, deadline time.Time, settled func()) *entry {
	e := &entry{settled: settled, silent: ev.ReplyTo == ""}
	if e.silent {
		e.record = record{id: ev.ID, key: laneOf(ev), failed: reply.Transitioning == wire.TransitioningError}
		return e
	}
	e.record = *newRecord(0, laneOf(ev), reply, deadline)
	return e
}

// run writes what comes in to the journal, as many at once as have gathered, and then queues it to be sent. It returns
// when it is stopped and everything is written. It looks after what is pending meanwhile.
func (o *outbox) run(path string, resend time.Duration) {
	var syncing sync.WaitGroup
	stop := make(chan struct{})
	syncing.Go(func() { o.syncLoop(stop) })
	defer func() {
		close(o.gone)
		close(stop)
		syncing.Wait()
		if err := o.store.close(); err != nil {
			o.log.WithError(err).Error("closing the journal")
		}
	}()

	var soon, second <-chan time.Time // write changes; look after what is pending
	for {
		select {
		case e := <-o.in:
			o.write(o.gather(e), path)
		case <-o.quit:
			for len(o.in) > 0 {
				o.write(o.gather(<-o.in), path)
			}
			o.write(nil, path)
			return
		case <-o.dirty:
			if soon == nil {
				soon = time.After(100 * time.Millisecond)
			}
			if second == nil {
				second = time.After(time.Second)
			}
		case <-soon:
			soon = nil
			o.write(nil, path)
		case now := <-second:
			second = nil
			if o.tick(now, resend) {
				second = time.After(time.Second)
			}
		}
	}
}

// gather takes what else has come in, up to one transaction's worth.
func (o *outbox) gather(e *entry) []*entry {
	group := []*entry{e}
	for size := e.size; size < maxCommit && len(group) < cap(o.in); {
		select {
		case e := <-o.in:
			group = append(group, e)
			size += e.size
		default:
			return group
		}
	}
	return group
}

// enoughChanges is how many notes of what was taken make a transaction of replies take them along. Fewer wait for the
// next tick, because each costs a page of its own and none is worth more than a reply sent twice.
const enoughChanges = 64

// write puts group, or the changes that have gathered, into the journal. What cannot be written goes on from memory.
func (o *outbox) write(group []*entry, path string) {
	o.mu.Lock()
	var b batch
	s := o.store
	if len(group) == 0 || o.changes.len() >= enoughChanges {
		b, o.changes = o.changes, batch{}
	}
	for _, e := range group {
		if e.barrier {
			continue
		}
		o.seq++
		e.seq = o.seq
		if e.silent {
			b.done = append(b.done, tombstone{seq: e.seq, id: e.id, at: time.Now(), failed: e.failed})
		} else {
			b.put = append(b.put, &e.record)
		}
	}
	o.mu.Unlock()

	var err error
	if b.len() > 0 {
		if err = s.apply(&b); err != nil {
			s = o.failed(&b, err, s, path)
		} else {
			select {
			case o.unsynced <- struct{}{}:
			default:
			}
		}
	}

	o.mu.Lock()
	o.store = s
	now := time.Now()
	for _, e := range group {
		if e.barrier {
			continue
		}
		if e.silent {
			o.buryLocked(e.seq, o.hash(e.id), now)
			o.evictLocked(now)
			continue
		}
		e.stored = err == nil
		o.addLocked(e)
	}
	o.mu.Unlock()
	for _, e := range group {
		if e.settled != nil {
			e.settled()
		}
	}
}

// failed deals with a transaction that did not come about, and returns the store to go on with.
func (o *outbox) failed(b *batch, err error, s store, path string) store {
	o.counts.journalFailures.Add(1)
	if time.Since(o.complained) > 10*time.Second {
		o.complained = time.Now()
		o.log.WithError(err).WithField("replies", len(b.put)).Error("the journal cannot be written; replies are sent from memory")
	}
	if !errors.Is(err, errBroken) {
		// Chiefly a full disk: what is known stays known, and is written when there is room.
		o.mu.Lock()
		o.changes.done = append(b.done, o.changes.done...)
		o.changes.dropReplies = append(b.dropReplies, o.changes.dropReplies...)
		o.changes.dropDone = append(b.dropDone, o.changes.dropDone...)
		o.boundChangesLocked()
		o.mu.Unlock()
		return s
	}
	// The damaged file stays open: closing it may fault again, and its lock is of no use to anyone.
	if err := os.Rename(path, path+".damaged"); err != nil {
		o.log.WithError(err).Error("moving the damaged journal aside")
		return newMemoryStore()
	}
	fresh, _, _, err := openStore(context.Background(), path, o.log)
	if err != nil {
		return newMemoryStore()
	}
	return fresh
}

// boundChangesLocked forgets changes that cannot be written for long; they are but notes for after a restart.
func (o *outbox) boundChangesLocked() {
	c := &o.changes
	c.done = c.done[max(0, len(c.done)-maxTombstones):]
	c.dropReplies = c.dropReplies[max(0, len(c.dropReplies)-maxTombstones):]
	c.dropDone = c.dropDone[max(0, len(c.dropDone)-maxTombstones):]
}

// syncLoop makes what was written safe against power loss within a second.
func (o *outbox) syncLoop(stop <-chan struct{}) {
	for {
		select {
		case <-o.unsynced:
		case <-stop:
			return
		}
		wait := time.NewTimer(900 * time.Millisecond)
		select {
		case <-wait.C:
		case <-stop: // closing the store syncs it
			wait.Stop()
			return
		}
		o.mu.Lock()
		s := o.store
		o.mu.Unlock()
		if err := s.sync(); err != nil {
			o.log.WithError(err).Error("syncing the journal")
		}
	}
}
