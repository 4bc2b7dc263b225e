package tunnel

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
)

// recordsOfChunk holds a data frame as TLS has it: four whole records, and what is left.
const recordsOfChunk = chunk + 1<<10

// A Cork collects what is written to a connection while somebody holds it. A long message is many pieces on its way down:
// records of a protocol, of a WebSocket, of TLS. Each would be a system call, a packet, and a reader to wake up. The
// methods of a nil Cork do nothing. They may be called by any number of goroutines; Release blocks as a write does.
type Cork struct {
	write func([]byte) (int, error)
	most  int // how much is collected before it is written all the same

	mu    sync.Mutex // guards what follows, and is held while writing
	holds int
	buf   []byte
	err   error // of a write of what was collected: for good, as its writers know nothing of it
}

// CorkOf returns the cork of conn: a stream of a tunnel, or TLS on a connection of [CorkListener]. It is nil where there
// is none.
func CorkOf(conn net.Conn) *Cork {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if c, ok := conn.(interface{ cork() *Cork }); ok {
		return c.cork()
	}
	return nil
}

// Hold keeps what is written from now on, up to 64 KiB at a time, until as many Release.
func (c *Cork) Hold() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.holds++
	c.mu.Unlock()
}

// Release writes what was collected when nobody else holds it. Its error is that of the writes before.
func (c *Cork) Release() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds--; c.holds > 0 {
		return c.err
	}
	return c.flush()
}

// During holds what f writes, and releases it. Its error is f's, or else that of the writes.
func (c *Cork) During(f func() error) error {
	c.Hold()
	err := f()
	if werr := c.Release(); err == nil {
		err = werr
	}
	return err
}

func (c *Cork) flush() error {
	if len(c.buf) == 0 || c.err != nil {
		return c.err
	}
	_, c.err = c.write(c.buf)
	if len(c.buf) < c.most/16 && cap(c.buf) > c.most/16 {
		c.buf = nil // the bulk is over
	} else {
		c.buf = c.buf[:0]
	}
	return c.err
}

func (c *Cork) take(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if c.holds == 0 {
		return c.write(p)
	}
	if len(c.buf)+len(p) > c.most {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) >= c.most {
		return c.write(p)
	}
	c.buf = append(c.buf, p...)
	return len(p), nil
}

// CorkListener returns l with connections that have a cork, to put TLS on.
func CorkListener(l net.Listener) net.Listener { return corkListener{l} }

type corkListener struct{ net.Listener }

// Accept implements net.Listener.
func (l corkListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return corked(conn), nil
}

// A corkConn is the connection under TLS.
type corkConn struct {
	net.Conn
	held Cork
}

func corked(conn net.Conn) *corkConn {
	return &corkConn{Conn: conn, held: Cork{write: conn.Write, most: recordsOfChunk}}
}

func (c *corkConn) cork() *Cork { return &c.held }

// Write implements net.Conn.
func (c *corkConn) Write(p []byte) (int, error) { return c.held.take(p) }

// SyscallConn implements syscall.Conn.
func (c *corkConn) SyscallConn() (syscall.RawConn, error) {
	if conn, ok := c.Conn.(syscall.Conn); ok {
		return conn.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
