package docker

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/droverhq/drover/runtime"
)

var _ runtime.ImageManager = (*Engine)(nil)

// History returns the steps of an image, newest first.
func (e *Engine) History(ctx context.Context, ref string) ([]runtime.HistoryEntry, error) {
	op := "history of image " + shorten(ref)
	ref, err := imageRef(op, ref)
	if err != nil {
		return nil, err
	}
	var rows []image.HistoryResponseItem
	err = e.read(ctx, op, func(ctx context.Context, s *session) error {
		return e.getJSON(ctx, s, "/images/"+ref+"/history", "", &rows)
	})
	if err != nil {
		return nil, err
	}
	steps := make([]runtime.HistoryEntry, 0, len(rows))
	for _, r := range rows {
		if r.ID == "<missing>" {
			r.ID = ""
		}
		steps = append(steps, runtime.HistoryEntry{
			ID: r.ID, Created: time.Unix(r.Created, 0).UTC(), CreatedBy: r.CreatedBy, Comment: r.Comment, Tags: r.Tags, Size: r.Size,
		})
	}
	return steps, nil
}

// DeleteImage removes a reference, and the image with its last one, and tells what went.
func (e *Engine) DeleteImage(ctx context.Context, ref string, force bool) (runtime.ImageRemoval, error) {
	op := "remove image " + shorten(ref)
	if _, err := imageRef(op, ref); err != nil {
		return runtime.ImageRemoval{}, err
	}
	var rows []image.DeleteResponse
	err := e.change(ctx, op, func(ctx context.Context, s *session) (err error) {
		rows, err = s.api.ImageRemove(ctx, ref, image.RemoveOptions{Force: force, PruneChildren: true})
		return err
	})
	return removalOf(rows), err
}

func removalOf(rows []image.DeleteResponse) runtime.ImageRemoval {
	removal := runtime.ImageRemoval{Untagged: []string{}, Deleted: []string{}}
	for _, r := range rows {
		if r.Untagged != "" {
			removal.Untagged = append(removal.Untagged, r.Untagged)
		}
		if r.Deleted != "" {
			removal.Deleted = append(removal.Deleted, r.Deleted)
		}
	}
	return removal
}
