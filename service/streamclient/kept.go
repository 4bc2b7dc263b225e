package streamclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/service/resume"
	"github.com/droverhq/drover/utils/backoff"
)

// minAttempt is the least that an attempt to continue is given.
const minAttempt = time.Second

// minWrite is the least that a connection is given for a message.
const minWrite = 10 * time.Second

// A kept viewer is the end of a session that outlives its connections.
type kept struct {
	client  *Client
	streams *Streams
	hello   resume.Hello // the first one
	out     *resume.Sender

	received int64 // of the reading goroutine
	acked    int64
}

// A keptConn is one connection. It implements resume.Conn.
type keptConn struct {
	ws   *websocket.Conn
	idle time.Duration // longest silence
}

func (c *keptConn) Send(channel byte, parts ...[]byte) error {
	_ = c.ws.SetWriteDeadline(time.Now().Add(max(c.idle, minWrite)))
	w, err := c.ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte{channel}); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return w.Close()
}

func (c *keptConn) Close() error { return c.ws.Close() }

// viewKept serves a viewer's streams over ws, and over as many connections after it as it takes.
func (c *Client) viewKept(ctx context.Context, ws *websocket.Conn, s *Streams) error {
	k := &kept{client: c, streams: s}
	conn, hello, err := greet(ctx, ws)
	if err != nil {
		return err
	}
	k.hello = hello
	if hello.Session == "" || hello.Key == "" || hello.Window < resume.MinWindow || hello.Window > resume.MaxWindow {
		leave(ws)
		return errors.New("streams: the host's first message makes no sense")
	}
	k.out = resume.NewSender(hello.Window, false)
	defer k.out.End(nil)
	if err := k.out.Attach(conn, 0, 0, nil); err != nil {
		return err
	}
	if s.Started != nil {
		s.Started()
	}
	done := make(chan struct{})
	var workers sync.WaitGroup
	defer workers.Wait()
	defer close(done)
	workers.Go(func() { k.keepAlive(done) })
	if s.Resize != nil {
		workers.Go(func() { resizes(done, s.Resize, k.out.Write) })
	}
	if s.Stdin != nil {
		go input(s.Stdin, k.out.Write)
	}
	for {
		over, err := k.serve(ctx, conn)
		if over || ctx.Err() != nil {
			return k.end(ctx, err)
		}
		if conn, err = k.reconnect(ctx, err); err != nil {
			return k.end(ctx, err)
		}
	}
}

func (k *kept) end(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// greet reads the host's first message.
func greet(ctx context.Context, ws *websocket.Conn) (*keptConn, resume.Hello, error) {
	stop := context.AfterFunc(ctx, func() { leave(ws) })
	defer stop()
	_ = ws.SetReadDeadline(time.Now().Add(minWrite))
	var hello resume.Hello
	_, p, err := ws.ReadMessage()
	if err == nil && (len(p) == 0 || p[0] != resume.ChanHello || json.Unmarshal(p[1:], &hello) != nil) {
		err = errors.New("it begins with something else than the protocol has")
	}
	if err != nil {
		leave(ws)
		return nil, hello, failure(ctx, err)
	}
	return &keptConn{ws: ws, idle: hello.MaxIdle()}, hello, nil
}

// serve delivers what a connection brings. over says that the session is over, and err how; otherwise the connection
// broke, and err says why.
func (k *kept) serve(ctx context.Context, conn *keptConn) (over bool, err error) {
	stop := context.AfterFunc(ctx, func() { leave(conn.ws) })
	defer stop()
	defer k.out.Detach(conn)
	buf := bytes.NewBuffer(make([]byte, 0, chunk+64))
	for {
		if conn.idle > 0 {
			_ = conn.ws.SetReadDeadline(time.Now().Add(conn.idle))
		}
		_, r, err := conn.ws.NextReader()
		if err == nil {
			buf.Reset()
			_, err = buf.ReadFrom(r)
		}
		if err != nil {
			return websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.ClosePolicyViolation, resume.CloseEnded), broken(err)
		}
		if buf.Len() == 0 {
			continue
		}
		done, err := k.take(buf.Bytes()[0], buf.Bytes()[1:])
		switch {
		case done:
			part(conn.ws)
			return true, err
		case err != nil:
			leave(conn.ws)
			return true, err
		}
	}
}

