package hostproxy

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/containerlog"
	"github.com/droverhq/drover/utils/backoff"
)

// A Node is what the door leads to; the Service of package service is one.
type Node interface {
	// AllowVerb asks the policy of the host about what only this door has.
	AllowVerb(ctx context.Context, verb string) error
	Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.Streams) error
	Entries(ctx context.Context, id string, q containerlog.Query, yield func(tty bool, e *containerlog.Entry) error) error
	HostSample(ctx context.Context) (runtime.Stats, error)
	ContainerSample(ctx context.Context, id string) (runtime.Stats, error)
	Running(ctx context.Context) ([]runtime.ContainerSummary, error)
	State(ctx context.Context, id string) (runtime.ContainerStatus, error)
}

// Verbs of the policy for what only this door has.
const (
	VerbSocket  = "dockersocket"
	VerbConsole = "console"
	VerbProxy   = "container-proxy"
)

// A Grant is the server's answer to hostApiProxyToken.
type Grant struct{ URL, Token string }

// What Config.Token may return besides other errors.
var (
	ErrUnknownHost = errors.New("hostproxy: the server does not know this host yet") // 422: asked again after a second
	ErrDisabled    = errors.New("hostproxy: the server has its proxy switched off")  // 501: asked again rarely
)

// Config is what a [Client] needs.
type Config struct {
	Node Node
	// Token posts hostApiProxyToken with HostUUID as reportedUuid. It is called for each connection.
	Token    func(ctx context.Context) (Grant, error)
	HostUUID string         // what the host reports as its uuid, DOCKER_UUID
	Key      *rsa.PublicKey // of the server, see ParseKey
	// Dial connects to the engine's own socket, and Console to the screen of a virtual machine; nil refuses the path.
	Dial    func(ctx context.Context) (net.Conn, error)
	Console func(ctx context.Context, container string) (net.Conn, error)
	// TrustProxy serves container-proxy, where the server's proxy has checked the token and passes none on.
	TrustProxy bool

	TLS     *tls.Config
	Proxy   func(*http.Request) (*url.URL, error)
	Backoff backoff.Policy
	Streams int // open at once: 256 if 0
	Log     logrus.FieldLogger
}

const (
	pingInterval = 5 * time.Second
	silence      = 5 * pingInterval / 2
	writeTimeout = 10 * time.Second
	dialTimeout  = 30 * time.Second
	unknownRetry = time.Second
	disabled     = 10 * time.Minute
	clockLeeway  = time.Minute
	stable       = 30 * time.Second
	// maxFrame is the longest frame that is read.
	maxFrame = 4 << 20
)

// A Client keeps the connection to the proxy.
type Client struct {
	cfg     Config
	invalid atomic.Int64 // frames that were none
}

// New checks cfg and does no I/O.
func New(cfg Config) (*Client, error) {
	switch {
	case cfg.Node == nil || cfg.Token == nil || cfg.Log == nil:
		return nil, errors.New("hostproxy: a node, a token source and a logger are needed")
	case cfg.Key == nil:
		return nil, errors.New("hostproxy: no key to check tokens with")
	case cfg.HostUUID == "":
		return nil, errors.New("hostproxy: no host uuid")
	}
	if cfg.Streams <= 0 {
		cfg.Streams = 256
	}
	return &Client{cfg: cfg}, nil
}

// InvalidFrames returns how many frames were malformed so far.
func (c *Client) InvalidFrames() int64 { return c.invalid.Load() }

// Run connects and serves until ctx ends, with a new token for each connection, and returns nil.
func (c *Client) Run(ctx context.Context) error {
	retry := c.cfg.Backoff.Start()
	for ctx.Err() == nil {
		started := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) >= stable {
			retry.Reset()
		}
		delay := retry.Next()
		switch {
		case errors.Is(err, ErrUnknownHost):
			delay = unknownRetry
		case errors.Is(err, ErrDisabled):
			delay = disabled
		}
		c.cfg.Log.WithError(err).WithField("retry", delay.Round(time.Millisecond)).Info("host proxy closed")
		if backoff.Sleep(ctx, delay) != nil {
			break
		}
	}
	return nil
}

// once serves one connection.
func (c *Client) once(ctx context.Context) error {
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	grant, err := c.cfg.Token(dialing)
	if err != nil {
		return err
	}
	target, err := url.Parse(grant.URL)
	if err != nil || target.Host == "" {
		return errors.New("hostproxy: the server gave a URL that is none")
	}
	dialer := websocket.Dialer{Proxy: c.cfg.Proxy, TLSClientConfig: c.cfg.TLS, HandshakeTimeout: dialTimeout}
	// In a header, where no log of a proxy on the way keeps it.
	ws, resp, err := dialer.DialContext(dialing, grant.URL, http.Header{"Authorization": {"Bearer " + grant.Token}})
	if err != nil {
		if resp != nil {
			return fmt.Errorf("hostproxy: the proxy answered %s: %w", resp.Status, err)
		}
		return fmt.Errorf("hostproxy: dial: %w", err)
	}
	c.cfg.Log.WithField("host", target.Host).Info("host proxy connected")
	return c.newLink(ws).run(ctx)
}

