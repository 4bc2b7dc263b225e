package docker

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/droverhq/drover/runtime"
)

// CopyTo unpacks a tar stream into a directory of a container; runtime.ErrNotFound if there is no such directory. An
// error of tar itself is returned as it is.
func (e *Engine) CopyTo(ctx context.Context, id, path string, tar io.Reader) error {
	op := "copy to " + shorten(id) + ":" + shorten(path)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	if err := filePath(op, path); err != nil {
		return err
	}
	s, err := e.opened(ctx)
	if err != nil {
		return e.wrap(ctx, op, err)
	}
	source := &source{from: tar}
	err = s.long.CopyToContainer(ctx, id, path, source, container.CopyToContainerOptions{})
	if err != nil && source.err != nil && ctx.Err() == nil {
		return &runtime.Error{Op: op, Message: "read the archive: " + source.err.Error(), Cause: source.err}
	}
	return e.wrap(ctx, op, err)
}

// CopyFrom returns a path of a container as a tar stream.
func (e *Engine) CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, runtime.FileStat, error) {
	op := "copy from " + shorten(id) + ":" + shorten(path)
	id, err := containerID(op, id)
	if err != nil {
		return nil, runtime.FileStat{}, err
	}
	if err := filePath(op, path); err != nil {
		return nil, runtime.FileStat{}, err
	}
	s, err := e.opened(ctx)
	if err != nil {
		return nil, runtime.FileStat{}, e.wrap(ctx, op, err)
	}
	body, stat, err := s.long.CopyFromContainer(ctx, id, path)
	if err != nil {
		return nil, runtime.FileStat{}, e.wrap(ctx, op, err)
	}
	return body, fileStat(stat), nil
}

// StatPath tells what a path of a container is.
func (e *Engine) StatPath(ctx context.Context, id, path string) (runtime.FileStat, error) {
	op := "stat " + shorten(id) + ":" + shorten(path)
	id, err := containerID(op, id)
	if err != nil {
		return runtime.FileStat{}, err
	}
	if err := filePath(op, path); err != nil {
		return runtime.FileStat{}, err
	}
	var stat container.PathStat
	err = e.read(ctx, op, func(ctx context.Context, s *session) (err error) {
		stat, err = s.api.ContainerStatPath(ctx, id, path)
		return err
	})
	return fileStat(stat), err
}

func fileStat(s container.PathStat) runtime.FileStat {
	return runtime.FileStat{Name: s.Name, Size: s.Size, Mode: s.Mode, Mtime: s.Mtime, LinkTarget: s.LinkTarget}
}

func filePath(op, path string) error {
	if path == "" || strings.ContainsRune(path, 0) {
		return invalid(op, "%q is no path", shorten(path))
	}
	return nil
}

// A source remembers the error of a caller's reader, to tell it from one of the daemon.
type source struct {
	from io.Reader
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
