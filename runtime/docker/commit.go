package docker

import (
	"context"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"

	"github.com/droverhq/drover/runtime"
)

// maxCommit bounds a commit, which tells nothing until it is done.
const maxCommit = time.Hour

// Commit makes an image of a container.
func (e *Engine) Commit(parent context.Context, req runtime.CommitRequest) (string, error) {
	op := "commit " + shorten(req.Container)
	id, err := containerID(op, req.Container)
	if err != nil {
		return "", err
	}
	if err := targetRef(op, req.Ref); err != nil {
		return "", err
	}
	s, err := e.opened(parent, op)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(parent, maxCommit)
	defer cancel()
	answer, err := s.long.ContainerCommit(ctx, id, container.CommitOptions{
		Reference: req.Ref, Comment: req.Comment, Author: req.Author, Changes: req.Changes, Pause: !req.NoPause,
	})
	return answer.ID, e.wrapLong(parent, op, err)
}

// targetRef checks the name that an image shall get; "" is none.
func targetRef(op, ref string) error {
	if ref == "" {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || len(ref) > 1024 {
		return invalid(op, "%q is no image reference", shorten(ref))
	}
	if _, ok := named.(reference.Digested); ok {
		return invalid(op, "%q names a digest, which an image cannot be given", shorten(ref))
	}
	return nil
}
