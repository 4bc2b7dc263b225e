package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/google/uuid"
)

const (
	// progressKept is how many progress replies wait for a caller that is busy with an earlier one.
	progressKept = 16
	// leaveTimeout bounds what a Call still does when its context has ended.
	leaveTimeout = 2 * time.Second
)

// Call sends an event to an agent, wherever it is connected, and waits for the final reply, the deadline or ctx.
//
// It fills in the event's ID, ReplyTo, Time and TimeoutMillis if they are not set; the event is not modified, and must
// not be by others while Call runs. An agent that is away gets the event when it is back, if that is before the
// deadline. Each progress reply extends the deadline by one period and is passed to progress (which may be nil), in
// order, one at a time, never after Call returned; while progress is slow, some are left out. A final reply that
// reports a failure is returned like any other, with a nil error.
//
// If ctx ends, Call returns its error, and the event lives on until its final reply or its deadline. A Call with the ID
// of an event that lives on joins it, and one whose event was answered in the meantime, within the last minutes, gets
// that reply: so a process that starts again can ask for the outcome of what it began before.
//
// Errors: ErrTimeout, ErrUnsupported, ErrUnknownAgent, ErrFull, ErrInvalid, ErrClosed. Code gives the wire code.
func (h *Hub) Call(ctx context.Context, agentID string, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error) {
	a, err := h.open(ctx, agentID)
	if err != nil {
		return nil, err
	}
	p, err := h.newPending(ev, true)
	if err != nil {
		return nil, err
	}
	if r := h.claims.take(store.EventRef{Agent: agentID, ID: p.id}); r != nil {
		return r, nil
	}
	if !h.callers.enter() {
		return nil, ErrClosed
	}
	defer h.callers.leave()
	w := &waiter{done: make(chan outcome, 1), progress: make(chan *wire.Reply, progressKept)}
	p, err = h.submit(ctx, a, p, w)
	if err != nil {
		return nil, err
	}
	h.calls.Add(1)
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	return h.wait(ctx, a, p, w, progress)
}

// Send sends an event that nobody waits for. It returns when the event is stored; it is pushed at most until its
// deadline, and counts as done when it was written to the agent's socket. Errors as of Call.
func (h *Hub) Send(ctx context.Context, agentID string, ev *wire.Event) error {
	a, err := h.open(ctx, agentID)
	if err != nil {
		return err
	}
	p, err := h.newPending(ev, false)
	if err != nil {
		return err
	}
	if s := a.session(); s != nil && !s.subscribed(p.name) {
		return fmt.Errorf("%s: %w", p.name, ErrUnsupported)
	}
	if _, err := h.submit(ctx, a, p, nil); err != nil {
		return err
	}
	h.calls.Add(1)
	return nil
}

