package handlers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// The events of images and registries. Only Drover servers send them. Their data is a flat object: see the request
// types of the handlers; the data of an answer is {"image": ...}, {"images": ...} and so on.
const (
	EventImageList    = "image.list"
	EventImageInspect = "image.inspect"
	EventImageHistory = "image.history"
	EventImagePull    = "image.pull"
	EventImageTag     = "image.tag"
	EventImagePush    = "image.push"
	EventImageCommit  = "image.commit"
	EventImageRemove  = "image.remove"
	EventImagePrune   = "image.prune"
	EventImageImport  = "image.import"
	EventImageBuild   = "image.build"
	EventImageSave    = "image.save"
	EventImageLoad    = "image.load"

	EventRegistryCatalog  = "registry.catalog"
	EventRegistryTags     = "registry.tags"
	EventRegistryManifest = "registry.manifest"
	EventRegistryDelete   = "registry.delete"
	EventRegistryCopy     = "registry.copy"
	EventRegistryCheck    = "registry.check"
	EventRegistryGC       = "registry.gc"
)

// registerImages wires the events of images and registries.
func registerImages(r Router, h *handlers) {
	w := &works{cancels: map[string]context.CancelCauseFunc{}}
	r.Handle(EventWorkCancel, events.HandlerFunc(w.cancel))
	for name, f := range map[string]events.HandlerFunc{
		EventImageList: h.imageList, EventImageInspect: h.imageInspect, EventImageHistory: h.imageHistory,
		EventImagePull: h.imagePull, EventImageTag: h.imageTag, EventImagePush: h.imagePush,
		EventImageCommit: h.imageCommit, EventImageRemove: h.imageRemove, EventImagePrune: h.imagePrune,
		EventImageImport: h.imageImport, EventImageBuild: h.imageBuild, EventImageSave: h.imageSave, EventImageLoad: h.imageLoad,

		EventRegistryCatalog: h.registryCatalog, EventRegistryTags: h.registryTags, EventRegistryManifest: h.registryManifest,
		EventRegistryDelete: h.registryDelete, EventRegistryCopy: h.registryCopy, EventRegistryCheck: h.registryCheck,
	} {
		r.Handle(name, w.cancellable(f))
	}
	r.Handle(EventRegistryGC, events.HandlerFunc(h.registryGC)) // it ends with a start of the registry, come what may
}

// login is a credential of a registry in an event.
type login struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identityToken"`
	Email         string `json:"email"`
	ServerAddress string `json:"serverAddress"` // "": of whatever registry the event is about
}

// auth returns the credential in the engine's terms, nil if there is none.
func (l *login) auth() *runtime.RegistryAuth {
	if l == nil || l.Username == "" && l.IdentityToken == "" {
		return nil
	}
	return &runtime.RegistryAuth{
		Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, Email: l.Email, ServerAddress: l.ServerAddress,
	}
}

// manager returns what the engine can do with images beyond the common.
func (h *handlers) manager(what string) (runtime.ImageManager, error) {
	m, ok := h.engine.(runtime.ImageManager)
	if !ok {
		return nil, fmt.Errorf("%s: %w", what, runtime.ErrUnsupported)
	}
	return m, nil
}

// imageRow is one image of a list.
type imageRow struct {
	ID       string    `json:"id"`
	RepoTags []string  `json:"repoTags"`
	Created  time.Time `json:"created"`
	Size     int64     `json:"size"`  // bytes
	InUse    int       `json:"inUse"` // containers of it, running or not
}

// imageList answers with the images of the host, newest first.
func (h *handlers) imageList(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
	list, err := h.engine.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := h.engine.List(ctx, runtime.ListOptions{})
	if err != nil {
		return nil, err
	}
	used := make(map[string]int, len(containers))
	for i := range containers {
		used[containers[i].ImageID]++
	}
	rows := make([]imageRow, 0, len(list))
	for _, s := range list {
		rows = append(rows, imageRow{ID: s.ID, RepoTags: append([]string{}, s.RepoTags...), Created: s.Created.UTC(), Size: s.Size, InUse: used[s.ID]})
	}
	slices.SortStableFunc(rows, func(a, b imageRow) int { return b.Created.Compare(a.Created) })
	return map[string]any{"images": rows}, nil
}

// oneImage is the data of the events that are about one image and say no more.
type oneImage struct {
	Image string `json:"image"`
}

func decodeImage(ev *wire.Event) (string, error) {
	var req oneImage
	if err := decodeEvent(ev, &req); err != nil {
		return "", err
	}
	return named("image", req.Image)
}

// named returns the reference that a field holds, which must not be empty.
func named(field, value string) (string, error) {
	ref := imageName(strings.TrimSpace(value))
	if ref == "" {
		return "", invalid(field, "missing")
	}
	return ref, nil
}

// imageInspect answers with the engine's own JSON of an image.
func (h *handlers) imageInspect(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	ref, err := decodeImage(ev)
	if err != nil {
		return nil, err
	}
	raw, err := h.engine.InspectImage(ctx, ref)
	if err != nil {
		return nil, err
	}
	return wrapRaw("image", raw)
}

// imageHistory answers with the steps of an image, newest first.
func (h *handlers) imageHistory(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	ref, err := decodeImage(ev)
	if err != nil {
		return nil, err
	}
	m, err := h.manager("history of " + ref)
	if err != nil {
		return nil, err
	}
	steps, err := m.History(ctx, ref)
	if err != nil {
		return nil, err
	}
	return map[string]any{"history": steps}, nil
}

// imageTag gives an image a second name.
func (h *handlers) imageTag(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req struct {
		Image  string `json:"image"`
		Target string `json:"target"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	source, err := named("image", req.Image)
	if err != nil {
		return nil, err
	}
	target, err := named("target", req.Target)
	if err != nil {
		return nil, err
	}
	if err := h.engine.TagImage(ctx, source, target); err != nil {
		return nil, err
	}
	return h.describeImage(ctx, target)
}

// describeImage is the answer about an image that something made, or fetched.
func (h *handlers) describeImage(ctx context.Context, ref string) (any, error) {
	cfg, err := h.engine.ImageConfig(ctx, ref)
	if err != nil {
		return nil, err
	}
	return map[string]any{"image": map[string]any{
		"id": cfg.ID, "name": ref, "repoTags": append([]string{}, cfg.RepoTags...), "repoDigests": append([]string{}, cfg.RepoDigests...), "size": cfg.Size,
	}}, nil
}
