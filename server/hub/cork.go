package hub

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxCork is how much a corked connection collects before it writes all the same.
const maxCork = 64 << 10

// A corkConn is a connection whose writes can be collected into one: several small frames then cost one system call.
// Its write deadline begins with each real write. Reads go straight through.
type corkConn struct {
	net.Conn
	timeout time.Duration

	mu     sync.Mutex // guards what follows
	corked bool
	buf    *[]byte // pooled; nil while nothing is collected
	pool   *sync.Pool
}

// Write writes p, or keeps it until uncork.
func (c *corkConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.write(p)
	}
	if c.buf == nil {
		c.buf, _ = c.pool.Get().(*[]byte)
	}
	*c.buf = append(*c.buf, p...)
	if len(*c.buf) >= maxCork {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// write writes in pieces, each of which has the whole timeout: a slow link that takes something is not a dead one.
func (c *corkConn) write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		if err = c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			break
		}
		var m int
		m, err = c.Conn.Write(p[:min(len(p), maxCork)])
		n += m
		p = p[m:]
	}
	return n, err
}

func (c *corkConn) flushLocked() error {
	if c.buf == nil {
		return nil
	}
	_, err := c.write(*c.buf)
	if cap(*c.buf) <= 2*maxCork {
		*c.buf = (*c.buf)[:0]
		c.pool.Put(c.buf)
	}
	c.buf = nil
	return err
}

// SetWriteDeadline does nothing: the connection sets its own.
func (c *corkConn) SetWriteDeadline(time.Time) error { return nil }

func (c *corkConn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

// uncork writes what was collected.
func (c *corkConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flushLocked()
}

// A corkHijacker hands out the connection of a request as a corkConn.
type corkHijacker struct {
	http.ResponseWriter
	timeout time.Duration
	pool    *sync.Pool
	conn    *corkConn // set by Hijack
}

// Hijack takes the connection over from net/http.
func (h *corkHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = &corkConn{Conn: conn, timeout: h.timeout, pool: h.pool}
	return h.conn, rw, nil
}
