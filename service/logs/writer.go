package logs

import (
	"io"
	"sync"
)

// A writer gathers output to blocks. It borrows its buffer only while it holds something, so an idle follow has none.
// Its first error stays.
type writer struct {
	w    io.Writer
	pool *sync.Pool
	buf  []byte
	err  error
}

func newBlockPool() *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, 0, blockSize); return &b }}
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if len(w.buf) == 0 && len(p) >= blockSize {
		var n int
		n, w.err = w.w.Write(p)
		return n, w.err
	}
	if len(w.buf)+len(p) > blockSize {
		if err := w.Flush(); err != nil {
			return 0, err
		}
		if len(p) >= blockSize {
			return w.Write(p)
		}
	}
	w.borrow()
	w.buf = append(w.buf, p...)
	return len(p), nil
}

func (w *writer) borrow() {
	if w.buf == nil {
		w.buf = (*w.pool.Get().(*[]byte))[:0]
	}
}

func (w *writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *writer) WriteByte(c byte) error {
	if len(w.buf) == blockSize {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if w.err != nil {
		return w.err
	}
	w.borrow()
	w.buf = append(w.buf, c)
	return nil
}

// Flush writes what is held and gives the buffer back.
func (w *writer) Flush() error {
	if w.buf == nil {
		return w.err
	}
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.w.Write(w.buf)
	}
	b := w.buf[:0]
	w.buf = nil
	w.pool.Put(&b)
	return w.err
}
