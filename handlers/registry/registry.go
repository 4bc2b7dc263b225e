// Package registry browses and changes image registries over their HTTP API, without an engine: catalog, tags,
// manifests, deletion, copies from one registry to another. A [Client] keeps no connection and no state of its own
// between calls, is safe for concurrent use, and every call ends with its ctx. Credentials are used for the registry
// that they are for and are never part of an error.
package registry

import (
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
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/droverhq/drover/runtime"
)

// Limits of what one call gathers.
const (
	maxRepositories = 100_000
	maxTags         = 100_000
	catalogPage     = 1000
)

// Config says how registries are reached.
type Config struct {
	Insecure []string       // hosts (with :port) that may be spoken to without TLS
	Roots    *x509.CertPool // nil: the system's
	Proxy    func(*http.Request) (*url.URL, error)
	// Auth returns the credential of a registry; nil, or a nil result, is anonymous.
	Auth func(registry string) *runtime.RegistryAuth
}

// A Client talks to registries.
type Client struct {
	cfg       Config
	transport *guard
}

// New returns a client; nothing is contacted yet.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg}
	c.transport = &guard{insecure: c.insecure, Transport: &http.Transport{
		Proxy:                 cfg.Proxy,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
	}}
	return c
}

// Close gives idle connections back.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// insecure tells whether a host was named as one without TLS.
func (c *Client) insecure(host string) bool { return slices.Contains(c.cfg.Insecure, host) }

func (c *Client) nameOptions(ref string) []name.Option {
	host, _, _ := strings.Cut(ref, "/")
	if c.insecure(host) {
		return []name.Option{name.Insecure}
	}
	return nil
}

func (c *Client) options(ctx context.Context, registry string) []remote.Option {
	auth := authn.Anonymous
	if c.cfg.Auth != nil {
		if a := c.cfg.Auth(registry); a != nil {
			auth = authn.FromConfig(authn.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken})
		}
	}
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(c.transport), remote.WithAuth(auth), remote.WithUserAgent("drover")}
}

func (c *Client) registry(host string) (name.Registry, error) {
	reg, err := name.NewRegistry(host, append(c.nameOptions(host), name.StrictValidation)...)
	if err != nil {
		return reg, &runtime.Error{Op: "registry " + host, Kind: runtime.ErrInvalid, Message: fmt.Sprintf("%.80q is no registry", host), Cause: err}
	}
	return reg, nil
}

func (c *Client) reference(ref string) (name.Reference, error) {
	r, err := name.ParseReference(ref, c.nameOptions(ref)...)
	if err != nil {
		return nil, &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf("%.120q is no image reference", ref), Cause: err}
	}
	return r, nil
}

// fail words what a registry answered in one line and finds its class.
func fail(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	out := &runtime.Error{Op: op, Cause: err}
	var answered *transport.Error
	var syntax *json.SyntaxError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var netErr net.Error
	switch {
	case errors.As(err, &answered):
		out.Message = answer(answered)
		switch answered.StatusCode {
		case http.StatusNotFound:
			out.Kind = runtime.ErrNotFound
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
			out.Kind = runtime.ErrInvalid
		case http.StatusMethodNotAllowed:
			out.Kind, out.Message = runtime.ErrUnsupported, "the registry does not allow it (deletion must be enabled there)"
		case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
			out.Kind = runtime.ErrUnavailable
		}
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		out.Kind, out.Message = runtime.ErrInvalid, "the registry speaks plain HTTP: name it as insecure to allow that"
	case errors.As(err, &unknown):
		out.Kind, out.Message = runtime.ErrInvalid, "the registry's certificate is signed by an unknown authority: give its CA"
	case errors.As(err, &wrongName):
		out.Kind, out.Message = runtime.ErrInvalid, "the registry's certificate is of another name: "+wrongName.Error()
	case errors.As(err, &syntax), strings.Contains(err.Error(), "invalid character '<'"):
		out.Kind, out.Message = runtime.ErrInvalid, "the answer is not a registry's: it is no JSON"
	case errors.As(err, &netErr):
		out.Kind, out.Message = runtime.ErrUnavailable, "the registry does not answer: "+innermost(err)
	default:
		out.Message = innermost(err)
	}
	return out
}

