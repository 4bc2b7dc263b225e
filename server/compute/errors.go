package compute

import (
	"errors"
	"fmt"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
)

// An Error is a refusal or failure that can be told to whoever asked.
type Error struct {
	Code  string // one of wire's Code constants
	Field string // the field of the request at fault, where there is one
	Text  string // one line for people
}

func (e *Error) Error() string { return e.Text }

func invalid(field, format string, args ...any) error {
	return &Error{Code: wire.CodeInvalid, Field: field, Text: fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &Error{Code: wire.CodeConflict, Text: fmt.Sprintf(format, args...)}
}

func unavailable(format string, args ...any) error {
	return &Error{Code: wire.CodeUnavailable, Text: fmt.Sprintf(format, args...)}
}

// explain turns an error of the hub or the store into one for people. host is the name of the host it concerns.
func explain(err error, host string) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrNotFound):
		return &Error{Code: wire.CodeNotFound, Text: err.Error()}
	case errors.Is(err, hub.ErrTimeout):
		return &Error{Code: wire.CodeTimeout, Text: fmt.Sprintf("host %s did not answer in time", host)}
	case errors.Is(err, hub.ErrUnknownAgent):
		return &Error{Code: wire.CodeNotFound, Text: fmt.Sprintf("host %s was removed", host)}
	case errors.Is(err, hub.ErrFull):
		return &Error{Code: wire.CodeBusy, Text: fmt.Sprintf("too much work waits for host %s", host)}
	case errors.Is(err, hub.ErrUnsupported):
		return &Error{Code: wire.CodeUnsupported, Text: fmt.Sprintf("the agent of host %s cannot do this", host)}
	}
	return &Error{Code: hub.Code(err), Text: err.Error()}
}

// failure returns what a final reply reports, or nil where it reports success.
func failure(r *wire.Reply) *Error {
	if r.Transitioning != wire.TransitioningError {
		return nil
	}
	e := &Error{Code: r.Code, Text: r.TransitioningMessage}
	if e.Code == "" {
		e.Code = wire.CodeInternal
	}
	if e.Text == "" {
		e.Text = "the host reported a failure without a reason"
	}
	return e
}
