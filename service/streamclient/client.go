package streamclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/utils/backoff"
)

// Config says where a host's streams are and who asks. Only Base is needed.
type Config struct {
	// Base is the URL of a door, without "/v1/exec" and the like: "https://10.0.0.7:8085", or at a server
	// "https://drover.example.com/v1/hosts/1h1/proxy". It must carry no credentials.
	Base string
	// Header returns what to send with each request, the Authorization above all. May be nil.
	Header func() http.Header
	// TLS may be nil.
	TLS *tls.Config
	// Proxy chooses the HTTP proxy for a URL; nil is none.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial makes the connections; nil is TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialTimeout bounds the making of a connection, and the wait for the answer to an upgrade: 30 s if 0.
	DialTimeout time.Duration
	// Retry says how long to wait between attempts to go on with a stream whose connection broke: up to 100 ms, then
	// growing to 2 s, if zero.
	Retry backoff.Policy
	// Patience is how long to go on with attempts: 30 s if 0, or as long as the host keeps the stream, if that is less.
	// Less than 0 gives a stream up with its connection.
	Patience time.Duration
}

// A Client reaches the streams of one host.
type Client struct {
	cfg    Config
	base   string // without a final slash
	http   *http.Client
	dialer websocket.Dialer
}

// New checks cfg. It makes no connection.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Base)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("streams: the base is not a URL like https://host:port")
	case u.User != nil:
		return nil, errors.New("streams: the base URL carries credentials; they belong into the header")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("streams: the base URL carries a query or a fragment")
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	if cfg.Retry == (backoff.Policy{}) {
		cfg.Retry = backoff.Policy{First: 100 * time.Millisecond, Max: 2 * time.Second}
	}
	if cfg.Patience == 0 {
		cfg.Patience = 30 * time.Second
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: cfg.DialTimeout}).DialContext
	}
	c := &Client{cfg: cfg, base: strings.TrimRight(u.String(), "/")}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // an upgrade needs it
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: cfg.Proxy, DialContext: cfg.Dial, TLSClientConfig: cfg.TLS.Clone(), TLSHandshakeTimeout: cfg.DialTimeout,
			IdleConnTimeout: 30 * time.Second, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
			DisableCompression: true, Protocols: protocols,
		},
		// Credentials go to the door that was named, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.dialer = websocket.Dialer{
		Proxy: cfg.Proxy, TLSClientConfig: cfg.TLS.Clone(), HandshakeTimeout: cfg.DialTimeout,
		ReadBufferSize: 4 << 10, WriteBufferSize: chunk + 64,
	}
	return c, nil
}

// Close drops idle connections. Streams go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request makes a request; path begins with a slash and is escaped already.
func (c *Client) request(ctx context.Context, method, path string, query url.Values) (*http.Request, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	if c.cfg.Header != nil {
		for k, v := range c.cfg.Header() {
			req.Header[http.CanonicalHeaderKey(k)] = v
		}
	}
	return req, nil
}

// do sends a request and returns a good answer, whose body the caller closes.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, failure(req.Context(), err)
	}
	if resp.StatusCode < http.StatusMultipleChoices {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// get is do for a GET.
func (c *Client) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodGet, path, query)
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

// of returns the path of a container's resource.
func of(kind, container string) string { return "/v1/" + kind + "/" + url.PathEscape(container) }
