package hub

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// maxCork is how much a corked connection collects before it writes all the same.
const maxCork = 64 << 10

// A corkConn is a connection whose writes can be collected into one: several small frames then cost one system call.
// Its write deadline begins with each real write. One goroutine reads, or waits with await; its buffer is reader.
type corkConn struct {
	net.Conn
	timeout time.Duration
	reader  *bufio.Reader

	raw    syscall.RawConn // the socket; nil if there is none to wait for
	secure bool            // TLS is between
	early  []byte          // read already
	one    [1]byte         // what early is made of
	fault  error           // of a read that was already done

	ending sync.Mutex // guards end
	end    time.Time  // of all reading; zero: not known

	mu     sync.Mutex // guards what follows
	corked bool
	buf    *[]byte // pooled; nil while nothing is collected
	pool   *sync.Pool
}

// Read reads what await found first.
func (c *corkConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	if c.fault != nil {
		return 0, c.fault
	}
	return c.Conn.Read(p)
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
	c := &corkConn{Conn: conn, timeout: h.timeout, pool: h.pool}
	if n := rw.Reader.Buffered(); n > 0 {
		early, err := rw.Reader.Peek(n)
		if err != nil {
			return nil, nil, errors.Join(err, conn.Close())
		}
		c.early = bytes.Clone(early)
	}
	size, lower := readBuffer, conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		size, lower, c.secure = readBufferTLS, secure.NetConn(), true
	}
	if socket, ok := lower.(syscall.Conn); ok {
		if c.raw, err = socket.SyscallConn(); err != nil {
			return nil, nil, errors.Join(err, conn.Close())
		}
	}
	c.reader = bufio.NewReaderSize(c, size)
	h.conn, rw.Reader = c, c.reader
	return c, rw, nil
}
