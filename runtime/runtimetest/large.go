package runtimetest

import (
	"archive/tar"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	goruntime "runtime"

	"github.com/droverhq/drover/runtime"
)

// largeMemory is what copying may need, whatever the size of the file.
const largeMemory = 48 << 20

var largeTests = []test{
	{"Copy", func(e *env) {
		c, ok := e.engine.(runtime.Copier)
		if !ok {
			return
		}
		size := e.opts.Large
		id := e.start(e.spec())
		heap := newHeapWatch()
		sent := newStream(size, heap)
		r, w := io.Pipe()
		written := make(chan error, 1)
		go func() {
			out := tar.NewWriter(w)
			err := out.WriteHeader(&tar.Header{Name: "large", Mode: 0o600, Size: size})
			if err == nil {
				_, err = io.Copy(out, sent)
			}
			err = errors.Join(err, out.Close())
			w.CloseWithError(err)
			written <- err
		}()
		err := c.CopyTo(e.ctx, id, "/tmp", r)
		_ = r.Close() // ends the writer where CopyTo failed
		e.must("CopyTo", errors.Join(err, <-written))

		body, stat, err := c.CopyFrom(e.ctx, id, "/tmp/large")
		e.must("CopyFrom", err)
		defer body.Close()
		if stat.Size != size {
			e.Errorf("%d bytes arrived, of %d", stat.Size, size)
		}
		in := tar.NewReader(body)
		h, err := in.Next()
		e.must("the archive", err)
		back := &meter{sum: newSum(), heap: heap}
		n, err := io.Copy(back, in)
		e.must("the archive", err)
		if h.Size != size || n != size || back.sum.Sum32() != sent.sum.Sum32() {
			e.Errorf("%d of %d bytes came back, and they must be the same", n, size)
		}
		if heap.most > largeMemory {
			e.Errorf("%d MB copied there and back took %d MB of memory", size>>20, heap.most>>20)
		}
	}},
}

// A heapWatch remembers the most memory that was in use above what there was.
type heapWatch struct{ base, most int64 }

func newHeapWatch() *heapWatch {
	goruntime.GC()
	h := &heapWatch{}
	h.base = h.inUse()
	return h
}

func (h *heapWatch) inUse() int64 {
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // less than 8 EB
}

func (h *heapWatch) look() { h.most = max(h.most, h.inUse()-h.base) }

func newSum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// A meter sums what is written and looks at the memory now and then.
type meter struct {
	sum  hash.Hash32
	heap *heapWatch
	n    int64
}

func (m *meter) Write(p []byte) (int, error) {
	const each = 8 << 20
	if m.n/each != (m.n+int64(len(p)))/each {
		m.heap.look()
	}
	m.n += int64(len(p))
	return m.sum.Write(p)
}

// A stream is size bytes, no block of which is like another.
type stream struct {
	meter
	left  int64
	block []byte
	at    int
}

func newStream(size int64, heap *heapWatch) *stream {
	s := &stream{meter: meter{sum: newSum(), heap: heap}, left: size, block: make([]byte, 1<<20)}
	_, _ = rand.Read(s.block)
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if s.at == len(s.block) {
		s.at = 0
		binary.BigEndian.PutUint64(s.block, uint64(s.left)) //nolint:gosec // a mark
	}
	n := copy(p[:min(int64(len(p)), s.left)], s.block[s.at:])
	s.at += n
	s.left -= int64(n)
	_, _ = s.Write(p[:n]) // a sum never fails
	return n, nil
}
