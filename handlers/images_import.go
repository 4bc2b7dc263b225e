package handlers

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// maxZstdWindow bounds the memory that a compressed file can make its reader take.
const maxZstdWindow = 32 << 20

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
	root, rel, err := h.allowedRoot(req.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	source, err := openSource(root, rel, req.Path)
	if err != nil {
		return nil, err
	}
	stream := &bounded{r: source, left: h.opts.MaxImport, most: h.opts.MaxImport}
	defer stream.Close()
	sum := sha256.New()
	report := newDetailed("Importing "+req.Path, p)
	stop := pulse(ctx, p, "Importing "+req.Path)
	id, err := m.ImportImage(ctx, runtime.ImportRequest{
		Ref: ref, Comment: req.Comment, Changes: req.Changes, Platform: req.Platform, Inactivity: h.opts.PullInactivity,
	}, io.TeeReader(stream, sum), report.step)
	stop()
	size, failed := stream.state()
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

// allowedRoot opens the allowed folder that a path is in. No symlink leads out of it.
func (h *handlers) allowedRoot(path string) (*os.Root, string, error) {
	if path == "" {
		return nil, "", invalid("path", "missing")
	}
	clean := filepath.Clean(path)
	if !filepath.IsAbs(clean) {
		return nil, "", invalid("path", "is not absolute")
	}
	for _, allowed := range h.opts.ImageRoots {
		rel, err := filepath.Rel(filepath.Clean(allowed), clean)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		root, err := os.OpenRoot(allowed)
		if err != nil {
			return nil, "", fileError(path, err)
		}
		return root, rel, nil
	}
	if len(h.opts.ImageRoots) == 0 {
		return nil, "", invalid("path", "this host allows no folder to import from")
	}
	return nil, "", invalid("path", "is not under %s, which this host allows to import from", strings.Join(h.opts.ImageRoots, " or "))
}

// fileError words what went wrong with a file of the host.
func fileError(path string, err error) error {
	out := &runtime.Error{Op: path, Message: innermostText(err), Cause: err}
	var escape *os.PathError
	switch {
	case errors.Is(err, os.ErrNotExist):
		out.Kind, out.Message = runtime.ErrNotFound, "there is no such file on the host"
	case errors.Is(err, os.ErrPermission):
		out.Kind = runtime.ErrInvalid
	case errors.As(err, &escape) && strings.Contains(escape.Err.Error(), "escapes"):
		out.Kind, out.Message = runtime.ErrInvalid, "leads out of the folder that this host allows"
	}
	return out
}

func innermostText(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// openSource opens what rel names as a stream of tar, which the caller closes.
func openSource(root *os.Root, rel, path string) (io.ReadCloser, error) {
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO without a writer must not hold us
	if err != nil {
		return nil, fileError(path, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		return tarDirectory(f)
	case !info.Mode().IsRegular():
		err = &runtime.Error{Op: path, Kind: runtime.ErrInvalid, Message: "is neither a file nor a directory"}
	default:
		var r io.Reader
		if r, err = unpacked(f, path); err == nil {
			return &sourceFile{Reader: r, f: f}, nil
		}
	}
	return nil, errors.Join(err, f.Close())
}

// A sourceFile is a file and what unpacks it.
type sourceFile struct {
	io.Reader
	f *os.File
}

func (s *sourceFile) Close() error {
	if d, ok := s.Reader.(*zstd.Decoder); ok {
		d.Close()
	}
	return s.f.Close()
}

// unpacked finds out by its first bytes how a file is packed, and unpacks it.
func unpacked(f io.Reader, path string) (io.Reader, error) {
	buffered := bufio.NewReaderSize(f, 64<<10)
	magic, _ := buffered.Peek(6) // a shorter file is none of them
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
	case bytes.HasPrefix(magic, []byte("BZh")):
		return bzip2.NewReader(buffered), nil
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, &runtime.Error{Op: path, Kind: runtime.ErrUnsupported, Message: "is packed with xz; pack it with gzip or zstd, or not at all"}
	}
	return buffered, nil
}

// A bounded source fails where it is longer than allowed, and remembers why it failed. An engine that refused the stream
// may still be in a Read when it returns: Close waits for that, and what is read later fails.
type bounded struct {
	most int64

	mu   sync.Mutex // held while r is used
	r    io.ReadCloser
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	switch {
	case b.left < 0:
		b.err = &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf("the root file system is larger than %s, the most that this host takes", megabytes(b.most))}
	case err != nil && !errors.Is(err, io.EOF):
		b.err = &runtime.Error{Kind: runtime.ErrInvalid, Message: "the file cannot be read to its end: " + innermostText(err), Cause: err}
	default:
		return n, err
	}
	return 0, b.err
}

// state returns the bytes read so far, and why reading failed.
func (b *bounded) state() (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most - b.left, b.err
}

func (b *bounded) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = fs.ErrClosed
	}
	return b.r.Close()
}