// open waits until the hub runs and returns the agent.
func (h *Hub) open(ctx context.Context, agentID string) (*agent, error) {
	select {
	case <-h.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h.closed() {
		return nil, ErrClosed
	}
	return h.agent(agentID)
}

// newPending makes the event complete and encodes it.
func (h *Hub) newPending(ev *wire.Event, answered bool) (*pending, error) {
	switch {
	case ev.Name == "" || strings.ContainsAny(ev.Name, ";"):
		return nil, fmt.Errorf("%w: it has no name, or one with a semicolon", ErrInvalid)
	case len(ev.Data) > 0 && !isObject(ev.Data):
		return nil, fmt.Errorf("%w: its data is no JSON object", ErrInvalid)
	case ev.TimeoutMillis < 0:
		return nil, fmt.Errorf("%w: its timeout is negative", ErrInvalid)
	}
	now := time.Now()
	full := *ev
	// Original agents cannot read these from a request.
	full.PreviousIDs, full.PreviousNames = nil, nil
	if full.ID == "" {
		full.ID = uuid.NewString()
	}
	if full.ReplyTo == "" && answered {
		full.ReplyTo = replyName(h.replica)
	}
	if full.Time == 0 {
		full.Time = now.UnixMilli()
	}
	period := min(full.Timeout(h.t.CallTimeout), store.MaxEventAge)
	full.TimeoutMillis = period.Milliseconds()
	frame := wire.AppendEvent(nil, &full)
	if len(frame) > wire.MaxFrame {
		return nil, fmt.Errorf("%w: it has %d bytes, more than %d", ErrInvalid, len(frame), wire.MaxFrame)
	}
	return &pending{
		id: full.ID, key: full.Key(), name: full.Name, frame: frame, period: period, deadline: now.Add(period),
		durable: full.Name != wire.NamePing, answered: answered, home: true,
	}, nil
}

// isObject reports whether data is what agents read: a JSON object, or null.
func isObject(data []byte) bool {
	data = bytes.TrimSpace(data)
	return (bytes.HasPrefix(data, []byte("{")) || string(data) == "null") && wire.Valid(data)
}

// submit puts an event in line, stores it and pushes it if it can be. It returns the event that is in line then: one
// of the same id that was there already is joined.
func (h *Hub) submit(ctx context.Context, a *agent, p *pending, w *waiter) (*pending, error) {
	a.mu.Lock()
	if old := a.q.events[p.id]; old != nil {
		defer a.mu.Unlock()
		if old.w != nil || w == nil || old.origin != 0 {
			return nil, fmt.Errorf("%w: its id is in use", ErrInvalid)
		}
		old.w, old.deadline, old.period, old.home = w, p.deadline, p.period, true
		return old, nil
	}
	if s := a.sess; s != nil && !s.subscribed(p.name) {
		a.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", p.name, ErrUnsupported)
	}
	p.w = w
	// While the agent is connected its answer is mostly faster than the store, and an event that was answered need not
	// outlive this process. So it is stored only if there is no answer soon.
	_, held := h.holder(a.id)
	p.ready = !p.durable || w != nil && h.t.StoreAfter > 0 && (a.sess != nil || held)
	err := a.q.add(p)
	if err == nil && p.ready {
		a.pump()
	}
	a.mu.Unlock()
	if err != nil || p.ready {
		return p, err
	}
	if err := h.keep(ctx, a, p); err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.q.remove(p)
		a.pump() // what is behind it in line may go
		return nil, err
	}
	return p, nil
}

// keep puts an event into the store's queue, unless it is there or not meant to be, and makes it ready.
func (h *Hub) keep(ctx context.Context, a *agent, p *pending) error {
	a.mu.Lock()
	if !p.durable || p.stored || p.gone {
		a.mu.Unlock()
		return nil
	}
	p.storing = true
	deadline := p.deadline
	a.mu.Unlock()
	ref := store.EventRef{Agent: a.id, ID: p.id}
	seq, err := h.store.PutEvent(ctx, ref, deadline, replicaName(h.replica), p.frame)
	a.mu.Lock()
	defer a.mu.Unlock()
	p.storing = false
	if p.gone {
		// Answered meanwhile, or ended: those who wait for that to be safe wait for this.
		if _, waits := a.q.settling[p.id]; waits {
			h.settler.add(task{ref: ref, agent: a})
		}
		return nil
	}
	if errors.Is(err, store.ErrFull) {
		return ErrFull
	}
	if err != nil {
		return err
	}
	p.seq, p.stored, p.ready = seq, true, true
	a.pump()
	return nil
}

// wait waits for the outcome of an event.
func (h *Hub) wait(ctx context.Context, a *agent, p *pending, w *waiter, progress func(*wire.Reply)) (*wire.Reply, error) {
	timer := time.NewTimer(h.untilNext(a, p))
	defer timer.Stop()
	for {
		select {
		case o := <-w.done:
			for len(w.progress) > 0 { // what came before the end
				told(progress, <-w.progress)
			}
			return o.reply, o.err
		case r := <-w.progress:
			told(progress, r)
		case <-timer.C:
			if h.expire(a, p) {
				h.timeouts.Add(1)
				return nil, fmt.Errorf("%s: %w", p.name, ErrTimeout)
			}
			h.keepLogged(ctx, a, p)
			timer.Reset(h.untilNext(a, p)) // there was progress, or it was answered this very moment
		case <-ctx.Done():
			h.keepLeaving(ctx, a, p)
			a.abandon(p, w)
			return nil, ctx.Err()
		case <-h.closing:
			h.keepLeaving(ctx, a, p)
			a.abandon(p, w)
			select {
			case o := <-w.done:
				return o.reply, o.err
			default:
				return nil, ErrClosed
			}
		}
	}
}

