package logs

import (
	"context"
	"io"
	goruntime "runtime"

	"golang.org/x/sync/errgroup"
)

const (
	searchers  = 4       // files of one command that are searched at once
	heldOutput = 1 << 20 // bytes of output that a file holds until its turn
)

// many searches several files at once. Their output comes in the order of the names, so a file whose turn has not come
// holds a little of it and then waits.
func (g *grepper) many(ctx context.Context, e *env, names []string, compressed bool) (selected int64, code int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, min(searchers, goruntime.GOMAXPROCS(0)))
	found, codes := make([]int64, len(names)), make([]int, len(names))
	turn := make(chan struct{})
	close(turn)
	var group errgroup.Group
	for i, name := range names {
		select {
		case slots <- struct{}{}: // in order, so whoever has the turn always has a slot
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		mine, next := turn, make(chan struct{})
		turn = next
		group.Go(func() error {
			defer func() { <-slots }()
			err := guard(func() (err error) {
				found[i], codes[i], err = g.inTurn(ctx, e, name, compressed, mine)
				return err
			})
			if err != nil {
				cancel(err)
				return err
			}
			close(next)
			return nil
		})
	}
	err = group.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	for i := range names {
		selected += found[i]
		code = max(code, codes[i])
	}
	return selected, code, err
}

// inTurn searches one file, and returns when its output and what is to be said about it are through.
func (g *grepper) inTurn(ctx context.Context, e *env, name string, compressed bool, turn <-chan struct{}) (int64, int, error) {
	own := *g
	m := *g.m // it holds a scratch buffer
	m.lower, m.lowerOf = nil, nil
	own.m = &m
	held := &turnWriter{ctx: ctx, turn: turn, out: e.out}
	var said []string
	sub := *e
	sub.out = &writer{w: held, pool: e.service.blocks}
	sub.sink.Err = func(line string) { said = append(said, line) }
	selected := int64(0)
	code, err := sub.eachName(ctx, []string{name}, g.silent, func(name string, r io.Reader) error {
		n, err := own.plain(&sub, name, r, compressed)
		selected += n
		return err
	})
	if err == nil {
		err = sub.out.Flush()
	}
	if err == nil {
		err = held.release()
	}
	for _, line := range said {
		e.sink.Err(line)
	}
	return selected, code, err
}

// A turnWriter holds output back until turn is closed.
type turnWriter struct {
	ctx  context.Context
	turn <-chan struct{}
	out  *writer
	buf  []byte
	mine bool
}

func (w *turnWriter) Write(p []byte) (int, error) {
	if !w.mine {
		select {
		case <-w.turn:
			w.mine = true
		default:
			if len(w.buf)+len(p) <= heldOutput {
				w.buf = append(w.buf, p...)
				return len(p), nil
			}
		}
		if err := w.release(); err != nil {
			return 0, err
		}
	}
	n, err := w.out.Write(p)
	if err == nil {
		err = w.out.Flush()
	}
	return n, err
}

// release waits for the turn and writes what is held.
func (w *turnWriter) release() error {
	select {
	case <-w.turn:
		w.mine = true
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.out.Write(w.buf)
	w.buf = nil
	if err == nil {
		err = w.out.Flush()
	}
	return err
}
