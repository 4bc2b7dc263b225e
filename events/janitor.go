package events

import (
	"errors"
	"time"
)

// run looks after the journal and after what is pending, until stop: it writes what was noted, syncs, retires segments,
// sends again what was not acknowledged for so long as resend, and gives up what is too old. It closes the journal when
// it ends. Nothing happens while nothing is pending or unwritten.
func (o *outbox) run(resend time.Duration) {
	defer close(o.gone)
	var soon, second <-chan time.Time
	for {
		select {
		case <-o.dirty:
			if soon == nil {
				soon = time.After(100 * time.Millisecond)
			}
			if second == nil {
				second = time.After(900 * time.Millisecond)
			}
		case <-soon:
			soon = nil
			o.complain(o.journal.flush())
		case now := <-second:
			second = nil
			if o.tick(now, resend) {
				second = time.After(time.Second)
			}
			o.complain(o.journal.sync())
			o.complain(o.retire())
		case <-o.quit:
			o.complain(o.journal.close())
			return
		}
	}
}

func (o *outbox) complain(err error) {
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.complainLocked(err)
	}
}

// retire moves on the segments of the log that are due.
func (o *outbox) retire() error {
	for {
		s := o.journal.due()
		if s == nil {
			return nil
		}
		o.mu.Lock()
		b := &batch{dropReplies: o.dropReplies, dropDone: o.dropDone}
		o.dropReplies, o.dropDone = nil, nil
		in := map[uint64]*entry{} // by seq
		for e := o.oldest; e != nil; e = e.newer {
			if e.stored && e.place.segment == s {
				in[e.seq] = e
			}
		}
		for seq, k := range o.keptAt {
			if k.place.segment == s {
				delete(o.keptAt, seq) // its event stays known as answered
			}
		}
		o.mu.Unlock()
		err := o.journal.retire(s, b, func(seq uint64) bool { return in[seq] != nil }, o.buried, func(seq uint64) {
			o.mu.Lock()
			defer o.mu.Unlock()
			e := in[seq]
			e.place = place{}
			if !e.listed {
				o.dropReplies = append(o.dropReplies, seq) // it was taken meanwhile
			}
		})
		if err != nil {
			o.mu.Lock()
			o.dropReplies = append(o.dropReplies, b.dropReplies...)
			o.dropDone = append(o.dropDone, b.dropDone...)
			o.mu.Unlock()
			if errors.Is(err, errBroken) {
				err = errors.Join(err, o.journal.replace())
			}
			return err
		}
	}
}

// buried reports whether t is still remembered.
func (o *outbox) buried(t *tombstone) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.answered[o.hash(t.id)] == t.seq
}
