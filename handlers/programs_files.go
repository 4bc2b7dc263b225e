package handlers

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// filesRequest is the data of container.files.
type filesRequest struct {
	Container string  `json:"container"`
	Path      string  `json:"path"`
	Action    string  `json:"action"` // stat, list, read, write; missing is stat
	Text      *string `json:"text"`   // of write
	Base64    *string `json:"base64"` // of write
	Mode      string  `json:"mode"`   // of write, octal; missing is 0644
	UID       int     `json:"uid"`    // of write
	GID       int     `json:"gid"`
	MaxOutput *int    `json:"maxOutputBytes"` // of read
}

// files looks at, reads and writes single files of a container.
func (p *programs) files(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req filesRequest
	if err := decodeContainer(ev, &req, &req.Container); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(req.Path, "/") || strings.ContainsRune(req.Path, 0) {
		return nil, invalid("path", "want an absolute path")
	}
	switch req.Action {
	case "", "stat":
		f, err := p.streams.StatFile(ctx, req.Container, req.Path)
		if err != nil {
			return nil, err
		}
		return map[string]any{"file": f}, nil
	case "list":
		files, truncated, err := p.streams.ListFiles(ctx, req.Container, req.Path)
		if err != nil {
			return nil, err
		}
		return map[string]any{"files": files, "truncated": truncated}, nil
	case "read":
		return p.readFile(ctx, &req)
	case "write":
		return p.writeFile(ctx, &req)
	}
	return nil, invalid("action", "want stat, list, read or write")
}

func (p *programs) readFile(ctx context.Context, req *filesRequest) (any, error) {
	size, err := outputSize("maxOutputBytes", req.MaxOutput)
	if err != nil {
		return nil, err
	}
	archive, err := p.streams.ReadFile(ctx, req.Container, req.Path)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	in := tar.NewReader(archive)
	h, err := in.Next()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.Path, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil, &runtime.Error{Kind: runtime.ErrInvalid, Message: req.Path + " is no ordinary file"}
	}
	content := newEnds(size)
	if _, err := io.Copy(content, in); err != nil {
		return nil, fmt.Errorf("read %s: %w", req.Path, err)
	}
	return map[string]any{"content": content.text(), "modified": h.ModTime, "mode": fmt.Sprintf("%04o", h.Mode&0o7777)}, nil
}

func (p *programs) writeFile(ctx context.Context, req *filesRequest) (any, error) {
	var content []byte
	var err error
	switch {
	case (req.Text == nil) == (req.Base64 == nil):
		return nil, invalid("text", "want one of text and base64")
	case req.Text != nil:
		content = []byte(*req.Text)
	default:
		if content, err = base64.StdEncoding.DecodeString(*req.Base64); err != nil {
			return nil, invalid("base64", "not base64")
		}
	}
	if len(content) > maxInput {
		return nil, invalid("text", "more than %d bytes", maxInput)
	}
	mode := uint64(0o644)
	if req.Mode != "" {
		if mode, err = strconv.ParseUint(req.Mode, 8, 12); err != nil {
			return nil, invalid("mode", "want an octal number")
		}
	}
	name := path.Clean(req.Path)
	if name == "/" || strings.HasSuffix(req.Path, "/") {
		return nil, invalid("path", "want the path of a file")
	}
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	err = out.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path.Base(name), Size: int64(len(content)), Mode: int64(mode), Uid: req.UID, Gid: req.GID, ModTime: time.Now(),
	})
	if err == nil {
		_, err = out.Write(content)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		return nil, invalid("path", "%v", err)
	}
	if err := p.streams.WriteFiles(ctx, req.Container, path.Dir(name), &archive); err != nil {
		return nil, err
	}
	return map[string]any{"path": name, "bytes": len(content)}, nil
}
