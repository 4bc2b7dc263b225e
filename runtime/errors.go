package runtime

import (
	"errors"
	"fmt"
)

// The classes of engine errors. An engine maps its own errors to these, once, and wraps them with what it was doing. An
// error that wraps none of them, and is neither the end of a ctx nor an [ExitError], is a failure inside the engine.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid")
	ErrUnsupported = errors.New("not supported")
	ErrUnavailable = errors.New("engine unavailable") // down, hung or still starting
)

// An ExitError says that a process ended with a code other than 0.
type ExitError struct {
	Code int // 1 to 255
}

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// ExitCode returns the code, for callers that know only an interface.
func (e *ExitError) ExitCode() int { return e.Code }

// An Error is how an engine says what failed. Its text is fit for a user: what was being done, and the engine's own
// words; [errors.Is] finds its class.
type Error struct {
	Op      string // "start web-1"; may be ""
	Kind    error  // one of the classes, or nil for a failure inside the engine
	Message string
	Cause   error // the engine's own error, if there was one
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Message
	}
	return e.Op + ": " + e.Message
}

// Unwrap returns the class and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}
