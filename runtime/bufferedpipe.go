package runtime

import (
	"io"
	"sync"
)

// A bufferedPipe is a bounded queue of bytes between one writer and one reader. A writer blocks while it is full; after
// the reader has closed it, all that is written is lost without an error.
type bufferedPipe struct {
	limit int

	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	ended   bool
	err     error // after what is buffered; nil is io.EOF
	closed  bool  // by the reader
}

func newBufferedPipe(limit int) *bufferedPipe {
	p := &bufferedPipe{limit: limit}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *bufferedPipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := 0; ; {
		for len(p.buf) >= p.limit && !p.ended && !p.closed {
			p.changed.Wait()
		}
		switch {
		case p.closed:
			return len(b), nil
		case p.ended:
			return n, io.ErrClosedPipe
		}
		part := b[n:min(len(b), n+p.limit-len(p.buf))]
		p.buf = append(p.buf, part...)
		p.changed.Broadcast()
		if n += len(part); n == len(b) {
			return n, nil
		}
	}
}

// end is the end of writing. What is buffered can still be read, and then err.
func (p *bufferedPipe) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended, p.err = true, err
		p.changed.Broadcast()
	}
}

// A reader is the reading end of a pipe.
type reader struct{ p *bufferedPipe }

func (r reader) Read(b []byte) (int, error) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.buf) == 0 && !p.ended && !p.closed {
		p.changed.Wait()
	}
	switch {
	case p.closed:
		return 0, io.ErrClosedPipe
	case len(p.buf) == 0 && p.err != nil:
		return 0, p.err
	case len(p.buf) == 0:
		return 0, io.EOF
	}
	n := copy(b, p.buf)
	if p.buf = p.buf[n:]; len(p.buf) == 0 {
		p.buf = nil // give the memory back
	}
	p.changed.Broadcast()
	return n, nil
}

// Close makes the process's output go nowhere. It never fails.
func (r reader) Close() error {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	r.p.closed, r.p.buf = true, nil
	r.p.changed.Broadcast()
	return nil
}
