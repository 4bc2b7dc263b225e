package events

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events/wire"
)

const (
	readBuffer  = 16 << 10
	writeBuffer = 16 << 10
	// hardLimit is where a frame becomes an attack: the connection is dropped. Up to it, a frame that is too large is
	// read to its end and answered.
	hardLimit     = 64 << 20
	maxRetryAfter = 10 * time.Minute
)

// dialError is an upgrade that the server refused.
type dialError struct {
	status     int
	retryAfter time.Duration // what the server asks for, or 0
	err        error
}

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// dialer opens sessions.
type dialer struct {
	cfg    *Config
	target string // of the WebSocket
	header http.Header
	tls    *tls.Config
	pool   sync.Pool // of write buffers
}

func newDialer(cfg *Config, base *url.URL) *dialer {
	u := *base
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.Path = strings.TrimSuffix(u.Path, "/") + "/subscribe"
	query := url.Values{}
	for _, name := range cfg.Router.Names() {
		query.Add("eventNames", name)
	}
	u.RawQuery = query.Encode()
	d := &dialer{cfg: cfg, target: u.String(), header: requestHeader(cfg), tls: cfg.TLS}
	if d.tls != nil {
		d.tls = d.tls.Clone()
		d.tls.NextProtos = nil // an upgrade needs HTTP/1.1, whatever REST may use
	}
	return d
}

// requestHeader returns what every request to the server carries.
func requestHeader(cfg *Config) http.Header {
	h := cfg.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if h.Get("User-Agent") == "" {
		h.Set("User-Agent", "drover/"+cfg.Version)
	}
	if cfg.AccessKey != "" || cfg.SecretKey != "" {
		r := http.Request{Header: h}
		r.SetBasicAuth(cfg.AccessKey, cfg.SecretKey)
	}
	return h
}

// dial connects and upgrades. It returns ErrUnauthorized, wrapped, on 401 and 403.
func (d *dialer) dial(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.HandshakeTimeout)
	defer cancel()
	header := d.header.Clone()
	header.Set(wire.HeaderVersion, d.cfg.Version)
	header.Set(wire.HeaderProtocol, wire.Protocol)

	var raw *flushConn
	stop := func() bool { return true }
	ws := websocket.Dialer{
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := d.cfg.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			raw = &flushConn{Conn: conn}
			// The handshake, with a proxy too, waits on the connection alone: ctx must reach it there.
			stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
			return raw, nil
		},
		Proxy: d.cfg.Proxy, TLSClientConfig: d.tls, ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, WriteBufferPool: &d.pool,
	}
	sent := time.Now()
	conn, resp, err := ws.DialContext(ctx, d.target, header)
	stop()
	if err != nil {
		if ctxErr := context.Cause(ctx); ctxErr != nil && resp == nil {
			err = fmt.Errorf("%w (%w)", ctxErr, err)
		}
		return nil, d.explain(err, resp)
	}
	if err := ctx.Err(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if conn.NetConn() == nil || raw == nil {
		_ = conn.Close()
		return nil, errors.New("connecting: no connection was made")
	}
	s := newSession(conn, raw, d.cfg.PingInterval)
	s.version = resp.Header.Get(wire.HeaderVersion)
	s.drover = resp.Header.Get(wire.HeaderProtocol) == wire.Protocol
	if t, err := time.Parse(time.RFC3339Nano, resp.Header.Get(wire.HeaderTime)); err == nil {
		now := time.Now()
		s.skew = t.Sub(sent.Add(now.Sub(sent) / 2))
	}
	return s, nil
}

// explain says what a failed dial means to a person.
func (d *dialer) explain(err error, resp *http.Response) error {
	if resp == nil {
		return fmt.Errorf("connecting to %s: %w", d.host(), err)
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	said := resp.Status
	if text := strings.Join(strings.Fields(string(body)), " "); text != "" && !strings.HasPrefix(text, "<") {
		said += ": " + text
	}
	e := &dialError{status: resp.StatusCode, retryAfter: retryAfter(resp.Header, time.Now())}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.err = fmt.Errorf("subscribing at %s: %w (%s)", d.host(), ErrUnauthorized, said)
	case http.StatusOK, http.StatusBadRequest, http.StatusBadGateway, http.StatusUpgradeRequired:
		e.err = fmt.Errorf("subscribing at %s: the answer is %s instead of an upgrade; a proxy on the way may not pass WebSockets", d.host(), said)
	default:
		e.err = fmt.Errorf("subscribing at %s: %s", d.host(), said)
	}
	return e
}

func (d *dialer) host() string {
	u, err := url.Parse(d.target)
	if err != nil {
		return "the server"
	}
	return u.Host
}

// proxy returns the proxy that a dial would use, without its credentials, or "".
func (d *dialer) proxy(base *url.URL) string {
	if d.cfg.Proxy == nil {
		return ""
	}
	u, err := d.cfg.Proxy(&http.Request{URL: base, Header: http.Header{}})
	if err != nil || u == nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// retryAfter reads the header, in seconds or as a date; what is beyond reason is cut down to it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	var d time.Duration
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		d = time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
