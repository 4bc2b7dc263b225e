package tunnel

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
)

// BenchmarkBulk compares a download through the tunnel with the same download over plain TCP, in one run.
func BenchmarkBulk(b *testing.B) {
	const size = 64 << 20
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		buf := make([]byte, 64<<10)
		for range size / len(buf) {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
	})
	r := newRig(b, Options{})
	agent(b, Config{URL: r.http.URL, Handler: h})
	through := client(b, r.session(b))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	tr := &http.Transport{ReadBufferSize: chunk}
	defer tr.CloseIdleConnections()
	plain := &http.Client{Transport: tr}
	buf := make([]byte, 64<<10)
	for _, c := range []struct {
		name string
		hc   *http.Client
		url  string
	}{{"tcp", plain, "http://" + ln.Addr().String()}, {"tunnel", through, "http://agent/"}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				resp, err := c.hc.Get(c.url)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf); n != size || err != nil {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}

// BenchmarkEcho is one byte there and back on an open connection.
func BenchmarkEcho(b *testing.B) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, rw)
	})
	r := newRig(b, Options{})
	agent(b, Config{URL: r.http.URL, Handler: h})
	s := r.session(b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	for _, c := range []struct {
		name string
		dial func(context.Context) (net.Conn, error)
	}{
		{"tcp", func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		}},
		{"tunnel", func(ctx context.Context) (net.Conn, error) { return s.DialContext(ctx, "", "") }},
	} {
		b.Run(c.name, func(b *testing.B) {
			conn, err := c.dial(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				b.Fatal(err)
			}
			one := []byte{'x'}
			for b.Loop() {
				if _, err := conn.Write(one); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen is a new stream, a request on it, and its end.
func BenchmarkOpen(b *testing.B) {
	r := newRig(b, Options{})
	agent(b, Config{URL: r.http.URL, Handler: http.NotFoundHandler()})
	tr := r.session(b).Transport()
	tr.DisableKeepAlives = true
	hc := &http.Client{Transport: tr}
	for b.Loop() {
		resp, err := hc.Get("http://agent/")
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
