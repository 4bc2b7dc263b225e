package hub

import (
	"strconv"
	"sync"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// A forwarding is a final reply on its way to the replica where its caller waits.
type forwarding struct {
	origin uint32
	agent  string
	reply  *wire.Reply
	data   []byte
	safe   func(error)
	asked  time.Time
	tries  int
}

// forwardings are the replies under way. Each has a number, which is in the subject of its answer.
type forwardings struct {
	mu   sync.Mutex // guards what follows
	next uint64
	open map[uint64]*forwarding
}

func (fs *forwardings) add(f *forwarding) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.open == nil {
		fs.open = make(map[uint64]*forwarding)
	}
	fs.next++
	fs.open[fs.next] = f
	return fs.next
}

func (fs *forwardings) take(n uint64) *forwarding {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.open[n]
	delete(fs.open, n)
	return f
}

// late returns those that were asked for before since, and takes out those that were asked for too often.
func (fs *forwardings) late(since time.Time) (again map[uint64]*forwarding, failed []*forwarding) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for n, f := range fs.open {
		if f.asked.After(since) {
			continue
		}
		if f.tries >= forwardTries {
			failed = append(failed, f)
			delete(fs.open, n)
			continue
		}
		if again == nil {
			again = make(map[uint64]*forwarding)
		}
		f.asked = time.Now()
		f.tries++
		again[n] = f
	}
	return again, failed
}

// fail ends those that are left when the hub ends.
func (fs *forwardings) fail() {
	fs.mu.Lock()
	left := fs.open
	fs.open = nil
	fs.mu.Unlock()
	for _, f := range left {
		f.safe(ErrClosed)
	}
}

// forward brings a reply to the replica where its caller waits. It does not block. The answer comes in order with the
// events of that replica: one that crossed its reply is here by then, and is taken back before the agent forgets it.
func (h *Hub) forward(origin uint32, agentID string, r *wire.Reply, safe func(error)) {
	frame := wire.AppendReply(nil, r)
	if !r.Final() {
		h.send(origin, message{Kind: kindProgress, Agent: agentID, Event: r.EventID(), Frame: frame})
		safe(nil)
		return
	}
	f := &forwarding{
		origin: origin, agent: agentID, reply: r, safe: safe, asked: time.Now(), tries: 1,
		data: h.encode(message{Kind: kindReply, Agent: agentID, Event: r.EventID(), Frame: frame}),
	}
	h.ask(h.forwards.add(f), f)
}

func (h *Hub) ask(n uint64, f *forwarding) {
	if err := h.store.Ask(subject(f.origin), answerSubject(h.replica, n), f.data); err != nil {
		h.log.WithError(err).Debug("hub: a reply to another replica got lost")
	}
}

// forwarded takes in the answer of the replica where the caller waits.
func (h *Hub) forwarded(number string, m store.Message) {
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return
	}
	f := h.forwards.take(n)
	if f == nil {
		return // answered before
	}
	if m.Nobody || string(m.Data) != answerYes {
		h.orphan(f.agent, f.reply, f.safe) // its caller is gone
		return
	}
	id := f.reply.EventID()
	if a := h.known(f.agent); a != nil {
		a.mu.Lock()
		if p := a.q.events[id]; p != nil && !p.home {
			a.q.remove(p)
			a.pump()
		}
		a.q.answered(id)
		a.mu.Unlock()
	}
	h.recent.add(store.EventRef{Agent: f.agent, ID: id})
	f.safe(nil)
}

// forwardAgain asks again where no answer came.
func (h *Hub) forwardAgain(now time.Time) {
	again, failed := h.forwards.late(now.Add(-passAgain))
	for n, f := range again {
		h.ask(n, f)
	}
	for _, f := range failed {
		h.log.WithField("agent", f.agent).WithField("replica", replicaName(f.origin)).
			Warn("hub: a reply did not reach the replica that waits for it")
		f.safe(errNoAnswer)
	}
}
