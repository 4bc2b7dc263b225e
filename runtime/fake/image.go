package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// An image's fields are guarded by the engine's mu.
type image struct {
	id      string
	tags    []string // full references
	config  runtime.ImageConfig
	created time.Time
}

// addImage makes an image, or gives an equal one another name. Refs that are none are ignored.
func (e *Engine) addImage(ref string, config runtime.ImageConfig) *image {
	full, err := normalize("", ref)
	if err != nil {
		return nil
	}
	img := &image{id: config.ID, config: config, created: time.Now()}
	if img.id == "" {
		sum := sha256.Sum256([]byte(full + strings.Join(config.Cmd, "\x00")))
		img.id = "sha256:" + hex.EncodeToString(sum[:])
	}
	if known := e.images[img.id]; known != nil {
		img = known
	}
	e.images[img.id] = img
	e.tag(img, full)
	return img
}

// tag makes full a name of img, and of no other. e.mu is held.
func (e *Engine) tag(img *image, full string) {
	if old := e.tags[full]; old != nil {
		old.tags = slices.DeleteFunc(old.tags, func(t string) bool { return t == full })
	}
	e.tags[full] = img
	img.tags = append(img.tags, full)
}

// findImage returns the image with that reference, id or prefix of an id. e.mu is held.
func (e *Engine) findImage(ref string) *image {
	if full, err := normalize("", ref); err == nil && e.tags[full] != nil {
		return e.tags[full]
	}
	hexID := strings.TrimPrefix(ref, "sha256:")
	if img := e.images["sha256:"+hexID]; img != nil {
		return img
	}
	if len(hexID) >= 4 {
		for id, img := range e.images {
			if strings.HasPrefix(id, "sha256:"+hexID) {
				return img
			}
		}
	}
	return nil
}

func (e *Engine) image(op, ref string) (*image, error) {
	if _, err := normalize(op, ref); err != nil && !strings.HasPrefix(ref, "sha256:") && len(ref) != 64 {
		return nil, err
	}
	if img := e.findImage(ref); img != nil {
		return img, nil
	}
	return nil, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "No such image: " + ref}
}

// names are the short references of img.
func (img *image) names() []string {
	names := make([]string, 0, len(img.tags))
	for _, full := range img.tags {
		names = append(names, familiar(full))
	}
	slices.Sort(names)
	return names
}

// InspectImage returns JSON of dockerd's shape.
func (e *Engine) InspectImage(ctx context.Context, ref string) (json.RawMessage, error) {
	op := "inspect image " + ref
	if err := e.enter(ctx, "InspectImage", op); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	img, err := e.image(op, ref)
	if err != nil {
		return nil, err
	}
	return imageJSON(img)
}

// ImageConfig returns what an image says about its containers.
func (e *Engine) ImageConfig(ctx context.Context, ref string) (runtime.ImageConfig, error) {
	op := "inspect image " + ref
	if err := e.enter(ctx, "ImageConfig", op); err != nil {
		return runtime.ImageConfig{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	img, err := e.image(op, ref)
	if err != nil {
		return runtime.ImageConfig{}, err
	}
	config := img.config
	config.ID, config.RepoTags = img.id, img.names()
	return config, nil
}

// TagImage gives source a second name.
func (e *Engine) TagImage(ctx context.Context, source, target string) error {
	op := "tag " + source + " as " + target
	if err := e.enter(ctx, "TagImage", op); err != nil {
		return err
	}
	full, err := normalize(op, target)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	img, err := e.image(op, source)
	if err != nil {
		return err
	}
	e.tag(img, full)
	return nil
}

// RemoveImage removes a reference, and the image with its last one.
func (e *Engine) RemoveImage(ctx context.Context, ref string, force bool) error {
	op := "remove image " + ref
	if err := e.enter(ctx, "RemoveImage", op); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	img, err := e.image(op, ref)
	if err != nil {
		return err
	}
	full, _ := normalize(op, ref)
	byName := e.tags[full] == img
	if byName && len(img.tags) > 1 {
		delete(e.tags, full)
		img.tags = slices.DeleteFunc(img.tags, func(t string) bool { return t == full })
		return nil
	}
	for _, c := range e.containers {
		if c.image == img && (c.running || !force) {
			return &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "conflict: image is being used by container " + c.id[:12]}
		}
	}
	if !byName && len(img.tags) > 1 && !force {
		return &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "conflict: image is referenced in multiple repositories"}
	}
	for _, t := range img.tags {
		delete(e.tags, t)
	}
	delete(e.images, img.id)
	return nil
}

// ListImages returns all images.
func (e *Engine) ListImages(ctx context.Context) ([]runtime.ImageSummary, error) {
	if err := e.enter(ctx, "ListImages", "list images"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]runtime.ImageSummary, 0, len(e.images))
	for _, img := range e.images {
		sum := runtime.ImageSummary{ID: img.id, RepoTags: img.names(), Created: img.created, Size: img.config.Size}
		for _, c := range e.containers {
			if c.image == img {
				sum.InUse++
			}
		}
		list = append(list, sum)
	}
	slices.SortFunc(list, func(a, b runtime.ImageSummary) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// BuildRemote makes an image of an URL without looking at it.
func (e *Engine) BuildRemote(ctx context.Context, url, tag string, progress func(runtime.PullProgress)) error {
	op := "build " + tag
	if err := e.enter(ctx, "BuildRemote", op); err != nil {
		return err
	}
	if url == "" {
		return &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "no remote context"}
	}
	if _, err := normalize(op, tag); err != nil {
		return err
	}
	if progress != nil {
		progress(runtime.PullProgress{Status: "Step 1/1 : ADD " + url + " /"})
	}
	e.mu.Lock()
	img := e.addImage(tag, runtime.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}})
	e.mu.Unlock()
	if progress != nil {
		progress(runtime.PullProgress{Status: fmt.Sprintf("Successfully built %s", img.id[7:19])})
	}
	return nil
}
