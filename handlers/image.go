package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// imageName returns the reference in a server's name of an image.
func imageName(uuid string) string { return strings.TrimPrefix(uuid, "docker:") }

// imageActivate sees to it that an image is on the host.
func (h *handlers) imageActivate(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req imageRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	img := req.Map.Image
	if img == nil {
		return nil, invalid("image", "missing")
	}
	const done = `{"imageStoragePoolMap":{}}`
	if req.ProcessData.NoOp || img.ProcessData.NoOp {
		return json.RawMessage(done), nil
	}
	ref := imageName(img.Name)
	if ref == "" {
		return nil, invalid("image.name", "missing")
	}
	_, err := h.engine.ImageConfig(ctx, ref)
	if errors.Is(err, runtime.ErrNotFound) {
		if err = h.fetch(ctx, ref, img, p); err == nil {
			_, err = h.engine.ImageConfig(ctx, ref)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return json.RawMessage(done), nil
}

// fetch pulls an image, or builds it where it says how. img may be nil.
func (h *handlers) fetch(ctx context.Context, ref string, img *image, p events.Progress) error {
	if img != nil && img.Data.Fields.Build != nil {
		if b := img.Data.Fields.Build; b.Remote != "" || b.Context != "" {
			return h.build(ctx, ref, b, p)
		}
	}
	var auth *runtime.RegistryAuth
	if img != nil {
		auth = img.Credential.auth()
	}
	return h.pulls.pull(ctx, ref, auth, p)
}

// build lets the engine build an image from a URL that it fetches itself.
func (h *handlers) build(ctx context.Context, ref string, b *build, p events.Progress) error {
	builder, ok := h.engine.(runtime.Builder)
	if !ok {
		return fmt.Errorf("build image %s: %w", ref, runtime.ErrUnsupported)
	}
	remote := b.Remote
	if remote == "" {
		remote = b.Context
	}
	if rest, ok := strings.CutPrefix(remote, "git@github.com:"); ok {
		remote = "git://github.com/" + rest
	}
	tag := imageName(b.Tag)
	if tag == "" {
		tag = ref
	}
	report := newReporter("Building", p)
	if err := builder.BuildRemote(ctx, remote, tag, report.step); err != nil {
		return fmt.Errorf("image %s failed to build: %w", tag, err)
	}
	return nil
}

// noImage is the answer for an image that is not there.
const noImage = `{"Id":"","RepoTags":null,"RepoDigests":null,"Parent":"","Comment":"","Created":"","Container":"",` +
	`"ContainerConfig":null,"DockerVersion":"","Author":"","Config":null,"Architecture":"","Os":"","Size":0,"VirtualSize":0}`

// pull is one step of a pull task. The first pulls an image on each host and gives it a tag of the task; the second,
// complete, takes the tag away again.
func (h *handlers) pull(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req pullRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	r := &req.Pull
	switch {
	case r.Image == nil || r.Image.Data.DockerImage.FullName == "":
		return nil, invalid("instancePull.image.data.dockerImage.fullName", "missing")
	case r.Tag == nil:
		return nil, invalid("instancePull.tag", "missing")
	}
	short := imageName(r.Image.Data.DockerImage.FullName)
	ref := short
	if server := r.Image.Data.DockerImage.Server; server != "" {
		ref = server + "/" + short
	}
	switch {
	case r.Mode == "cached":
	case r.Complete:
		if err := h.engine.RemoveImage(ctx, ref+*r.Tag, true); err != nil && !errors.Is(err, runtime.ErrNotFound) {
			return nil, fmt.Errorf("remove image %s: %w", ref+*r.Tag, err)
		}
	default:
		if err := h.pulls.pull(ctx, ref, r.Image.Credential.auth(), p); err != nil {
			return nil, err
		}
		if *r.Tag != "" {
			if err := h.engine.TagImage(ctx, ref, ref+*r.Tag); err != nil {
				return nil, fmt.Errorf("tag image %s: %w", ref, err)
			}
		}
	}
	raw := json.RawMessage(noImage)
	for _, name := range []string{short + *r.Tag, ref + *r.Tag} {
		found, err := h.engine.InspectImage(ctx, name)
		if err == nil {
			raw = found
			break
		}
		if !errors.Is(err, runtime.ErrNotFound) {
			return nil, fmt.Errorf("inspect image %s: %w", name, err)
		}
	}
	inner, err := wrapRaw("dockerImage", raw)
	if err != nil {
		return nil, err
	}
	return wrapRaw("fields", inner)
}
