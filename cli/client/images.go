package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
)

// A BuildStep is one message of a build; see the page on images of the documentation.
type BuildStep struct {
	Step    string   `json:"step,omitempty"`
	ID      string   `json:"id,omitempty"`
	Name    string   `json:"name,omitempty"`
	State   string   `json:"state,omitempty"` // started, cached, done, failed; "" for output and transfers
	Layer   string   `json:"layer,omitempty"`
	Stream  int      `json:"stream,omitempty"`
	Text    string   `json:"text,omitempty"`
	Current int64    `json:"current,omitempty"` // bytes
	Total   int64    `json:"total,omitempty"`   // bytes
	Image   string   `json:"image,omitempty"`   // of a failed step: the image before it
	Tail    []string `json:"tail,omitempty"`
	Millis  int64    `json:"millis,omitempty"`
}

// A BuildResult is what a build made.
type BuildResult struct {
	ID      string   `json:"id"`
	Tags    []string `json:"tags"`
	Builder string   `json:"builder"`
}

// hostImages is the path of what a host does with streams of images.
func hostImages(hostID, what string, query url.Values) string {
	path := "hosts/" + url.PathEscape(hostID) + "/proxy/v1/images/" + what
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

// stream sends a request whose body and answer are streams; the caller closes the answer's body. A Read of body may go
// on after the return, but nobody waits for it: net/http would, which a terminal that nothing is typed at never ends.
func (c *Client) stream(ctx context.Context, method, path, media string, body io.Reader) (*http.Response, error) {
	var piped io.ReadCloser
	if body != nil {
		r, w := io.Pipe()
		go func() {
			_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{body}, make([]byte, 256<<10))
			w.CloseWithError(err)
		}()
		stop := context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
		piped = &afterClose{PipeReader: r, stop: stop}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	if piped != nil {
		req.Body = piped
		req.Header.Set("Expect", "100-continue") // a refusal comes before gigabytes are sent
	}
	c.identify(req.Header)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	resp, err := c.long.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil && len(b) == 0 {
			return nil, c.explain(ctx, err)
		}
		return nil, apiError(resp.StatusCode, b)
	}
	return resp, nil
}

// afterClose releases what ties a pipe to a context.
type afterClose struct {
	*io.PipeReader
	stop func() bool
}

func (a *afterClose) Close() error {
	a.stop()
	return a.PipeReader.Close()
}

// Build builds an image on a host. request is sent as JSON; source is the context as a tar, nil where the request names
// one. step is called for each message, in order. A bad end is an *EventError.
func (c *Client) Build(ctx context.Context, hostID string, request any, source io.Reader, step func(*BuildStep)) (*BuildResult, error) {
	encoded, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	var head bytes.Buffer
	parts := multipart.NewWriter(&head)
	if err := parts.WriteField("request", string(encoded)); err != nil {
		return nil, err
	}
	body := io.Reader(&head)
	if source != nil {
		if _, err := parts.CreateFormFile("context", "context.tar"); err != nil {
			return nil, err
		}
		body = io.MultiReader(&head, source, bytes.NewReader([]byte("\r\n--"+parts.Boundary()+"--\r\n")))
	} else if err := parts.Close(); err != nil {
		return nil, err
	}
	resp, err := c.stream(ctx, http.MethodPost, hostImages(hostID, "build", nil), parts.FormDataContentType(), body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		var line struct {
			Step  *BuildStep
			Image *BuildResult
			Error *struct{ Code, Message string }
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("the host answered the build with something that is not its JSON: %w", err)
		}
		switch {
		case line.Error != nil:
			return nil, &EventError{Code: line.Error.Code, Message: line.Error.Message}
		case line.Image != nil:
			return line.Image, nil
		case line.Step != nil && step != nil:
			step(line.Step)
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, errors.Join(errors.New("the build's log ended too early"), lines.Err())
}

// SaveImages writes images of a host as one tar.
func (c *Client) SaveImages(ctx context.Context, hostID string, refs []string, w io.Writer) error {
	resp, err := c.stream(ctx, http.MethodGet, hostImages(hostID, "save", url.Values{"image": refs}), "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, resp.Body, make([]byte, 256<<10))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the host cut the stream off; its log says why")
	}
	return err
}

// LoadImages sends a tar that SaveImages wrote to a host and returns the names that came with it.
func (c *Client) LoadImages(ctx context.Context, hostID string, source io.Reader) ([]string, error) {
	var out struct {
		Images []string `json:"images"`
	}
	err := c.send(ctx, hostImages(hostID, "load", nil), source, &out)
	return out.Images, err
}

// ImportImage makes an image of a tar of a root file system, with the names of the parameters that the host takes.
func (c *Client) ImportImage(ctx context.Context, hostID string, query url.Values, source io.Reader, out any) error {
	return c.send(ctx, hostImages(hostID, "import", query), source, out)
}

func (c *Client) send(ctx context.Context, path string, source io.Reader, out any) error {
	resp, err := c.stream(ctx, http.MethodPost, path, "application/x-tar", source)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return c.explain(ctx, err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the host answered with something that is not its JSON: %w", err)
	}
	return nil
}
