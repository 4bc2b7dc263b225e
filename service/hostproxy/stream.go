package hostproxy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// inboxFrames and inboxBytes bound what a stream has not read yet.
	inboxFrames = 1024
	inboxBytes  = 1 << 20
	// piece is how many bytes go into one frame, before base64.
	piece = 4096
)

// A stream is one viewer.
type stream struct {
	link   *link
	key    string
	in     *inbox
	cancel context.CancelFunc
}

func (s *stream) send(body string) error { return s.link.send(frame{s.key, typeBody, body}) }

// serve finds the handler of a path and runs it; a panic ends this stream alone.
func (c *Client) serve(ctx context.Context, s *stream, uri string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	u, err := url.Parse(uri)
	if err != nil {
		return errors.New("the request is no URI")
	}
	name, rest, ok := route(u.Path)
	if !ok {
		return fmt.Errorf("no such path: %q", u.Path)
	}
	if name == "container-proxy" {
		return c.containerProxy(ctx, s, u)
	}
	claims, err := c.authorize(u)
	if err != nil {
		return err
	}
	handlers := map[string]func(context.Context, *stream, jwt.MapClaims, string) error{
		"exec": c.exec, "logs": c.logs, "stats": c.stats, "hoststats": c.hostStats, "containerstats": c.containerStats,
		"dockersocket": c.dockerSocket, "console": c.console,
	}
	return handlers[name](ctx, s, claims, rest)
}

// route splits /v1/NAME[/REST]; the names are those of the original agent, of any version of the API.
func route(path string) (name, rest string, ok bool) {
	parts := strings.SplitN(strings.Trim(path, "/"), "/", 3)
	if len(parts) < 2 || parts[0] != "v1" && parts[0] != "v2-beta" && parts[0] != "v2" {
		return "", "", false
	}
	if len(parts) == 3 {
		rest = parts[2]
	}
	switch parts[1] {
	case "exec", "logs", "stats", "hoststats", "containerstats", "dockersocket", "console", "container-proxy":
		return parts[1], rest, true
	}
	return "", "", false
}

// dockerSocket connects the viewer with the engine's own socket.
func (c *Client) dockerSocket(ctx context.Context, s *stream, _ jwt.MapClaims, _ string) error {
	if c.cfg.Dial == nil {
		return errors.New("the engine's socket is not offered")
	}
	if err := c.cfg.Node.AllowVerb(ctx, VerbSocket); err != nil {
		return err
	}
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		return err
	}
	return s.splice(ctx, conn)
}

// console connects the viewer with the screen of a virtual machine.
func (c *Client) console(ctx context.Context, s *stream, claims jwt.MapClaims, _ string) error {
	var want struct {
		Container string `json:"container"`
	}
	if err := claim(claims, "console", &want); err != nil {
		return err
	}
	if want.Container == "" || strings.ContainsAny(want.Container, "/\x00") || strings.HasPrefix(want.Container, ".") {
		return fmt.Errorf("%w: %.60q is no container", errToken, want.Container)
	}
	if c.cfg.Console == nil {
		return errors.New("consoles are not offered")
	}
	if err := c.cfg.Node.AllowVerb(ctx, VerbConsole); err != nil {
		return err
	}
	conn, err := c.cfg.Console(ctx, want.Container)
	if err != nil {
		return err
	}
	return s.splice(ctx, conn)
}

// splice copies both ways, in base64, until conn or the viewer ends. It closes conn.
func (s *stream) splice(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var input sync.WaitGroup
	input.Go(func() {
		_, _ = io.Copy(struct{ io.Writer }{conn}, &decoder{in: s.in})
	})
	_, err := io.CopyBuffer(encoder{s}, struct{ io.Reader }{conn}, make([]byte, piece))
	s.in.close()
	conn.Close()
	input.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// An encoder sends bytes as base64 bodies.
type encoder struct{ s *stream }

func (e encoder) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += piece {
		if err := e.s.send(base64.StdEncoding.EncodeToString(p[n:min(len(p), n+piece)])); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// A decoder reads the bytes of base64 bodies. special, if not nil, takes bodies that are none.
type decoder struct {
	in      *inbox
	special func(body string) bool
	rest    []byte
}

func (d *decoder) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		body, ok := d.in.pop()
		if !ok {
			return 0, io.EOF
		}
		if d.special != nil && d.special(body) {
			continue
		}
		b, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			return 0, fmt.Errorf("input is not base64: %w", err)
		}
		d.rest = b
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// An inbox is a bounded queue of bodies.
type inbox struct {
	mu     sync.Mutex
	cond   sync.Cond
	queue  []string
	bytes  int
	closed bool
}

func newInbox() *inbox {
	b := &inbox{}
	b.cond.L = &b.mu
	return b
}

// push never waits; it reports false if there is no room. What comes after close is dropped.
func (b *inbox) push(body string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return true
	}
	if len(b.queue) >= inboxFrames || b.bytes+len(body) > inboxBytes && len(b.queue) > 0 {
		return false
	}
	b.queue = append(b.queue, body)
	b.bytes += len(body)
	b.cond.Signal()
	return true
}

// pop waits for a body, and reports false when the inbox was closed.
func (b *inbox) pop() (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) == 0 {
		if b.closed {
			return "", false
		}
		b.cond.Wait()
	}
	body := b.queue[0]
	b.queue[0] = ""
	b.queue = b.queue[1:]
	b.bytes -= len(body)
	return body, true
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.cond.Broadcast()
}
