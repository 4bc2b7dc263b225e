package terminal

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrDetached is what a read returns when the user pressed the keys that leave a stream.
var ErrDetached = errors.New("detached")

// ParseKeys reads a sequence of keys as docker writes it: single characters, or ctrl- with one of a-z @ [ \ ] ^ _,
// separated by commas.
func ParseKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		with, found := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case found && len(with) == 1 && (with[0] >= 'a' && with[0] <= 'z'):
			keys = append(keys, with[0]-'a'+1)
		case found && len(with) == 1 && strings.Contains(`@[\]^_`, with):
			keys = append(keys, with[0]&0x1f)
		case len(key) == 1:
			keys = append(keys, key[0])
		default:
			return nil, fmt.Errorf("%q is no key: use a character, or ctrl- with one of a-z @ [ \\ ] ^ _", key)
		}
	}
	return keys, nil
}

// Detach returns a reader of r that ends with ErrDetached when keys come in a row. Keys that may be the beginning of it
// wait for the next one. Without keys it is r.
func Detach(r io.Reader, keys []byte) io.Reader {
	if len(keys) == 0 {
		return r
	}
	return &detacher{from: r, keys: keys}
}

type detacher struct {
	from    io.Reader
	keys    []byte
	matched int    // of keys, held back
	ready   []byte // to be read
	err     error  // after ready
}

func (d *detacher) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(d.ready) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, max(len(p), 512))
		n, err := d.from.Read(buf)
		d.take(buf[:n])
		if err != nil && d.err == nil {
			d.ready = append(d.ready, d.keys[:d.matched]...) // the end came instead of the rest of the keys
			d.matched, d.err = 0, err
		}
	}
	n := copy(p, d.ready)
	d.ready = d.ready[n:]
	return n, nil
}

// take looks at what was read.
func (d *detacher) take(p []byte) {
	for _, b := range p {
		// A mismatch may still end with a shorter beginning of the keys: "ppq" holds "pq".
		for d.matched > 0 && b != d.keys[d.matched] {
			shorter := d.matched - 1
			for shorter > 0 && string(d.keys[d.matched-shorter:d.matched]) != string(d.keys[:shorter]) {
				shorter--
			}
			d.ready = append(d.ready, d.keys[:d.matched-shorter]...)
			d.matched = shorter
		}
		if b != d.keys[d.matched] {
			d.ready = append(d.ready, b)
			continue
		}
		if d.matched++; d.matched == len(d.keys) {
			d.err = ErrDetached
			return
		}
	}
}
