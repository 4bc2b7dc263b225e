package register

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/droverhq/drover/utils/secret"
)

const (
	pollFirst = 100 * time.Millisecond
	pollMost  = 3 * time.Second
)

// api is an authenticated way to the register collection.
type api struct {
	j      *joiner
	c      *http.Client
	base   string // API URL without a trailing slash
	access string
	secret secret.String
}

// call does one request with credentials. Answers other than 2xx are errors; 401 and 403 wrap ErrRefused.
func (a *api) call(ctx context.Context, what, method, pathAndQuery string, body []byte) (*answer, error) {
	where := a.base + pathAndQuery
	ans, err := a.j.request(ctx, what, a.c, a.j.cfg.RetryFor, func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, where, bytes.NewReader(body))
		if err != nil {
			return nil, errors.New("the API URL is not usable")
		}
		req.SetBasicAuth(a.access, a.secret.Reveal())
		req.Header.Set("Accept", "application/json")
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		return req, nil
	})
	if err != nil {
		return nil, err
	}
	return ans, a.judge(what, ans)
}

func (a *api) judge(what string, ans *answer) error {
	err := ans.cut
	switch {
	case ans.status == http.StatusUnauthorized || ans.status == http.StatusForbidden:
		err = fmt.Errorf("%w: HTTP %d: %s", ErrRefused, ans.status, said(ans.body))
	case ans.status < 200 || ans.status > 299:
		err = &statusError{status: ans.status, said: said(ans.body)}
	}
	if err != nil {
		return fmt.Errorf("%s at %s: %w", what, a.base, err)
	}
	return nil
}

type statusError struct {
	status int
	said   string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.status, e.said) }

// obtain gets the credentials of the agent that key stands for: it looks the key up, registers it where the server does
// not know it, waits while the registration is on its way and looks it up again. The same key gets the same agent.
func (a *api) obtain(ctx context.Context, key string) (accessKey string, secretKey secret.String, err error) {
	deadline := fmt.Errorf("the registration is not active after %s", a.j.cfg.RegisterTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, a.j.cfg.RegisterTimeout+max(a.j.cfg.RetryFor, 0), deadline)
	defer cancel()

	rec, err := a.find(ctx, key)
	if err == nil && rec == nil {
		rec, err = a.create(ctx, key)
	}
	if err != nil {
		return "", secret.String{}, err
	}
	started, wait := time.Now(), pollFirst
	for {
		if rec != nil {
			if rec.trouble != "" {
				return "", secret.String{}, fmt.Errorf("register: the server could not register this host: %s", rec.trouble)
			}
			if rec.accessKey != "" && rec.secretKey != "" {
				return rec.accessKey, secret.New(rec.secretKey), nil
			}
		}
		if time.Since(started) > a.j.cfg.RegisterTimeout {
			return "", secret.String{}, fmt.Errorf("register at %s: %w%s", a.base, deadline, stateOf(rec))
		}
		if err := pause(ctx, wait); err != nil {
			return "", secret.String{}, fmt.Errorf("register at %s: %w%s", a.base, err, stateOf(rec))
		}
		wait = min(wait*3/2, pollMost)
		if rec, err = a.look(ctx, rec, key); err != nil {
			return "", secret.String{}, err
		}
	}
}

func stateOf(rec *record) string {
	if rec == nil {
		return " (the server does not list it)"
	}
	return fmt.Sprintf(" (state %q)", cut(rec.state, 40))
}

// look asks for the object itself while it moves, and for the list, which alone shows the keys, once it does not.
func (a *api) look(ctx context.Context, rec *record, key string) (*record, error) {
	if rec != nil && rec.moving && rec.id != "" {
		ans, err := a.call(ctx, "look at the registration", http.MethodGet, "/register/"+url.PathEscape(rec.id), nil)
		var se *statusError
		switch {
		case errors.As(err, &se) && (se.status == http.StatusNotFound || se.status == http.StatusMethodNotAllowed):
			// Not every server shows single objects to a registration token. The list will do.
		case err != nil:
			return nil, err
		default:
			self, err := decodeRecord(ans.body)
			if err != nil {
				return nil, fmt.Errorf("look at the registration at %s: %w", a.base, err)
			}
			if self.moving || self.trouble != "" {
				self.id = rec.id
				return self, nil
			}
		}
	}
	found, err := a.find(ctx, key)
	if err != nil {
		return nil, err
	}
	if found != nil && found.moving && rec != nil && found.id == "" {
		found.id = rec.id
	}
	return found, nil
}

// find lists by key. A server shows key and credentials only where the filter equals the key; a record with another key
// is none of ours, whatever the server thinks.
func (a *api) find(ctx context.Context, key string) (*record, error) {
	const what = "look up the registration"
	ans, err := a.call(ctx, what, http.MethodGet, "/register?"+url.Values{"key": {key}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	all, err := decodeRecords(ans.body)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", what, a.base, err)
	}
	var best *record
	for _, r := range all {
		switch {
		case r.key != "" && r.key != key:
		case r.accessKey != "" && r.secretKey != "":
			return r, nil
		case best == nil || best.trouble != "":
			best = r
		}
	}
	return best, nil
}

// create posts the key. A server that has it already says so with a conflict; the record is then found by the list.
func (a *api) create(ctx context.Context, key string) (*record, error) {
	const what = "register"
	body, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	ans, err := a.call(ctx, what, http.MethodPost, "/register", body)
	var se *statusError
	if errors.As(err, &se) && (se.status == http.StatusConflict || se.status == http.StatusUnprocessableEntity) {
		if rec, lookErr := a.find(ctx, key); lookErr == nil && rec != nil {
			return rec, nil
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	rec, err := decodeRecord(ans.body)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", what, a.base, err)
	}
	return rec, nil
}

// probe asks whether the server takes the credentials for anything at all.
func (a *api) probe(ctx context.Context) error {
	_, err := a.call(ctx, "try the credentials", http.MethodGet, "", nil)
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
