package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/distribution/reference"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// imagePull fetches an image. Events that want the same one share a pull, as those of Rancher's servers do.
func (h *handlers) imagePull(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req struct {
		Image      string `json:"image"`
		Platform   string `json:"platform"`
		Credential *login `json:"credential"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	ref, err := named("image", req.Image)
	if err != nil {
		return nil, err
	}
	key := pullKey{ref: ref, platform: req.Platform}
	if err := h.pulls.share(ctx, key, req.Credential.auth(), newDetailed("Pulling "+ref, p)); err != nil {
		return nil, h.explainPlainHTTP(ctx, "pull", ref, err)
	}
	return h.describeImage(ctx, ref)
}

// viaAgent is the way of a push that needs no setting of the engine.
const viaAgent = "agent"

// imagePush sends an image to its registry: through the engine, or, with "via": "agent", through this process, which
// alone can be told with each event what registry is insecure and which CA signs its certificate.
func (h *handlers) imagePush(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var (
		req struct {
			Image string `json:"image"`
			Via   string `json:"via"` // "", "engine" or "agent"
		}
		access registryAccess
	)
	if err := decodeAccess(ev, &req, &access); err != nil {
		return nil, err
	}
	ref, err := named("image", req.Image)
	if err != nil {
		return nil, err
	}
	m, err := h.manager("push " + ref)
	if err != nil {
		return nil, err
	}
	report := newDetailed("Pushing "+ref, p)
	var result runtime.PushResult
	switch req.Via {
	case "", "engine":
		result, err = m.Push(ctx, runtime.PushRequest{Ref: ref, Auth: access.Credential.auth(), Inactivity: h.opts.PullInactivity}, report.step)
		err = h.explainPlainHTTP(ctx, "push", ref, err)
	case viaAgent:
		result, err = h.pushHere(ctx, m, ref, &access, report)
	default:
		return nil, invalid("via", `is neither "engine" nor "agent"`)
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"image": map[string]any{"name": ref, "digest": result.Digest, "size": result.Size}}, nil
}

// pushHere saves the image to a file, as its layers are read more than once, and pushes that.
func (h *handlers) pushHere(ctx context.Context, m runtime.ImageManager, ref string, access *registryAccess, report *reporter) (result runtime.PushResult, err error) {
	c, err := h.registries(access)
	if err != nil {
		return result, err
	}
	defer c.Close()
	f, err := os.CreateTemp(h.opts.TempDir, "drover-push-*.tar")
	if err != nil {
		return result, fmt.Errorf("push %s: %w", ref, err)
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	saved := &meter{w: f, each: func(n int64) { report.step(runtime.PullProgress{Status: "Reading from the engine", Current: n}) }}
	if err := m.SaveImages(ctx, []string{ref}, saved); err != nil {
		return result, err
	}
	result.Digest, result.Size, err = c.PushTar(ctx, f.Name(), ref, func(done, total int64) {
		report.step(runtime.PullProgress{Layer: wholeImage, Status: "Pushing", Current: done, Total: total})
	})
	return result, err
}

// wholeImage stands for a layer where progress is known of all layers together alone.
const wholeImage = "image"

// explainPlainHTTP turns the engine's refusal of a registry without TLS into what is to be done about it.
func (h *handlers) explainPlainHTTP(ctx context.Context, verb, ref string, err error) error {
	if !errors.Is(err, runtime.ErrPlainHTTP) {
		return err
	}
	host := registryOf(ref)
	line, _ := json.Marshal(map[string][]string{"insecure-registries": {host}}) // strings always encode
	where := "this host"
	if name := h.info(ctx).Name; name != "" {
		where = "host " + name
	}
	message := fmt.Sprintf("registry %s speaks plain HTTP, and the Docker daemon of %s is not told to allow that: put %s into /etc/docker/daemon.json there"+
		" (add to the list if there is one) and reload the daemon with systemctl reload docker", host, where, line)
	if verb == "push" {
		message += "; or push through the agent, which needs no setting: drover image push --via agent --insecure " + ref
	}
	return &runtime.Error{Op: verb + " " + ref, Kind: runtime.ErrInvalid, Message: message, Cause: err}
}

// registryOf returns the host of a reference's registry.
func registryOf(ref string) string {
	if n, err := reference.ParseNormalizedNamed(ref); err == nil {
		return reference.Domain(n)
	}
	host, _, _ := strings.Cut(ref, "/")
	return host
}

// A meter tells after each Write how many bytes there were in all.
type meter struct {
	w    io.Writer
	n    int64
	each func(total int64)
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.n += int64(n)
	m.each(m.n)
	return n, err
}