// answer words a registry's error list, or an answer that has none.
func answer(e *transport.Error) string {
	var parts []string
	for _, d := range e.Errors {
		text := string(d.Code)
		if d.Message != "" {
			text = d.Message
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return fmt.Sprintf("the registry answered %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	}
	return "the registry answered: " + strings.Join(parts, "; ")
}

func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			line, _, _ := strings.Cut(err.Error(), "\n")
			return line
		}
		err = next
	}
}

// Check tells whether a registry answers and takes the credential.
func (c *Client) Check(ctx context.Context, host string) error {
	reg, err := c.registry(host)
	if err != nil {
		return err
	}
	auth := authn.Anonymous
	if c.cfg.Auth != nil {
		if a := c.cfg.Auth(reg.RegistryStr()); a != nil {
			auth = authn.FromConfig(authn.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken})
		}
	}
	rt, err := transport.NewWithContext(ctx, reg, auth, c.transport, nil)
	if err != nil {
		return fail(ctx, "checking registry "+host, err)
	}
	u := url.URL{Scheme: reg.Scheme(), Host: reg.RegistryStr(), Path: "/v2/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return fail(ctx, "checking registry "+host, err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return fail(ctx, "checking registry "+host, err)
	}
	if !strings.HasPrefix(resp.Header.Get("Docker-Distribution-Api-Version"), "registry/2") && !isJSON(resp.Body) {
		return &runtime.Error{Op: "checking registry " + host, Kind: runtime.ErrInvalid, Message: "the answer is not a registry's"}
	}
	return nil
}

func isJSON(r io.Reader) bool {
	b, err := io.ReadAll(io.LimitReader(r, 1<<10))
	return err == nil && (len(b) == 0 || json.Valid(b))
}

// Catalog returns the names of all repositories, to the last page.
func (c *Client) Catalog(ctx context.Context, host string) ([]string, error) {
	reg, err := c.registry(host)
	if err != nil {
		return nil, err
	}
	op := "catalog of " + host
	var all []string
	last := ""
	for {
		page, err := remote.CatalogPage(reg, last, catalogPage, c.options(ctx, reg.RegistryStr())...)
		if err != nil {
			return nil, fail(ctx, op, err)
		}
		if len(page) == 0 || page[len(page)-1] == last {
			return all, nil
		}
		all, last = append(all, page...), page[len(page)-1]
		if len(all) > maxRepositories {
			return nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: fmt.Sprintf("more than %d repositories", maxRepositories)}
		}
	}
}

// Tags returns the tags of a repository, sorted.
func (c *Client) Tags(ctx context.Context, repository string) ([]string, error) {
	repo, err := name.NewRepository(repository, c.nameOptions(repository)...)
	if err != nil {
		return nil, &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf("%.120q is no repository", repository), Cause: err}
	}
	tags, err := remote.List(repo, c.options(ctx, repo.RegistryStr())...)
	if err != nil {
		return nil, fail(ctx, "tags of "+repository, err)
	}
	if len(tags) > maxTags {
		return nil, &runtime.Error{Op: "tags of " + repository, Kind: runtime.ErrInvalid, Message: fmt.Sprintf("more than %d tags", maxTags)}
	}
	slices.Sort(tags)
	return tags, nil
}

// A Manifest is what a reference names.
type Manifest struct {
	Reference string     `json:"reference"`
	Digest    string     `json:"digest"`
	MediaType string     `json:"mediaType"`
	Platforms []Platform `json:"platforms"`
}

// A Platform is one image of a manifest.
type Platform struct {
	Platform string         `json:"platform,omitempty"` // "linux/arm64/v8"
	Digest   string         `json:"digest"`
	Size     int64          `json:"size"` // bytes of all layers, compressed
	Layers   []Layer        `json:"layers,omitempty"`
	Config   *v1.ConfigFile `json:"config,omitempty"`
}

// A Layer is one layer of an image.
type Layer struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"` // bytes, compressed
	MediaType string `json:"mediaType"`
}

