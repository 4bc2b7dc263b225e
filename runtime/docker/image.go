package docker

import (
	"context"
	"encoding/json"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/droverhq/drover/runtime"
)

// InspectImage returns the daemon's own JSON of an image.
func (e *Engine) InspectImage(ctx context.Context, ref string) (json.RawMessage, error) {
	op := "inspect image " + shorten(ref)
	ref, err := imageRef(op, ref)
	if err != nil {
		return nil, err
	}
	var raw json.RawMessage
	err = e.read(ctx, op, func(ctx context.Context, s *session) (err error) {
		raw, err = e.relay(ctx, s, "/images/"+ref+"/json", "")
		return err
	})
	return raw, err
}

// ImageConfig decodes the few facts of an image that callers decide on.
func (e *Engine) ImageConfig(ctx context.Context, ref string) (runtime.ImageConfig, error) {
	op := "inspect image " + shorten(ref)
	ref, err := imageRef(op, ref)
	if err != nil {
		return runtime.ImageConfig{}, err
	}
	var img struct {
		ID                    string
		RepoTags, RepoDigests []string
		Size                  int64
		Config                struct {
			Entrypoint, Cmd, Env []string
			ExposedPorts         map[string]struct{}
		}
	}
	err = e.read(ctx, op, func(ctx context.Context, s *session) error {
		return e.getJSON(ctx, s, "/images/"+ref+"/json", "", &img)
	})
	if err != nil {
		return runtime.ImageConfig{}, err
	}
	return runtime.ImageConfig{
		ID: img.ID, RepoTags: img.RepoTags, RepoDigests: img.RepoDigests, Size: img.Size,
		Entrypoint: img.Config.Entrypoint, Cmd: img.Config.Cmd, Env: img.Config.Env,
		ExposedPorts: parsePorts(img.Config.ExposedPorts),
	}, nil
}

// TagImage gives source a second name.
func (e *Engine) TagImage(ctx context.Context, source, target string) error {
	op := "tag " + shorten(source) + " as " + shorten(target)
	if _, err := imageRef(op, source); err != nil {
		return err
	}
	if _, err := imageRef(op, target); err != nil {
		return err
	}
	return e.change(ctx, op, func(ctx context.Context, s *session) error {
		return s.api.ImageTag(ctx, source, target)
	})
}

// RemoveImage removes a reference, and the image with its last one.
func (e *Engine) RemoveImage(ctx context.Context, ref string, force bool) error {
	op := "remove image " + shorten(ref)
	if _, err := imageRef(op, ref); err != nil {
		return err
	}
	return e.change(ctx, op, func(ctx context.Context, s *session) error {
		_, err := s.api.ImageRemove(ctx, ref, image.RemoveOptions{Force: force, PruneChildren: true})
		return err
	})
}

// ListImages returns the images that have a name, and those without one that are no mere layer of others.
func (e *Engine) ListImages(ctx context.Context) ([]runtime.ImageSummary, error) {
	var rows []struct {
		ID         string
		RepoTags   []string
		Created    int64
		Size       int64
		Containers *int
	}
	err := e.read(ctx, "list images", func(ctx context.Context, s *session) error {
		return e.getJSON(ctx, s, "/images/json", "", &rows)
	})
	if err != nil {
		return nil, err
	}
	list := make([]runtime.ImageSummary, 0, len(rows))
	for _, r := range rows {
		sum := runtime.ImageSummary{ID: r.ID, Created: time.Unix(r.Created, 0), Size: r.Size, InUse: -1}
		for _, tag := range r.RepoTags {
			if tag != "<none>:<none>" {
				sum.RepoTags = append(sum.RepoTags, tag)
			}
		}
		if r.Containers != nil {
			sum.InUse = *r.Containers
		}
		list = append(list, sum)
	}
	return list, nil
}
