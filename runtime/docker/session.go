package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/docker/docker/client"

	"github.com/droverhq/drover/runtime"
)

// pingTimeout bounds a negotiation: a daemon that takes longer to say its version is as good as hung.
const pingTimeout = 10 * time.Second

// A session is what was agreed with one life of the daemon. It never changes.
type session struct {
	version string // API version, "1.41"
	prefix  string // of every path: "/v1.41"
	epoch   uint64
	api     *client.Client // on the bounded transport
	long    *client.Client // on the other
}

// session returns the current session, and negotiates a new one if the daemon may be another one than before. ctx must
// have a deadline.
func (e *Engine) session(ctx context.Context) (*session, error) {
	if s := e.valid(); s != nil {
		return s, nil
	}
	select {
	case e.negotiating <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-e.negotiating }()
	if s := e.valid(); s != nil {
		return s, nil
	}
	if e.closed.Load() {
		return nil, &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the engine is closed"}
	}
	s, err := e.negotiate(ctx)
	if err != nil {
		return nil, err
	}
	e.current.Store(s)
	return s, nil
}

// valid returns the current session unless there is a reason to negotiate again. Without an open connection a restart
// of the daemon would go unnoticed, so that is one.
func (e *Engine) valid() *session {
	s := e.current.Load()
	if s == nil || s.epoch != e.epoch.Load() || e.open.Load() == 0 || e.closed.Load() {
		return nil
	}
	return s
}

func (e *Engine) negotiate(ctx context.Context) (*session, error) {
	epoch := e.epoch.Load()
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()

	api, err := e.client(e.bounded, e.cfg.APIVersion)
	if err != nil {
		return nil, err
	}
	ping, err := api.Ping(ctx)
	if err != nil {
		if ctx.Err() != nil { // the client says "cannot connect", which is not what happened
			err = ctx.Err()
		}
		return nil, err
	}
	if ping.APIVersion == "" {
		return nil, &runtime.Error{Kind: runtime.ErrUnavailable, Message: fmt.Sprintf("%s answers, but not as a Docker daemon does", e.cfg.Host)}
	}
	if e.cfg.APIVersion == "" {
		api.NegotiateAPIVersionPing(ping)
	}
	version := api.ClientVersion()
	long, err := e.client(e.long, version)
	if err != nil {
		return nil, err
	}
	return &session{version: version, prefix: "/v" + version, epoch: epoch, api: api, long: long}, nil
}

// client returns the library's client on a transport of ours. The host is set before the HTTP client, because the
// library would write to a transport that it finds.
func (e *Engine) client(tr *http.Transport, version string) (*client.Client, error) {
	opts := []client.Opt{
		client.WithHost(e.host.Scheme + "://" + e.host.Host + e.host.Path),
		client.WithHTTPClient(&http.Client{Transport: tr, CheckRedirect: client.CheckRedirect}),
		client.WithUserAgent("drover"),
	}
	if version != "" {
		opts = append(opts, client.WithVersion(version))
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, &runtime.Error{Kind: runtime.ErrInvalid, Message: err.Error()}
	}
	return c, nil
}

// do carries out a call that answers at once. fn is run a second time if the daemon refused it and turns out to speak
// another API version now.
func (e *Engine) do(ctx context.Context, op string, timeout time.Duration, fn func(context.Context, *session) error) error {
	ctx, cancel := e.limit(ctx, timeout)
	defer cancel()
	s, err := e.session(ctx)
	if err == nil {
		err = fn(ctx, s)
		if isInvalid(err) && e.cfg.APIVersion == "" {
			e.epoch.Add(1)
			if again, negErr := e.session(ctx); negErr == nil && again.version != s.version {
				err = fn(ctx, again)
			}
		}
	}
	return e.wrap(ctx, op, err)
}

// read is do for a call that changes nothing, change for one that does.
func (e *Engine) read(ctx context.Context, op string, fn func(context.Context, *session) error) error {
	return e.do(ctx, op, e.cfg.Timeout, fn)
}

func (e *Engine) change(ctx context.Context, op string, fn func(context.Context, *session) error) error {
	return e.do(ctx, op, 4*e.cfg.Timeout, fn)
}

// opened returns the session for a call that takes as long as its subject does: only finding the session is bounded.
func (e *Engine) opened(ctx context.Context, op string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	s, err := e.session(ctx)
	return s, e.wrap(ctx, op, err)
}

// limit gives ctx a deadline if it has none.
func (e *Engine) limit(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

func isInvalid(err error) bool {
	_, _, kind := classify(err)
	return errors.Is(kind, runtime.ErrInvalid)
}
