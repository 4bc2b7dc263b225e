package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// ErrNobody says that no replica listens to a subject.
var ErrNobody = errors.New("nobody listens")

// Request sends data to whoever handles the subject and returns the answer. ErrNobody if nobody does. ctx must have a
// deadline.
func (s *Store) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	m, err := s.nc.RequestWithContext(ctx, subject, data)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, ErrNobody
	}
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", subject, err)
	}
	return m.Data, nil
}

// Ask sends data to whoever handles the subject, and has the answer sent to another subject, where it arrives in order
// with what else the same sender sends there.
func (s *Store) Ask(subject, answerTo string, data []byte) error {
	if err := s.nc.PublishRequest(subject, answerTo, data); err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	return nil
}

// Publish sends data to whoever handles the subject, and to nobody if nobody does.
func (s *Store) Publish(subject string, data []byte) error {
	if err := s.nc.Publish(subject, data); err != nil {
		return fmt.Errorf("publish %s: %w", subject, err)
	}
	return nil
}

// A Message is what Handle passes on.
type Message struct {
	Subject string
	Data    []byte
	Nobody  bool // no message, but the news that nobody handles the subject of an Ask

	m *nats.Msg
	s *Store
}

// Answer answers a request. It may be called later, from any goroutine; for what is no request it does nothing.
func (m Message) Answer(data []byte) {
	if m.m.Reply == "" {
		return
	}
	if err := m.m.Respond(data); err != nil {
		m.s.log.WithError(err).Debug("store: an answer to another replica got lost")
	}
}

// Handle calls fn with each message on the subject, which may end in ".>", one at a time, in the order of each sender,
// until stop is called. fn must not block.
func (s *Store) Handle(subject string, fn func(Message)) (stop func(), err error) {
	sub, err := s.nc.Subscribe(subject, func(m *nats.Msg) {
		nobody := len(m.Data) == 0 && m.Header.Get("Status") == "503"
		fn(Message{Subject: m.Subject, Data: m.Data, Nobody: nobody, m: m, s: s})
	})
	if err != nil {
		return nil, fmt.Errorf("handle %s: %w", subject, err)
	}
	if err := s.nc.Flush(); err != nil {
		return nil, fmt.Errorf("handle %s: %w", subject, err)
	}
	return func() {
		if err := errors.Join(sub.Unsubscribe(), s.nc.Flush()); err != nil {
			s.log.WithError(err).Debug("store: unsubscribe")
		}
	}, nil
}
