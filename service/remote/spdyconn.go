package remote

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"

	"github.com/droverhq/drover/events/tunnel"
)

// A frameConn stands between the connection and the library of SPDY. It writes whole frames: the library writes each in
// three or more pieces, which would be as many packets. And it takes the data of one stream, a process's input, out of
// what the library reads: there each line would wake a worker and then a reader.
type frameConn struct {
	net.Conn
	held   *tunnel.Cork
	in     *bufio.Reader
	failed func()      // told when a write fails
	over   atomic.Bool // closed

	mu    sync.Mutex
	frame []byte // the frame under way
	want  int    // its length, once its header is complete
	busy  bool   // something was written since the last tick

	diverted atomic.Pointer[diversion]
	left     int    // bytes of a frame that the library is still to read; only its reader uses it
	made     []byte // what the library is to read next; as left
}

// A diversion is a stream whose data goes to a pipe.
type diversion struct {
	stream uint32
	to     *pipe
}

// What of SPDY/3.1 is known here.
const (
	spdyHeader     = 8          // of every frame; the last three bytes are the length of what follows
	spdyFin        = 0x01       // flag of the last frame of a stream
	spdyReset      = 0x80030003 // first word of a frame that ends a stream both ways; its own first word is the stream
	spdyResetBody  = 8
	spdyInputAhead = 16 << 10
)

// newFrameConn returns a connection of which some was read into buffered.
func newFrameConn(c net.Conn, buffered *bufio.Reader, failed func()) *frameConn {
	f := &frameConn{Conn: c, held: tunnel.CorkOf(c), failed: failed}
	f.in = bufio.NewReaderSize(startedConn{c, buffered}, spdyInputAhead)
	return f
}

// startedConn reads first what net/http has read ahead.
type startedConn struct {
	net.Conn
	ahead *bufio.Reader
}

func (c startedConn) Read(p []byte) (int, error) {
	if n := c.ahead.Buffered(); n > 0 {
		return c.ahead.Read(p[:min(n, len(p))])
	}
	return c.Conn.Read(p)
}

// divert makes the data of a stream go to a pipe. It is called before the stream is answered: no data of a stream comes
// before that, or the library throws it away.
// A second stream is left to the library.
func (c *frameConn) divert(stream uint32, to *pipe) {
	c.diverted.CompareAndSwap(nil, &diversion{stream, to})
}

// Read passes on what the library is to see.
func (c *frameConn) Read(p []byte) (int, error) {
	for {
		if len(c.made) > 0 {
			n := copy(p, c.made)
			c.made = c.made[n:]
			return n, nil
		}
		if c.left > 0 {
			n, err := c.in.Read(p[:min(c.left, len(p))])
			c.left -= n
			return n, err
		}
		head, err := c.in.Peek(spdyHeader)
		if err != nil {
			if len(head) > 0 { // half a header: the library says what it thinks of that
				return c.in.Read(p)
			}
			return 0, err
		}
		length := int(head[5])<<16 + int(head[6])<<8 + int(head[7])
		to := c.diverted.Load()
		switch first := binary.BigEndian.Uint32(head); {
		case to != nil && first == to.stream:
			flags := head[4]
			if err := c.pass(to.to, length); err != nil {
				return 0, err
			}
			if flags&spdyFin != 0 { // of the end, the library is to know
				to.to.close()
				c.made = append(binary.BigEndian.AppendUint32(nil, first), flags, 0, 0, 0)
			}
		case to != nil && first == spdyReset && length == spdyResetBody:
			if whole, err := c.in.Peek(spdyHeader + spdyResetBody); err == nil && binary.BigEndian.Uint32(whole[spdyHeader:])&^(1<<31) == to.stream {
				to.to.close()
			}
			fallthrough
		default:
			c.left = spdyHeader + length
		}
	}
}

// pass writes the payload of a frame to a pipe; what nobody takes any more is thrown away.
func (c *frameConn) pass(to *pipe, length int) error {
	if _, err := c.in.Discard(spdyHeader); err != nil {
		return err
	}
	for length > 0 {
		if _, err := c.in.Peek(1); err != nil {
			return err
		}
		p, err := c.in.Peek(min(length, c.in.Buffered()))
		if err != nil {
			return err
		}
		_, _ = to.Write(p) // fails when it is closed, and in no other way
		length -= len(p)
		if _, err := c.in.Discard(len(p)); err != nil {
			return err
		}
	}
	return nil
}

// Close may be called twice: the library takes an error for a reason to wait a second.
func (c *frameConn) Close() error {
	if c.over.Swap(true) {
		return nil
	}
	return c.Conn.Close()
}

func (c *frameConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	written := 0
	for len(p) > 0 {
		n := len(p)
		if len(c.frame) < spdyHeader {
			n = min(n, spdyHeader-len(c.frame))
		} else {
			n = min(n, c.want-len(c.frame))
		}
		c.frame = append(c.frame, p[:n]...)
		p = p[n:]
		written += n
		if len(c.frame) == spdyHeader {
			c.want = spdyHeader + int(c.frame[5])<<16 + int(c.frame[6])<<8 + int(c.frame[7])
		}
		if len(c.frame) >= spdyHeader && len(c.frame) == c.want {
			err := c.held.During(func() error {
				_, err := c.Conn.Write(c.frame)
				return err
			})
			c.frame = c.frame[:0]
			c.busy = true
			if err != nil {
				c.failed()
				return written, err
			}
		}
	}
	return written, nil
}

// ping writes a PING frame unless something was written lately or is being written. The answer says nothing that the
// connection does not; the library overlooks it.
func (c *frameConn) ping() {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	idle := !c.busy && len(c.frame) == 0
	c.busy = false
	if !idle {
		return
	}
	// Control frame of version 3, type 6, no flags, 4 bytes: an even number, as we are the server.
	if _, err := c.Conn.Write([]byte{0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2}); err != nil {
		c.failed()
	}
}
