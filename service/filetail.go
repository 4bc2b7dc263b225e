package service

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"

	"github.com/droverhq/drover/runtime"
)

const (
	// tailBytes is the most that is read backwards from the end of a file.
	tailBytes = 16 << 20
	tailBlock = 64 << 10
	tailLines = 1_000_000
)

// serveTail writes the last lines of a file of a container. A running container's is read from the host, without a
// process in the container and without what is before those lines; of another one the engine gives the whole.
func (s *Service) serveTail(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name, lines := filePath(r, q), q.number("lines", 10, 0, tailLines)
	if q.err != nil {
		return q.err
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbRead, Container: st, Path: name}); err != nil {
		return err
	}
	text, err := s.tailIn(st, name, lines)
	if err != nil {
		// Whatever hinders us, the engine knows better, or says it properly.
		if text, err = s.tailArchive(r.Context(), st, name, lines); err != nil {
			return err
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	_, err = w.Write(text)
	return err
}

// tailIn reads from the host. Links in the container are followed as the container sees them, and cannot lead out of it.
func (s *Service) tailIn(st runtime.ContainerStatus, name string, lines int) ([]byte, error) {
	if st.Pid <= 0 {
		return nil, os.ErrNotExist
	}
	handle, err := pathrs.OpenInRoot(filepath.Join("/", s.cfg.Root, "proc", strconv.Itoa(st.Pid), "root"), name)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	// A pipe would be waited for, and a device asked to do something.
	if info, err := handle.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, os.ErrInvalid)
	}
	f, err := pathrs.Reopen(handle, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return lastLines(f, info.Size(), lines)
}

// lastLines reads backwards until it has the lines, or tailBytes.
func lastLines(f io.ReaderAt, size int64, lines int) ([]byte, error) {
	var text []byte
	for at := size; at > 0 && len(text) < tailBytes; {
		n := min(at, tailBlock)
		at -= n
		block := make([]byte, n, int(n)+len(text))
		m, err := f.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		text = append(block[:m], text...) // a file that was truncated meanwhile is shorter
		if cut := beginOfLast(text, lines); cut > 0 {
			return text[cut:], nil
		}
	}
	return text[beginOfLast(text, lines):], nil
}

// beginOfLast returns where the last lines of text begin, 0 if there are no more than those.
func beginOfLast(text []byte, lines int) int {
	if lines == 0 {
		return len(text)
	}
	end := len(text)
	if end > 0 && text[end-1] == '\n' {
		end-- // it ends the last line
	}
	for ; lines > 0; lines-- {
		if end = bytes.LastIndexByte(text[:end], '\n'); end < 0 {
			return 0
		}
	}
	return end + 1
}

// tailArchive reads the whole file as the engine gives it, and keeps its end.
func (s *Service) tailArchive(ctx context.Context, st runtime.ContainerStatus, name string, lines int) ([]byte, error) {
	engine := capability[runtime.Copier](s.cfg.Engine)
	if engine == nil {
		return nil, unsupported("files")
	}
	archive, _, err := engine.CopyFrom(ctx, st.ID, name)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	in := tar.NewReader(archive)
	h, err := in.Next()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil, invalid("%s is no ordinary file", name)
	}
	var text []byte
	block := make([]byte, tailBlock)
	for {
		n, err := in.Read(block)
		text = append(text, block[:n]...)
		if len(text) > 2*tailBytes {
			text = append(text[:0], text[len(text)-tailBytes:]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return text[beginOfLast(text, lines):], nil
}
