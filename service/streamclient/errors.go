package streamclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/droverhq/drover/runtime"
)

// An Error is a refusal by the host, or by a server or proxy on the way.
type Error struct {
	Status  int    // of HTTP
	Code    string // "notFound", "conflict", "denied" ..., where the refusal has one
	Message string // one sentence for people
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the class of the error, if it has one.
func (e *Error) Unwrap() error {
	switch e.Status {
	case http.StatusNotFound:
		return runtime.ErrNotFound
	case http.StatusConflict:
		return runtime.ErrConflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return runtime.ErrInvalid
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return runtime.ErrUnsupported
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return runtime.ErrUnavailable
	}
	return nil
}

const (
	maxErrorBody = 64 << 10
	maxSentence  = 2 << 10
)

// refusal reads the error of an answer. It does not close the body.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e := &Error{Status: resp.StatusCode}
	var said struct{ Code, Message, Detail string }
	if json.Unmarshal(text, &said) == nil {
		e.Code, e.Message = said.Code, said.Message
		if said.Detail != "" && said.Detail != said.Message {
			e.Message = strings.TrimPrefix(e.Message+": "+said.Detail, ": ")
		}
	} else if s := strings.Join(strings.Fields(string(text)), " "); utf8.ValidString(s) && !strings.HasPrefix(s, "<") {
		e.Message = s
	}
	if len(e.Message) > maxSentence {
		e.Message = strings.ToValidUTF8(e.Message[:maxSentence], "") + " ..."
	}
	if e.Message == "" {
		e.Message = "the host, or a server on the way to it, answered " + resp.Status
	}
	return e
}

// failure is a request that got no answer, or a stream that broke.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the URL is long, and the caller knows it
	}
	return fmt.Errorf("streams: %w", err)
}
