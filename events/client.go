package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/utils/backoff"
)

const posters = 16 // replies on their way by POST at a time, at most

// ErrUnauthorized says that the server refused the credentials (401 or 403). Dialing again is of no use until they
// change.
var ErrUnauthorized = errors.New("the server refused the credentials")

// A Client holds the control channel to one server. Its methods are safe for concurrent use.
type Client struct {
	cfg      Config
	base     *url.URL
	log      logrus.FieldLogger
	counts   counters
	dialer   *dialer
	rest     *rest
	outbox   *outbox
	dispatch *dispatcher
	publish  *publisher
	started  atomic.Bool
	current  atomic.Pointer[session] // the live one
	inBand   atomic.Bool             // the last server took replies over the socket

	mu     sync.Mutex
	status Status // guarded by mu; without what is read live
}

// New checks cfg and returns a client. It does no I/O; see [Client.Run].
func New(cfg Config) (*Client, error) {
	cfg.setDefaults()
	base, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, base: base, log: cfg.Log, status: Status{State: StateIdle, Since: time.Now()}}
	n := min(cfg.Workers, posters)
	c.dialer = newDialer(&c.cfg, base)
	c.rest = newREST(&c.cfg, base, n+2)
	c.outbox = newOutbox(cfg.Log, &c.counts)
	c.dispatch = newDispatcher(&c.cfg, &c.counts, c.outbox)
	c.dispatch.fleeting, c.dispatch.handBack = c.fleeting, c.inBand.Load
	c.publish = &publisher{
		log: cfg.Log, outbox: c.outbox, counts: &c.counts, rest: c.rest, posters: n,
		policy: backoff.Policy{First: 100 * time.Millisecond, Max: min(30*time.Second, cfg.MaxDelay)},
	}
	return c, nil
}

// Status returns a snapshot. It never blocks.
func (c *Client) Status() Status {
	c.mu.Lock()
	st := c.status
	c.mu.Unlock()
	if s := c.current.Load(); s != nil {
		st.LastFrame = time.Unix(0, s.raw.life.Load())
		st.RTT = time.Duration(s.rtt.Load())
	}
	st.Stats = c.counts.snapshot()
	st.Stats.Queued, st.Stats.QueuedBytes = c.dispatch.load()
	st.Stats.Unsent = c.outbox.unsent()
	return st
}

// enter changes the state and tells OnState.
func (c *Client) enter(state State, change func(*Status)) {
	c.mu.Lock()
	c.status.State, c.status.Since = state, time.Now()
	if state != StateBackingOff {
		c.status.NextDial = time.Time{}
	}
	if change != nil {
		change(&c.status)
	}
	c.mu.Unlock()
	if c.cfg.OnState != nil {
		c.cfg.OnState(c.Status())
	}
}

// fleeting sends a reply that is not kept: it goes out now or never.
func (c *Client) fleeting(ev *wire.Event, reply *wire.Reply, mayBlock bool) {
	s := c.current.Load()
	if s == nil {
		return
	}
	body := wire.AppendReply(make([]byte, 0, 256+len(reply.Data)), reply)
	if !s.drover {
		key := ""
		if !reply.Final() {
			key = laneOf(ev) // it must not be overtaken by the final one
		}
		if !c.outbox.once(key, body) {
			c.counts.expired.Add(1)
		}
		return
	}
	ctx := context.Context(nil)
	if mayBlock {
		ctx = c.dispatch.work
	}
	_ = s.send(ctx, body) // the session ended: nobody waits for it any more
}

// Post creates a resource of the given type ("containerEvent") at the server. See [Client.Create].
func (c *Client) Post(ctx context.Context, resourceType string, body any) error {
	return c.Create(ctx, resourceType, body, nil)
}

// Create creates a resource of the given type at the server's v1 API and decodes the answer into out, which may be
// nil. It tries once, for at most Config.ReplyTimeout, and needs no Run. A refusal is an [*APIError].
func (c *Client) Create(ctx context.Context, resourceType string, body, out any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding a %s: %w", resourceType, err)
	}
	if _, err := c.rest.post(ctx, apiV1, resourceType, b, out); err != nil {
		return fmt.Errorf("creating a %s: %w", resourceType, err)
	}
	return nil
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
