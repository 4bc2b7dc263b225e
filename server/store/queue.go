package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxAsync bounds the unconfirmed publishes of this process. DropEvents stays far below it.
	maxAsync = 4096
	// dropBatch is how many deletions are under way at a time.
	dropBatch = 512
	// queueSlack is how long an event outlives its deadline in the stream: progress may have extended the deadline, and
	// a late reply must still find what it answers.
	queueSlack = time.Hour
	// putTimeout bounds the storing of one event: a cluster that elects a leader takes some seconds.
	putTimeout = 30 * time.Second
	// doneTTL is how long the empty message that replaces an answered event stays.
	doneTTL = time.Second

	headerDeadline = "Drover-Deadline" // milliseconds since the epoch
	headerOrigin   = "Drover-Origin"
)

// MaxEventAge is the longest that an event may wait for its final reply.
const MaxEventAge = eventsMaxAge - queueSlack

// A QueuedEvent is a stored event that has no final reply yet.
type QueuedEvent struct {
	Agent    string
	Seq      uint64    // its place in the queue: events of one agent rise in the order in which they were stored
	Deadline time.Time // when its sender stops waiting, as far as the queue knows
	Origin   string    // the replica that stored it
	Data     []byte    // the event as JSON
}

// An EventRef names a stored event.
type EventRef struct{ Agent, ID string }

func (r EventRef) subject() string { return subjectEvents + "." + r.Agent + "." + plainToken(r.ID) }

// plainToken makes any event id fit for a subject.
func plainToken(id string) string {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return digestKey(id)
		}
	}
	if id == "" {
		return digestKey(id)
	}
	return id
}

// PutEvent stores an event until DropEvents, or an hour past its deadline, and returns its place. An event of the same
// agent and id is replaced. origin is the replica that stores it. ErrFull if the queue is full.
func (s *Store) PutEvent(ctx context.Context, ref EventRef, deadline time.Time, origin string, data []byte) (uint64, error) {
	m := nats.NewMsg(ref.subject())
	m.Header.Set(headerDeadline, strconv.FormatInt(deadline.UnixMilli(), 10))
	m.Header.Set(headerOrigin, origin)
	m.Data = data
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	ttl := max(time.Until(deadline), 0).Round(time.Second) + queueSlack
	ack, err := s.js.PublishMsg(ctx, m, jetstream.WithMsgTTL(ttl))
	if err != nil {
		var api *jetstream.APIError
		if errors.As(err, &api) && api.ErrorCode == errCodeStoreFailed {
			return 0, fmt.Errorf("store event: %w: %s", ErrFull, api.Description)
		}
		return 0, fmt.Errorf("store event: %w", err)
	}
	return ack.Sequence, nil
}

// errCodeStoreFailed is what the server answers when a limit of the stream is reached.
const errCodeStoreFailed = 10077

func queued(agentID string, seq uint64, h nats.Header, data []byte) QueuedEvent {
	q := QueuedEvent{Agent: agentID, Seq: seq, Data: data, Origin: h.Get(headerOrigin)}
	if ms, err := strconv.ParseInt(h.Get(headerDeadline), 10, 64); err == nil {
		q.Deadline = time.UnixMilli(ms)
	}
	return q
}

// Events calls each with the stored events of an agent, in order. An error of each ends it and is returned.
func (s *Store) Events(ctx context.Context, agentID string, each func(QueuedEvent) error) error {
	filter := subjectEvents + "." + agentID + ".>"
	// Mostly there is nothing, and one direct read tells so, which a consumer takes sixty times as long for.
	first, err := s.events.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(filter))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	cons, err := s.events.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: filter, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first.Sequence,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer func() {
		// It would go away by itself in a minute; until then it costs memory.
		del, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.events.DeleteConsumer(del, cons.CachedInfo().Name); err != nil {
			s.log.WithError(err).Debug("store: a short-lived consumer is left to its timeout")
		}
	}()
	for {
		n, err := s.eventBatch(cons, agentID, each)
		if err != nil || n == 0 {
			return err
		}
	}
}

// eventBatch reads some events and says how many messages there were.
func (s *Store) eventBatch(cons jetstream.Consumer, agentID string, each func(QueuedEvent) error) (n int, err error) {
	batch, err := cons.FetchNoWait(256)
	if err != nil {
		return 0, fmt.Errorf("read events: %w", err)
	}
	for m := range batch.Messages() {
		n++
		meta, merr := m.Metadata()
		if merr != nil {
			return n, fmt.Errorf("read events: %w", merr)
		}
		if err == nil && len(m.Data()) > 0 {
			err = each(queued(agentID, meta.Sequence.Stream, m.Headers(), m.Data()))
		}
	}
	if err == nil {
		err = batch.Error()
	}
	return n, err
}

// DropEvents removes answered events and returns when they are gone for good. Events that are not there are no error.
func (s *Store) DropEvents(ctx context.Context, refs []EventRef) error {
	var errs []error
	for len(refs) > 0 {
		n := min(len(refs), dropBatch)
		errs = append(errs, s.dropBatch(ctx, refs[:n]))
		refs = refs[n:]
	}
	return errors.Join(errs...)
}

// dropBatch replaces each event by an empty message that goes away after a second: many of those can be under way at
// a time, and each costs a quarter of what the delete request costs.
func (s *Store) dropBatch(ctx context.Context, refs []EventRef) error {
	acks := make([]jetstream.PubAckFuture, len(refs))
	for i, ref := range refs {
		ack, err := s.js.PublishMsgAsync(nats.NewMsg(ref.subject()), jetstream.WithMsgTTL(doneTTL))
		if err != nil {
			return fmt.Errorf("drop event: %w", err)
		}
		acks[i] = ack
	}
	var errs []error
	for i, ack := range acks {
		select {
		case <-ack.Ok():
		case <-ack.Err():
			// A full stream takes no message, but still deletes.
			err := s.events.Purge(ctx, jetstream.WithPurgeSubject(refs[i].subject()))
			if err != nil {
				errs = append(errs, fmt.Errorf("drop event: %w", err))
			}
		case <-ctx.Done():
			return fmt.Errorf("drop event: %w", ctx.Err())
		}
	}
	return errors.Join(errs...)
}

// PurgeEvents removes all events of an agent.
func (s *Store) PurgeEvents(ctx context.Context, agentID string) error {
	if err := s.events.Purge(ctx, jetstream.WithPurgeSubject(subjectEvents+"."+agentID+".>")); err != nil {
		return fmt.Errorf("purge events: %w", err)
	}
	return nil
}

// QueueLen returns how many messages the queue holds: events, and answered ones of the last second.
func (s *Store) QueueLen(ctx context.Context) (uint64, error) {
	info, err := s.events.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("queue: %w", err)
	}
	return info.State.Msgs, nil
}
