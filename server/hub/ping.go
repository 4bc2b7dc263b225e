package hub

import (
	"bytes"
	"hash/maphash"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

// ping sends the next application ping, or one with the given options, and gives up those that went unanswered.
func (s *session) ping(now time.Time, ask *pingOptions) {
	if !s.subscribed(wire.NamePing) {
		// Nothing can be asked; frames of any kind are all there is to tell that it is alive.
		s.agent.answered(now)
		return
	}
	id := uuid.New()
	a := s.agent
	a.mu.Lock()
	engineless := a.engineless
	a.mu.Unlock()
	s.mu.Lock()
	missed := 0
	free := -1
	for i := range s.pings {
		if p := &s.pings[i]; !p.at.IsZero() && now.Sub(p.at) >= s.hub.t.PingTimeout {
			*p = sentPing{}
			missed++
		}
		if s.pings[i].at.IsZero() {
			free = i
		}
	}
	var options pingOptions
	if ask != nil {
		options = *ask
	} else {
		options = everyPing(s.beats)
		options.resources = options.resources || engineless // who starts with its engine is soon told which one
		s.beats++
	}
	if free >= 0 {
		s.pings[free] = sentPing{id, now}
	}
	s.mu.Unlock()
	for range missed {
		s.agent.missed(now)
	}
	if free < 0 {
		return // enough of them are unanswered
	}
	frame := appendPing(nil, id, s.agent.id, replyName(s.hub.replica), options, now, s.hub.t.PingTimeout)
	s.send(item{kind: websocket.TextMessage, data: frame})
}

// takePing reports whether id is an unanswered ping, when it was sent, and forgets it.
func (s *session) takePing(eventID string) (sent time.Time, ok bool) {
	id, err := uuid.Parse(eventID)
	if err != nil {
		return time.Time{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pings {
		if p := &s.pings[i]; p.id == id && !p.at.IsZero() {
			sent = p.at
			*p = sentPing{}
			return sent, true
		}
	}
	return time.Time{}, false
}

// A report is the answer to a ping that says more than "here".
type report struct {
	data []byte
	sent time.Time // of the ping: records changed since then are newer than the report
	hash uint64    // of data
}

// ponged takes in the answer to a ping.
func (h *Hub) ponged(a *agent, r *wire.Reply, sent time.Time) {
	a.answered(time.Now())
	if r.Transitioning == wire.TransitioningError || !bytes.Contains(r.Data, []byte(`"resources"`)) {
		return
	}
	sum := maphash.Bytes(h.seed, r.Data)
	if a.keepReport(r.Data, sum, sent) {
		h.reports.add(a)
	}
}

// keepReport keeps a copy of a report for the workers, unless it is the same as one that was taken in already. A newer
// report of one kind replaces an older one that nobody looked at.
func (a *agent) keepReport(data []byte, sum uint64, sent time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if sum == a.taken {
		return false
	}
	kind := &a.instanceReport
	if bytes.Contains(data, []byte(`"type":"host"`)) {
		kind = &a.hostReport
	}
	*kind = &report{data: bytes.Clone(data), sent: sent, hash: sum}
	return true
}

// nextReport takes a report to work on.
func (a *agent) nextReport() *report {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, kind := range []**report{&a.hostReport, &a.instanceReport} {
		if r := *kind; r != nil {
			*kind = nil
			return r
		}
	}
	return nil
}
