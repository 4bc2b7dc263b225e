package streamclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
)

// Forward connects with a TCP port of a container, as seen on its own network. ctx is for the making of the connection
// alone. The connection has CloseWrite, where what is below it has.
func (c *Client) Forward(ctx context.Context, container string, port int) (net.Conn, error) {
	var conn net.Conn
	req, err := c.request(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn },
	}), http.MethodGet, of("forward", container)+"/"+strconv.Itoa(port), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok || conn == nil {
		resp.Body.Close()
		return nil, &Error{Status: resp.StatusCode, Message: "no connection was made: a proxy on the way may not pass upgrades (" + resp.Status + ")"}
	}
	return &forwarded{Conn: conn, stream: stream}, nil
}

// A forwarded is a connection that an HTTP client gave up. What the client had read ahead comes from stream.
type forwarded struct {
	net.Conn
	stream io.ReadWriteCloser
}

func (f *forwarded) Read(p []byte) (int, error)  { return f.stream.Read(p) }
func (f *forwarded) Write(p []byte) (int, error) { return f.stream.Write(p) }
func (f *forwarded) Close() error                { return f.stream.Close() }

// CloseWrite ends the direction to the container.
func (f *forwarded) CloseWrite() error {
	if half, ok := f.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
