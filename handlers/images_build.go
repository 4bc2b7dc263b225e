package handlers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/imagetar"
)

// buildEvent is the data of image.build. A context that is sent goes to the node's handler, and not through an event.
type buildEvent struct {
	Tags       []string          `json:"tags"`
	Remote     string            `json:"remote"`
	Path       string            `json:"path"`
	Dockerfile string            `json:"dockerfile"`
	Args       map[string]string `json:"args"`
	Labels     map[string]string `json:"labels"`
	Target     string            `json:"target"`
	NoCache    bool              `json:"noCache"`
	Pull       bool              `json:"pull"`
	Platform   string            `json:"platform"`
	Builder    string            `json:"builder"`
	Credential *login            `json:"credential"` // serverAddress names its registry
}

// imageBuild builds an image from a folder of the host, or from a URL that the engine fetches.
func (h *handlers) imageBuild(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req buildEvent
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	builder, ok := h.engine.(runtime.ImageBuilder)
	if !ok {
		return nil, fmt.Errorf("build an image: %w", runtime.ErrUnsupported)
	}
	build := runtime.BuildRequest{
		Tags: req.Tags, Remote: req.Remote, Dockerfile: req.Dockerfile, Args: req.Args, Labels: req.Labels, Target: req.Target,
		NoCache: req.NoCache, Pull: req.Pull, Platform: req.Platform, Builder: req.Builder,
	}
	if auth := req.Credential.auth(); auth != nil {
		if auth.ServerAddress == "" {
			return nil, invalid("credential.serverAddress", "missing")
		}
		build.Auths = map[string]runtime.RegistryAuth{serverHost(auth.ServerAddress): *auth}
	}
	var source *imagetar.Bounded
	var err error
	switch {
	case req.Path != "" && req.Remote != "":
		return nil, invalid("path", "is given beside remote")
	case req.Path == "" && req.Remote == "":
		return nil, invalid("path", "missing, and there is no remote either")
	case req.Path != "":
		source, build.Dockerfile, err = imagetar.BuildContext(h.opts.ImageRoots, req.Path, req.Dockerfile, h.opts.MaxImport)
		if err != nil {
			return nil, err
		}
		defer source.Close()
	}
	report := &buildReporter{p: p}
	var stream io.Reader
	if source != nil {
		stream = source
	}
	result, err := builder.BuildImage(ctx, build, stream, report.step)
	if source != nil && err != nil && ctx.Err() == nil {
		if _, failed := source.State(); failed != nil {
			err = failed
		}
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"image": result}, nil
}

// keptSteps is how much of a build's log a progress reply has: its last messages.
const keptSteps = 40

// A buildReporter reports a build at most four times a second, with the last messages of its log.
type buildReporter struct {
	p     events.Progress
	last  time.Time
	text  string
	steps []runtime.BuildStep
}

func (r *buildReporter) step(s runtime.BuildStep) {
	if r.p == nil {
		return
	}
	if s.State != "" && s.Name != "" {
		r.text = strings.TrimSpace(oneLine(s.Step + " " + s.Name))
	}
	if len(s.Text) > maxConfigOutput {
		s.Text = s.Text[:maxConfigOutput]
	}
	if r.steps = append(r.steps, s); len(r.steps) > keptSteps {
		r.steps = r.steps[1:]
	}
	now := time.Now()
	if now.Sub(r.last) < reportEvery && s.State != runtime.BuildFailed {
		return
	}
	r.last = now
	text := "Building"
	if r.text != "" {
		text += ": " + r.text
	}
	if d, ok := r.p.(events.DataProgress); ok {
		d.ReportData(text, 0, map[string]any{"steps": r.steps})
	} else {
		r.p.Report(text, 0)
	}
	r.steps = nil
}

// imageSave writes images into a file of the host that does not exist yet.
func (h *handlers) imageSave(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req struct {
		Images []string `json:"images"`
		Path   string   `json:"path"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	if len(req.Images) == 0 {
		return nil, invalid("images", "missing")
	}
	m, err := h.manager("save images")
	if err != nil {
		return nil, err
	}
	for _, ref := range req.Images {
		if _, err := h.engine.ImageConfig(ctx, imageName(ref)); err != nil {
			return nil, err
		}
	}
	f, remove, err := imagetar.Create(h.opts.ExportRoots, req.Path)
	if err != nil {
		return nil, err
	}
	report := newDetailed("Saving to "+req.Path, p)
	out := &meter{w: f, each: func(n int64) { report.step(runtime.PullProgress{Status: "Saving", Current: n}) }}
	if err := errors.Join(m.SaveImages(ctx, req.Images, out), f.Close()); err != nil {
		return nil, errors.Join(err, remove())
	}
	return map[string]any{"file": map[string]any{"path": req.Path, "bytes": out.n, "images": req.Images}}, nil
}

// imageLoad takes a file of the host that imageSave, or docker save, wrote.
func (h *handlers) imageLoad(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req struct {
		Path string `json:"path"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	m, err := h.manager("load images")
	if err != nil {
		return nil, err
	}
	source, err := imagetar.Source(h.opts.ImageRoots, req.Path, h.opts.MaxImport)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	report := newDetailed("Loading "+req.Path, p)
	names, err := m.LoadImages(ctx, source, report.step)
	if err != nil {
		if _, failed := source.State(); failed != nil && ctx.Err() == nil {
			err = failed
		}
		return nil, err
	}
	return map[string]any{"loaded": names}, nil
}
