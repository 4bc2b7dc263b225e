package remote

import (
	"errors"
	"io"
	"sync"
)

// A pipe is a bounded buffer between one writer and one reader. Unlike io.Pipe it holds some bytes, so that the reader of
// a connection is not stopped by each read of a process.
type pipe struct {
	mu     sync.Mutex
	cond   sync.Cond
	buf    []byte
	r      int // buf[r:] is unread
	limit  int
	closed bool
}

var errPipeClosed = errors.New("write on a closed pipe")

func newPipe(limit int) *pipe {
	p := &pipe{limit: limit}
	p.cond.L = &p.mu
	return p
}

// Read returns what there is, and io.EOF when the pipe was closed and is empty.
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.r == len(p.buf) {
		if p.closed {
			return 0, io.EOF
		}
		p.cond.Wait()
	}
	n := copy(b, p.buf[p.r:])
	p.r += n
	if p.r == len(p.buf) {
		p.r = 0
		p.buf = p.buf[:0]
		if cap(p.buf) > chunk {
			p.buf = nil // nobody types that much
		}
	}
	p.cond.Broadcast()
	return n, nil
}

// Write waits for room.
func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(b) {
		room := p.limit - (len(p.buf) - p.r)
		switch {
		case p.closed:
			return n, errPipeClosed
		case room <= 0:
			p.cond.Wait()
			continue
		}
		m := min(room, len(b)-n)
		if p.r > 0 && len(p.buf)+m > cap(p.buf) {
			p.buf = p.buf[:copy(p.buf, p.buf[p.r:])]
			p.r = 0
		}
		p.buf = append(p.buf, b[n:n+m]...)
		n += m
		p.cond.Broadcast()
	}
	return n, nil
}

// unread is how much waits for the reader.
func (p *pipe) unread() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.buf) - p.r
}

// close ends the input; what is in the pipe can still be read.
func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cond.Broadcast()
}
