package streamclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/remote"
	"github.com/droverhq/drover/service/resume"
)

// Each message begins with the number of its channel.
const (
	chanStdin  = 0
	chanStdout = 1
	chanStderr = 2
	chanStatus = 3
	chanResize = 4
	chanClose  = 255

	protocolV5 = "v5.channel.k8s.io"
)

const (
	// chunk is the longest payload that is sent in one message. Hosts send longer ones.
	chunk = 32 << 10
	// maxMessage is the longest message that is taken.
	maxMessage = 1 << 20
	// goodbye bounds the last words to a host.
	goodbye = time.Second
)

// view serves a viewer's streams until the process at the other end has ended.
func (c *Client) view(ctx context.Context, path string, q url.Values, s *Streams) error {
	ws, err := c.upgrade(ctx, path, q, nil, resume.Protocol, protocolV5)
	if err != nil {
		return err
	}
	if ws.Subprotocol() == resume.Protocol {
		return c.viewKept(ctx, ws, s)
	}
	v := &viewer{ws: ws, streams: s}
	defer ws.Close()
	stop := context.AfterFunc(ctx, func() { leave(ws) })
	defer stop()
	if s.Started != nil {
		s.Started()
	}
	done := make(chan struct{})
	var resizer sync.WaitGroup
	defer resizer.Wait()
	defer close(done)
	if s.Resize != nil {
		resizer.Go(func() { resizes(done, s.Resize, v.write) })
	}
	if s.Stdin != nil {
		go input(s.Stdin, v.write)
	}
	err = v.read()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// upgrade makes a WebSocket that speaks one of protocols.
func (c *Client) upgrade(ctx context.Context, path string, q url.Values, header http.Header, protocols ...string) (*websocket.Conn, error) {
	all := http.Header{}
	if c.cfg.Header != nil {
		all = c.cfg.Header().Clone()
	}
	maps.Copy(all, header)
	dialer := c.dialer
	dialer.Subprotocols = protocols
	target := "ws" + strings.TrimPrefix(c.base, "http") + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	// The library looks at ctx while it makes the connection, and not while it waits for the answer.
	stop := func() bool { return true }
	dialer.NetDialContext = func(dialing context.Context, network, address string) (net.Conn, error) {
		conn, err := c.cfg.Dial(dialing, network, address)
		if err == nil {
			stop = context.AfterFunc(ctx, func() { conn.Close() })
		}
		return conn, err
	}
	ws, resp, err := dialer.DialContext(ctx, target, all)
	if !stop() && err == nil {
		ws.Close()
		return nil, context.Cause(ctx)
	}
	switch {
	case err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, refusal(resp)
	case err != nil:
		return nil, failure(ctx, err)
	case !slices.Contains(protocols, ws.Subprotocol()):
		ws.Close()
		return nil, fmt.Errorf("streams: the host does not speak %s", strings.Join(protocols, " or "))
	}
	ws.SetReadLimit(maxMessage)
	return ws, nil
}

// A viewer is the end of a session with a host that knows Kubernetes' protocol alone.
type viewer struct {
	ws      *websocket.Conn
	streams *Streams
	mu      sync.Mutex // one writer at a time
}

// leave says goodbye, so that the process is ended at once.
func leave(ws *websocket.Conn) {
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(goodbye))
	_ = ws.Close()
}

// read delivers what the host sends until the status of the process.
func (v *viewer) read() error {
	buf := bytes.NewBuffer(make([]byte, 0, chunk+64))
	for {
		_, r, err := v.ws.NextReader()
		if err != nil {
			return broken(err)
		}
		buf.Reset()
		if _, err := buf.ReadFrom(r); err != nil {
			return broken(err)
		}
		if buf.Len() == 0 {
			continue
		}
		done, err := v.streams.take(buf.Bytes()[0], buf.Bytes()[1:])
		if done || err != nil {
			leave(v.ws)
			return err
		}
	}
}

// take delivers a message. done says that it was the process's status, and err is its end.
func (s *Streams) take(channel byte, p []byte) (done bool, err error) {
	switch channel {
	case chanStdout:
		err = deliver(s.Stdout, p)
	case chanStderr:
		err = deliver(s.Stderr, p)
	case chanStatus:
		if len(p) > 0 { // an empty one tells that the session stands
			return true, ending(p)
		}
	}
	if err != nil {
		return false, fmt.Errorf("write output: %w", err)
	}
	return false, nil
}

func deliver(w io.Writer, p []byte) error {
	if w == nil || len(p) == 0 {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// broken words the end of a connection that came before that of the process.
func broken(err error) error {
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("streams: the connection broke before the process ended: %w", err)
}

// ending is the end of a process as its status tells it.
func ending(p []byte) error {
	var st remote.Status
	if err := json.Unmarshal(p, &st); err != nil {
		return fmt.Errorf("streams: the status of the process cannot be read: %w", err)
	}
	if st.Status == "Success" {
		return nil
	}
	if st.Reason == remote.ReasonExit && st.Details != nil {
		for _, cause := range st.Details.Causes {
			if code, err := strconv.Atoi(cause.Message); err == nil && cause.Type == remote.CauseExitCode {
				return &runtime.ExitError{Code: code}
			}
		}
	}
	return &Error{Status: st.Code, Code: st.Reason, Message: st.Message}
}

func (v *viewer) write(channel byte, p []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	w, err := v.ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte{channel}); err != nil {
		return err
	}
	if _, err := w.Write(p); err != nil {
		return err
	}
	return w.Close()
}

// input passes standard input on, and its end.
func input(in io.Reader, write func(byte, []byte) error) {
	buf := make([]byte, chunk)
	for {
		n, err := in.Read(buf)
		if n > 0 && write(chanStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = write(chanClose, []byte{chanStdin})
			return
		}
	}
}

// resizes passes the sizes of the terminal on.
func resizes(done <-chan struct{}, sizes <-chan runtime.TerminalSize, write func(byte, []byte) error) {
	for {
		select {
		case <-done:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			b, _ := json.Marshal(size) // numbers only
			if write(chanResize, b) != nil {
				return
			}
		}
	}
}
