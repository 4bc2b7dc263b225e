package access

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

// A frame between proxy and agent is text: KEY||KIND||BODY, where KEY is one viewer's.
const (
	separator   = "||"
	kindConnect = "0" // to the agent; the body is the viewer's request URI
	kindBody    = "1"
	kindClose   = "2"
)

const (
	backendPing    = 5 * time.Second
	backendSilence = 5 * backendPing / 2
	backendWrite   = 10 * time.Second
	// backendFrame is the longest frame that an agent may send.
	backendFrame = 4 << 20
	// maxViewers bounds the viewers of one backend.
	maxViewers = 256
	// viewerQueue is how many bytes may wait for a viewer, and viewerPatience how long it may take none of them: the
	// frames have no flow control, so a viewer that is stuck would hold up all others of its host.
	viewerQueue    = 1 << 20
	viewerPatience = 2 * time.Second
)

func parseFrame(text string) (key, kind, body string, ok bool) {
	key, rest, found := strings.Cut(text, separator)
	if !found || key == "" {
		return "", "", "", false
	}
	kind, body, ok = strings.Cut(rest, separator)
	return key, kind, body, ok
}

// errBackendGone says that the connection to the agent ended.
var errBackendGone = errors.New("the connection to the agent ended")

// A backend is one connection on which an agent answers viewers.
type backend struct {
	ws      *websocket.Conn
	done    chan struct{} // closed when it has ended
	invalid atomic.Int64  // frames that were none

	writing sync.Mutex

	mu      sync.Mutex // guards viewers
	viewers map[string]*channel
	closed  bool

	workers sync.WaitGroup
	closes  chan struct{} // holds a token for each refusal that waits to be written
}

func newBackend(ws *websocket.Conn) *backend {
	return &backend{ws: ws, done: make(chan struct{}), viewers: map[string]*channel{}, closes: make(chan struct{}, maxViewers)}
}

// run reads until the connection or ctx ends, then ends all viewers. It closes the connection.
func (b *backend) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = b.ws.Close() })
	ended := make(chan struct{})
	defer func() {
		stop()
		close(ended)
		_ = b.ws.Close()
		b.mu.Lock()
		b.closed = true
		for _, c := range b.viewers {
			c.in.close()
		}
		b.mu.Unlock()
		close(b.done)
		b.workers.Wait()
	}()
	alive := func() { _ = b.ws.SetReadDeadline(time.Now().Add(backendSilence)) }
	alive()
	b.ws.SetReadLimit(backendFrame)
	b.ws.SetPongHandler(func(string) error { alive(); return nil })
	b.ws.SetPingHandler(func(data string) error {
		alive()
		_ = b.ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		return nil
	})
	b.workers.Go(func() {
		tick := time.NewTicker(backendPing)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				_ = b.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(backendPing))
			}
		}
	})
	for {
		kind, text, err := b.ws.ReadMessage()
		if err != nil {
			return err
		}
		alive()
		if kind != websocket.TextMessage {
			b.invalid.Add(1)
			continue
		}
		b.take(ctx, string(text), alive)
	}
}

// take passes a frame on to its viewer.
func (b *backend) take(ctx context.Context, text string, alive func()) {
	key, kind, body, ok := parseFrame(text)
	if !ok {
		b.invalid.Add(1)
		return
	}
	b.mu.Lock()
	c := b.viewers[key]
	b.mu.Unlock()
	switch {
	case c == nil && kind != kindClose:
		b.refuse(key)
	case c == nil:
	case kind == kindBody:
		if !c.in.push(ctx, body) {
			c.Close() // it takes nothing: it is closed, and the others go on
		}
		alive() // waiting for a viewer was our silence, not the agent's
	default:
		c.in.close()
		b.forget(key)
	}
}

// refuse closes a key from a goroutine of its own: the reader must not wait for the writer.
func (b *backend) refuse(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	select {
	case b.closes <- struct{}{}:
		b.workers.Go(func() {
			defer func() { <-b.closes }()
			_ = b.send(key, kindClose, "")
		})
	default:
	}
}

// send writes a frame. A link that does not take it in time is closed.
func (b *backend) send(key, kind, body string) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	_ = b.ws.SetWriteDeadline(time.Now().Add(backendWrite))
	err := b.ws.WriteMessage(websocket.TextMessage, []byte(key+separator+kind+separator+body))
	if err != nil {
		_ = b.ws.Close()
	}
	return err
}

func (b *backend) forget(key string) (known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known = b.viewers[key]
	delete(b.viewers, key)
	return known
}

// open begins a viewer's stream. The caller closes it.
func (b *backend) open(uri string) (*channel, error) {
	c := &channel{b: b, key: uuid.NewString(), in: newInbox()}
	b.mu.Lock()
	switch {
	case b.closed:
		b.mu.Unlock()
		return nil, errBackendGone
	case len(b.viewers) >= maxViewers:
		b.mu.Unlock()
		return nil, errors.New("too many viewers of this host")
	}
	b.viewers[c.key] = c
	b.mu.Unlock()
	if err := b.send(c.key, kindConnect, uri); err != nil {
		b.forget(c.key)
		return nil, err
	}
	return c, nil
}

// A channel is one viewer's stream on a backend.
type channel struct {
	b      *backend
	key    string
	in     *inbox
	ending func() // ends a backend that is this channel's alone; may be nil
}

// Send passes a body to the agent.
func (c *channel) Send(body string) error { return c.b.send(c.key, kindBody, body) }

// Recv waits for a body of the agent; false is the end.
func (c *channel) Recv() (string, bool) { return c.in.pop() }

// Close tells the agent, if it does not know, and lets Recv end. It may be called more than once.
func (c *channel) Close() {
	if c.b.forget(c.key) {
		c.b.refuse(c.key)
	}
	c.in.close()
}

// release closes the channel, and the backend with it where nobody else uses that.
func (c *channel) release() {
	c.Close()
	if c.ending != nil {
		c.ending()
	}
}

// An inbox is a queue of bodies, bounded in bytes.
type inbox struct {
	space chan struct{} // capacity 1: something was taken
	ready chan struct{} // capacity 1: something came, or the end

	mu     sync.Mutex // guards the following fields
	queue  []string
	bytes  int
	closed bool
}

func newInbox() *inbox {
	return &inbox{space: make(chan struct{}, 1), ready: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push waits for room, as long as the reader takes something now and then; false says that it does not.
func (q *inbox) push(ctx context.Context, body string) bool {
	var patience *time.Timer
	for {
		q.mu.Lock()
		if q.closed || len(q.queue) == 0 || q.bytes+len(body) <= viewerQueue {
			if !q.closed {
				q.queue = append(q.queue, body)
				q.bytes += len(body)
			}
			q.mu.Unlock()
			signal(q.ready)
			return true
		}
		q.mu.Unlock()
		if patience == nil {
			patience = time.NewTimer(viewerPatience)
			defer patience.Stop()
		}
		select {
		case <-q.space:
			patience.Reset(viewerPatience)
		case <-patience.C:
			return false
		case <-ctx.Done():
			return true
		}
	}
}

// pop waits for a body. What came before the end is still given out.
func (q *inbox) pop() (string, bool) {
	for {
		q.mu.Lock()
		if len(q.queue) > 0 {
			body := q.queue[0]
			q.queue[0] = ""
			q.queue = q.queue[1:]
			q.bytes -= len(body)
			q.mu.Unlock()
			signal(q.space)
			return body, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			signal(q.ready) // for the next reader
			return "", false
		}
		<-q.ready
	}
}

func (q *inbox) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	signal(q.ready)
	signal(q.space)
}
