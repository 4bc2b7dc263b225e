package handlers

import (
	"context"
	"errors"
	"strings"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// maxUserText bounds the text of an error reply, in bytes.
const maxUserText = 2048

// Classify returns the reply code (wire.Code*) and the one line for the user that err stands for. It suits
// events.RouterConfig. The text is the innermost that says more than its class: what the engine said, without what the
// agent was doing around it; the log has the whole chain.
func Classify(err error) (code, userText string) {
	if err == nil {
		return "", ""
	}
	var coded interface{ ReplyCode() string }
	switch {
	case errors.As(err, &coded):
		code = coded.ReplyCode()
	case errors.Is(err, runtime.ErrNotFound):
		code = wire.CodeNotFound
	case errors.Is(err, runtime.ErrConflict):
		code = wire.CodeConflict
	case errors.Is(err, runtime.ErrInvalid):
		code = wire.CodeInvalid
	case errors.Is(err, runtime.ErrUnsupported):
		code = wire.CodeUnsupported
	case errors.Is(err, runtime.ErrUnavailable):
		code = wire.CodeUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		code = wire.CodeTimeout
	default:
		code = wire.CodeInternal
	}
	return code, oneLine(useful(err).Error())
}

// useful returns the innermost error of the chain that says more than a class. An error that wraps several ends the
// walk: that is how an engine attaches the class to the text that it wrote for the user.
func useful(err error) error {
	for {
		e, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		inner := e.Unwrap()
		_, coded := err.(interface{ ReplyCode() string })
		if inner == nil || bare(inner) || coded {
			return err
		}
		err = inner
	}
}

func bare(err error) bool {
	switch err {
	case runtime.ErrNotFound, runtime.ErrConflict, runtime.ErrInvalid, runtime.ErrUnsupported, runtime.ErrUnavailable,
		context.Canceled, context.DeadlineExceeded:
		return true
	}
	return false
}

// oneLine joins the lines of s and bounds its length.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxUserText {
		s = strings.ToValidUTF8(s[:maxUserText], "") + " ..."
	}
	return s
}
