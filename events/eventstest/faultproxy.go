package eventstest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// A FaultProxy is a TCP proxy whose network goes bad on request. Faults hold for connections that are open and for
// new ones, until they are taken back.
type FaultProxy struct {
	target string
	ln     net.Listener
	wg     sync.WaitGroup

	mu      sync.Mutex
	conns   map[*net.TCPConn]struct{}
	faults  faults
	changed chan struct{} // closed and replaced with faults
	opened  int
}

type faults struct {
	blackHole  bool
	latency    time.Duration
	dripBytes  int
	dripEvery  time.Duration
	resetAfter int64 // bytes towards the client; 0 is never
}

// NewFaultProxy starts a proxy to target (host:port) that ends with the test.
func NewFaultProxy(tb testing.TB, target string) *FaultProxy {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &FaultProxy{target: target, ln: ln, conns: map[*net.TCPConn]struct{}{}, changed: make(chan struct{})}
	p.wg.Go(p.accept)
	tb.Cleanup(func() {
		_ = ln.Close()
		p.set(func(f *faults) { *f = faults{} })
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr returns host:port.
func (p *FaultProxy) Addr() string { return p.ln.Addr().String() }

// Opened returns how many connections were made.
func (p *FaultProxy) Opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

func (p *FaultProxy) set(change func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.faults)
	close(p.changed)
	p.changed = make(chan struct{})
}

// BlackHole keeps connections open and lets nothing through, in either direction.
func (p *FaultProxy) BlackHole(on bool) { p.set(func(f *faults) { f.blackHole = on }) }

// Latency delays everything, each way.
func (p *FaultProxy) Latency(d time.Duration) { p.set(func(f *faults) { f.latency = d }) }

// Drip lets n bytes through at a time, each way. n 0 ends it.
func (p *FaultProxy) Drip(n int, every time.Duration) {
	p.set(func(f *faults) { f.dripBytes, f.dripEvery = n, every })
}

// ResetAfter resets each connection that has carried n bytes towards the client, counted for each from its start. 0
// ends it.
func (p *FaultProxy) ResetAfter(n int64) { p.set(func(f *faults) { f.resetAfter = n }) }

// Cut closes every connection.
func (p *FaultProxy) Cut() {
	p.each(func(c *net.TCPConn) { _ = c.Close() })
}

// HalfClose ends every connection's direction towards the client; the other one stays open.
func (p *FaultProxy) HalfClose() {
	p.each(func(c *net.TCPConn) { _ = c.CloseWrite() })
}

func (p *FaultProxy) each(do func(*net.TCPConn)) {
	p.mu.Lock()
	var all []*net.TCPConn
	for c := range p.conns {
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		do(c)
	}
}

func (p *FaultProxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

func (p *FaultProxy) serve(client *net.TCPConn) {
	defer client.Close()
	p.mu.Lock()
	p.conns[client] = struct{}{}
	p.opened++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, client)
		p.mu.Unlock()
	}()
	up, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	server := up.(*net.TCPConn)
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		p.pump(ctx, server, client, false)
		_ = server.CloseWrite()
		cancel() // the client is gone
		_ = server.Close()
	})
	p.pump(ctx, client, server, true)
	_ = client.CloseWrite()
	wg.Wait()
}

// pump copies from src to dst through the faults.
func (p *FaultProxy) pump(ctx context.Context, dst, src *net.TCPConn, towardsClient bool) {
	buf := make([]byte, 32<<10)
	var carried int64
	for {
		f, ok := p.passable(ctx)
		if !ok {
			return
		}
		b := buf
		if f.dripBytes > 0 {
			b = buf[:min(len(buf), f.dripBytes)]
		}
		n, err := src.Read(b)
		if n > 0 {
			if f, ok = p.passable(ctx); !ok {
				return
			}
			if !pause(ctx, f.latency) || f.dripBytes > 0 && !pause(ctx, f.dripEvery) {
				return
			}
			carried += int64(n)
			if towardsClient && f.resetAfter > 0 && carried >= f.resetAfter {
				_ = dst.SetLinger(0)
				_ = dst.Close()
				return
			}
			if _, err := dst.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passable waits until nothing is swallowed any more.
func (p *FaultProxy) passable(ctx context.Context) (faults, bool) {
	for {
		p.mu.Lock()
		f, changed := p.faults, p.changed
		p.mu.Unlock()
		if !f.blackHole {
			return f, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return f, false
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
