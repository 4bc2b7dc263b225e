package streamclient

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/droverhq/drover/service"
)

// filePlace returns path and query of a file. The name goes as a parameter, which survives what HTTP does to paths.
func filePlace(container, name string) (string, url.Values) {
	return of("files", container) + "/", url.Values{"path": {name}}
}

// Stat tells what a path in a container is, without following a final symlink.
func (c *Client) Stat(ctx context.Context, container, name string) (service.File, error) {
	path, q := filePlace(container, name)
	req, err := c.request(ctx, http.MethodHead, path, q)
	if err != nil {
		return service.File{}, err
	}
	resp, err := c.do(req)
	var refused *Error
	if errors.As(err, &refused) {
		return service.File{}, c.whyNot(ctx, path, q, refused)
	}
	if err != nil {
		return service.File{}, err
	}
	resp.Body.Close()
	return statOf(resp)
}

// whyNot asks for the sentence that the answer to a HEAD cannot carry.
func (c *Client) whyNot(ctx context.Context, path string, q url.Values, refused *Error) error {
	resp, err := c.get(ctx, path, q)
	if err == nil {
		resp.Body.Close() // it has come to be meanwhile
		return refused
	}
	return err
}

// List tells what is directly in a directory of a container, or what a single file is. truncated says that there is more.
func (c *Client) List(ctx context.Context, container, name string) (files []service.File, truncated bool, err error) {
	path, q := filePlace(container, name)
	q.Set("list", "1")
	var out struct {
		Data      []service.File `json:"data"`
		Truncated bool           `json:"truncated"`
	}
	err = c.document(ctx, path, q, &out)
	return out.Data, out.Truncated, err
}

// Get returns a path of a container as a tar stream, which the caller closes, and what the path itself is. A stream that
// broke does not end with io.EOF.
func (c *Client) Get(ctx context.Context, container, name string) (io.ReadCloser, service.File, error) {
	path, q := filePlace(container, name)
	resp, err := c.get(ctx, path, q)
	if err != nil {
		return nil, service.File{}, err
	}
	f, err := statOf(resp)
	if err != nil {
		resp.Body.Close()
		return nil, service.File{}, err
	}
	return &body{ReadCloser: resp.Body, ctx: ctx}, f, nil
}

// Put unpacks a tar stream into a directory of a container. It reads tar until its end, and does not close it.
func (c *Client) Put(ctx context.Context, container, dir string, tar io.Reader) error {
	path, q := filePlace(container, dir)
	req, err := c.request(ctx, http.MethodPut, path, q)
	if err != nil {
		return err
	}
	req.Body = io.NopCloser(tar)
	req.ContentLength = -1
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func statOf(resp *http.Response) (service.File, error) {
	var f service.File
	b, err := base64.StdEncoding.DecodeString(resp.Header.Get(service.HeaderFileStat))
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, fmt.Errorf("streams: header %s: %w", service.HeaderFileStat, err)
	}
	return f, nil
}

// A body words its errors as the other calls do.
type body struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // of the request whose answer it is
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // an io.EOF from below is bare
		err = failure(b.ctx, err)
	}
	return n, err
}
