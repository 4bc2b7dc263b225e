package containerlog

import (
	"context"
	"errors"
	"io"
	"reflect"

	"github.com/droverhq/drover/runtime"
)

// batchSize is how many bytes are collected before they are written.
const batchSize = 64 << 10

// Logs implements [runtime.LogReader].
func (r *Reader) Logs(ctx context.Context, id string, opts runtime.LogOptions, out, errOut io.Writer) error {
	return r.Copy(ctx, id, Query{LogOptions: opts}, out, errOut)
}

// Copy writes what [Reader.Entries] would yield to out and errOut, with timestamps if asked for, just as dockerd's API
// would. A nil writer takes nothing. It writes up to 64 KiB at once and, at the latest, when the log has no more for
// now; then it also calls the writers' Flush, if they have one (Flush() error), and q.Idle. Since a TTY has one stream,
// all of its output is stdout.
func (r *Reader) Copy(ctx context.Context, id string, q Query, out, errOut io.Writer) error {
	if !q.Stdout && !q.Stderr {
		q.Stdout, q.Stderr = true, true
	}
	q.Stdout = q.Stdout && out != nil
	q.Stderr = q.Stderr && errOut != nil
	if !q.Stdout && !q.Stderr {
		return nil
	}
	b := &batch{out: [2]io.Writer{out, errOut}, same: same(out, errOut), stamps: q.Timestamps, mark: q.Mark}
	idle := q.Idle
	q.Idle = func() error {
		if err := b.write(); err != nil {
			return err
		}
		if err := b.flush(); err != nil || idle == nil {
			return err
		}
		return idle()
	}
	p, err := newPipeline(ctx, q, b.add)
	if err != nil {
		return err
	}
	src, err := r.fromFiles(ctx, id, p)
	if errors.Is(err, errNoFile) && r.cfg.Fallback != nil && q.plain() {
		// Nothing to choose that the engine would not: its own bytes, unparsed.
		return r.cfg.Fallback.Logs(ctx, id, q.LogOptions, out, errOut)
	}
	if errors.Is(err, errNoFile) {
		err = r.fallback(ctx, id, src, p)
	}
	// Whatever ended the read: what was read is delivered.
	return errors.Join(err, b.write())
}

// plain reports whether q asks for nothing beyond runtime.LogOptions.
func (q *Query) plain() bool {
	return q.Filter == nil && !q.Join && q.Cursor == "" && q.Mark == nil
}

// same reports whether a and b are one writer.
func same(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

// A batch collects entries of one writer.
type batch struct {
	out    [2]io.Writer // for stdout and stderr
	same   bool
	stamps bool
	mark   func(string) error

	buf  []byte
	to   int   // index of the writer that buf is for
	last Entry // of buf, for its place
}

func (b *batch) add(e *Entry) error {
	to := 0
	if e.Stderr {
		to = 1
	}
	if to != b.to && !b.same && len(b.buf) > 0 {
		if err := b.write(); err != nil {
			return err
		}
	}
	b.to = to
	if b.buf == nil {
		b.buf = make([]byte, 0, batchSize+2*pieceSize)
	}
	if b.stamps {
		b.buf = append(e.AppendTime(b.buf), ' ')
	}
	b.buf = append(b.buf, e.Line...)
	if b.mark != nil {
		b.last.pos, b.last.nano = e.pos, e.nano
	}
	if len(b.buf) >= batchSize {
		return b.write()
	}
	return nil
}

func (b *batch) write() error {
	if len(b.buf) == 0 {
		return nil
	}
	_, err := b.out[b.to].Write(b.buf)
	b.buf = b.buf[:0]
	if err != nil || b.mark == nil {
		return err
	}
	return b.mark(b.last.Cursor())
}

func (b *batch) flush() error {
	for i, w := range b.out {
		if f, ok := w.(interface{ Flush() error }); ok && (i == 0 || !b.same) {
			if err := f.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}
