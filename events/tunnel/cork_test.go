package tunnel

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
)

// A counter counts what is written to a connection.
type counter struct {
	net.Conn
	mu     sync.Mutex
	writes int
	fail   error
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		return 0, fail
	}
	return c.Conn.Write(p)
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// tlsPair is TLS over loopback, whose near end has a cork over a counter.
func tlsPair(t *testing.T) (near *tls.Conn, below *counter, far net.Conn) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS() // for its certificate
	cert := srv.TLS.Certificates[0]
	srv.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	plain, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	below = &counter{Conn: accepted}
	near = tls.Server(corked(below), &tls.Config{Certificates: []tls.Certificate{cert}})
	secure := tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	t.Cleanup(func() { near.Close(); secure.Close() })
	shaken := make(chan error, 1)
	go func() { shaken <- secure.Handshake() }()
	if err := errors.Join(near.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return near, below, secure
}

// TestCorkOverTLS sends many records with few writes, and every byte of them.
func TestCorkOverTLS(t *testing.T) {
	near, below, far := tlsPair(t)
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(far, int64(len(sent))))
		got <- b
	}()
	held := CorkOf(near)
	if held == nil {
		t.Fatal("a connection of a CorkListener has no cork under TLS")
	}
	before := below.count()
	for rest := sent; len(rest) > 0; {
		held.Hold()
		for range 4 {
			n := min(len(rest), 16<<10)
			if _, err := near.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := held.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(<-got, sent) {
		t.Error("other bytes came than were sent")
	}
	// TLS begins with records of a packet: the first 128 KiB are some hundred of them.
	if n := below.count() - before; n > 24 {
		t.Errorf("%d writes for 16 times 64 KiB", n)
	}
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := io.ReadFull(far, one); err != nil || one[0] != 'x' {
		t.Errorf("after the last Release: %q %v", one, err)
	}
}

// TestCorkNests holds what is written until as many let go as held it, and tells each of them what became of it.
func TestCorkNests(t *testing.T) {
	near, below, _ := tlsPair(t)
	held := CorkOf(near)
	before := below.count()
	held.Hold()
	held.Hold()
	_, err := near.Write([]byte("a"))
	if rerr := held.Release(); err != nil || rerr != nil || below.count() != before {
		t.Errorf("%v %v; %d writes while it was held", err, rerr, below.count()-before)
	}
	broken := errors.New("broken")
	below.mu.Lock()
	below.fail = broken
	below.mu.Unlock()
	if err := held.Release(); !errors.Is(err, broken) {
		t.Errorf("Release said %v", err)
	}
	// What was lost must not be followed by anything.
	if _, err := near.Write([]byte("b")); !errors.Is(err, broken) {
		t.Errorf("a later write said %v", err)
	}
	if n := below.count() - before; n != 1 {
		t.Errorf("%d writes", n)
	}
	var none *Cork
	none.Hold()
	if err := none.Release(); err != nil || CorkOf(near.NetConn().(*corkConn).Conn) != nil {
		t.Error("a connection without a cork has one")
	}
}
