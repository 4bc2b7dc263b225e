package hub

import (
	"errors"

	"github.com/droverhq/drover/events/wire"
)

// The errors that callers tell apart with errors.Is.
var (
	// ErrTimeout says that no final reply came before the deadline.
	ErrTimeout = errors.New("the agent did not answer in time")
	// ErrUnsupported says that the agent did not subscribe to events of that name.
	ErrUnsupported = errors.New("the agent does not support this event")
	// ErrUnknownAgent says that there is no such agent, or it was removed.
	ErrUnknownAgent = errors.New("unknown agent")
	// ErrFull says that too many events wait for this agent already.
	ErrFull = errors.New("too many events wait for this agent")
	// ErrInvalid says that the event itself is wrong; the text says how.
	ErrInvalid = errors.New("invalid event")
	// ErrForbidden says that an agent published something that is no reply.
	ErrForbidden = errors.New("agents may publish replies only")
	// ErrReference says that a container event names a host that is not the agent's.
	ErrReference = errors.New("no such host of this agent")
	// ErrClosed says that the hub is shutting down. Stored events live on.
	ErrClosed = errors.New("the server is shutting down")
)

// Code returns the wire code of an error of this package, CodeInternal for others and "" for nil.
func Code(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrTimeout):
		return wire.CodeTimeout
	case errors.Is(err, ErrUnsupported):
		return wire.CodeUnsupported
	case errors.Is(err, ErrUnknownAgent), errors.Is(err, ErrReference):
		return wire.CodeNotFound
	case errors.Is(err, ErrFull):
		return wire.CodeBusy
	case errors.Is(err, ErrInvalid):
		return wire.CodeInvalid
	case errors.Is(err, ErrForbidden):
		return wire.CodeDenied
	case errors.Is(err, ErrClosed):
		return wire.CodeUnavailable
	}
	return wire.CodeInternal
}
