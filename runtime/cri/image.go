package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	"google.golang.org/protobuf/encoding/protojson"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// validImage refuses what is neither a reference nor an id.
func validImage(ref string) error {
	if _, err := reference.ParseAnyReference(ref); err != nil {
		return &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf("%.80q is no image reference", ref), Cause: err}
	}
	return nil
}

func (e *Engine) image(ctx context.Context, ref string) (*criv1.ImageStatusResponse, error) {
	op := "inspecting image " + ref
	if err := validImage(ref); err != nil {
		return nil, err
	}
	resp, err := e.images.ImageStatus(ctx, &criv1.ImageStatusRequest{Image: &criv1.ImageSpec{Image: ref}, Verbose: true})
	if err != nil {
		return nil, e.fail(ctx, op, err)
	}
	if resp.GetImage() == nil {
		return nil, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "no such image: " + ref}
	}
	return resp, nil
}

// InspectImage returns {"Id": ..., "status": ..., "info": ...}; see Inspect.
func (e *Engine) InspectImage(ctx context.Context, ref string) (json.RawMessage, error) {
	resp, err := e.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	st, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(resp.GetImage())
	if err != nil {
		return nil, err
	}
	return inspection(resp.GetImage().GetId(), "", st, resp.GetInfo()), nil
}

// ImageConfig returns what the image says about its containers, as far as the runtime tells it.
func (e *Engine) ImageConfig(ctx context.Context, ref string) (runtime.ImageConfig, error) {
	resp, err := e.image(ctx, ref)
	if err != nil {
		return runtime.ImageConfig{}, err
	}
	img := resp.GetImage()
	out := runtime.ImageConfig{ID: img.GetId(), RepoTags: img.GetRepoTags(), RepoDigests: img.GetRepoDigests(), Size: int64(img.GetSize())}
	var info struct {
		ImageSpec struct {
			Config struct {
				Entrypoint   []string
				Cmd          []string
				Env          []string
				ExposedPorts map[string]struct{}
			} `json:"config"`
		} `json:"imageSpec"`
	}
	if text := resp.GetInfo()["info"]; text != "" {
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			return out, fmt.Errorf("verbose status of image %s: %w", ref, err)
		}
	}
	c := info.ImageSpec.Config
	out.Entrypoint, out.Cmd, out.Env = c.Entrypoint, c.Cmd, c.Env
	for p := range c.ExposedPorts {
		port := runtime.Port{Protocol: "tcp"}
		number, proto, ok := strings.Cut(p, "/")
		if ok {
			port.Protocol = proto
		}
		if _, err := fmt.Sscan(number, &port.PrivatePort); err == nil {
			out.ExposedPorts = append(out.ExposedPorts, port)
		}
	}
	return out, nil
}

// ListImages returns the images of the host.
func (e *Engine) ListImages(ctx context.Context) ([]runtime.ImageSummary, error) {
	resp, err := e.images.ListImages(ctx, &criv1.ListImagesRequest{})
	if err != nil {
		return nil, e.fail(ctx, "listing images", err)
	}
	out := make([]runtime.ImageSummary, 0, len(resp.GetImages()))
	for _, img := range resp.GetImages() {
		out = append(out, runtime.ImageSummary{ID: img.GetId(), RepoTags: img.GetRepoTags(), Size: int64(img.GetSize()), InUse: -1})
	}
	return out, nil
}

// TagImage is not part of CRI.
func (e *Engine) TagImage(context.Context, string, string) error {
	return unsupported("a CRI runtime cannot give an image a second name")
}

// RemoveImage removes an image with all its names: CRI knows no other removal.
func (e *Engine) RemoveImage(ctx context.Context, ref string, _ bool) error {
	if _, err := e.image(ctx, ref); err != nil {
		return err
	}
	_, err := e.images.RemoveImage(ctx, &criv1.RemoveImageRequest{Image: &criv1.ImageSpec{Image: ref}})
	return e.fail(ctx, "removing image "+ref, err)
}

const (
	pullInactivity = 5 * time.Minute
	pullNotices    = 2 * time.Second
)

// Pull fetches an image. CRI tells no progress, so what is reported is that the pull goes on; its inactivity limit is
// the limit of the whole, from which a runtime that downloads without a word cannot be told apart.
func (e *Engine) Pull(ctx context.Context, req runtime.PullRequest, progress func(runtime.PullProgress)) error {
	op := "pulling " + req.Ref
	if err := validImage(req.Ref); err != nil {
		return err
	}
	if req.Platform != "" {
		return unsupported("a CRI runtime pulls for the platform of its host alone")
	}
	limit := req.Inactivity
	if limit <= 0 {
		limit = pullInactivity
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &runtime.Error{
		Op: op, Kind: runtime.ErrUnavailable, Message: fmt.Sprintf("no progress was told and it did not end within %s", limit),
	})
	defer cancel()
	pull := &criv1.PullImageRequest{Image: &criv1.ImageSpec{Image: req.Ref}}
	if a := req.Auth; a != nil {
		pull.Auth = &criv1.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: a.ServerAddress}
	}
	done := make(chan error, 1)
	go func() {
		_, err := e.images.PullImage(ctx, pull)
		done <- err
	}()
	tick := time.NewTicker(pullNotices)
	defer tick.Stop()
	start := time.Now()
	for {
		select {
		case err := <-done:
			if err == nil && progress != nil {
				progress(runtime.PullProgress{Status: "Pull complete"})
			}
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err = e.fail(ctx, op, err)
			var ours *runtime.Error
			if errors.As(err, &ours) && ours.Kind == nil && strings.Contains(ours.Message, "401") {
				ours.Kind = runtime.ErrInvalid
			}
			return err
		case <-tick.C:
			if progress != nil {
				progress(runtime.PullProgress{Status: fmt.Sprintf("Pulling for %s", time.Since(start).Round(time.Second))})
			}
		}
	}
}
