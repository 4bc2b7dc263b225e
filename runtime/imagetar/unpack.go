package imagetar

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/droverhq/drover/runtime"
)

// maxZstdWindow bounds the memory that a compressed stream can make its reader take.
const maxZstdWindow = 32 << 20

// An unpackedReader is a stream and what unpacks it.
type unpackedReader struct {
	io.Reader
	c io.Closer
}

func (s *unpackedReader) Close() error {
	if d, ok := s.Reader.(*zstd.Decoder); ok {
		d.Close()
	}
	return s.c.Close()
}

// Unpack finds out by its first bytes how a stream is packed (gzip, bzip2, zstd, or not at all), unpacks it, and fails
// where it is longer than most. what names it in an error. The caller closes the result, which closes r.
func Unpack(r io.ReadCloser, most int64, what string) (*Bounded, error) {
	unpacked, err := unpack(r, what)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return Bound(&unpackedReader{Reader: unpacked, c: r}, most, what), nil
}

func unpack(r io.Reader, what string) (io.Reader, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	magic, _ := buffered.Peek(6) // a shorter stream is none of them
	var unpacked io.Reader = buffered
	var err error
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		unpacked, err = gzip.NewReader(buffered)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		unpacked, err = zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
	case bytes.HasPrefix(magic, []byte("BZh")):
		unpacked = bzip2.NewReader(buffered)
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, &runtime.Error{Op: what, Kind: runtime.ErrUnsupported, Message: "is packed with xz; pack it with gzip or zstd, or not at all"}
	}
	if err != nil {
		return nil, &runtime.Error{Op: what, Kind: runtime.ErrInvalid, Message: "cannot be unpacked: " + err.Error(), Cause: err}
	}
	return unpacked, nil
}

// Bound returns a stream that fails where r is longer than most.
func Bound(r io.ReadCloser, most int64, what string) *Bounded {
	return &Bounded{r: r, left: most, most: most, what: what}
}

// A Bounded stream fails where it is longer than allowed, and remembers why it failed. An engine that refused the stream
// may still be in a Read when it returns: Close waits for that, and what is read later fails.
type Bounded struct {
	most int64
	what string

	mu   sync.Mutex // held while r is used
	r    io.ReadCloser
	left int64
	err  error
}

func (b *Bounded) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	switch {
	case b.left < 0:
		b.err = &runtime.Error{Op: b.what, Kind: runtime.ErrInvalid, Message: fmt.Sprintf("is larger than %.1f MB, the most that this host takes", float64(b.most)/1e6)}
	case err != nil && !errors.Is(err, io.EOF):
		b.err = &runtime.Error{Op: b.what, Kind: runtime.ErrInvalid, Message: "cannot be read to its end: " + innermost(err), Cause: err}
	default:
		return n, err
	}
	return 0, b.err
}

// State returns the bytes read so far, and why reading failed.
func (b *Bounded) State() (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most - b.left, b.err
}

// Close implements [io.Closer].
func (b *Bounded) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = fs.ErrClosed
	}
	return b.r.Close()
}

func innermost(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
