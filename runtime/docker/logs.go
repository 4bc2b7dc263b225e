package docker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/droverhq/drover/runtime"
)

// Logs writes what the container wrote, as the daemon's log driver kept it. A driver that cannot be read is
// runtime.ErrUnsupported.
func (e *Engine) Logs(ctx context.Context, id string, opts runtime.LogOptions, out, errOut io.Writer) error {
	op := "logs of " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	st, err := e.State(ctx, id)
	if err != nil {
		return err
	}
	s, err := e.opened(ctx, op)
	if err != nil {
		return err
	}
	return e.wrapLong(ctx, op, e.logs(ctx, s, st, opts, out, errOut))
}

func (e *Engine) logs(ctx context.Context, s *session, st runtime.ContainerStatus, opts runtime.LogOptions, out, errOut io.Writer) error {
	resp, err := e.request(ctx, e.long, s, http.MethodGet, "/containers/"+st.ID+"/logs", logQuery(opts).Encode(), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sink := &sinks{out: out, err: errOut}
	if err = copyOutput(sink, st.TTY, resp.Body); err != nil {
		if failed := sink.failure(); failed != nil {
			return &runtime.Error{Message: "write output: " + failed.Error(), Cause: failed}
		}
		return err
	}
	return nil
}

func logQuery(opts runtime.LogOptions) url.Values {
	query := url.Values{}
	if opts.Stdout || !opts.Stderr {
		query.Set("stdout", "1")
	}
	if opts.Stderr || !opts.Stdout {
		query.Set("stderr", "1")
	}
	if opts.Follow {
		query.Set("follow", "1")
	}
	if opts.Timestamps {
		query.Set("timestamps", "1")
	}
	switch {
	case opts.Tail > 0:
		query.Set("tail", strconv.Itoa(opts.Tail))
	case opts.Tail < 0:
		query.Set("tail", "0")
	}
	for key, t := range map[string]time.Time{"since": opts.Since, "until": opts.Until} {
		if !t.IsZero() {
			query.Set(key, strconv.FormatInt(t.Unix(), 10)+"."+nanos(t))
		}
	}
	return query
}

// copyOutput copies a process's output to its end: bare from a terminal, else taken apart into the two streams.
func copyOutput(to *sinks, tty bool, from io.Reader) error {
	if tty {
		_, err := io.CopyBuffer(to.stdout(), from, make([]byte, 64<<10))
		return err
	}
	return demux(to, from)
}

// sinks are the two writers of a process's output. They remember the first error, to tell it from one of the daemon,
// and swallow what nobody wants.
type sinks struct {
	out, err io.Writer
	failed   error
}

type sink struct {
	to     io.Writer
	parent *sinks
}

func (s *sinks) stdout() io.Writer { return sink{s.out, s} }
func (s *sinks) stderr() io.Writer { return sink{s.err, s} }
func (s *sinks) failure() error    { return s.failed }

func (s sink) Write(p []byte) (int, error) {
	if s.to == nil {
		return len(p), nil
	}
	n, err := s.to.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil && s.parent.failed == nil {
		s.parent.failed = err
	}
	return n, err
}

// isEOF reports an ordinary end of a connection that was taken over.
func isEOF(err error) bool { return err == nil || errors.Is(err, io.EOF) }
