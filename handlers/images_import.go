package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/imagetar"
)

// imageImport makes an image of a root file system on the host: a tar, plain or packed with gzip, bzip2 or zstd, or a
// directory. It is unpacked here, so that its size can be bounded, and streamed; nothing is held in memory.
func (h *handlers) imageImport(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req struct {
		Path     string   `json:"path"`
		Image    string   `json:"image"`
		Comment  string   `json:"comment"`
		Changes  []string `json:"changes"`
		Platform string   `json:"platform"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	ref, err := named("image", req.Image)
	if err != nil {
		return nil, err
	}
	m, err := h.manager("import " + ref)
	if err != nil {
		return nil, err
	}
	stream, err := imagetar.Source(h.opts.ImageRoots, req.Path, h.opts.MaxImport)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	sum := sha256.New()
	report := newDetailed("Importing "+req.Path, p)
	stop := pulse(ctx, p, "Importing "+req.Path)
	id, err := m.ImportImage(ctx, runtime.ImportRequest{
		Ref: ref, Comment: req.Comment, Changes: req.Changes, Platform: req.Platform, Inactivity: h.opts.PullInactivity,
	}, io.TeeReader(stream, sum), report.step)
	stop()
	size, failed := stream.State()
	if failed != nil {
		err = failed // the engine only saw the stream end
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"image": map[string]any{
		"id": id, "name": ref, "bytes": size, "digest": "sha256:" + hex.EncodeToString(sum.Sum(nil)), // of the tar stream
	}}, nil
}
