package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/droverhq/drover/service/streamclient"
)

// Streams returns a client of the streams of a host, which are reached through the server. The caller closes it.
func (c *Client) Streams(hostID string) (*streamclient.Client, error) {
	return streamclient.New(streamclient.Config{
		Base: c.base + "/hosts/" + url.PathEscape(hostID) + "/proxy",
		Header: func() http.Header {
			h := http.Header{}
			c.identify(h)
			return h
		},
		TLS: c.tls, Proxy: c.cfg.Proxy,
	})
}

// Explain words an error of a host's streams: refused credentials are ErrUnauthorized, a server that is not there is
// ErrUnreachable.
func (c *Client) Explain(ctx context.Context, err error) error {
	var refused *streamclient.Error
	var dial *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", ErrUnauthorized, refused.Message)
	case errors.As(err, &dial) && dial.Op == "dial":
		return c.explain(ctx, err)
	}
	return err
}
