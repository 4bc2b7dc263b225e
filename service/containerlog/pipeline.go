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

// A pipeline chooses among the entries of one read, joins pieces of lines and yields what is left.
type pipeline struct {
	ctx    context.Context //nolint:containedctx // of the one call that the pipeline lives for
	q      Query
	yieldf func(*Entry) error

	since, until int64 // ns, 0 is none
	after        position
	byTime       bool // after names no place in a file, only a time
	filter       *filter
	json         *jsonLines // where the filter's literal is looked for, if there is one

	last      int64 // time of the newest entry seen
	gapUnless int64 // call Gap unless the next entry is no newer; 0 is off

	parts   [2]part // lines in pieces, of stdout and stderr
	yielded bool    // since the last idle
	n       int
}

// A part is the beginning of a line of which more is to come.
type part struct {
	line []byte
	head Entry
}

// errEnough ends a read in good order.
var errEnough = errors.New("enough")

func newPipeline(ctx context.Context, q Query, yield func(*Entry) error) (*pipeline, error) {
	// Whoever follows is told once, even that there is nothing yet.
	p := &pipeline{ctx: ctx, q: q, yieldf: yield, yielded: q.Follow}
	if !q.Stdout && !q.Stderr {
		p.q.Stdout, p.q.Stderr = true, true
	}
	if !q.Since.IsZero() {
		p.since = q.Since.UnixNano()
	}
	if !q.Until.IsZero() {
		p.until = q.Until.UnixNano()
	}
	if p.since > 0 && p.until > 0 && p.since > p.until {
		return nil, fmt.Errorf("logs since %s until %s: %w", q.Since, q.Until, runtime.ErrInvalid)
	}
	if q.Filter != nil {
		p.filter = newFilter(q.Filter)
		p.q.Join = true
	}
	if p.q.MaxLine <= 0 {
		p.q.MaxLine = defaultMaxLine
	}
	if q.Cursor != "" {
		var err error
		if p.after, err = parsePosition(q.Cursor); err != nil {
			return nil, err
		}
		p.since, p.q.Tail = 0, 0
	}
	return p, nil
}

// prefilter lets the decoder skip what cannot match, undecoded.
func (p *pipeline) prefilter(d *jsonLines) {
	if p.filter != nil && len(p.filter.literal) > 0 {
		p.json = d
		d.need = p.filter.literal
	}
}

// drain yields what s has, after skip entries, up to the end of its file.
func (p *pipeline) drain(s *scanner, skip int) error {
	var e Entry
	if skip > 0 {
		if p.json != nil {
			p.json.hold = true // each record counts
		}
		for ; skip > 0; skip-- {
			if err := s.next(&e); err != nil {
				return endOfFile(err)
			}
		}
		p.hold()
	}
	for {
		if p.n++; p.n%256 == 0 && p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if err := s.next(&e); err != nil {
			return endOfFile(err)
		}
		if err := p.take(&e); err != nil {
			return err
		}
	}
}

// endOfFile turns the end of a file into nil, that of a compressed file that is cut too: what is there was read.
func endOfFile(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("log file: %w: %w", runtime.ErrUnavailable, err)
}

func (p *pipeline) take(e *Entry) error {
	p.last = max(p.last, e.nano)
	if p.gapUnless > 0 {
		if e.nano > p.gapUnless && p.q.Gap != nil {
			p.q.Gap()
		}
		p.gapUnless = 0
	}
	if e.nano < p.since {
		return nil
	}
	if p.until > 0 && e.nano > p.until {
		return errEnough
	}
	if e.Stderr && !p.q.Stderr || !e.Stderr && !p.q.Stdout {
		return nil
	}
	if p.q.Join {
		return p.join(e)
	}
	return p.yield(e)
}

func (p *pipeline) yield(e *Entry) error {
	p.yielded = true
	return p.yieldf(e)
}

// join collects the pieces of a line.
func (p *pipeline) join(e *Entry) error {
	part := &p.parts[0]
	if e.Stderr {
		part = &p.parts[1]
	}
	switch {
	case len(part.line) == 0 && !e.Partial():
		return p.match(e)
	case len(part.line) == 0:
		part.head = *e
		part.head.stamp = bytes.Clone(e.stamp)
	}
	part.line = append(part.line, e.Line...)
	part.head.pos = e.pos
	defer p.hold()
	if e.Partial() && len(part.line) < p.q.MaxLine {
		return nil
	}
	part.head.Truncated = e.Partial()
	return p.flush(part)
}

// hold keeps the decoder from skipping the rest of a line whose beginning is here.
func (p *pipeline) hold() {
	if p.json != nil {
		p.json.hold = len(p.parts[0].line)+len(p.parts[1].line) > 0
	}
}

func (p *pipeline) flush(part *part) error {
	if len(part.line) == 0 {
		return nil
	}
	e := part.head
	e.Line = part.line
	part.line = part.line[:0]
	return p.match(&e)
}

func (p *pipeline) match(e *Entry) error {
	if p.filter != nil && !p.filter.match(e.Line) {
		return nil
	}
	return p.yield(e)
}

// endBefore leaves out what is as new as t.
func (p *pipeline) endBefore(t time.Time) {
	if last := t.UnixNano() - 1; p.until == 0 || last < p.until {
		p.until = last
	}
}

// idle tells the consumer that it has everything for now.
func (p *pipeline) idle() error {
	if !p.yielded {
		return nil
	}
	p.yielded = false
	if p.q.Idle == nil {
		return nil
	}
	return p.q.Idle()
}

// end yields what is left of lines that never ended, and tells the consumer.
func (p *pipeline) end() error {
	for i := range p.parts {
		if err := p.flush(&p.parts[i]); err != nil {
			return err
		}
	}
	return p.idle()
}
