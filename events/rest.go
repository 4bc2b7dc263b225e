package events

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	rancher "github.com/rancher/go-rancher/v2"
)

const (
	maxSchema = 32 << 20 // bytes of a schema document
	maxAnswer = 4 << 20  // bytes of any other answer
	schemaAge = time.Hour
)

// The API versions that an agent uses: replies are published to the newer one, everything else goes to the older.
const (
	apiPublish = "v2-beta"
	apiV1      = "v1"
)

// publishType is the type of a reply's resource.
const publishType = rancher.PUBLISH_TYPE

// schemaDoc is what is read of the API's description of itself. The document of a real server has hundreds of kilobytes
// of fields that are of no use here.
type schemaDoc struct {
	Data []struct {
		rancher.Resource
		PluralName        string   `json:"pluralName"`
		CollectionMethods []string `json:"collectionMethods"`
	} `json:"data"`
}

// rest is the REST side of a server. go-rancher's own client is not used: its calls know no context, and each of its
// constructors blocks on the network.
type rest struct {
	cfg    *Config
	base   *url.URL
	header http.Header
	client *http.Client
	apis   map[string]*api // by version
}

// api is one version of the API, as far as it was discovered.
type api struct {
	turn        chan struct{}     // whoever holds it may discover; the rest wait
	collections map[string]string // guarded by turn; type -> URL that takes POST
	read        time.Time         // guarded by turn
	stale       atomic.Bool
}

func newREST(cfg *Config, base *url.URL, conns int) *rest {
	t := &http.Transport{
		Proxy: cfg.Proxy, DialContext: cfg.Dial, TLSClientConfig: cfg.TLS, TLSHandshakeTimeout: cfg.HandshakeTimeout,
		MaxIdleConns: 2 * conns, MaxIdleConnsPerHost: conns, IdleConnTimeout: 50 * time.Second,
		ResponseHeaderTimeout: cfg.ReplyTimeout, ExpectContinueTimeout: time.Second, ReadBufferSize: 4 << 10, WriteBufferSize: 16 << 10,
	}
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
		t.TLSClientConfig.NextProtos = nil
	}
	r := &rest{
		cfg: cfg, base: base, header: requestHeader(cfg), apis: map[string]*api{},
		client: &http.Client{Transport: t, CheckRedirect: sameHost(base)},
	}
	r.header.Set("Accept", "application/json")
	for _, version := range []string{apiPublish, apiV1} {
		r.apis[version] = &api{turn: make(chan struct{}, 1)}
	}
	return r
}

// sameHost follows redirects only where the credentials may go.
func sameHost(base *url.URL) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) > 5 || req.URL.Host != base.Host || base.Scheme == "https" && req.URL.Scheme != "https" {
			return http.ErrUseLastResponse
		}
		return nil
	}
}

func (r *rest) close() { r.client.CloseIdleConnections() }

// versionURL returns the root of one version of the API.
func (r *rest) versionURL(version string) string {
	u := *r.base
	switch {
	case u.Path == "" || u.Path == "/":
		u.Path = "/" + version
	case u.Path == "/v1" || strings.HasPrefix(u.Path, "/v1/"):
		u.Path = "/" + version + strings.TrimPrefix(u.Path, "/v1")
	}
	return u.String()
}

// collection returns the URL that takes POSTs of resourceType, from the schema that was read at most schemaAge ago.
func (r *rest) collection(ctx context.Context, version, resourceType string) (string, error) {
	a := r.apis[version]
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-a.turn }()
	if time.Since(a.read) > schemaAge || a.stale.Swap(false) {
		collections, err := r.discover(ctx, version)
		if err != nil {
			a.read = time.Time{}
			return "", err
		}
		a.collections, a.read = collections, time.Now()
	}
	u, ok := a.collections[resourceType]
	if !ok {
		return "", fmt.Errorf("the API %s of %s takes no POST of type %q", version, r.base.Host, resourceType)
	}
	return u, nil
}

