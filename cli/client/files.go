package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// Open sends a GET whose answer is read as it comes; path is below the API version. The caller closes the body. A status
// of 300 and above is an error.
func (c *Client) Open(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	c.identify(req.Header)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil {
			return nil, c.explain(ctx, err)
		}
		return nil, apiError(resp.StatusCode, b)
	}
	return resp, nil
}

// LogFile returns the path, below the API version, of something of a host's log service: files, download.
func LogFile(hostID, what, name string) string {
	u := url.URL{Path: "hosts/" + hostID + "/logs/" + what + "/" + strings.TrimPrefix(name, "/")}
	return u.EscapedPath()
}

// LogSocket opens the WebSocket of a host's log service, with the named subprotocol. The caller closes it; it is closed
// when ctx ends.
func (c *Client) LogSocket(ctx context.Context, hostID, protocol string) (conn *websocket.Conn, stop func() bool, err error) {
	header := http.Header{}
	c.identify(header)
	d := websocket.Dialer{
		Proxy: c.cfg.Proxy, TLSClientConfig: c.tls, HandshakeTimeout: 30 * time.Second, Subprotocols: []string{protocol}, ReadBufferSize: 64 << 10,
	}
	target := "ws" + strings.TrimPrefix(c.cfg.Server, "http") + "/logs?" + url.Values{"host": {hostID}}.Encode()
	conn, resp, err := d.DialContext(ctx, target, header)
	if resp != nil {
		defer resp.Body.Close()
	}
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && resp != nil:
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it
		return nil, nil, apiError(resp.StatusCode, b)
	case err != nil:
		return nil, nil, c.explain(ctx, err)
	case conn.Subprotocol() != protocol:
		_ = conn.Close()
		return nil, nil, fmt.Errorf("%s does not speak %s", c.cfg.Server, protocol)
	}
	return conn, context.AfterFunc(ctx, func() { _ = conn.Close() }), nil
}
