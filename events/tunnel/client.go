package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/utils/backoff"
)

// Config is what a [Client] needs.
type Config struct {
	Options

	// URL of the server's tunnel, http, https, ws or wss; see [Endpoint]. It must carry no credentials.
	URL string
	// Header returns what to send with the upgrade, the Authorization above all. It is called for each dial. May be nil.
	Header func() http.Header
	// TLS may be nil.
	TLS *tls.Config
	// Proxy chooses the HTTP proxy for the URL; nil is none.
	Proxy func(*http.Request) (*url.URL, error)
	// Handler serves the streams that the server opens.
	Handler http.Handler
	// DialTimeout bounds dial and upgrade: 30 s if 0.
	DialTimeout time.Duration
	// Stable is how long a session must have lived for the back-off to start afresh: 30 s if 0.
	Stable time.Duration
	// Drain is how long requests may take to end when Run's ctx has ended: 2 s if 0.
	Drain time.Duration
	// Backoff between attempts.
	Backoff backoff.Policy
}

// ErrUnauthorized says that the server did not accept the credentials. The client goes on trying, at the slowest pace.
var ErrUnauthorized = errors.New("tunnel: the server refused the credentials")

// Endpoint returns the URL of the tunnel of the server at base, the agent's CATTLE_URL.
func Endpoint(base string) string { return strings.TrimRight(base, "/") + "/tunnel" }

// A Client keeps one tunnel to a server open.
type Client struct {
	cfg      Config
	target   string // ws or wss
	dialer   websocket.Dialer
	buffers  sync.Pool
	handlers inflight

	mu      sync.Mutex // guards the following
	state   State
	changed time.Time
	lastErr error
	session *Session
	dials   int
}

// A State says where a client is.
type State string

// The states of a client.
const (
	Idle       State = "idle" // Run was not called
	Connecting State = "connecting"
	Connected  State = "connected"
	BackingOff State = "backing off"
	Closed     State = "closed"
)

// Status is a snapshot of a client.
type Status struct {
	State     State
	Since     time.Time // of the state
	LastError error     // why the last attempt or session ended
	Dials     int
	Session   Stats // of the live session; zero without one
}

// NewClient checks cfg and does no I/O.
func NewClient(cfg Config) (*Client, error) {
	opts, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.Options = opts
	if cfg.Handler == nil {
		return nil, errors.New("tunnel: no handler")
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("tunnel: the server's URL cannot be parsed")
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http", "https":
		u.Scheme = "ws" + strings.TrimPrefix(u.Scheme, "http")
	default:
		return nil, fmt.Errorf("tunnel: scheme %q: want http, https, ws or wss", u.Scheme)
	}
	if u.User != nil {
		return nil, errors.New("tunnel: the server's URL carries credentials; they belong into the header")
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	if cfg.Stable <= 0 {
		cfg.Stable = 30 * time.Second
	}
	if cfg.Drain <= 0 {
		cfg.Drain = 2 * time.Second
	}
	c := &Client{cfg: cfg, target: u.String(), state: Idle, changed: time.Now()}
	var plain net.Dialer
	c.dialer = websocket.Dialer{
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := plain.DialContext(ctx, network, address)
			if err != nil || u.Scheme != "wss" {
				return conn, err
			}
			return corked(conn), nil
		},
		Proxy:            cfg.Proxy,
		TLSClientConfig:  cfg.TLS,
		HandshakeTimeout: cfg.DialTimeout,
		WriteBufferSize:  frameBuffer,
		WriteBufferPool:  &c.buffers,
		Subprotocols:     []string{Subprotocol},
	}
	return c, nil
}

// Run keeps the tunnel open until ctx ends, reconnecting with back-off, and returns nil after all handlers have ended.
func (c *Client) Run(ctx context.Context) error {
	defer c.handlers.close()
	defer c.enter(Closed, nil)
	retry := c.cfg.Backoff.Start()
	for ctx.Err() == nil {
		c.enter(Connecting, nil)
		s, err := c.dial(ctx)
		if err == nil {
			c.connected(s)
			c.cfg.Log.WithField("url", c.target).Info("tunnel open")
			started := time.Now()
			err = c.serve(ctx, s)
			if time.Since(started) >= c.cfg.Stable {
				retry.Reset()
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		c.enter(BackingOff, err)
		delay := retry.Next()
		if errors.Is(err, ErrUnauthorized) {
			delay = c.cfg.Backoff.Slowest()
		}
		c.cfg.Log.WithError(err).WithField("retry", delay.Round(time.Millisecond)).Warn("tunnel closed")
		if backoff.Sleep(ctx, delay) != nil {
			return nil
		}
	}
	return nil
}

func (c *Client) dial(ctx context.Context) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	var header http.Header
	if c.cfg.Header != nil {
		header = c.cfg.Header()
	}
	c.mu.Lock()
	c.dials++
	c.mu.Unlock()
	ws, resp, err := c.dialer.DialContext(ctx, c.target, header)
	if err != nil {
		return nil, explainDial(err, resp)
	}
	if ws.Subprotocol() != Subprotocol {
		_ = ws.Close()
		return nil, fmt.Errorf("tunnel: the server does not speak %s", Subprotocol)
	}
	return newSession(ws, c.cfg.Options, true)
}

// explainDial says what a failed upgrade means.
func explainDial(err error, resp *http.Response) error {
	if resp == nil {
		return fmt.Errorf("tunnel: dial: %w", err)
	}
	// gorilla has read the beginning of the body into memory.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	said := strings.Join(strings.Fields(string(text)), " ")
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %s: %s", ErrUnauthorized, resp.Status, said)
	case http.StatusOK, http.StatusBadRequest, http.StatusBadGateway:
		return fmt.Errorf("tunnel: the server answered %s instead of an upgrade; a proxy on the way may not pass WebSockets: %s", resp.Status, said)
	default:
		return fmt.Errorf("tunnel: the server answered %s instead of an upgrade: %s", resp.Status, said)
	}
}

// serve runs the handler on the session's streams until the session or ctx ends.
func (c *Client) serve(ctx context.Context, s *Session) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	srv := &http.Server{
		Handler:           c.handlers.wrap(c.cfg.Handler),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          stdLog(c.cfg.Log),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(s.Listener())
	}()
	select {
	case <-s.Done():
	case <-ctx.Done():
		_ = s.GoAway()
		c.drain(ctx)
	}
	cancel()
	err := s.Close()
	_ = srv.Close()
	<-served
	return errors.Join(s.Err(), err)
}

// drain gives the requests under way a moment to end by themselves.
func (c *Client) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Drain)
	defer cancel()
	c.handlers.wait(ctx)
}

func (c *Client) enter(s State, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.changed = s, time.Now()
	if s != Connected {
		c.session = nil
	}
	if err != nil {
		c.lastErr = err
	}
}

func (c *Client) connected(s *Session) {
	c.enter(Connected, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
}

// Status tells how the client is.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := Status{State: c.state, Since: c.changed, LastError: c.lastErr, Dials: c.dials}
	if c.session != nil {
		st.Session = c.session.Stats()
	}
	return st
}
