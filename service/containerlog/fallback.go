package containerlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/droverhq/drover/runtime"
)

// fallback reads through the engine, as lines with their times. A cursor is no more than a time here: a line that the
// engine wrote down after one of the other stream with a later time is passed over.
func (r *Reader) fallback(ctx context.Context, id string, src source, p *pipeline) error {
	if r.cfg.Fallback == nil {
		return fmt.Errorf("logs of %s: driver %q: %w: %w", id, src.status.LogDriver, runtime.ErrUnsupported, errNoFile)
	}
	opts := p.q.LogOptions
	opts.Timestamps = true
	if p.q.Cursor != "" {
		p.since = p.after.nano + 1
		opts.Since, opts.Tail = time.Unix(0, p.after.nano), 0
	}
	l := &lines{pipe: p, pieces: !src.status.TTY}
	err := r.cfg.Fallback.Logs(ctx, id, opts, stream{l, 0}, stream{l, 1})
	if l.err != nil {
		err = l.err
	}
	if err == nil || errors.Is(err, errEnough) {
		return l.end()
	}
	return err
}

// lines takes an engine's output with timestamps apart.
type lines struct {
	pipe   *pipeline
	pieces bool // each write that begins in the middle of a line begins with a timestamp, as dockerd's do

	open [2]Entry // the lines under way; Line grows
	err  error
}

// A stream is one of the two outputs.
type stream struct {
	l *lines
	i int
}

func (s stream) Write(p []byte) (int, error) {
	if s.l.err == nil {
		s.l.err = s.l.write(s.i, p)
	}
	if s.l.err != nil {
		return 0, s.l.err
	}
	return len(p), nil
}

var _ io.Writer = stream{}

func (l *lines) write(i int, p []byte) error {
	e := &l.open[i]
	if len(e.Line) > 0 && l.pieces {
		if rest, _, ok := cutStamp(p); ok {
			p = rest
		}
	}
	for len(p) > 0 {
		line := p
		complete := false
		if n := bytes.IndexByte(p, '\n') + 1; n > 0 {
			line, complete = p[:n], true
		}
		p = p[len(line):]
		e.Line = append(e.Line, line...)
		if complete || len(e.Line) >= l.pipe.q.MaxLine {
			if err := l.yield(i); err != nil {
				return err
			}
		}
	}
	return l.pipe.idle()
}

// yield passes the line under way on.
func (l *lines) yield(i int) error {
	e := &l.open[i]
	whole := e.Line
	if rest, stamp, ok := cutStamp(whole); ok {
		e.Line = rest
		e.nano = stamp.UnixNano()
		e.stamp = stamp.AppendFormat(nil, stampFixed)
	}
	e.Stderr = i == 1
	e.pos = position{nano: e.nano}
	err := l.pipe.take(e)
	e.Line = whole[:0]
	return err
}

func (l *lines) end() error {
	for i := range l.open {
		if len(l.open[i].Line) > 0 {
			if err := l.yield(i); err != nil && !errors.Is(err, errEnough) {
				return err
			}
		}
	}
	return l.pipe.end()
}

// cutStamp takes the timestamp and its space off b.
func cutStamp(b []byte) ([]byte, time.Time, bool) {
	n := bytes.IndexByte(b[:min(len(b), len(stampFixed)+1)], ' ')
	if n < 20 || b[4] != '-' {
		return b, time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(b[:n]))
	return b[n+1:], t, err == nil
}
