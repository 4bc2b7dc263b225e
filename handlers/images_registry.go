package handlers

import (
	"context"
	"crypto/x509"
	"strings"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers/registry"
	"github.com/droverhq/drover/runtime"
)

// registryAccess is how the registries of an event are reached.
type registryAccess struct {
	Insecure   []string `json:"insecure"` // hosts, with their port, that may be spoken to without TLS
	CA         string   `json:"ca"`       // PEM; "": the system's
	Credential *login   `json:"credential"`
	// SourceCredential is for the source of a copy, and Credential for its target.
	SourceCredential *login `json:"sourceCredential"`
}

// decodeAccess decodes an event twice: what is its own, and how registries are reached.
func decodeAccess(ev *wire.Event, own any, access *registryAccess) error {
	if err := decodeEvent(ev, access); err != nil {
		return err
	}
	return decodeEvent(ev, own)
}

// registries returns a client, which the caller closes.
func (h *handlers) registries(access *registryAccess) (*registry.Client, error) {
	return h.registriesOf(access, func(string) *login { return access.Credential })
}

func (h *handlers) registriesOf(access *registryAccess, login func(host string) *login) (*registry.Client, error) {
	cfg := registry.Config{Insecure: access.Insecure, Proxy: h.opts.RegistryProxy}
	if access.CA != "" {
		cfg.Roots = x509.NewCertPool()
		if !cfg.Roots.AppendCertsFromPEM([]byte(access.CA)) {
			return nil, invalid("ca", "holds no PEM certificate")
		}
	}
	cfg.Auth = func(host string) *runtime.RegistryAuth {
		l := login(host)
		if l == nil || l.ServerAddress != "" && serverHost(l.ServerAddress) != host {
			return nil // never given to another registry than its own
		}
		return l.auth()
	}
	return registry.New(cfg), nil
}

// serverHost returns the host of a registry's address, which may be a URL.
func serverHost(address string) string {
	_, rest, found := strings.Cut(address, "://")
	if !found {
		rest = address
	}
	host, _, _ := strings.Cut(rest, "/")
	if host == "docker.io" {
		return "index.docker.io"
	}
	return host
}

// browse is what the events that ask a registry have in common.
func (h *handlers) browse(ev *wire.Event, field string, ask func(c *registry.Client, subject string) (any, error)) (any, error) {
	var (
		req struct {
			Registry   string `json:"registry"`
			Repository string `json:"repository"`
			Image      string `json:"image"`
		}
		access registryAccess
	)
	if err := decodeAccess(ev, &req, &access); err != nil {
		return nil, err
	}
	subject, err := named(field, map[string]string{"registry": req.Registry, "repository": req.Repository, "image": req.Image}[field])
	if err != nil {
		return nil, err
	}
	c, err := h.registries(&access)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return ask(c, subject)
}

// registryCatalog answers with the names of all repositories of a registry.
func (h *handlers) registryCatalog(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return h.browse(ev, "registry", func(c *registry.Client, host string) (any, error) {
		defer pulse(ctx, p, "Reading the catalog of "+host)()
		list, err := c.Catalog(ctx, host)
		if err != nil {
			return nil, err
		}
		return map[string]any{"repositories": append([]string{}, list...)}, nil
	})
}

// registryTags answers with the tags of a repository.
func (h *handlers) registryTags(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return h.browse(ev, "repository", func(c *registry.Client, repository string) (any, error) {
		defer pulse(ctx, p, "Reading the tags of "+repository)()
		tags, err := c.Tags(ctx, repository)
		if err != nil {
			return nil, err
		}
		return map[string]any{"tags": append([]string{}, tags...)}, nil
	})
}

// registryManifest answers with what a reference names.
func (h *handlers) registryManifest(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return h.browse(ev, "image", func(c *registry.Client, ref string) (any, error) {
		defer pulse(ctx, p, "Reading the manifest of "+ref)()
		m, err := c.Manifest(ctx, ref)
		if err != nil {
			return nil, err
		}
		return map[string]any{"manifest": m}, nil
	})
}

// registryDelete removes what a reference names, with all tags of the digest; with dryRun it only names them.
func (h *handlers) registryDelete(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var mode struct {
		DryRun bool `json:"dryRun"`
	}
	if err := decodeEvent(ev, &mode); err != nil {
		return nil, err
	}
	return h.browse(ev, "image", func(c *registry.Client, ref string) (any, error) {
		defer pulse(ctx, p, "Deleting "+ref)()
		d, err := c.Delete(ctx, ref, mode.DryRun)
		if err != nil {
			return nil, err
		}
		return map[string]any{"deletion": d}, nil
	})
}

// registryCheck tells whether a registry answers and takes the credential.
func (h *handlers) registryCheck(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	return h.browse(ev, "registry", func(c *registry.Client, host string) (any, error) {
		if err := c.Check(ctx, host); err != nil {
			return nil, err
		}
		return map[string]any{"registry": map[string]any{"name": host, "ok": true}}, nil
	})
}

// registryCopy copies an image from one registry to another, without the engine.
func (h *handlers) registryCopy(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var (
		req struct {
			Source string `json:"source"`
			Target string `json:"target"`
		}
		access registryAccess
	)
	if err := decodeAccess(ev, &req, &access); err != nil {
		return nil, err
	}
	source, err := named("source", req.Source)
	if err != nil {
		return nil, err
	}
	target, err := named("target", req.Target)
	if err != nil {
		return nil, err
	}
	from := serverHost(registryOf(source))
	c, err := h.registriesOf(&access, func(host string) *login {
		if host == from && access.SourceCredential != nil {
			return access.SourceCredential
		}
		if host == serverHost(registryOf(target)) {
			return access.Credential
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	report := newDetailed("Copying "+source, p)
	stop := pulse(ctx, p, "Copying "+source)
	err = c.Copy(ctx, source, target, func(done, total int64) {
		report.step(runtime.PullProgress{Layer: wholeImage, Status: "Pushing", Current: done, Total: total})
	})
	stop()
	if err != nil {
		return nil, err
	}
	m, err := c.Manifest(ctx, target)
	if err != nil {
		return nil, err
	}
	return map[string]any{"image": map[string]any{"name": target, "digest": m.Digest}}, nil
}
