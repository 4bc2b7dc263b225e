package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
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
	s, err := e.opened(ctx, op)
	if err != nil {
		return err
	}
	source := &source{from: tar}
	err = s.long.CopyToContainer(ctx, id, path, source, container.CopyToContainerOptions{})
	if err != nil && source.err != nil && ctx.Err() == nil {
		return &runtime.Error{Op: op, Message: "read the archive: " + source.err.Error(), Cause: source.err}
	}
	return e.wrapLong(ctx, op, err)
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
	s, err := e.opened(ctx, op)
	if err != nil {
		return nil, runtime.FileStat{}, err
	}
	resp, err := e.request(ctx, e.long, s, http.MethodGet, "/containers/"+id+"/archive", pathQuery(path), nil, nil)
	if err != nil {
		return nil, runtime.FileStat{}, e.wrapLong(ctx, op, err)
	}
	stat, err := statHeader(resp.Header)
	if err != nil {
		resp.Body.Close()
		return nil, runtime.FileStat{}, e.wrapLong(ctx, op, err)
	}
	return resp.Body, stat, nil
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
	var stat runtime.FileStat
	err = e.read(ctx, op, func(ctx context.Context, s *session) error {
		resp, err := e.request(ctx, e.bounded, s, http.MethodHead, "/containers/"+id+"/archive", pathQuery(path), nil, nil)
		if err != nil {
			return err
		}
		resp.Body.Close()
		stat, err = statHeader(resp.Header)
		return err
	})
	return stat, err
}

func pathQuery(path string) string { return url.Values{"path": {path}}.Encode() }

// statHeader decodes what the daemon says of a file in a header of its answer.
func statHeader(h http.Header) (runtime.FileStat, error) {
	var stat container.PathStat
	text, err := base64.StdEncoding.DecodeString(h.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(text, &stat)
	}
	if err != nil {
		return runtime.FileStat{}, &runtime.Error{Kind: runtime.ErrUnavailable, Message: "answered without what it says of the file, not as a Docker daemon does", Cause: err}
	}
	return runtime.FileStat{Name: stat.Name, Size: stat.Size, Mode: stat.Mode, Mtime: stat.Mtime, LinkTarget: stat.LinkTarget}, nil
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
