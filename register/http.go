package register

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 15 * time.Second
	// maxRetryAfter bounds what a server can ask for.
	maxRetryAfter = 5 * time.Minute
)

// NewHTTPClient returns a client for calls to the control server: bounded in time as a whole, with the proxy function
// and the TLS configuration of a [Result], without cookies. It follows redirects of GET alone, and never from https to
// http. idlePerHost is how many idle connections it keeps; the caller closes them with CloseIdleConnections.
func NewHTTPClient(cfg *tls.Config, proxy func(*http.Request) (*url.URL, error), timeout time.Duration, idlePerHost int) *http.Client {
	t := &http.Transport{
		Proxy:                  proxy,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        cfg.Clone(),
		TLSHandshakeTimeout:    15 * time.Second,
		MaxIdleConns:           2 * idlePerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		OnProxyConnectResponse: checkConnect,
	}
	return &http.Client{Transport: t, Timeout: timeout, CheckRedirect: checkRedirect}
}

// checkConnect turns a proxy's refusal into an error that says who refused, and what helps.
func checkConnect(_ context.Context, proxy *url.URL, req *http.Request, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy: maskUser(proxy), target: req.Host, status: res.StatusCode}
}

type proxyError struct {
	proxy, target string
	status        int
}

func (e *proxyError) Error() string {
	text := fmt.Sprintf("proxy %s does not connect to %s: HTTP %d %s", e.proxy, e.target, e.status, http.StatusText(e.status))
	if e.status == http.StatusProxyAuthRequired {
		text += ": give user and password in the proxy URL"
	}
	return text
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	switch {
	case first.Method != http.MethodGet:
		return fmt.Errorf("the server redirects to %s://%s: use that address", req.URL.Scheme, req.URL.Host)
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("the server redirects from https to %s://%s", req.URL.Scheme, req.URL.Host)
	case len(via) >= 5:
		return fmt.Errorf("more than 5 redirects")
	}
	return nil
}

// An answer is an HTTP answer that was read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
	// cut is why the body is not whole, or nil.
	cut error
	// chain is what the server showed in the TLS handshake.
	chain *tls.ConnectionState
}

// exchange does one request. The request's URL does not appear in the error: it may hold the registration token.
func exchange(c *http.Client, req *http.Request) (*answer, error) {
	res, err := c.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
			if ue.Timeout() && req.Context().Err() == nil {
				err = &timeoutError{err}
			}
		}
		return nil, Explain(err)
	}
	defer func() { _ = res.Body.Close() }()
	a := &answer{status: res.StatusCode, header: res.Header, chain: res.TLS}
	a.body, a.cut = io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if a.cut == nil && len(a.body) > maxBody {
		a.body, a.cut = a.body[:maxBody], fmt.Errorf("the answer is larger than %d bytes", maxBody)
	}
	return a, nil
}

// timeoutError drops "context deadline exceeded", which reads as if the caller's context had ended.
type timeoutError struct{ err error }

func (e *timeoutError) Error() string { return "no answer in time" }
func (e *timeoutError) Unwrap() error { return e.err }

// transient reports whether an error of exchange may go away by itself.
func transient(err error) bool {
	var ca *CAError
	var px *proxyError
	switch {
	case errors.As(err, &ca), errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.As(err, &px):
		return px.status >= 500
	}
	// http.Client wraps what CheckRedirect returns in nothing of its own: it comes as a plain text error, and so does
	// a malformed answer. Errors of the network implement net.Error, or are cut connections.
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func transientStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads the header of that name, bounded; ok says that there is one.
func retryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = max(at.Sub(now), 0)
	} else {
		return 0, false
	}
	return min(wait, maxRetryAfter), true
}

// request makes and does a request, again and again while the server cannot be reached or says that it is not able
// to: up to retryFor (negative: no retry), with jitter, honouring Retry-After. The answer may have any status.
func (j *joiner) request(ctx context.Context, what string, c *http.Client, retryFor time.Duration, build func(context.Context) (*http.Request, error)) (*answer, error) {
	var last error
	operation := func() (*answer, error) {
		req, err := build(ctx)
		if err != nil {
			return nil, backoff.Permanent(err)
		}
		req.Header.Set("User-Agent", j.cfg.UserAgent)
		a, err := exchange(c, req)
		switch {
		case err != nil && !transient(err):
			return nil, backoff.Permanent(err)
		case err != nil:
			last = err
			return nil, err
		case transientStatus(a.status):
			last = fmt.Errorf("HTTP %d: %s", a.status, said(a.body))
			if wait, ok := retryAfter(a.header, time.Now()); ok {
				return a, fmt.Errorf("%w: %w", last, &backoff.RetryAfterError{Duration: wait})
			}
			return a, last
		}
		return a, nil
	}
	exp := backoff.NewExponentialBackOff()
	exp.InitialInterval, exp.MaxInterval, exp.RandomizationFactor, exp.Multiplier = retryFirst, retryMost, 0.5, 2
	opts := []backoff.RetryOption{
		backoff.WithBackOff(exp), backoff.WithMaxElapsedTime(retryFor),
		backoff.WithNotify(func(err error, next time.Duration) {
			j.log.WithField("retryIn", next.Round(time.Millisecond).String()).Warnf("%s: %v", what, last)
		}),
	}
	if retryFor < 0 {
		opts = append(opts, backoff.WithMaxTries(1))
	}
	a, err := backoff.Retry(ctx, operation, opts...)
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		if last != nil {
			return nil, fmt.Errorf("%s: %w (last: %w)", what, context.Cause(ctx), last)
		}
		return nil, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	case a != nil && a.status != 0:
		return a, nil // the caller says what the status means
	}
	return nil, fmt.Errorf("%s: %w", what, err)
}

// get returns a builder of GET requests without credentials.
func get(rawURL string) func(context.Context) (*http.Request, error) {
	return func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	}
}