// ServeHTTP takes the frames of a proxy that came here by itself, through a door that it was let in by. The tokens of the
// streams are checked all the same.
func (c *Client) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{HandshakeTimeout: dialTimeout, CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") == "" }}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // answered
	}
	_ = ws.NetConn().SetDeadline(time.Time{})
	if err := c.newLink(ws).run(r.Context()); err != nil {
		c.cfg.Log.WithError(err).Debug("host proxy: a viewer's link ended")
	}
}

func (c *Client) newLink(ws *websocket.Conn) *link {
	return &link{client: c, ws: ws, streams: map[string]*stream{}, closes: make(chan struct{}, c.cfg.Streams)}
}

// A link is one connection to the proxy.
type link struct {
	client *Client
	ws     *websocket.Conn

	writing sync.Mutex

	mu      sync.Mutex // guards streams
	streams map[string]*stream
	workers sync.WaitGroup
	closes  chan struct{} // holds a token for each refusal that waits to be written
}

func (l *link) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.ws.Close() })
	defer func() {
		cancel()
		stop()
		_ = l.ws.Close()
		l.workers.Wait()
	}()
	alive := func() { _ = l.ws.SetReadDeadline(time.Now().Add(silence)) }
	alive()
	l.ws.SetReadLimit(maxFrame)
	l.ws.SetPongHandler(func(string) error { alive(); return nil })
	l.ws.SetPingHandler(func(data string) error {
		alive()
		_ = l.ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		return nil
	})
	l.workers.Go(func() { l.pings(ctx) })
	for {
		kind, text, err := l.ws.ReadMessage()
		if err != nil {
			return fmt.Errorf("hostproxy: read: %w", err)
		}
		alive()
		if kind != websocket.TextMessage {
			continue // as the other end does
		}
		f, err := parseFrame(string(text))
		if err != nil {
			l.client.invalid.Add(1)
			continue
		}
		l.dispatch(ctx, f)
	}
}

func (l *link) pings(ctx context.Context) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = l.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(pingInterval))
		}
	}
}

// send writes a frame. A link that does not take it in time is closed, and all streams with it.
func (l *link) send(f frame) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	_ = l.ws.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err := l.ws.WriteMessage(websocket.TextMessage, []byte(f.String())); err != nil {
		_ = l.ws.Close()
		return err
	}
	return nil
}

// dispatch never waits for a stream.
func (l *link) dispatch(ctx context.Context, f frame) {
	l.mu.Lock()
	s := l.streams[f.key]
	full := len(l.streams) >= l.client.cfg.Streams
	l.mu.Unlock()
	switch {
	case f.kind == typeConnect && s == nil && !full:
		l.open(ctx, f)
	case f.kind == typeBody && s != nil:
		if !s.in.push(f.body) {
			s.cancel() // it does not read: it is closed, and the others go on
		}
	case f.kind == typeClose:
		if s != nil {
			s.cancel()
		}
	default:
		if s != nil {
			s.cancel() // a second connect, or a type that is none
		}
		l.refuse(f.key)
	}
}

// refuse closes a key from a goroutine of its own: the reader must not wait for the writer. Where too many wait already,
// the proxy is not told.
func (l *link) refuse(key string) {
	select {
	case l.closes <- struct{}{}:
		l.workers.Go(func() {
			defer func() { <-l.closes }()
			_ = l.send(frame{key: key, kind: typeClose})
		})
	default:
	}
}

func (l *link) open(ctx context.Context, f frame) {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{link: l, key: f.key, in: newInbox(), cancel: cancel}
	l.mu.Lock()
	l.streams[f.key] = s
	l.mu.Unlock()
	l.workers.Go(func() {
		defer func() {
			cancel()
			s.in.close()
			l.mu.Lock()
			delete(l.streams, f.key)
			l.mu.Unlock()
			_ = l.send(frame{key: f.key, kind: typeClose})
		}()
		context.AfterFunc(ctx, s.in.close)
		if err := l.client.serve(ctx, s, f.body); err != nil && ctx.Err() == nil {
			l.client.cfg.Log.WithError(err).WithField("path", pathOf(f.body)).Info("host proxy stream ended")
		}
	})
}

// pathOf is a request URI without its query, in which the token is.
func pathOf(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	return path
}
