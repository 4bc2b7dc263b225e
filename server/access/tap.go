package access

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/events/tunnel"
)

// What a viewer is sent is read with the first size, until that was filled once: then it is the other one.
const (
	viewBuffer = 32 << 10
	bulkBuffer = 128 << 10
)

// A tap hands out the connection of an upgraded request as a [tapped], and closes it when ctx ends: a viewer who does not
// close his half would hold the proxy up for ever.
type tap struct {
	http.ResponseWriter
	ctx    context.Context //nolint:containedctx // it lives as long as one request
	linger time.Duration
	stop   func() bool
}

// Unwrap is for http.ResponseController.
func (t *tap) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// Hijack implements http.Hijacker.
func (t *tap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.stop = context.AfterFunc(t.ctx, func() { _ = conn.Close() })
	return &tapped{Conn: conn, linger: t.linger}, rw, nil
}

func (t *tap) close() {
	if t.stop != nil {
		t.stop()
	}
}

// A tapped is the viewer's end of an upgraded request, for one goroutine that reads and one that writes.
type tapped struct {
	net.Conn
	linger time.Duration // for a viewer to go on sending when the host has said everything
	last   atomic.Bool   // it has
}

// Read reads what the viewer sends.
func (t *tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 && t.last.Load() {
		_ = t.Conn.SetReadDeadline(time.Now().Add(t.linger))
	}
	return n, err
}

// CloseWrite tells the viewer that the host has said everything. One who neither sends anything then nor closes has left,
// or has forgotten to.
func (t *tapped) CloseWrite() error {
	half, ok := t.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	t.last.Store(true)
	return t.Conn.SetReadDeadline(time.Now().Add(t.linger))
}

// ReadFrom sends the viewer what the host says, with one write for all that has come.
func (t *tapped) ReadFrom(from io.Reader) (int64, error) {
	held := tunnel.CorkOf(t.Conn)
	var sent int64
	for buf := make([]byte, viewBuffer); ; {
		n, err := from.Read(buf)
		if n > 0 {
			if err := held.During(func() error {
				m, err := t.Conn.Write(buf[:n])
				sent += int64(m)
				return err
			}); err != nil {
				return sent, err
			}
		}
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		if n == viewBuffer && len(buf) == viewBuffer {
			buf = make([]byte, bulkBuffer)
		}
	}
}
