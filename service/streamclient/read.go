package streamclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/droverhq/drover/service"
)

// maxDocument bounds an answer that is decoded as a whole.
const maxDocument = 64 << 20

// document gets a JSON document.
func (c *Client) document(ctx context.Context, path string, query url.Values, v any) error {
	resp, err := c.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(v); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("streams: the answer to %s is not the JSON that it should be: %w", path, err)
	}
	return nil
}

// lines gets a stream of JSON objects. Its end is the end of the sequence; an error is the last element's.
func lines[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		req, err := c.request(ctx, http.MethodGet, path, query)
		if err != nil {
			var zero T
			yield(zero, err)
			return
		}
		objects[T](c, req)(yield)
	}
}

// objects is lines for a request that is made already.
func objects[T any](c *Client, req *http.Request) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		resp, err := c.do(req)
		if err != nil {
			yield(zero, err)
			return
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var v T
			switch err := dec.Decode(&v); {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(zero, failure(req.Context(), err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// Top lists the processes of a container; args are for ps.
func (c *Client) Top(ctx context.Context, container string, args ...string) (titles []string, processes [][]string, err error) {
	var out struct {
		Titles    []string   `json:"titles"`
		Processes [][]string `json:"processes"`
	}
	err = c.document(ctx, of("top", container), url.Values{"arg": args}, &out)
	return out.Titles, out.Processes, err
}

// Stats returns one sample of a container. If container is "", it is one of the host and one of each running container.
func (c *Client) Stats(ctx context.Context, container string) ([]service.Sample, error) {
	if container == "" {
		var all struct {
			Data []service.Sample `json:"data"`
		}
		err := c.document(ctx, "/v1/stats", nil, &all)
		return all.Data, err
	}
	var one service.Sample
	if err := c.document(ctx, of("stats", container), nil, &one); err != nil {
		return nil, err
	}
	return []service.Sample{one}, nil
}

// StatsStream yields samples as Stats does, round after round, until ctx ends or, for one container, until that does.
// From the second round on they have rates. interval is 1 s if 0.
func (c *Client) StatsStream(ctx context.Context, container string, interval time.Duration) iter.Seq2[service.Sample, error] {
	q := url.Values{"stream": {"1"}}
	if interval > 0 {
		q.Set("interval", interval.String())
	}
	path := "/v1/stats"
	if container != "" {
		path = of("stats", container)
	}
	return lines[service.Sample](ctx, c, path, q)
}

// Events yields what happens to the containers of the host, from now on or from since, until ctx ends or the stream
// breaks.
func (c *Client) Events(ctx context.Context, since time.Time) iter.Seq2[service.Notice, error] {
	q := url.Values{}
	if !since.IsZero() {
		q.Set("since", strconv.FormatFloat(float64(since.UnixNano())/1e9, 'f', 9, 64))
	}
	return lines[service.Notice](ctx, c, "/v1/events", q)
}
