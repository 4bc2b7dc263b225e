package tunnel

import (
	"crypto/tls"
	"net"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the kernel may hold that it has not sent yet. More would only be a queue in front of every
// stream: on a slow link a keystroke would wait behind megabytes of somebody's download.
const unsent = 128 << 10

func limitUnsent(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if c, ok := conn.(*corkConn); ok {
		conn = c.Conn
	}
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	// An old kernel that does not know the option works as well, with a longer queue.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
	})
}
