package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// A tunnelCutter is a proxy that closes tunnels on request, and nothing else.
type tunnelCutter struct {
	ln net.Listener
	to string
	wg sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	tunnels []net.Conn
}

func newTunnelCutter(t *testing.T, to string) *tunnelCutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &tunnelCutter{ln: ln, to: to}
	c.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		c.mu.Lock()
		for _, conn := range c.conns {
			conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

func (c *tunnelCutter) serve(a net.Conn) {
	defer a.Close()
	b, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer b.Close()
	head := make([]byte, 4096)
	n, err := a.Read(head)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.conns = append(c.conns, a, b)
	if bytes.HasPrefix(head, []byte("GET /v1/tunnel ")) {
		c.tunnels = append(c.tunnels, a)
	}
	c.mu.Unlock()
	if _, err := b.Write(head[:n]); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b)
		a.Close()
	}()
	_, _ = io.Copy(b, a)
	b.Close()
	<-done
}

// cut closes the tunnels and returns how many there were.
func (c *tunnelCutter) cut() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.tunnels)
	for _, conn := range c.tunnels {
		conn.Close()
	}
	c.tunnels = nil
	return n
}

// TestTheTunnelComesBackAlone cuts a host's tunnel again and again, while its control channel stays.
func TestTheTunnelComesBackAlone(t *testing.T) {
	u := newUser(t)
	port := freePort(t)
	server := fmt.Sprintf("127.0.0.1:%d", port)
	p := u.start("dev", "--tls", "off", "--listen", server, "--data", filepath.Join(u.dir, "data"))
	p.says("In a second terminal")
	u.online(1)
	cutter := newTunnelCutter(t, server)
	var join string
	for _, word := range strings.Fields(u.must("token", "create")) {
		if strings.Contains(word, "/v1/scripts/") {
			join = "http://" + cutter.ln.Addr().String() + word[strings.Index(word, "/v1/"):]
		}
	}
	state := filepath.Join(u.dir, "second")
	u.start("agent", join, "--state-dir", state, "--hostname", "second", "--health-listen", "127.0.0.1:0", "--log-level", "info")
	var id string
	for _, h := range u.online(2) {
		if h.Name == "second" {
			id = h.ID
		}
	}
	if id == "" {
		t.Fatal("the second host is not there")
	}
	a := u.api()
	const cuts = 3
	for i := range cuts + 1 {
		// The request itself waits for the tunnel, or meets the end of the one that was just cut.
		eventually(t, "an answer through the tunnel", func() bool {
			status, _ := a.get(http.MethodGet, "/v1/hosts/"+id+"/proxy/v1/stats")
			return status == http.StatusOK
		})
		if n := cutter.cut(); n != 1 {
			t.Fatalf("%d tunnels before cut %d, want 1", n, i)
		}
	}
	addr, err := os.ReadFile(filepath.Join(state, "health.addr"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + strings.TrimSpace(string(addr)) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for pattern, what := range map[string]string{
		`(?m)^drover_connects_total 1$`:               "one connection of the control channel",
		`(?m)^drover_tunnel_dials_total [4-9]$`:       "a dial for each cut",
		`(?m)^drover_streams_total\{.*verb="stats"\}`: "the streams that were served",
	} {
		if !regexp.MustCompile(pattern).Match(metrics) {
			t.Errorf("the metrics do not show %s:\n%s", what, metrics)
		}
	}
}
