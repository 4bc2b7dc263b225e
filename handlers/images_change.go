package handlers

import (
	"context"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// imageCommit makes an image of a container.
func (h *handlers) imageCommit(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req struct {
		Container string   `json:"container"` // the engine's id, or a name
		Image     string   `json:"image"`     // "": without a name
		Author    string   `json:"author"`
		Comment   string   `json:"comment"`
		Changes   []string `json:"changes"`
		NoPause   bool     `json:"noPause"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	if req.Container == "" {
		return nil, invalid("container", "missing")
	}
	m, err := h.manager("commit " + req.Container)
	if err != nil {
		return nil, err
	}
	defer pulse(ctx, p, "Committing "+req.Container)()
	id, err := m.Commit(ctx, runtime.CommitRequest{
		Container: req.Container, Ref: imageName(req.Image), Author: req.Author, Comment: req.Comment, Changes: req.Changes, NoPause: req.NoPause,
	})
	if err != nil {
		return nil, err
	}
	return h.describeImage(ctx, id)
}

// imageRemove removes a reference, and the image with its last one.
func (h *handlers) imageRemove(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req struct {
		Image string `json:"image"`
		Force bool   `json:"force"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	ref, err := named("image", req.Image)
	if err != nil {
		return nil, err
	}
	m, ok := h.engine.(runtime.ImageManager)
	if !ok {
		if err := h.engine.RemoveImage(ctx, ref, req.Force); err != nil {
			return nil, err
		}
		return map[string]any{"removed": runtime.ImageRemoval{Untagged: []string{ref}, Deleted: []string{}}}, nil
	}
	removal, err := m.DeleteImage(ctx, ref, req.Force)
	if err != nil {
		return nil, err
	}
	return map[string]any{"removed": removal}, nil
}

// imagePrune removes the images that no container uses, or tells which would go.
func (h *handlers) imagePrune(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req struct {
		All       bool     `json:"all"`
		Until     string   `json:"until"` // RFC 3339, or a duration before now: "240h"
		Labels    []string `json:"labels"`
		NotLabels []string `json:"notLabels"`
		DryRun    bool     `json:"dryRun"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	opts := runtime.PruneOptions{All: req.All, Labels: req.Labels, NotLabels: req.NotLabels, DryRun: req.DryRun}
	if req.Until != "" {
		if d, err := time.ParseDuration(req.Until); err == nil && d >= 0 {
			opts.Until = time.Now().Add(-d)
		} else if opts.Until, err = time.Parse(time.RFC3339, req.Until); err != nil {
			return nil, invalid("until", `is neither a time like 2026-01-31T12:00:00Z nor a duration like 240h`)
		}
	}
	m, err := h.manager("prune images")
	if err != nil {
		return nil, err
	}
	defer pulse(ctx, p, "Pruning images")()
	report, err := m.PruneImages(ctx, opts)
	if err != nil {
		return nil, err
	}
	return map[string]any{"prune": report}, nil
}

// pulseEvery is how often a step that tells nothing of its own is reported to be under way.
const pulseEvery = 10 * time.Second

// pulse reports that something is under way until the returned function is called, so that whoever waits does so. The
// end of ctx ends it too.
func pulse(ctx context.Context, p events.Progress, text string) (stop func()) {
	if p == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(pulseEvery)
		defer tick.Stop()
		for {
			p.Report(text, 0)
			select {
			case <-tick.C:
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