// part says goodbye and waits for the host to have heard it: it keeps the stream otherwise, for a while.
func part(ws *websocket.Conn) {
	by := time.Now().Add(goodbye)
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), by)
	_ = ws.SetReadDeadline(by)
	for {
		if _, _, err := ws.NextReader(); err != nil {
			break
		}
	}
	_ = ws.Close()
}

// take takes a whole message.
func (k *kept) take(channel byte, p []byte) (done bool, err error) {
	if channel == resume.ChanAck {
		position, err := resume.ParseAck(p)
		if err == nil {
			err = k.out.Acked(position)
		}
		return false, err
	}
	if done, err := k.streams.take(channel, p); done || err != nil {
		return done, err
	}
	if k.received += resume.Size(len(p)); k.received-k.acked >= resume.AckEvery {
		k.acked = k.received
		k.out.Send(resume.ChanAck, resume.Ack(k.received))
	}
	return false, nil
}

// keepAlive shows the host that its viewer is there.
func (k *kept) keepAlive(done <-chan struct{}) {
	if k.hello.Quiet <= 0 {
		return
	}
	tick := time.NewTicker(max(k.hello.MaxIdle()/3, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			k.out.Trim()
			k.out.Send(resume.ChanAck, resume.Ack(0)) // acknowledges nothing new
		}
	}
}

// reconnect goes on over a new connection. reason is why the one before ended.
func (k *kept) reconnect(ctx context.Context, reason error) (*keptConn, error) {
	patience := min(k.client.cfg.Patience, k.hello.GracePeriod())
	if patience <= 0 {
		return nil, reason
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	retry := k.client.cfg.Retry.Start()
	for {
		// An attempt may have begun while the network swallowed everything: it does not use up all the patience.
		attempt, giveUp := context.WithTimeout(limited, max(patience/4, minAttempt))
		conn, err := k.again(attempt)
		giveUp()
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		var refused *Error
		if errors.As(err, &refused) && !temporary(refused.Status) || errors.Is(err, resume.ErrUnknown) {
			return nil, fmt.Errorf("the connection broke, and the stream cannot be continued: %w", err)
		}
		if limited.Err() == nil {
			reason = err
		}
		if backoff.Sleep(limited, retry.Next()) != nil {
			if ctx.Err() != nil {
				return nil, reason
			}
			return nil, fmt.Errorf("the connection broke, and did not come back within %s: %w", patience, reason)
		}
	}
}

// temporary reports whether a refusal may be taken back soon: a server on the way that waits for the host to come back.
func temporary(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// again makes one attempt to continue.
func (k *kept) again(ctx context.Context) (*keptConn, error) {
	ws, err := k.client.upgrade(ctx, resume.Path+k.hello.Session, nil, http.Header{
		resume.HeaderKey: {k.hello.Key}, resume.HeaderReceived: {strconv.FormatInt(k.received, 10)},
	}, resume.Protocol)
	if err != nil {
		return nil, err
	}
	conn, hello, err := greet(ctx, ws)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { leave(ws) })
	defer stop()
	if hello.From < k.received {
		leave(ws)
		return nil, fmt.Errorf("%w: the host goes on before what was received", resume.ErrUnknown)
	}
	if gap := hello.From - k.received; gap > 0 && k.streams.Gap != nil {
		k.streams.Gap(gap)
	}
	k.received, k.acked = hello.From, hello.From
	if err := k.out.Attach(conn, hello.Received, hello.Acked, nil); err != nil {
		leave(ws)
		return nil, err
	}
	return conn, nil
}
