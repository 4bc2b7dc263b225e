package events

import (
	"context"
	"time"
)

// An offer is one reply that was taken out of the outbox's queue to be sent. Exactly one of its methods must be called.
type offer struct {
	o    *outbox
	e    *entry
	done func()
	body []byte
}

// next waits for the next reply to send. Replies of one key come in order, the next one only after the offer of its
// predecessor ended.
func (o *outbox) next(ctx context.Context) (offer, error) {
	for {
		t, err := o.queue.Pop(ctx)
		if err != nil {
			return offer{}, err
		}
		e := t.Value
		if e.kind == kindOnce {
			return offer{o: o, e: e, done: t.Done, body: e.frame}, nil
		}
		o.mu.Lock()
		if e.state != stateQueued {
			o.mu.Unlock()
			t.Done()
			continue
		}
		e.state, e.lane = stateSending, t
		frame, at := e.frame, e.place
		o.mu.Unlock()
		if frame == nil {
			if frame, err = o.read(e, at); err != nil {
				o.lost(e, err)
				t.Done()
				continue
			}
		}
		body := frame[e.body:]
		return offer{o: o, e: e, done: t.Done, body: body}, nil
	}
}

// read gets the frame of a reply back from the journal. It may have moved meanwhile.
func (o *outbox) read(e *entry, at place) ([]byte, error) {
	frame, err := o.journal.get(at, e.seq, e.size)
	if err == nil {
		return frame, nil
	}
	o.mu.Lock()
	moved := e.place
	o.mu.Unlock()
	if moved.same(at) {
		return nil, err
	}
	return o.journal.get(moved, e.seq, e.size)
}

// lost gives up a reply that cannot be read back.
func (o *outbox) lost(e *entry, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.complainLocked(err)
	if e.listed {
		o.expireLocked(e, err.Error())
	}
}

// sent notes that the reply went over a socket and waits for its acknowledgement.
func (f offer) sent(now time.Time) {
	if f.e.kind != kindOnce {
		f.o.mu.Lock()
		if f.e.listed {
			f.e.state, f.e.sentAt = stateSent, now
			f.o.dropFrameLocked(f.e)
		}
		f.o.mu.Unlock()
	}
	f.done()
}

// back returns the reply unsent, at the end of its connection. The queue must be rebuilt before the next one.
func (f offer) back() {
	if f.e.kind != kindOnce {
		f.o.mu.Lock()
		if f.e.listed {
			f.e.state = stateQueued
		}
		f.o.mu.Unlock()
	}
	f.done()
}

// over ends an offer whose reply the server took, or refused for good.
func (f offer) over() {
	if f.e.kind != kindOnce {
		f.o.mu.Lock()
		if f.e.listed {
			f.o.finishLocked(f.e, time.Now())
		}
		f.o.mu.Unlock()
	}
	f.done()
}

// retry offers the reply again after delay, and no other of its key before. A reply offered once is dropped.
func (f offer) retry(delay time.Duration) {
	if f.e.kind == kindOnce {
		f.done()
		return
	}
	o, e := f.o, f.e
	o.mu.Lock()
	defer o.mu.Unlock()
	if !e.listed {
		f.done()
		return
	}
	e.failures++
	e.state = stateWaiting
	o.dropFrameLocked(e)
	o.waiting[e] = struct{}{}
	e.timer = time.AfterFunc(delay, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.wakeLocked(e)
	})
}

// wakeLocked ends the wait of e.
func (o *outbox) wakeLocked(e *entry) {
	if e.state != stateWaiting {
		return
	}
	e.timer.Stop()
	delete(o.waiting, e)
	e.state = stateQueued
	e.lane.Again()
}

// wake ends every wait: the server is back.
func (o *outbox) wake() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for e := range o.waiting {
		o.wakeLocked(e)
	}
}

// rebuild queues everything that is pending anew, in order, for a new connection. No offer may be out.
func (o *outbox) rebuild() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for e := range o.waiting {
		e.timer.Stop()
		delete(o.waiting, e)
		e.lane.Done()
	}
	o.queue.Drain()
	for e := o.oldest; e != nil; e = e.newer {
		if e.state == stateSent {
			o.counts.resent.Add(1)
		}
		e.state = stateQueued
		o.queue.Push(e.key, e)
	}
}

// requeueLocked sends a reply again that was sent and not acknowledged.
func (o *outbox) requeueLocked(e *entry) {
	o.counts.resent.Add(1)
	e.state = stateQueued
	o.queue.Push(e.key, e)
}

// tick gives up what is too old, and sends again what was sent before resend and not acknowledged. It returns whether
// anything is pending.
func (o *outbox) tick(now time.Time, resend time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	var next *entry
	for e := o.oldest; e != nil; e = next {
		next = e.newer
		switch {
		case now.After(e.deadline):
			o.expireLocked(e, "the server did not take it in time")
		case e.state == stateSent && now.Sub(e.sentAt) >= resend:
			o.requeueLocked(e)
		}
	}
	o.evictLocked(now)
	return o.oldest != nil
}
