package streamclient

import (
	"context"
	"io"
	"net/url"
	"strconv"
)

// Tail returns the last lines of a file of a container, which the caller closes. A running container's file is read
// without a process in it, and without what is before those lines.
func (c *Client) Tail(ctx context.Context, container, name string, lines int) (io.ReadCloser, error) {
	resp, err := c.get(ctx, of("tail", container), url.Values{"path": {name}, "lines": {strconv.Itoa(lines)}})
	if err != nil {
		return nil, err
	}
	return &body{ReadCloser: resp.Body, ctx: ctx}, nil
}
