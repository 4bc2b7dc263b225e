package events

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	flushAt    = 64 << 10             // bytes that gather before they go out by themselves
	flushChunk = 32 << 10             // bytes that must go out within one write timeout
	blocked    = 5 * time.Millisecond // a write that took longer waited for the other side
	aliveBytes = 16 << 10             // bytes of an unfinished frame that count as a sign of life
)

// flushConn is a TCP connection that gathers writes until Flush, so that many frames make one system call. Before
// gather is called it writes through. A write that makes no headway for the timeout fails; how much there is to write
// does not matter. Reads, and writes
// that the other side had to make room for, count as signs of life.
type flushConn struct {
	net.Conn
	timeout time.Duration
	life    atomic.Int64 // when something last came in, nanoseconds since the epoch
	partial atomic.Int64 // bytes since the last whole frame that did not count yet

	mu        sync.Mutex
	gathering bool   // guarded by mu
	buf       []byte // guarded by mu
	err       error  // guarded by mu; what a write failed with
}

func (c *flushConn) gather(timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathering, c.timeout = true, timeout
}

// alive notes a whole frame.
func (c *flushConn) alive() {
	c.partial.Store(0)
	c.life.Store(time.Now().UnixNano())
}

// Read notes a sign of life for every [aliveBytes] of a frame that is not whole yet: a large one on a slow link is
// alive, one that drips is not.
func (c *flushConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.partial.Add(int64(n)) >= aliveBytes {
		c.alive()
	}
	return n, err
}

func (c *flushConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gathering {
		return c.Conn.Write(p)
	}
	if c.err != nil {
		return 0, c.err
	}
	c.buf = append(c.buf, p...)
	if len(c.buf) >= flushAt {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Flush writes what has gathered.
func (c *flushConn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *flushConn) flushLocked() error {
	for b := c.buf; len(b) > 0 && c.err == nil; {
		if c.err = c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); c.err != nil {
			break
		}
		began := time.Now()
		n, err := c.Conn.Write(b[:min(len(b), flushChunk)])
		if err == nil && time.Since(began) > blocked {
			c.life.Store(time.Now().UnixNano()) // there was no room, and the other side made some
		}
		b, c.err = b[n:], err
	}
	c.buf = c.buf[:0]
	return c.err
}

// SetWriteDeadline is of no effect once writes are gathered: flushing sets its own.
func (c *flushConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gathering {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}
