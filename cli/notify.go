package cli

import (
	"context"
	"net"
	"strconv"
	"time"
)

// A notifier tells systemd how a service of Type=notify is. Without NOTIFY_SOCKET it does nothing.
type notifier struct {
	socket   string
	watchdog time.Duration // 0: none is asked for
}

func newNotifier(getenv func(string) string) *notifier {
	n := &notifier{socket: getenv("NOTIFY_SOCKET")}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

const notifyWait = 100 * time.Millisecond

// send passes one state on. A service manager that does not listen must not hurt the service.
func (n *notifier) send(state string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if name[0] == '@' {
		name = "\x00" + name[1:] // an abstract socket
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	// A manager that has stopped reading leaves its queue full, and a write would wait for it.
	if conn.SetWriteDeadline(time.Now().Add(notifyWait)) == nil {
		_, _ = conn.Write([]byte(state))
	}
}

// run sends a sign of life twice each watchdog interval as long as alive says so, until ctx ends.
func (n *notifier) run(ctx context.Context, alive func() bool) {
	if n.socket == "" || n.watchdog == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(n.watchdog / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if alive() {
				n.send("WATCHDOG=1")
			}
		}
	}
}
