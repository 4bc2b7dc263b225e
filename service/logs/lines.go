package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	firstBlock  = 16 << 10  // what is read at once at first, and by what never has more
	blockSize   = 256 << 10 // what is read at once
	maxLineSize = 32 << 20  // a longer line is an error: it would have to be held in memory
)

var errLineTooLong = fmt.Errorf("a line is longer than %d MiB", maxLineSize>>20)

// A blockReader cuts a stream into blocks of whole lines, without copying a line that a read gave whole.
type blockReader struct {
	r          io.Reader
	buf        []byte
	start, end int  // unread part of buf
	full       bool // the last read filled buf: there is more than buf takes
	err        error
}

func newBlockReader(r io.Reader) *blockReader {
	return &blockReader{r: r, buf: make([]byte, firstBlock)}
}

// next returns the next lines, each with its newline; only the last block of a stream may end without one. The block
// is valid until the next call. It returns as soon as one whole line is there, so a follow is not delayed.
func (b *blockReader) next() ([]byte, error) {
	scanned := 0 // bytes after start that hold no newline
	for {
		if i := bytes.LastIndexByte(b.buf[b.start+scanned:b.end], '\n'); i >= 0 {
			block := b.buf[b.start : b.start+scanned+i+1]
			b.start += len(block)
			return block, nil
		}
		if b.err != nil {
			block := b.buf[b.start:b.end]
			b.start = b.end
			if len(block) > 0 {
				return block, nil
			}
			return nil, b.err
		}
		scanned = b.end - b.start
		if err := b.room(); err != nil {
			return nil, err
		}
		n, err := b.r.Read(b.buf[b.end:])
		b.end += n
		b.full = b.end == len(b.buf)
		b.err = err
	}
}

// room makes place for a read.
func (b *blockReader) room() error {
	if b.start > 0 {
		copy(b.buf, b.buf[b.start:b.end])
		b.end -= b.start
		b.start = 0
	}
	if b.end < len(b.buf) && (!b.full || len(b.buf) >= blockSize) {
		return nil
	}
	if b.end == len(b.buf) && len(b.buf) >= maxLineSize {
		return errLineTooLong
	}
	grown := make([]byte, 2*len(b.buf))
	copy(grown, b.buf[:b.end])
	b.buf = grown
	return nil
}

// eachLine calls f with every line, newline included where there is one; idle is called before a read that may block.
// It stops at the first error of f or of the stream; the end of the stream is nil.
func eachLine(r io.Reader, idle func() error, f func(line []byte) error) error {
	b := newBlockReader(r)
	for {
		block, err := b.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for len(block) > 0 {
			n := bytes.IndexByte(block, '\n') + 1
			if n == 0 {
				n = len(block)
			}
			if err := f(block[:n]); err != nil {
				return err
			}
			block = block[n:]
		}
		if err := idle(); err != nil {
			return err
		}
	}
}

// chomp returns the line without its newline.
func chomp(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		return line[:n-1]
	}
	return line
}