// discover reads the schemas of one version: its root names, in a header, where they are.
func (r *rest) discover(ctx context.Context, version string) (map[string]string, error) {
	root := r.versionURL(version)
	fail := func(err error) (map[string]string, error) {
		return nil, fmt.Errorf("reading the schemas of %s: %w", root, err)
	}
	resp, err := r.do(ctx, http.MethodGet, root, nil, maxSchema)
	if err != nil {
		return fail(err)
	}
	if resp.status != http.StatusOK {
		return fail(resp.err())
	}
	schemas := resp.header.Get("X-API-Schemas")
	if schemas == "" {
		return fail(fmt.Errorf("no header X-API-Schemas; this is no Rancher API"))
	}
	if schemas != root {
		if schemas, err = r.safe(schemas); err != nil {
			return fail(err)
		}
		if resp, err = r.do(ctx, http.MethodGet, schemas, nil, maxSchema); err != nil {
			return fail(err)
		}
		if resp.status != http.StatusOK {
			return fail(resp.err())
		}
	}
	var doc schemaDoc
	if err := json.Unmarshal(resp.body, &doc); err != nil {
		return fail(err)
	}
	collections := map[string]string{}
	for _, s := range doc.Data {
		if !slices.Contains(s.CollectionMethods, http.MethodPost) {
			continue
		}
		link := s.Links[rancher.COLLECTION]
		if self := s.Links[rancher.SELF]; link == "" && s.PluralName != "" {
			if head, _, ok := strings.Cut(self, "schemas"); ok {
				link = head + s.PluralName
			}
		}
		if link, err = r.safe(link); err == nil {
			collections[s.Id] = link
		}
	}
	return collections, nil
}

// safe makes a link of the server fit for the credentials: a server behind a proxy may not know that it is reached by
// https, and a link must not lead from there to http.
func (r *rest) safe(link string) (string, error) {
	u, err := r.base.Parse(link)
	if err != nil || link == "" {
		return "", fmt.Errorf("the server names the unusable link %q", link)
	}
	if r.base.Scheme == "https" && u.Scheme == "http" {
		if u.Hostname() != r.base.Hostname() {
			return "", fmt.Errorf("the server names the link %q, which leads from https to http", link)
		}
		u.Scheme, u.Host = r.base.Scheme, r.base.Host
	}
	return u.String(), nil
}

// answerOf is a REST answer, read to its end.
type answerOf struct {
	status int
	header http.Header
	body   []byte
}

// err makes an error of an answer that is no success.
func (a *answerOf) err() error {
	e := &APIError{Status: a.status}
	var body struct{ Code, FieldName, Message, Detail string }
	if json.Unmarshal(a.body, &body) == nil {
		e.Code, e.FieldName = body.Code, body.FieldName
		for _, text := range []string{body.Message, body.Detail} {
			if text != "" && text != body.Code {
				e.Message = strings.Join(strings.Fields(text), " ")
				break
			}
		}
	}
	if e.Code == "" && e.Message == "" {
		e.Message = http.StatusText(a.status)
	}
	return e
}

func (r *rest) do(ctx context.Context, method, target string, body []byte, limit int64) (*answerOf, error) {
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, rd)
	if err != nil {
		return nil, err
	}
	req.Header = r.header
	if body != nil {
		req.Header = r.header.Clone()
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, shorten(err)
	}
	defer resp.Body.Close()
	// Read to the end, or the connection cannot be used again.
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", r.base.Host, limit)
	}
	return &answerOf{status: resp.StatusCode, header: resp.Header, body: b}, nil
}

// shorten leaves the method and the query of the URL out of an error that names the network's reason anyway.
func shorten(err error) error {
	ue, ok := err.(*url.Error)
	if !ok {
		return err
	}
	if op, ok := ue.Err.(*net.OpError); ok {
		return op
	}
	if u, perr := url.Parse(ue.URL); perr == nil {
		return fmt.Errorf("%s: %w", u.Host, ue.Err)
	}
	return ue.Err
}

// post creates a resource at the server. out may be nil.
func (r *rest) post(ctx context.Context, version, resourceType string, body []byte, out any) (*answerOf, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ReplyTimeout)
	defer cancel()
	target, err := r.collection(ctx, version, resourceType)
	if err != nil {
		return nil, err
	}
	resp, err := r.do(ctx, http.MethodPost, target, body, maxAnswer)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.status < 300:
		if out != nil {
			if err := json.Unmarshal(resp.body, out); err != nil {
				return resp, fmt.Errorf("decoding the answer to POST of %s: %w", resourceType, err)
			}
		}
		return resp, nil
	case resp.status == http.StatusNotFound || resp.status == http.StatusMethodNotAllowed:
		r.apis[version].stale.Store(true) // the server may have changed
	}
	return resp, resp.err()
}
