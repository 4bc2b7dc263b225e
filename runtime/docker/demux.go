package docker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/droverhq/drover/runtime"
)

const (
	// frameHeader is before each piece of output: the stream, three zeros, the length.
	frameHeader = 8
	// outputBuffer is what a stream reads with, until it has filled that once: then it is of the other size.
	outputBuffer, bulkBuffer = 32 << 10, 128 << 10
	// maxComplaint bounds what the daemon says of an error in the middle of a stream.
	maxComplaint = 64 << 10
)

// The streams of a frame. Input is echoed by nobody, but the daemon's own library takes it for output.
const (
	frameStdin = iota
	frameStdout
	frameStderr
	frameComplaint
)

// demux takes output apart to its end. All that has come for one stream goes to its writer at once, however many frames
// it came in: a writer that sends it on has as few messages to send as can be. What is cut off is delivered.
func demux(to *sinks, from io.Reader) error {
	d := demuxer{to: to}
	for buf := make([]byte, outputBuffer); ; {
		n, err := from.Read(buf)
		if failed := d.take(buf[:n]); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) {
			return d.complaint()
		}
		if err != nil {
			return err
		}
		if n == len(buf) && n < bulkBuffer {
			buf = make([]byte, bulkBuffer)
		}
	}
}

type demuxer struct {
	to     *sinks
	head   [frameHeader]byte
	headed int    // bytes of head that are there
	left   uint32 // of the frame under way
	said   []byte // the daemon's complaint
}

// take delivers what was read. It moves the pieces of a stream together, in place.
func (d *demuxer) take(p []byte) error {
	var run []byte // of p, for stream
	var stream byte
	for at := 0; at < len(p); {
		if d.left == 0 {
			n := copy(d.head[d.headed:], p[at:])
			at += n
			if d.headed += n; d.headed < frameHeader {
				break
			}
			if d.head[0] > frameComplaint {
				return errors.Join(d.write(stream, run), fmt.Errorf("the daemon sent output of an unknown stream, %d", d.head[0]))
			}
			d.headed = 0
			d.left = binary.BigEndian.Uint32(d.head[4:])
			continue
		}
		n := min(int(min(d.left, 1<<30)), len(p)-at)
		piece := p[at : at+n]
		at += n
		d.left -= uint32(n)
		if len(run) > 0 && stream == d.head[0] {
			run = append(run, piece...) // behind it is only what was taken already, and the piece itself
			continue
		}
		if err := d.write(stream, run); err != nil {
			return err
		}
		run, stream = piece, d.head[0]
	}
	return d.write(stream, run)
}

func (d *demuxer) write(stream byte, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	to := d.to.stdout()
	switch stream {
	case frameStderr:
		to = d.to.stderr()
	case frameComplaint:
		d.said = append(d.said, p[:min(len(p), maxComplaint-len(d.said))]...)
		return nil
	}
	_, err := to.Write(p)
	return err
}

// complaint is what the daemon said instead of more output.
func (d *demuxer) complaint() error {
	if len(d.said) == 0 {
		return nil
	}
	return &runtime.Error{Message: "the daemon: " + string(d.said)}
}
