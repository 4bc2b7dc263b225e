package events

import (
	"context"

	"github.com/droverhq/drover/events/wire"
)

// A Handler carries out one kind of event. It decodes ev.Data, does the work and returns what the reply's data shall
// be, or an error; it never sends. A json.RawMessage or []byte result is relayed undecoded, nil means a reply without
// data, anything else is marshalled. Handlers must be idempotent, safe for concurrent use, and end when ctx does:
// ctx carries the event's deadline.
type Handler interface {
	Handle(ctx context.Context, ev *wire.Event, p Progress) (data any, err error)
}

// HandlerFunc is a function as a [Handler].
type HandlerFunc func(ctx context.Context, ev *wire.Event, p Progress) (any, error)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, ev *wire.Event, p Progress) (any, error) {
	return f(ctx, ev, p)
}

// Progress reports how far an event has come. Report never blocks: reports are coalesced and the last one wins.
// The percentage is 0 to 100; 0 is not sent.
type Progress interface {
	Report(message string, percent int)
}
