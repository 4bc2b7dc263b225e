package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/droverhq/drover/runtime"
)

// Attach connects streams to the main process of a container until its output ends. Whether it has a terminal is asked
// from the daemon, not taken from spec.
func (e *Engine) Attach(ctx context.Context, id string, spec runtime.AttachSpec, streams runtime.Streams) error {
	op := "attach to " + shorten(id)
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
	query := "stream=1&stdout=1&stderr=1"
	if streams.In != nil {
		query += "&stdin=1"
	}
	if spec.Logs {
		query += "&logs=1"
	}
	conn, err := e.hijack(ctx, s, "/containers/"+st.ID+"/attach", query, nil)
	if err != nil {
		return e.wrapLong(ctx, op, err)
	}
	defer conn.Close()
	if spec.Attached != nil {
		spec.Attached()
	}
	if streams.In != nil {
		go feed(conn, streams.In)
	}
	attached, stop := context.WithCancel(ctx)
	var resizer sync.WaitGroup
	if st.TTY && streams.Resize != nil {
		resizer.Go(func() {
			resizeLoop(attached, streams.Resize, func(ctx context.Context, size runtime.TerminalSize) error {
				ctx, cancel := e.limit(ctx, e.cfg.Timeout)
				defer cancel()
				return s.api.ContainerResize(ctx, st.ID, resizeOptions(size))
			})
		})
	}
	sink := &sinks{out: streams.Out, err: streams.Err}
	err = copyOutput(sink, st.TTY, conn)
	stop()
	resizer.Wait()
	ended := ctx.Err()
	if failed := sink.failure(); failed != nil && ended == nil {
		return &runtime.Error{Op: op, Message: "write output: " + failed.Error(), Cause: failed}
	}
	if ended != nil {
		return fmt.Errorf("%s: %w", op, ended)
	}
	if !isEOF(err) {
		return e.wrapLong(ctx, op, err)
	}
	return e.whyEnded(ctx, st.ID)
}

// whyEnded tells after the end of a stream whether it was the daemon that went away. A container that still runs has
// closed its output, or is about to be seen to have ended, or the daemon's other connections are about to break.
func (e *Engine) whyEnded(ctx context.Context, id string) error {
	for delay := 10 * time.Millisecond; delay < time.Second; delay *= 2 {
		st, err := e.State(ctx, id)
		if errors.Is(err, runtime.ErrUnavailable) {
			return err
		}
		if err != nil || !st.Running || !pause(ctx, delay) {
			break
		}
	}
	return nil
}

// feed copies a process's input and then lets it read EOF. It is waited for by nobody, because a Read of in may never
// return; a connection that is gone ends it at the next byte.
func feed(conn *hijacked, in io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, in, make([]byte, 32<<10))
	_ = conn.CloseWrite()
}

// resizeLoop passes sizes on, only the newest if they come faster than the daemon takes them, until ctx ends or sizes
// is closed. A resize that fails is forgotten: the process has ended, or the next size is on its way.
func resizeLoop(ctx context.Context, sizes <-chan runtime.TerminalSize, resize func(context.Context, runtime.TerminalSize) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			for more := true; more; {
				select {
				case newer, ok := <-sizes:
					if more = ok; ok {
						size = newer
					}
				default:
					more = false
				}
			}
			_ = resize(ctx, size)
		}
	}
}

func resizeOptions(size runtime.TerminalSize) container.ResizeOptions {
	return container.ResizeOptions{Width: uint(size.Width), Height: uint(size.Height)}
}
