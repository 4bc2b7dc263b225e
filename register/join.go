package register

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/utils/secret"
)

// joiner is one Join.
type joiner struct {
	cfg     Config
	log     logrus.FieldLogger
	proxy   func(*http.Request) (*url.URL, error)
	notices []Notice
}

func (j *joiner) notice(kind, text string) {
	j.notices = append(j.notices, Notice{Kind: kind, Text: text})
	j.log.WithField("notice", kind).Warn(text)
}

// Join makes this host known to its server, or finds that it is, and returns what is needed to connect.
//
// Credentials come from cfg, else from credentials.json if they belong to the same registration URL, else from a
// registration. With stored ones, and where api.crt and a pinned CA are stored too, nothing is sent at all: whether the
// server still takes them shows when the agent subscribes. If it does not, call Join again with [Config.Rejoin]; that
// ends in [ErrRefused] also where the registration URL is not valid any more.
//
// The error is a *[ScriptError] for an env script that cannot be used, a *[CAError] for a certificate that is not
// trusted, wraps [ErrRefused] where the server refuses the registration token or the new credentials, wraps
// [ErrNotRegistered] where there is nothing to register with, and is ctx's cause where ctx ended. A server that cannot
// be reached is waited for up to [Config.RetryFor].
func Join(ctx context.Context, cfg Config) (*Result, error) {
	cfg = cfg.withDefaults()
	j := &joiner{cfg: cfg, log: cfg.Log}
	return j.join(ctx, machine{self: "/", rootfs: hostRoot(cfg.Identity.Rootfs), engineID: cfg.Identity.EngineID})
}

