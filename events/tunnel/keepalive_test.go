package tunnel

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An idleCutter is a proxy that closes a WebSocket on which one direction carried no data frame for a while. It counts
// neither pings nor pongs, as some proxies on the way do.
type idleCutter struct {
	ln   net.Listener
	to   string
	idle time.Duration
	cuts atomic.Int32
	wg   sync.WaitGroup
}

func newIdleCutter(t *testing.T, to string, idle time.Duration) *idleCutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &idleCutter{ln: ln, to: to, idle: idle}
	ended := make(chan struct{})
	c.wg.Go(func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(a, ended) })
		}
	})
	t.Cleanup(func() {
		close(ended)
		ln.Close()
		c.wg.Wait()
	})
	return c
}

func (c *idleCutter) serve(a net.Conn, ended <-chan struct{}) {
	defer a.Close()
	b, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer b.Close()
	over := make(chan struct{}, 2)
	var last [2]atomic.Int64
	for i, pair := range [][2]net.Conn{{b, a}, {a, b}} {
		last[i].Store(time.Now().UnixNano())
		c.wg.Go(func() {
			defer func() { over <- struct{}{} }()
			frames(pair[0], bufio.NewReader(pair[1]), func() { last[i].Store(time.Now().UnixNano()) })
		})
	}
	tick := time.NewTicker(c.idle / 10)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-ended:
			return
		case <-tick.C:
		}
		for i := range last {
			if time.Since(time.Unix(0, last[i].Load())) > c.idle {
				c.cuts.Add(1)
				return
			}
		}
	}
}

// frames copies a handshake and then frames, and calls data for each that is not control.
func frames(to io.Writer, from *bufio.Reader, data func()) {
	for {
		line, err := from.ReadSlice('\n')
		if err != nil {
			return
		}
		if _, err := to.Write(line); err != nil {
			return
		}
		if len(line) <= 2 {
			break
		}
	}
	for {
		head := make([]byte, 2, 14)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		size, more := uint64(head[1]&0x7f), 0
		switch size {
		case 126:
			more = 2
		case 127:
			more = 8
		}
		mask := 0
		if head[1]&0x80 != 0 {
			mask = 4
		}
		head = head[:2+more+mask]
		if _, err := io.ReadFull(from, head[2:]); err != nil {
			return
		}
		switch more {
		case 2:
			size = uint64(binary.BigEndian.Uint16(head[2:]))
		case 8:
			size = binary.BigEndian.Uint64(head[2:])
		}
		if head[0]&0x08 == 0 {
			data()
		}
		if _, err := to.Write(head); err != nil {
			return
		}
		if _, err := io.CopyN(to, from, int64(size)); err != nil {
			return
		}
	}
}

// TestIdleLinksCarryData keeps a tunnel idle behind a proxy that cuts what is idle.
func TestIdleLinksCarryData(t *testing.T) {
	defaults, err := Options{}.withDefaults()
	if err != nil || defaults.KeepAlive > 25*time.Second {
		t.Errorf("an idle link carries data every %v: want 25 s at most", defaults.KeepAlive)
	}
	const idle = 2 * time.Second
	for _, c := range []struct {
		what    string
		keep    time.Duration
		survive bool
	}{
		{"data often enough", idle / 8, true},
		{"pings alone", time.Hour, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			opts := Options{KeepAlive: c.keep, PingInterval: idle / 8, WriteTimeout: patience}
			r := newRig(t, opts)
			cutter := newIdleCutter(t, r.http.Listener.Addr().String(), idle)
			agent(t, Config{URL: "http://" + cutter.ln.Addr().String(), Options: opts, Handler: http.NotFoundHandler()})
			s := r.session(t)
			select {
			case <-s.Done():
				if c.survive {
					t.Errorf("the link was cut: %v; the proxy cut %d", s.Err(), cutter.cuts.Load())
				}
			case <-time.After(2 * idle):
				if !c.survive {
					t.Error("a link without data was not cut: the proxy of this test is none")
				}
			}
		})
	}
}
