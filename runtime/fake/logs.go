package fake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

const (
	streamOut = 1
	streamErr = 2

	// maxOutput bounds what is kept of a container's output; the oldest goes first.
	maxOutput = 8 << 20
)

// output is what a container's main process wrote: chunks as they came, numbered from the first.
type output struct {
	mu      sync.Mutex
	chunks  []chunk
	dropped int // chunks before the first
	size    int
	partial map[int]bool  // streams whose last line has no end yet
	changed chan struct{} // closed and replaced when there is more
}

type chunk struct {
	at     time.Time
	stream int
	data   []byte
	starts bool // at the beginning of a line
}

func newOutput() *output {
	return &output{partial: map[int]bool{}, changed: make(chan struct{})}
}

// writer is one of the process's streams.
func (o *output) writer(stream int) io.Writer { return outputWriter{o, stream} }

type outputWriter struct {
	to     *output
	stream int
}

func (w outputWriter) Write(p []byte) (int, error) {
	o := w.to
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for _, part := range bytes.SplitAfter(p, []byte("\n")) {
		if len(part) == 0 {
			continue
		}
		o.chunks = append(o.chunks, chunk{at: now, stream: w.stream, data: bytes.Clone(part), starts: !o.partial[w.stream]})
		o.partial[w.stream] = part[len(part)-1] != '\n'
		o.size += len(part)
	}
	for o.size > maxOutput {
		o.size -= len(o.chunks[0].data)
		o.chunks = o.chunks[1:]
		o.dropped++
	}
	o.wakeLocked()
	return len(p), nil
}

// finish ends the last lines of a process, and wakes those who follow.
func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.partial)
	o.wakeLocked()
}

func (o *output) wakeLocked() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// since returns the chunks from number next on, the number after them, and what tells of more.
func (o *output) since(next int) ([]chunk, int, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next = max(next, o.dropped)
	list := o.chunks[next-o.dropped:]
	return list, next + len(list), o.changed
}

// Logs writes what the main process wrote.
func (e *Engine) Logs(ctx context.Context, id string, opts runtime.LogOptions, out, errOut io.Writer) error {
	op, lost := "logs of "+id, e.lost()
	if err := e.enter(ctx, "Logs", op); err != nil {
		return err
	}
	e.mu.Lock()
	c, err := e.find(op, id)
	if err != nil {
		e.mu.Unlock()
		return err
	}
	stopped := c.ended
	follow := opts.Follow && c.running
	e.mu.Unlock()

	w := logWriter{opts: opts, tty: c.spec.TTY, out: out, err: errOut}
	list, next, changed := c.output.since(0)
	list = w.selected(list)
	if opts.Tail < 0 {
		list = nil
	} else if opts.Tail > 0 {
		list = tail(list, opts.Tail)
	}
	for {
		for _, ch := range list {
			if err := w.write(ch); err != nil {
				return &runtime.Error{Op: op, Message: "write output: " + err.Error(), Cause: err}
			}
		}
		if !follow {
			return nil
		}
		if len(list) == 0 {
			select {
			case <-changed:
			case <-stopped:
				follow = false // once more, for what came last
			case <-lost:
				return broken(op)
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", op, ctx.Err())
			}
		}
		list, next, changed = c.output.since(next)
		list = w.selected(list)
	}
}

// tail returns the chunks of the last n lines.
func tail(list []chunk, n int) []chunk {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].starts {
			if n--; n == 0 {
				return list[i:]
			}
		}
	}
	return list
}

type logWriter struct {
	opts     runtime.LogOptions
	tty      bool
	out, err io.Writer
}

// selected drops the chunks that the options do not want.
func (w *logWriter) selected(list []chunk) []chunk {
	both := w.opts.Stdout == w.opts.Stderr
	var wanted []chunk
	for _, ch := range list {
		switch {
		case !both && w.opts.Stdout != (ch.stream == streamOut):
		case !w.opts.Since.IsZero() && ch.at.Before(w.opts.Since):
		case !w.opts.Until.IsZero() && ch.at.After(w.opts.Until):
		default:
			wanted = append(wanted, ch)
		}
	}
	return wanted
}

func (w *logWriter) write(ch chunk) error {
	to := w.out
	if ch.stream == streamErr && !w.tty {
		to = w.err
	}
	if to == nil {
		return nil
	}
	data := ch.data
	if w.opts.Timestamps && ch.starts {
		data = append([]byte(ch.at.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")+" "), data...)
	}
	_, err := to.Write(data)
	return err
}

// Attach connects streams to the main process until it ends.
func (e *Engine) Attach(ctx context.Context, id string, spec runtime.AttachSpec, streams runtime.Streams) error {
	op, lost := "attach to "+id, e.lost()
	if err := e.enter(ctx, "Attach", op); err != nil {
		return err
	}
	e.mu.Lock()
	c, err := e.find(op, id)
	if err != nil {
		e.mu.Unlock()
		return err
	}
	stopped, stdin := c.ended, c.stdin
	e.notify(c, "attach")
	list, next, changed := c.output.since(0)
	e.mu.Unlock()
	if spec.Attached != nil {
		spec.Attached()
	}
	if streams.In != nil && stdin != nil {
		go func() { // as long as a Read of the caller's takes; see runtime.Attacher
			_, err := io.Copy(stdin, streams.In)
			if err == nil && c.spec.StdinOnce {
				stdin.Close()
			}
		}()
	}
	w := logWriter{tty: c.spec.TTY, out: streams.Out, err: streams.Err}
	if !spec.Logs {
		list = nil
	}
	resize := streams.Resize
	for running := true; ; {
		for _, ch := range list {
			if err := w.write(ch); err != nil {
				return &runtime.Error{Op: op, Message: "write output: " + err.Error(), Cause: err}
			}
		}
		if len(list) == 0 {
			if !running {
				return nil
			}
			select {
			case <-changed:
			case size, ok := <-resize:
				if resize = nil; ok {
					resize = streams.Resize
					e.mu.Lock()
					if c.proc != nil {
						c.proc.resize(size)
					}
					e.mu.Unlock()
				}
			case <-stopped:
				running = false
			case <-lost:
				return broken(op)
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", op, ctx.Err())
			}
		}
		list, next, changed = c.output.since(next)
	}
}