func (j *joiner) join(ctx context.Context, m machine) (*Result, error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	if err := j.prepareDir(); err != nil {
		return nil, err
	}
	id, err := j.identify(ctx, m)
	if err != nil {
		return nil, err
	}
	r := &Result{
		HostUUID: id.HostUUID, PhysicalHostUUID: id.PhysicalHostUUID, AgentIP: j.cfg.AgentIP,
		Proxy: j.proxy, APICertFile: filepath.Join(j.cfg.StateDir, fileAPICert), join: j,
	}
	switch {
	case j.given() && !(j.cfg.Rejoin && !j.cfg.URL.IsZero()):
		err = j.useGiven(ctx, r)
	default:
		err = j.useStoredOrRegister(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	if r.AgentIP == "" {
		r.AgentIP, _ = cleanIP(j.cfg.DetectedIP)
	}
	if err := j.ensureAPICert(ctx, r); err != nil {
		return nil, err
	}
	if u, err := url.Parse(r.APIURL); err == nil {
		r.ProxyUsed = j.cfg.Proxy.Describe(u)
	}
	r.Notices = j.notices
	return r, nil
}

// check validates what can be without I/O.
func (j *joiner) check() error {
	c := &j.cfg
	if (c.AccessKey == "") != c.SecretKey.IsZero() {
		return errors.New("an access key and a secret key are given together or not at all (CATTLE_ACCESS_KEY, CATTLE_SECRET_KEY)")
	}
	if c.APIURL != "" {
		u, err := cleanAPIURL(c.APIURL)
		if err != nil {
			return fmt.Errorf("API URL (CATTLE_URL): %w", err)
		}
		c.APIURL = u
	}
	if c.AccessKey != "" && c.APIURL == "" {
		return errors.New("keys are given without an API URL (CATTLE_URL)")
	}
	if _, err := parseChecksum(c.TLS.CAChecksum); err != nil {
		return err
	}
	proxy, err := c.Proxy.Func()
	if err != nil {
		return err
	}
	j.proxy = proxy
	return nil
}

func (j *joiner) given() bool { return j.cfg.AccessKey != "" }

func (j *joiner) useGiven(ctx context.Context, r *Result) error {
	if j.cfg.Rejoin {
		return fmt.Errorf("%w that were given, and no registration URL is known", ErrRefused)
	}
	r.Source, r.APIURL, r.AccessKey, r.SecretKey = SourceGiven, j.cfg.APIURL, j.cfg.AccessKey, j.cfg.SecretKey
	return j.secure(ctx, r, r.APIURL+"/scripts/ca.pem")
}

func (j *joiner) useStoredOrRegister(ctx context.Context, r *Result) error {
	have, err := loadStored(j.cfg.StateDir)
	if err != nil {
		j.notice(NoticeCredentials, fmt.Sprintf("stored credentials cannot be used, registering again: %v", err))
	}
	from := j.cfg.URL
	if from.IsZero() && have != nil {
		from = secret.New(have.RegistrationURL)
	}
	if have != nil && j.cfg.TLS == (TLSConfig{}) && from.Reveal() == have.RegistrationURL {
		j.cfg.TLS.CAChecksum = have.CAChecksum // the pin outlasts the command line that brought it
	}
	if have != nil && !j.cfg.Rejoin && from.Reveal() == have.RegistrationURL && (j.cfg.APIURL == "" || j.cfg.APIURL == have.APIURL) {
		have.fill(r)
		if r.AgentIP == "" {
			r.AgentIP = have.AgentIP
		}
		return j.secure(ctx, r, r.APIURL+"/scripts/ca.pem")
	}
	if from.IsZero() {
		if j.cfg.Rejoin {
			return fmt.Errorf("%w, and no registration URL is known", ErrRefused)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotRegistered, err)
		}
		return ErrNotRegistered
	}
	err = j.register(ctx, r, from, have)
	var se *ScriptError
	if j.cfg.Rejoin && errors.As(err, &se) && (se.Status == http.StatusNotFound || errors.Is(err, ErrRefused)) {
		// The script is not what is wrong: the registration URL has run out just as the credentials have.
		return fmt.Errorf("%w, and there is no registering again: %s", ErrRefused, se.Error())
	}
	return err
}

// register is the way from a registration URL to stored credentials. refused are those that Rejoin is to replace.
func (j *joiner) register(ctx context.Context, r *Result, from secret.String, refused *stored) error {
	s, err := j.fetchScript(ctx, r, from)
	if err != nil {
		return err
	}
	if r.AgentIP == "" {
		r.AgentIP = s.agentIP
	}
	r.APIURL = s.url
	if j.cfg.APIURL != "" {
		r.APIURL = j.cfg.APIURL
	}
	if err := j.checkAPIScheme(r.APIURL, from.Reveal()); err != nil {
		return err
	}
	key, err := j.registrationKey()
	if err != nil {
		return fmt.Errorf("registration key: %w", err)
	}
	c := j.client(r)
	defer c.CloseIdleConnections()
	access, sec, err := (&api{j: j, c: c, base: r.APIURL, access: s.accessKey, secret: secret.New(s.secretKey)}).obtain(ctx, key)
	if err != nil {
		return err
	}
	r.Source, r.AccessKey, r.SecretKey = SourceRegistered, access, sec
	if j.cfg.Rejoin && j.same(refused, access, sec) {
		// One key is one agent, so these may be the ones that were refused. Whether that was for good shows here.
		if err := (&api{j: j, c: c, base: r.APIURL, access: access, secret: sec}).probe(ctx); errors.Is(err, ErrRefused) {
			return fmt.Errorf("registered again and got the credentials that are refused; was this host removed from the server? %w", err)
		}
	}
	err = saveStored(j.cfg.StateDir, &stored{
		APIURL: r.APIURL, AccessKey: access, SecretKey: sec.Reveal(), RegistrationURL: from.Reveal(),
		AgentIP: s.agentIP, CAChecksum: j.cfg.TLS.CAChecksum, RegisteredAt: time.Now().UTC().Truncate(time.Second),
	})
	if err != nil {
		return fmt.Errorf("store the credentials: %w", err)
	}
	j.log.WithFields(logrus.Fields{"server": r.APIURL, "host": r.HostUUID}).Info("registered")
	return nil
}

func (j *joiner) same(refused *stored, access string, sec secret.String) bool {
	return refused != nil && refused.AccessKey == access && sec.Equal(secret.New(refused.SecretKey)) ||
		j.cfg.AccessKey == access && sec.Equal(j.cfg.SecretKey)
}

// fetchScript downloads and reads the env script, after the server's certificate was verified.
func (j *joiner) fetchScript(ctx context.Context, r *Result, from secret.String) (*script, error) {
	shown := MaskURL(from.Reveal())
	if _, err := parseServerURL(from.Reveal()); err != nil {
		return nil, &ScriptError{URL: shown, Reason: "the registration URL cannot be used", Err: err}
	}
	if err := j.secure(ctx, r, from.Reveal()); err != nil {
		return nil, err
	}
	c := j.client(r)
	defer c.CloseIdleConnections()
	a, err := j.request(ctx, "download the env script from "+shown, c, j.cfg.RetryFor, get(from.Reveal()))
	if err != nil {
		var ca *CAError
		var px *proxyError
		if transient(err) || errors.As(err, &ca) || errors.As(err, &px) || ctx.Err() != nil {
			return nil, err
		}
		return nil, &ScriptError{URL: shown, Reason: "no usable answer", Err: errors.Unwrap(err)}
	}
	switch {
	case a.status == http.StatusNotFound:
		return nil, &ScriptError{URL: shown, Status: a.status, Reason: "the server does not know this registration token"}
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.status == http.StatusGone:
		return nil, &ScriptError{URL: shown, Status: a.status, Reason: "the server refuses this registration token", Err: ErrRefused}
	case a.status != http.StatusOK:
		return nil, &ScriptError{URL: shown, Status: a.status, Reason: said(a.body)}
	case a.cut != nil:
		return nil, &ScriptError{URL: shown, Reason: "the answer is cut short", Err: a.cut}
	}
	s, err := readScript(a.body, j.cfg.AgentIP != "")
	var se *ScriptError
	if errors.As(err, &se) {
		se.URL = shown
	}
	return s, err
}

// checkAPIScheme refuses to leave a verified server for a URL without verification.
func (j *joiner) checkAPIScheme(apiURL, registrationURL string) error {
	if strings.HasPrefix(apiURL, "https://") {
		return nil
	}
	if j.cfg.TLS.CAChecksum != "" || j.cfg.TLS.CAFile != "" {
		return &CAError{Where: apiURL, Reason: "a CA is given, but the server says that its API is at an http URL: a reverse proxy in front of it must pass X-Forwarded-Proto"}
	}
	if strings.HasPrefix(registrationURL, "https://") {
		j.notice(NoticeTLS, fmt.Sprintf("the registration URL is https, but the server says that its API is at %s: the credentials travel in the clear; a reverse proxy in front of the server must pass X-Forwarded-Proto", apiURL))
	}
	return nil
}

// secure sets r.TLS.
func (j *joiner) secure(ctx context.Context, r *Result, scriptURL string) error {
	if r.TLS != nil {
		return nil
	}
	cfg, err := j.trust(ctx, scriptURL)
	if err != nil {
		return err
	}
	r.TLS = cfg
	return nil
}

func (j *joiner) client(r *Result) *http.Client {
	return NewHTTPClient(r.TLS, j.proxy, j.cfg.RequestTimeout, 1)
}

// ensureAPICert downloads api.crt where it is missing or a registration was just made. Without it the agent works, but
// for host access, so a failure is a notice.
func (j *joiner) ensureAPICert(ctx context.Context, r *Result) error {
	have := j.haveAPICert()
	if have && r.Source != SourceRegistered {
		return nil
	}
	c := j.client(r)
	defer c.CloseIdleConnections()
	err := j.fetchAPICert(ctx, c, r.APIURL)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return err
	case have:
		j.notice(NoticeAPICert, fmt.Sprintf("the public key of host access tokens cannot be renewed, the stored one stays: %v", err))
	default:
		j.notice(NoticeAPICert, fmt.Sprintf("no public key of host access tokens: exec, logs and stats through the server are refused: %v", err))
	}
	return nil
}

// Refresh asks the server for what may have changed since the credentials were stored: it downloads api.crt again, and
// returns the address under which the server sees this host now, or "" where no registration URL is known or the
// operator gave an address. It is meant to run beside the agent and must not run twice at once.
func (r *Result) Refresh(ctx context.Context) (agentIP string, err error) {
	j := r.join
	c := j.client(r)
	defer c.CloseIdleConnections()
	err = j.fetchAPICert(ctx, c, r.APIURL)
	from := j.cfg.URL
	if have, loadErr := loadStored(j.cfg.StateDir); loadErr == nil && have != nil && from.IsZero() {
		from = secret.New(have.RegistrationURL)
	}
	if from.IsZero() || j.cfg.AgentIP != "" {
		return "", err
	}
	s, scriptErr := j.fetchScript(ctx, r, from)
	if scriptErr != nil {
		return "", errors.Join(err, scriptErr)
	}
	return s.agentIP, err
}
