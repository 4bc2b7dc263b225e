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

// Publish sends data to whoever handles the subject, and to nobody if nobody does.
func (s *Store) Publish(subject string, data []byte) error {
	if err := s.nc.Publish(subject, data); err != nil {
		return fmt.Errorf("publish %s: %w", subject, err)
	}
	return nil
}

// Handle calls fn with each message on the subject, one at a time, in the order of each sender, until stop is called.
// fn must not block; answer, which may be called later and does nothing for a message that was published, sends the
// answer to a request.
func (s *Store) Handle(subject string, fn func(data []byte, answer func([]byte))) (stop func(), err error) {
	sub, err := s.nc.Subscribe(subject, func(m *nats.Msg) {
		fn(m.Data, func(b []byte) {
			if m.Reply == "" {
				return
			}
			if err := m.Respond(b); err != nil {
				s.log.WithError(err).Debug("store: an answer to another replica got lost")
			}
		})
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
