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
