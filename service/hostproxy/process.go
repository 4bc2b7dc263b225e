package hostproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/containerlog"
)

// resizePrefix begins a body that is the terminal's new size: ":resizeTTY:80,24".
const resizePrefix = ":resizeTTY:"

// exec runs a process for a viewer. Without a terminal the output is dockerd's multiplexed stream.
func (c *Client) exec(ctx context.Context, s *stream, claims jwt.MapClaims, _ string) error {
	var want struct {
		AttachStdin, AttachStdout, AttachStderr, Tty bool
		Cmd                                          []string
		Container                                    string
	}
	if err := claim(claims, "exec", &want); err != nil {
		return err
	}
	spec := runtime.ExecSpec{Cmd: want.Cmd, TTY: want.Tty}
	sizes := make(chan runtime.TerminalSize, 1)
	in := &decoder{in: s.in, special: func(body string) bool {
		text, ok := strings.CutPrefix(body, resizePrefix)
		if !ok {
			return false
		}
		if size, ok := parseSize(text); ok {
			select {
			case <-sizes: // only the newest counts; this goroutine alone sends
			default:
			}
			sizes <- size
		}
		return true
	}}
	streams := runtime.Streams{Resize: sizes}
	if want.AttachStdin {
		streams.In = in
	} else {
		// Resizes come on the same way, and must be read.
		s.link.workers.Go(func() { _, _ = io.Copy(io.Discard, in) })
	}
	out := &muxer{to: encoder{s}, bare: want.Tty}
	if want.AttachStdout || want.Tty {
		streams.Out = out.stream(1)
	}
	if want.AttachStderr && !want.Tty {
		streams.Err = out.stream(2)
	}
	err := c.cfg.Node.Exec(ctx, want.Container, spec, streams)
	var exit *runtime.ExitError
	if errors.As(err, &exit) {
		return nil // the frames have no place for it
	}
	return err
}

func parseSize(text string) (runtime.TerminalSize, bool) {
	cols, rows, ok := strings.Cut(text, ",")
	width, err1 := strconv.ParseUint(strings.TrimSpace(cols), 10, 16)
	height, err2 := strconv.ParseUint(strings.TrimSpace(rows), 10, 16)
	if !ok || err1 != nil || err2 != nil || width == 0 || height == 0 {
		return runtime.TerminalSize{}, false
	}
	return runtime.TerminalSize{Width: uint16(width), Height: uint16(height)}, true
}

// A muxer puts two outputs into dockerd's stream, or one into its bare form.
type muxer struct {
	to   io.Writer
	bare bool
	mu   sync.Mutex
}

type muxed struct {
	m    *muxer
	kind byte
}

func (m *muxer) stream(kind byte) io.Writer { return muxed{m, kind} }

func (w muxed) Write(p []byte) (int, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.bare {
		return w.m.to.Write(p)
	}
	framed := make([]byte, 8, 8+len(p))
	framed[0] = w.kind
	binary.BigEndian.PutUint32(framed[4:], uint32(len(p)))
	if _, err := w.m.to.Write(append(framed, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// logs sends one line a body, behind "01 " for stdout, "02 " for stderr and "00 " for a terminal.
func (c *Client) logs(ctx context.Context, s *stream, claims jwt.MapClaims, _ string) error {
	want := struct {
		Container  string
		Follow     bool
		Lines      int
		Timestamps bool
		Since      string
	}{Follow: true, Lines: 100, Timestamps: true}
	if err := claim(claims, "logs", &want); err != nil {
		return err
	}
	since, err := containerlog.ParseTime(want.Since)
	if err != nil {
		return err
	}
	q := containerlog.Query{Join: true}
	q.Follow, q.Tail, q.Since = want.Follow, want.Lines, since
	if want.Lines <= 0 {
		q.Tail = -1
	}
	var b []byte
	return c.cfg.Node.Entries(ctx, want.Container, q, func(tty bool, e *containerlog.Entry) error {
		prefix := "01 "
		switch {
		case tty:
			prefix = "00 "
		case e.Stderr:
			prefix = "02 "
		}
		b = append(b[:0], prefix...)
		if want.Timestamps {
			b = append(e.AppendTime(b), ' ')
		}
		b = append(b, e.Line...)
		// The frames are text, which must be UTF-8.
		return s.send(strings.ToValidUTF8(string(b), "\uFFFD"))
	})
}
