package resume

// recordHeader is the channel and the length of a record in the ring.
const recordHeader = 4

// A ring holds the newest records of a direction, in limit bytes at most. Positions count from the direction's start. It
// takes memory as it needs it.
type ring struct {
	limit int
	buf   []byte
	tail  int64 // of the oldest record
	head  int64 // behind the newest
}

// fits reports whether a record with n bytes of data has room.
func (r *ring) fits(n int) bool { return r.head-r.tail+Size(n) <= int64(r.limit) }

// add appends a record that fits.
func (r *ring) add(channel byte, p []byte) {
	need := int(r.head-r.tail) + recordHeader + len(p)
	if need > len(r.buf) {
		r.grow(need)
	}
	n := len(p)
	r.copyIn([]byte{channel, byte(n >> 16), byte(n >> 8), byte(n)})
	r.copyIn(p)
}

func (r *ring) copyIn(p []byte) {
	at := int(r.head % int64(len(r.buf)))
	n := copy(r.buf[at:], p)
	copy(r.buf, p[n:])
	r.head += int64(len(p))
}

func (r *ring) grow(need int) {
	size := min(max(4*len(r.buf), 4<<10), r.limit)
	for size < need {
		size = min(4*size, r.limit)
	}
	bigger := make([]byte, size)
	for at := r.tail; at < r.head; {
		a, b := r.span(at, int(r.head-at))
		for _, part := range [2][]byte{a, b} {
			for len(part) > 0 {
				n := copy(bigger[at%int64(size):], part)
				part = part[n:]
				at += int64(n)
			}
		}
	}
	r.buf = bigger
}

// span returns n bytes from a position on, in two parts.
func (r *ring) span(at int64, n int) (a, b []byte) {
	if n == 0 {
		return nil, nil
	}
	from := int(at % int64(len(r.buf)))
	a = r.buf[from:min(len(r.buf), from+n)]
	return a, r.buf[:n-len(a)]
}

// record returns the record at a position, and the next position. Its data is in two parts, and valid until it is
// released.
func (r *ring) record(at int64) (channel byte, a, b []byte, next int64) {
	var head [recordHeader]byte
	x, y := r.span(at, recordHeader)
	copy(head[copy(head[:], x):], y)
	n := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	a, b = r.span(at+recordHeader, n)
	return head[0], a, b, at + recordHeader + int64(n)
}

// release forgets what is before a position, as far as whole records go.
func (r *ring) release(position int64) {
	for r.tail < r.head {
		_, _, _, next := r.record(r.tail)
		if next > position {
			return
		}
		r.tail = next
	}
}

// boundary reports whether a record begins at a position, or would.
func (r *ring) boundary(position int64) bool {
	at := r.tail
	for at < position && at < r.head {
		_, _, _, at = r.record(at)
	}
	return at == position
}
