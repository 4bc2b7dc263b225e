package containerlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

const block = 64 << 10

// jsonTail returns the offset of the last n complete lines of the first size bytes of f, and how many there are.
func jsonTail(f io.ReaderAt, size int64, n int) (int64, int, error) {
	buf := make([]byte, block)
	lines := 0
	for end := size; end > 0; {
		start := max(0, end-block)
		b := buf[:end-start]
		if _, err := f.ReadAt(b, start); err != nil {
			return 0, 0, err
		}
		for i := len(b); ; lines++ {
			if i = bytes.LastIndexByte(b[:i], '\n'); i < 0 {
				break
			}
			// The newline at i ends the record before; what is behind it are the lines so far.
			if lines == n {
				return start + int64(i) + 1, n, nil
			}
		}
		end = start
	}
	return 0, lines, nil
}

var errTorn = errors.New("torn record")

// localTail is jsonTail for the local driver.
func localTail(f io.ReaderAt, size int64, n int) (int64, int, error) {
	var b [localSize]byte
	records := 0
	for size > 0 && records < n {
		if size < 2*localSize {
			return 0, 0, errTorn
		}
		if _, err := f.ReadAt(b[:], size-localSize); err != nil {
			return 0, 0, err
		}
		start := size - int64(binary.BigEndian.Uint32(b[:])) - 2*localSize
		if start < 0 {
			return 0, 0, errTorn
		}
		head := b
		if _, err := f.ReadAt(head[:], start); err != nil || head != b {
			return 0, 0, errTorn
		}
		size = start
		records++
	}
	return size, records, nil
}

// jsonSince returns the offset of a record of the first size bytes of f before which all are older than nano. It finds
// it by halving, so the times must grow, more or less: the caller leaves a margin.
func jsonSince(f io.ReaderAt, size, nano int64) (int64, error) {
	buf := make([]byte, 2*block)
	var dec jsonLines
	var e Entry
	low, high := int64(0), size
	for high-low > block {
		mid := low + (high-low)/2
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-mid)], mid)
		if err != nil && err != io.EOF {
			return 0, err
		}
		b := buf[:n]
		skip := bytes.IndexByte(b, '\n') + 1
		if skip == 0 || mid+int64(skip) >= high {
			high = mid
			continue
		}
		if _, v := dec.decode(b[skip:], &e); v != good || e.nano >= nano {
			high = mid
			continue
		}
		low = mid + int64(skip)
	}
	return low, nil
}

// jsonLast returns the time of the last complete record in the first size bytes of f.
func jsonLast(f io.ReaderAt, size int64) (int64, bool) {
	for _, n := range []int{1, 2} { // the very last may be torn
		off, lines, err := jsonTail(f, size, n)
		if err != nil || lines < n || size-off > maxRecord {
			return 0, false
		}
		b := make([]byte, size-off)
		if _, err := f.ReadAt(b, off); err != nil {
			return 0, false
		}
		var dec jsonLines
		var e Entry
		if _, v := dec.decode(b, &e); v == good {
			return e.nano, true
		}
	}
	return 0, false
}
