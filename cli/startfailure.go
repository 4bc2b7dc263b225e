package cli

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/runtime"
)

// A startFailure takes out of a process's output what is none: dockerd writes why a process could not be started where
// its output would be, and gives it the code 126 whatever the reason is.
type startFailure struct {
	w    io.Writer
	held []byte // while it may be such a message
	over bool   // it is output
}

const (
	startMark = "OCI runtime exec failed: "
	startMost = 16 << 10 // no message is longer
)

func (f *startFailure) Write(p []byte) (int, error) {
	if f.over {
		return f.w.Write(p)
	}
	f.held = append(f.held, p...)
	n := min(len(f.held), len(startMark))
	if string(f.held[:n]) == startMark[:n] && len(f.held) < startMost {
		return len(p), nil
	}
	if err := f.release(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// release passes on what was held.
func (f *startFailure) release() error {
	held := f.held
	f.over, f.held = true, nil
	if len(held) == 0 {
		return nil
	}
	_, err := f.w.Write(held)
	return err
}

// end returns how the process ended: err, or why it was never started.
func (f *startFailure) end(err error) error {
	var exit *runtime.ExitError
	started := !errors.As(err, &exit) || exit.Code != exitCannotInvoke && exit.Code != exitNotFound
	if f.over || started || !bytes.HasPrefix(f.held, []byte(startMark)) {
		if werr := f.release(); err == nil {
			err = werr
		}
		return err
	}
	why := strings.TrimSuffix(strings.TrimSpace(string(f.held[len(startMark):])), ": unknown")
	code := exitCannotInvoke
	if strings.Contains(why, "executable file not found") || strings.Contains(why, "no such file or directory") {
		code = exitNotFound
	}
	why = strings.TrimPrefix(why, "exec failed: ")
	why = strings.TrimPrefix(why, "unable to start container process: ")
	return withExit(code, errors.New(ui.Clean(why)))
}
