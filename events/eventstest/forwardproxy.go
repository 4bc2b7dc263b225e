package eventstest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"
)

// A ForwardProxy is what a company puts between its machines and the rest: an HTTP proxy (CONNECT and plain requests)
// or a SOCKS 5 proxy.
type ForwardProxy struct {
	url *url.URL

	mu   sync.Mutex
	seen []string
}

// URL returns the proxy's address, with its credentials.
func (p *ForwardProxy) URL() *url.URL { return p.url }

// Func returns a proxy function as a client's configuration takes it.
func (p *ForwardProxy) Func() func(*http.Request) (*url.URL, error) { return http.ProxyURL(p.url) }

// Seen returns what the proxy was asked for: "CONNECT host:port", "POST http://...", "SOCKS host:port".
func (p *ForwardProxy) Seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

func (p *ForwardProxy) saw(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, what)
}

// NewHTTPProxy starts an HTTP proxy that asks for user and password unless user is empty.
func NewHTTPProxy(tb testing.TB, user, password string) *ForwardProxy {
	tb.Helper()
	p := &ForwardProxy{}
	var tunnels sync.WaitGroup
	transport := &http.Transport{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user != "" {
			auth := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
			if u, pw, ok := auth.BasicAuth(); !ok || u != user || pw != password {
				http.Error(w, "proxy authentication required", http.StatusProxyAuthRequired)
				return
			}
		}
		p.saw(r.Method + " " + r.RequestURI)
		if r.Method != http.MethodConnect {
			out := r.Clone(r.Context())
			out.RequestURI = ""
			out.Header.Del("Proxy-Authorization")
			resp, err := transport.RoundTrip(out)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			for k, v := range resp.Header {
				w.Header()[k] = v
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		tunnels.Add(1) // before the server forgets the connection: its Close must come first for Wait
		client, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			tunnels.Done()
			_ = up.Close()
			return
		}
		_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() {
			defer tunnels.Done()
			splice(client, up)
		}()
	}))
	tb.Cleanup(func() { srv.Close(); transport.CloseIdleConnections(); tunnels.Wait() })
	p.url, _ = url.Parse(srv.URL)
	if user != "" {
		p.url.User = url.UserPassword(user, password)
	}
	return p
}

// splice copies both ways until either side ends.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(a, b); _ = a.Close(); _ = b.Close() })
	_, _ = io.Copy(b, a)
	_ = a.Close()
	_ = b.Close()
	wg.Wait()
}

// NewSOCKSProxy starts a SOCKS 5 proxy that asks for user and password.
func NewSOCKSProxy(tb testing.TB, user, password string) *ForwardProxy {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &ForwardProxy{url: &url.URL{Scheme: "socks5", Host: ln.Addr().String(), User: url.UserPassword(user, password)}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				if up := p.socks(c, user, password); up != nil {
					splice(c, up)
				}
			})
		}
	})
	tb.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return p
}

// socks does the handshake (RFC 1928 and 1929) and returns the connection that was asked for, or nil.
func (p *ForwardProxy) socks(c net.Conn, user, password string) net.Conn {
	r := bufio.NewReader(c)
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil
		}
		return b
	}
	if h := read(2); h == nil || h[0] != 5 || read(int(h[1])) == nil {
		return nil
	}
	_, _ = c.Write([]byte{5, 2}) // user and password
	field := func() string {
		if n := read(1); n != nil {
			return string(read(int(n[0])))
		}
		return ""
	}
	if v := read(1); v == nil || v[0] != 1 {
		return nil
	}
	if u, pw := field(), field(); u != user || pw != password {
		_, _ = c.Write([]byte{1, 1})
		return nil
	}
	_, _ = c.Write([]byte{1, 0})
	h := read(4)
	if h == nil || h[1] != 1 {
		return nil
	}
	var host string
	switch h[3] {
	case 1:
		host = net.IP(read(4)).String()
	case 3:
		host = field()
	case 4:
		host = net.IP(read(16)).String()
	}
	port := read(2)
	if port == nil {
		return nil
	}
	addr := net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port))))
	p.saw("SOCKS " + addr)
	up, err := net.Dial("tcp", addr)
	if err != nil {
		_, _ = c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return nil
	}
	_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return up
}
