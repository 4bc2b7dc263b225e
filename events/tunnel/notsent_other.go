//go:build !linux

package tunnel

import "net"

// limitUnsent needs a socket option of Linux; elsewhere the kernel's queue stays as long as it is.
func limitUnsent(net.Conn) {}
