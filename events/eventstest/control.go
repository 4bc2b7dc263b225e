package eventstest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/droverhq/drover/events/wire"
)

// Next waits for the next subscription that no earlier call returned.
func (s *Server) Next(ctx context.Context) (*Session, error) {
	select {
	case se := <-s.arrivals:
		return se, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a subscription: %w", ctx.Err())
	}
}

// live waits for a session and returns it.
func (s *Server) live(ctx context.Context) (*Session, error) {
	var live *Session
	err := s.wait(ctx, func() bool {
		for se := range s.sessions {
			live = se
		}
		return live != nil
	})
	return live, err
}

// Push sends one event to whichever session is live, waiting for one. It is sent once.
func (s *Server) Push(ctx context.Context, ev *wire.Event) error {
	se, err := s.live(ctx)
	if err != nil {
		return err
	}
	return se.Push(ctx, ev)
}

// Deliver sends events, and again to every new session, until they are answered, as a Drover server does and as a
// Rancher server's process engine comes down to. It returns when all were sent once or the session ended.
func (s *Server) Deliver(ctx context.Context, events ...*wire.Event) error {
	s.mu.Lock()
	for _, ev := range events {
		s.undone[ev.ID] = len(s.outbox)
		s.outbox = append(s.outbox, ev)
	}
	s.mu.Unlock()
	for _, ev := range events {
		err := s.Push(ctx, ev)
		if ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// Call sends ev and waits for its final reply.
func (s *Server) Call(ctx context.Context, ev *wire.Event) (*wire.Reply, error) {
	if err := s.Push(ctx, ev); err != nil {
		return nil, err
	}
	a, err := s.Answer(ctx, ev.ID)
	if err != nil {
		return nil, err
	}
	return a.Final, nil
}

// Answer waits for the final reply to the event id and returns what came for it so far.
func (s *Server) Answer(ctx context.Context, id string) (Answer, error) {
	var got Answer
	err := s.wait(ctx, func() bool {
		a := s.answers[id]
		if a == nil || a.Final == nil {
			return false
		}
		got = *a
		return true
	})
	if err != nil {
		return got, fmt.Errorf("waiting for the answer to %s: %w", id, err)
	}
	return got, nil
}

// WaitAnswered waits until n events have their final replies.
func (s *Server) WaitAnswered(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		have, changed := len(s.order), s.changed
		s.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d events are answered: %w", have, n, ctx.Err())
		}
	}
}

// Answers returns everything that came so far, by event id, and the ids in the order of their first final replies.
func (s *Server) Answers() (map[string]Answer, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Answer, len(s.answers))
	for id, a := range s.answers {
		out[id] = *a
	}
	return out, slices.Clone(s.order)
}

// Duplicates returns how many final replies came beyond the first ones. A server acknowledges them and delivers them
// nowhere.
func (s *Server) Duplicates() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.duplicates
}

// Forget drops what came so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.answers)
	s.order, s.duplicates = nil, 0
}

// Dials returns every attempt to subscribe so far.
func (s *Server) Dials() []Dial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dials)
}

// WaitDials waits until there were n attempts to subscribe.
func (s *Server) WaitDials(ctx context.Context, n int) error {
	return s.wait(ctx, func() bool { return len(s.dials) >= n })
}

// Created returns the bodies that were posted to a collection ("containerevents", "hostapiproxytokens").
func (s *Server) Created(collection string) []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.created[collection])
}

// WaitCreated waits until n bodies were posted to a collection.
func (s *Server) WaitCreated(ctx context.Context, collection string, n int) error {
	return s.wait(ctx, func() bool { return len(s.created[collection]) >= n })
}

// Refuse answers the next attempts to subscribe with status, which 0 ends. times below 0 is for ever.
func (s *Server) Refuse(status, times int, retryAfter string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribe = refusal{status: status, retryAfter: retryAfter, times: times}
}

// FailPublish lets one POST of a reply in every fail with status. Status 0 takes the reply and then closes the
// connection, so that the agent cannot know. every 0 ends it.
func (s *Server) FailPublish(every, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish.every, s.publish.status = every, status
}

// DelayPublish makes each POST of a reply take that much longer.
func (s *Server) DelayPublish(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish.delay = d
}

// HoldAcks stops acknowledging replies, or begins again.
func (s *Server) HoldAcks(hold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holdAcks = hold
}

// Cut closes every session without a word.
func (s *Server) Cut() {
	s.mu.Lock()
	var all []*Session
	for se := range s.sessions {
		all = append(all, se)
	}
	s.mu.Unlock()
	for _, se := range all {
		se.Cut()
	}
}

// CutEvery cuts every session after each interval in which an event was answered, until stop is called: a machine that
// is too slow for the interval gets on nevertheless.
func (s *Server) CutEvery(interval time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(interval)
		defer t.Stop()
		before := -1
		for {
			select {
			case <-t.C:
				s.mu.Lock()
				answered := len(s.order)
				s.mu.Unlock()
				if answered != before {
					s.Cut()
				}
				before = answered
			case <-ctx.Done():
				return
			}
		}
	}()
	stop = func() { cancel(); <-done }
	s.tb.Cleanup(stop)
	return stop
}

// StatusSwitchingProtocols is the status of a [Dial] that succeeded.
const StatusSwitchingProtocols = http.StatusSwitchingProtocols