// untilNext returns how long there is nothing to do but wait: until the event has to be stored, or has waited enough.
func (h *Hub) untilNext(a *agent, p *pending) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := time.Until(p.deadline)
	if p.durable && !p.stored {
		left = min(left, h.t.StoreAfter)
	}
	return max(left, 0)
}

// keepLeaving keeps an event whose caller goes away, and takes little time for it.
func (h *Hub) keepLeaving(ctx context.Context, a *agent, p *pending) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	h.keepLogged(ctx, a, p)
}

// keepLogged keeps an event that the agent has, or will have: that it is not stored is no reason to give up on it.
func (h *Hub) keepLogged(ctx context.Context, a *agent, p *pending) {
	if err := h.keep(ctx, a, p); err != nil && ctx.Err() == nil {
		h.log.WithField("agent", a.id).WithError(err).Warn("hub: an event is not stored; it would not outlive this process")
		a.mu.Lock()
		p.durable = false // do not try again and again
		a.mu.Unlock()
	}
}

func told(progress func(*wire.Reply), r *wire.Reply) {
	if progress != nil {
		progress(r)
	}
}

// abandon takes the waiter off an event, which lives on.
func (a *agent) abandon(p *pending, w *waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.w == w {
		p.w = nil
	}
	if !p.durable {
		a.q.remove(p) // nobody would ever ask for it
		a.pump()
	}
}

// expire ends an event whose deadline passed. It reports false if the event had its outcome already, or has time.
func (h *Hub) expire(a *agent, p *pending) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.gone || time.Now().Before(p.deadline) {
		return false
	}
	passed := !p.passed.IsZero()
	a.q.remove(p)
	p.resolve(outcome{err: ErrTimeout})
	a.pump()
	if p.origin == 0 {
		h.settleLocked(a, p, nil)
	}
	if passed {
		h.tell(a.id, message{Kind: kindForget, Event: p.id})
	}
	return true
}

// pump pushes what can be pushed: to the socket, or to the replica that holds the agent. The caller holds mu.
func (a *agent) pump() {
	if a.sess == nil {
		a.h.pass(a)
		return
	}
	for a.sess.room() {
		p := a.q.next()
		if p == nil {
			return
		}
		if !a.sess.subscribed(p.name) {
			a.q.remove(p)
			a.h.refuse(a, p, fmt.Errorf("%s: %w", p.name, ErrUnsupported))
			continue
		}
		if p.pushes > 1 {
			a.h.redelivered.Add(1)
		}
		it := item{kind: websocketText, data: p.frame}
		if !p.answered {
			it.sent = p
		}
		a.sess.send(it)
	}
}

// kick pumps, for those who do not hold mu.
func (a *agent) kick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pump()
}

// refuse ends an event that cannot be pushed. The caller holds the agent's mu and has taken p out of the queue.
func (h *Hub) refuse(a *agent, p *pending, err error) {
	p.resolve(outcome{err: err})
	if p.origin != 0 {
		h.send(p.origin, message{Kind: kindRefused, Agent: a.id, Event: p.id, Code: Code(err)})
		return
	}
	h.settleLocked(a, p, nil)
}

// written takes note that an event that nobody answers was written to the socket.
func (a *agent) written(p *pending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.gone {
		return
	}
	a.q.remove(p)
	a.h.settleLocked(a, p, nil)
	if p.origin != 0 {
		a.h.send(p.origin, message{Kind: kindForget, Agent: a.id, Event: p.id})
	}
	a.pump()
}
