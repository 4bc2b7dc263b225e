package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// apiVersion is the version of Rancher's REST conventions that the client speaks.
const apiVersion = "v2-beta"

// maxBody bounds an answer that is decoded.
const maxBody = 64 << 20

// ErrUnauthorized means that the server refused the credentials, or what they may do.
var ErrUnauthorized = errors.New("the server refused the credentials")

// ErrNotFound means that the server does not know the object.
var ErrNotFound = errors.New("not found")

// ErrUnreachable means that no connection to the server came about.
var ErrUnreachable = errors.New("cannot reach the server")

// Config says where the server is and who asks.
type Config struct {
	Server    string // "https://host:port"; a path is kept
	AccessKey string
	SecretKey string
	CA        []byte // PEM; nil is the system's roots
	Insecure  bool   // do not verify the server's certificate
	UserAgent string
	Proxy     func(*http.Request) (*url.URL, error)
}

// A Client of one server.
type Client struct {
	cfg  Config
	base string // ".../v2-beta", without a final slash
	http *http.Client
	long *http.Client // for streams: an answer may begin as late as it likes
	tls  *tls.Config
}

// New checks cfg. It makes no connection.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server %q is not a URL like https://host:port", cfg.Server)
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	base := strings.TrimRight(u.String(), "/")
	base = strings.TrimSuffix(strings.TrimSuffix(base, "/v1"), "/"+apiVersion)
	t := &tls.Config{InsecureSkipVerify: cfg.Insecure} //nolint:gosec // only by an explicit --insecure
	if cfg.CA != nil {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(cfg.CA) {
			return nil, errors.New("the CA file holds no PEM certificate")
		}
	}
	c := &Client{cfg: cfg, base: base + "/" + apiVersion, tls: t}
	c.cfg.Server = base
	transport := &http.Transport{
		Proxy:                 cfg.Proxy,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:       t,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute,
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
	}
	c.http = &http.Client{Transport: transport}
	stream := transport.Clone()
	stream.ResponseHeaderTimeout, stream.ExpectContinueTimeout = 0, 2*time.Second // then a body is sent anyway
	c.long = &http.Client{Transport: stream}
	return c, nil
}

// Server returns the server's URL without an API version.
func (c *Client) Server() string { return c.cfg.Server }

// Close drops idle connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.long.CloseIdleConnections()
}

// An APIError is an error that the server answered.
type APIError struct {
	Status    int
	Code      string
	Message   string
	Detail    string
	FieldName string
}

func (e *APIError) Error() string {
	text := e.Message
	if text == "" || text == e.Code {
		text = e.Code
		if e.Detail != "" {
			text = e.Detail
		}
	} else if e.Detail != "" {
		text += ": " + e.Detail
	}
	if text == "" {
		text = http.StatusText(e.Status)
	}
	if e.FieldName != "" && !strings.Contains(text, e.FieldName) {
		text += " (field " + e.FieldName + ")"
	}
	return fmt.Sprintf("%s (%d)", text, e.Status)
}

// Is matches ErrUnauthorized and ErrNotFound by status.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	case ErrNotFound:
		return e.Status == http.StatusNotFound
	}
	return false
}

// Do sends one call. path is below the API version. in is sent as JSON unless nil; out is decoded unless nil, and a
// *json.RawMessage takes the answer as it is.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c.identify(req.Header)
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return c.explain(ctx, err)
	}
	if len(b) > maxBody {
		return fmt.Errorf("%s %s: the answer is larger than %d bytes", method, path, maxBody)
	}
	if resp.StatusCode >= 300 {
		return apiError(resp.StatusCode, b)
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *json.RawMessage:
		*out = b
		return nil
	default:
		if err := json.Unmarshal(b, out); err != nil {
			return fmt.Errorf("%s answered %s %s with something that is not its JSON: %w", c.cfg.Server, method, path, err)
		}
		return nil
	}
}

func (c *Client) identify(h http.Header) {
	h.Set("Accept", "application/json")
	if c.cfg.UserAgent != "" {
		h.Set("User-Agent", c.cfg.UserAgent)
	}
	if c.cfg.AccessKey != "" {
		r := http.Request{Header: h}
		r.SetBasicAuth(c.cfg.AccessKey, c.cfg.SecretKey)
	}
}

func apiError(status int, body []byte) error {
	e := &APIError{Status: status}
	var in struct {
		Code                       any // a node's doors have the status there
		Message, Detail, FieldName string
	}
	if json.Unmarshal(body, &in) == nil {
		e.Code, _ = in.Code.(string)
		e.Message, e.Detail, e.FieldName = in.Message, in.Detail, in.FieldName
	}
	return e
}

// explain words a failed connection for a person.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w %s: connection refused; is it running?", ErrUnreachable, c.cfg.Server)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w %s: its certificate is of an unknown authority; give its CA with --ca-file", ErrUnreachable, c.cfg.Server)
	case errors.As(err, &wrongName):
		return fmt.Errorf("%w %s: %s", ErrUnreachable, c.cfg.Server, wrongName.Error())
	default:
		return fmt.Errorf("%w %s: %w", ErrUnreachable, c.cfg.Server, err)
	}
}

// collection is one page of a list.
type collection[T any] struct {
	Data       []T `json:"data"`
	Pagination struct {
		Next string `json:"next"`
	} `json:"pagination"`
}

// List returns all elements of the collection at path, of all pages.
func List[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	if query.Get("limit") == "" {
		query.Set("limit", strconv.Itoa(1000))
	}
	next := path + "?" + query.Encode()
	var all []T
	for {
		var page collection[T]
		if err := c.Do(ctx, http.MethodGet, next, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		if page.Pagination.Next == "" || len(page.Data) == 0 {
			break
		}
		// Only the query is taken: the key goes to the server that the user named, not to where an answer points.
		u, err := url.Parse(page.Pagination.Next)
		if err != nil {
			return nil, fmt.Errorf("next page %q: %w", page.Pagination.Next, err)
		}
		following := path + "?" + u.RawQuery
		if following == next {
			break
		}
		next = following
	}
	return all, nil
}
