package streamclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/utils/backoff"
)

// LogOptions narrow a log. The zero value is everything so far, of both streams.
type LogOptions struct {
	Stdout, Stderr bool // neither: both
	Follow         bool
	Timestamps     bool // in front of each line, as docker logs does it
	Tail           int  // last n entries; 0: all, -1: none
	// Since and Until are a time (RFC 3339), seconds since 1970, or how long ago by the host's clock ("10m").
	Since, Until string
	Filter       string // RE2; only lines that match
	Join         bool   // put the pieces of long lines together; Filter implies it
	Cursor       string // go on behind an entry, instead of Tail and Since
	// Gap, if not nil, is told of each place where entries may be missing.
	Gap func()
}

func (o *LogOptions) query() url.Values {
	q := url.Values{}
	for name, on := range map[string]bool{
		"stdout": o.Stdout, "stderr": o.Stderr, "follow": o.Follow, "timestamps": o.Timestamps, "join": o.Join,
	} {
		flag(q, name, on)
	}
	for name, value := range map[string]string{"since": o.Since, "until": o.Until, "filter": o.Filter, "cursor": o.Cursor} {
		if value != "" {
			q.Set(name, value)
		}
	}
	switch {
	case o.Tail > 0:
		q.Set("tail", strconv.Itoa(o.Tail))
	case o.Tail < 0:
		q.Set("tail", "0")
	}
	return q
}

const (
	frameHeader = 8
	// maxFrame is the longest frame that is taken: a batch, and a line joined from its pieces.
	maxFrame = 64 << 20
)

// Logs writes a container's log to out and errOut, either of which may be nil, until its end, or with Follow until the
// container has ended. Where the connection breaks it goes on behind what was written. It returns the cursor of that.
func (c *Client) Logs(ctx context.Context, container string, opts LogOptions, out, errOut io.Writer) (cursor string, err error) {
	s := &logStream{out: out, errOut: errOut, gap: opts.Gap, cursor: opts.Cursor}
	retry := c.cfg.Retry.Start()
	var broke time.Time // since when nothing comes
	for {
		before := s.cursor
		err := s.open(ctx, c, container, &opts)
		var cut *cutError
		if !errors.As(err, &cut) || c.cfg.Patience < 0 {
			return s.cursor, err
		}
		if s.cursor != before || broke.IsZero() {
			broke = time.Now()
			retry.Reset()
		}
		if time.Since(broke) > c.cfg.Patience {
			return s.cursor, fmt.Errorf("the connection broke, and did not come back within %s: %w", c.cfg.Patience, cut.error)
		}
		if backoff.Sleep(ctx, retry.Next()) != nil {
			return s.cursor, context.Cause(ctx)
		}
	}
}

// A cutError is the end of a connection in the middle of a log.
type cutError struct{ error }

func (e *cutError) Unwrap() error { return e.error }

// open reads a log over one connection, from where the one before has left it.
func (s *logStream) open(ctx context.Context, c *Client, container string, opts *LogOptions) error {
	q := opts.query()
	switch {
	case s.cursor != "":
		q.Set("cursor", s.cursor)
	case s.began != "" && opts.Tail < 0:
		q.Del("tail") // what came since we first asked
		q.Set("since", s.began)
	}
	req, err := c.request(ctx, http.MethodGet, of("logs", container), q)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", service.MediaResumable)
	resp, err := c.do(req)
	var refused *Error
	switch {
	case err == nil:
	case !s.opened || ctx.Err() != nil || errors.As(err, &refused) && !temporary(refused.Status):
		return err
	default:
		return &cutError{err}
	}
	defer resp.Body.Close()
	if !s.opened {
		s.opened, s.began = true, resp.Header.Get(service.HeaderLogTime)
	}
	s.in, s.kind = bufio.NewReaderSize(resp.Body, 64<<10), 0
	return s.copy(ctx)
}

// A logStream takes a log apart that comes as service.MediaResumable.
type logStream struct {
	in          *bufio.Reader
	out, errOut io.Writer
	gap         func()

	opened bool
	began  string // the host's time then
	cursor string
	held   []byte // the frame whose cursor has not come yet
	kind   byte   // of held
}

// Kinds of frames.
const (
	frameStdout = 1
	frameStderr = 2
	frameError  = 3
	frameCursor = 4
	frameGap    = 5
)

func (s *logStream) copy(ctx context.Context) error {
	for {
		var head [frameHeader]byte
		if _, err := io.ReadFull(s.in, head[:]); errors.Is(err, io.EOF) {
			return s.release()
		} else if err != nil {
			return s.broke(ctx, err)
		}
		size := binary.BigEndian.Uint32(head[4:])
		if size > maxFrame {
			return fmt.Errorf("streams: a frame of %d bytes in a log", size)
		}
		switch kind := head[0]; kind {
		case frameStdout, frameStderr:
			if err := s.release(); err != nil {
				return err
			}
			if uint32(cap(s.held)) < size {
				s.held = make([]byte, size)
			}
			s.held, s.kind = s.held[:size], kind
			if _, err := io.ReadFull(s.in, s.held); err != nil {
				s.kind = 0
				return s.broke(ctx, err)
			}
		default:
			p := make([]byte, size)
			if _, err := io.ReadFull(s.in, p); err != nil {
				return s.broke(ctx, err)
			}
			if err := s.control(kind, p); err != nil {
				return err
			}
		}
	}
}

// broke is the error of a read. A frame without its cursor comes again.
func (s *logStream) broke(ctx context.Context, err error) error {
	s.kind = 0
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &cutError{failure(ctx, err)}
}

func (s *logStream) control(kind byte, p []byte) error {
	switch kind {
	case frameCursor:
		if err := s.release(); err != nil {
			return err
		}
		s.cursor = string(p)
	case frameGap:
		if s.gap != nil {
			s.gap()
		}
	case frameError:
		if err := s.release(); err != nil {
			return err
		}
		return &Error{Status: http.StatusInternalServerError, Message: string(p)}
	}
	return nil
}

// release writes the frame that is held.
func (s *logStream) release() error {
	w := s.out
	if s.kind == frameStderr {
		w = s.errOut
	}
	if s.kind == 0 || w == nil {
		return nil
	}
	s.kind = 0
	if _, err := w.Write(s.held); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// LogLines yields a container's log entry by entry.
func (c *Client) LogLines(ctx context.Context, container string, opts LogOptions) iter.Seq2[service.LogLine, error] {
	return func(yield func(service.LogLine, error) bool) {
		req, err := c.request(ctx, http.MethodGet, of("logs", container), opts.query())
		if err != nil {
			yield(service.LogLine{}, err)
			return
		}
		req.Header.Set("Accept", service.MediaLines)
		type line struct {
			service.LogLine
			Gap   bool   `json:"gap"`
			Error string `json:"error"`
		}
		for l, err := range objects[line](c, req) {
			switch {
			case err == nil && l.Error != "":
				err = &Error{Status: http.StatusInternalServerError, Message: l.Error}
			case l.Gap:
				if opts.Gap != nil {
					opts.Gap()
				}
				continue
			}
			if !yield(l.LogLine, err) || err != nil {
				return
			}
		}
	}
}
