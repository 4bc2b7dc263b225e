package hub

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// linger is how long the reader of a socket waits for the next frame before it leaves the waiting to a goroutine that
// needs half of its stack.
const linger = time.Second

// The reader of a WebSocket, over TLS in particular, is deep in calls when it waits, and its stack is the larger part
// of what an idle agent costs. So the waiting is done apart from the reading: for the socket to be readable, which takes
// few calls. What TLS has decrypted, or could without the socket, is found first, by a read that must not wait.

// await waits until a read would find something, an error among it, and reports false if nothing came within patience.
// Then rest is the way to go on waiting. Neither must run beside Read.
func (c *corkConn) await(patience time.Duration) bool {
	if len(c.early) > 0 || c.raw == nil || c.fault != nil || c.secure && c.decrypted() {
		return true
	}
	c.deadline(time.Now().Add(patience))
	defer c.deadline(time.Time{})
	return !errors.Is(c.raw.Read(readable), os.ErrDeadlineExceeded) || c.closing()
}

// rest waits until the socket is readable or closed. It is for a goroutine that does nothing else: the way into TLS that
// await takes would double its stack.
func (c *corkConn) rest() { _ = c.raw.Read(readable) } // the next read has the error

// decrypted reports whether TLS has something, without waiting for the socket.
func (c *corkConn) decrypted() bool {
	c.deadline(time.Unix(1, 0))
	n, err := c.Conn.Read(c.one[:])
	c.deadline(time.Time{})
	switch {
	case n > 0:
		c.early = c.one[:n]
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.closing():
		return false // TLS keeps what it has of a record for the next read
	default:
		c.fault = err
	}
	return true
}

// readable reports whether a read of the socket would not block.
func readable(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
	n, err := unix.Poll(p[:], 0)
	return n > 0 || err != nil && !errors.Is(err, syscall.EINTR)
}

// deadline sets that of reads, but never behind the end that finish set.
func (c *corkConn) deadline(t time.Time) {
	c.ending.Lock()
	defer c.ending.Unlock()
	if !c.end.IsZero() && (t.IsZero() || t.After(c.end)) {
		t = c.end
	}
	_ = c.SetReadDeadline(t) // a connection that is closed tells the next read
}

// finish sets when the last read ends, whatever the reader does.
func (c *corkConn) finish(at time.Time) error {
	c.ending.Lock()
	defer c.ending.Unlock()
	c.end = at
	return c.SetReadDeadline(at)
}

func (c *corkConn) closing() bool {
	c.ending.Lock()
	defer c.ending.Unlock()
	return !c.end.IsZero() && !time.Now().Before(c.end)
}
