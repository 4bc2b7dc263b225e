package streamclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/remote"
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
	// chunk is the longest payload that is sent in one message.
	chunk = 32 << 10
	// maxMessage is the longest message that is taken.
	maxMessage = 1 << 20
	// goodbye bounds the last words to a host.
	goodbye = time.Second
)

// view serves a viewer's streams until the process at the other end has ended.
func (c *Client) view(ctx context.Context, path string, q url.Values, s *Streams) error {
	ws, err := c.upgrade(ctx, path, q)
	if err != nil {
		return err
	}
	v := &viewer{ws: ws, streams: s}
	defer ws.Close()
	stop := context.AfterFunc(ctx, v.leave)
	defer stop()
	if s.Started != nil {
		s.Started()
	}
	done := make(chan struct{})
	var resizer sync.WaitGroup
	defer resizer.Wait()
	defer close(done)
	if s.Resize != nil {
		resizer.Go(func() { v.resize(done) })
	}
	if s.Stdin != nil {
		go v.input()
	}
	err = v.read()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// upgrade makes the WebSocket.
func (c *Client) upgrade(ctx context.Context, path string, q url.Values) (*websocket.Conn, error) {
	header := http.Header{}
	if c.cfg.Header != nil {
		header = c.cfg.Header().Clone()
	}
	dialer := c.dialer
	dialer.Subprotocols = []string{protocolV5}
	ws, resp, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(c.base, "http")+path+"?"+q.Encode(), header)
	switch {
	case err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, refusal(resp)
	case err != nil:
		return nil, failure(ctx, err)
	case ws.Subprotocol() != protocolV5:
		ws.Close()
		return nil, fmt.Errorf("streams: the host does not speak %s", protocolV5)
	}
	ws.SetReadLimit(maxMessage)
	return ws, nil
}

// A viewer is one end of a session.
type viewer struct {
	ws      *websocket.Conn
	streams *Streams
	mu      sync.Mutex // one writer at a time
}

// leave says goodbye, so that the process is ended at once.
func (v *viewer) leave() {
	_ = v.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(goodbye))
	_ = v.ws.Close()
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
		channel, p := buf.Bytes()[0], buf.Bytes()[1:]
		switch channel {
		case chanStdout:
			err = deliver(v.streams.Stdout, p)
		case chanStderr:
			err = deliver(v.streams.Stderr, p)
		case chanStatus:
			if len(p) == 0 {
				continue // it tells that the session stands
			}
			v.leave()
			return ending(p)
		}
		if err != nil {
			v.leave()
			return fmt.Errorf("write output: %w", err)
		}
	}
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
func (v *viewer) input() {
	buf := make([]byte, chunk)
	for {
		n, err := v.streams.Stdin.Read(buf)
		if n > 0 && v.write(chanStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = v.write(chanClose, []byte{chanStdin})
			return
		}
	}
}

func (v *viewer) resize(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case size, ok := <-v.streams.Resize:
			if !ok {
				return
			}
			b, _ := json.Marshal(size) // numbers only
			if v.write(chanResize, b) != nil {
				return
			}
		}
	}
}