// Manifest tells what a reference names: its platforms, layers, sizes and configuration.
func (c *Client) Manifest(ctx context.Context, ref string) (*Manifest, error) {
	r, err := c.reference(ref)
	if err != nil {
		return nil, err
	}
	op := "manifest of " + ref
	desc, err := remote.Get(r, c.options(ctx, r.Context().RegistryStr())...)
	if err != nil {
		return nil, fail(ctx, op, err)
	}
	m := &Manifest{Reference: r.Name(), Digest: desc.Digest.String(), MediaType: string(desc.MediaType)}
	if !desc.MediaType.IsIndex() {
		img, err := desc.Image()
		if err != nil {
			return nil, fail(ctx, op, err)
		}
		p, err := describe(img)
		if err != nil {
			return nil, fail(ctx, op, err)
		}
		m.Platforms = []Platform{p}
		return m, nil
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, fail(ctx, op, err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, fail(ctx, op, err)
	}
	for _, entry := range list.Manifests {
		if !entry.MediaType.IsImage() {
			continue
		}
		img, err := index.Image(entry.Digest)
		if err != nil {
			return nil, fail(ctx, op, err)
		}
		p, err := describe(img)
		if err != nil {
			return nil, fail(ctx, op, err)
		}
		if entry.Platform != nil {
			p.Platform = entry.Platform.String()
		}
		m.Platforms = append(m.Platforms, p)
	}
	return m, nil
}

func describe(img v1.Image) (Platform, error) {
	digest, err := img.Digest()
	if err != nil {
		return Platform{}, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return Platform{}, err
	}
	p := Platform{Digest: digest.String()}
	for _, l := range manifest.Layers {
		p.Size += l.Size
		p.Layers = append(p.Layers, Layer{Digest: l.Digest.String(), Size: l.Size, MediaType: string(l.MediaType)})
	}
	if manifest.Config.MediaType == types.DockerConfigJSON || manifest.Config.MediaType == types.OCIConfigJSON {
		if p.Config, err = img.ConfigFile(); err != nil {
			return p, err
		}
		if at := p.Config.Platform(); at != nil {
			p.Platform = at.String()
		}
	}
	return p, nil
}

// A Deletion is what Delete removes, or would.
type Deletion struct {
	Digest string   `json:"digest"`
	Tags   []string `json:"tags"` // all tags of the digest: they go with it
}

// Delete removes what a reference names, by its digest. With dry it only says which tags would go.
func (c *Client) Delete(ctx context.Context, ref string, dry bool) (*Deletion, error) {
	r, err := c.reference(ref)
	if err != nil {
		return nil, err
	}
	op := "deleting " + ref
	opts := c.options(ctx, r.Context().RegistryStr())
	head, err := remote.Head(r, opts...)
	if err != nil {
		return nil, fail(ctx, op, err)
	}
	d := &Deletion{Digest: head.Digest.String(), Tags: []string{}}
	tags, err := remote.List(r.Context(), opts...)
	if err != nil {
		return nil, fail(ctx, op, err)
	}
	for _, t := range tags {
		other, err := remote.Head(r.Context().Tag(t), opts...)
		if err == nil && other.Digest == head.Digest {
			d.Tags = append(d.Tags, t)
		}
	}
	slices.Sort(d.Tags)
	if dry {
		return d, nil
	}
	return d, fail(ctx, op, remote.Delete(r.Context().Digest(d.Digest), opts...))
}

// Copy copies an image with all its platforms from one registry to another, without an engine. progress may be nil; it
// gets bytes done and in all, from one goroutine.
func (c *Client) Copy(ctx context.Context, from, to string, progress func(done, total int64)) error {
	src, err := c.reference(from)
	if err != nil {
		return err
	}
	dst, err := c.reference(to)
	if err != nil {
		return err
	}
	op := fmt.Sprintf("copying %s to %s", from, to)
	desc, err := remote.Get(src, c.options(ctx, src.Context().RegistryStr())...)
	if err != nil {
		return fail(ctx, op, err)
	}
	opts := c.options(ctx, dst.Context().RegistryStr())
	if desc.MediaType.IsIndex() {
		index, err := desc.ImageIndex()
		if err != nil {
			return fail(ctx, op, err)
		}
		return fail(ctx, op, watched(progress, opts, func(opts []remote.Option) error { return remote.WriteIndex(dst, index, opts...) }))
	}
	img, err := desc.Image()
	if err != nil {
		return fail(ctx, op, err)
	}
	return fail(ctx, op, watched(progress, opts, func(opts []remote.Option) error { return remote.Write(dst, img, opts...) }))
}

// watched runs a write whose progress goes to a function. The write closes the channel of its updates.
func watched(progress func(done, total int64), opts []remote.Option, write func([]remote.Option) error) error {
	if progress == nil {
		return write(opts)
	}
	updates := make(chan v1.Update, 16)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for u := range updates {
			if u.Error == nil {
				progress(u.Complete, u.Total)
			}
		}
	}()
	err := write(append(opts, remote.WithProgress(updates)))
	<-told
	return err
}
