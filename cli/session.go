package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/droverhq/drover/cli/cast"
	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/service/streamclient"
)

// A session is the user's end of a process: keyboard and screen, or what stands for them.
type session struct {
	app         *app
	interactive bool // standard input is passed on
	tty         bool // the process has a terminal
	keys        []byte
	recorder    *cast.Recorder // nil: nothing is recorded
	keystrokes  bool           // they are recorded too
}

// run calls do with the ends of the streams and the size of the terminal, and puts the terminal back as it was however
// do ends. It returns terminal.ErrDetached if the user left by the keys.
func (s *session) run(ctx context.Context, do func(context.Context, streamclient.Streams, terminal.Size) error) error {
	// Whoever closes the window wants the terminal's mode restored no less than who interrupts.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)

	env := s.app.env
	streams := streamclient.Streams{Stdout: s.record(env.Stdout)}
	var size terminal.Size
	if s.tty {
		t, err := terminal.Take(env.Stdin, env.Stdout, s.interactive, s.recordSize)
		if err != nil {
			return err
		}
		defer t.Release()
		size = t.Size()
		streams.Resize = t.Sizes()
	} else {
		streams.Stderr = env.Stderr
	}
	streams.Gap = func(n int64) { s.app.aside(s.tty, "%d bytes of output were lost with the connection", n) }
	if s.interactive {
		in, err := s.input(leave)
		if err != nil {
			return err
		}
		defer in.close()
		streams.Stdin = in
	}
	err := do(ctx, streams, size)
	if err != nil && errors.Is(context.Cause(ctx), terminal.ErrDetached) {
		return terminal.ErrDetached
	}
	if err != nil && s.tty && s.interactive && !isExit(err) {
		// A program that was cut off had no time to clean up.
		_, _ = io.WriteString(env.Stdout, terminal.Reset)
	}
	return err
}

// record copies what is written to the recording.
func (s *session) record(w io.Writer) io.Writer {
	if s.recorder == nil {
		return w
	}
	return writerFunc(func(p []byte) (int, error) {
		s.recorder.Output(p)
		return w.Write(p)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (s *session) recordSize(size terminal.Size) {
	if s.recorder != nil {
		s.recorder.Resize(int(size.Width), int(size.Height))
	}
}

// A keyboard is standard input on its way to a process.
type keyboard struct {
	in      *terminal.Input
	from    io.Reader // in, watched for the keys that leave
	session *session
	leave   context.CancelCauseFunc
	closed  chan struct{}
}

func (s *session) input(leave context.CancelCauseFunc) (*keyboard, error) {
	in, err := terminal.NewInput(s.app.env.Stdin)
	if err != nil {
		return nil, err
	}
	return &keyboard{in: in, from: terminal.Detach(in, s.keys), session: s, leave: leave, closed: make(chan struct{})}, nil
}

// Read does not return its last error before close: the end of the input would be passed on as such, and end the process
// that the user has left.
func (k *keyboard) Read(p []byte) (int, error) {
	n, err := k.from.Read(p)
	if n > 0 && k.session.recorder != nil && k.session.keystrokes {
		k.session.recorder.Input(p[:n])
	}
	switch {
	case n > 0:
		return n, nil // an error comes again
	case errors.Is(err, terminal.ErrDetached):
		k.leave(err)
		<-k.closed
	case errors.Is(err, terminal.ErrStopped):
		<-k.closed
	}
	return n, err
}

// close ends a read that is under way.
func (k *keyboard) close() {
	k.in.Stop()
	close(k.closed)
}

// isExit tells whether a process ended by itself.
func isExit(err error) bool {
	var exit interface{ ExitCode() int }
	return errors.As(err, &exit)
}

// aside is a note in the middle of a stream; a terminal in raw mode needs the carriage told to return.
func (a *app) aside(raw bool, format string, args ...any) {
	end := "\n"
	if raw {
		end = "\r\n"
	}
	fmt.Fprintf(a.env.Stderr, end+"drover: "+format+end, args...)
}
