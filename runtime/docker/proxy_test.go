package docker_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/versions"
)

const realSocket = "/var/run/docker.sock"

// A proxy is a socket before the daemon that can be stopped, started and made to hang: a restart of the daemon without
// restarting it for everybody.
type proxy struct {
	t    *testing.T
	path string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	hung     bool
	dials    int
	wait     sync.WaitGroup
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	p := &proxy{t: t, path: filepath.Join(t.TempDir(), "d.sock"), conns: map[net.Conn]bool{}}
	t.Cleanup(p.stop)
	return p
}

func (p *proxy) host() string { return "unix://" + p.path }

func (p *proxy) start() {
	p.t.Helper()
	listener, err := net.Listen("unix", p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener = listener
	p.mu.Unlock()
	p.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.wait.Go(func() { p.serve(conn) })
		}
	})
}

// stop closes the socket and all connections, and waits for them.
func (p *proxy) stop() {
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wait.Wait()
}

// hang makes connections silent: those that are there and those to come.
func (p *proxy) hang(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung = on
}

func (p *proxy) isHung() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hung
}

func (p *proxy) accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.add(client) {
		return
	}
	p.mu.Lock()
	p.dials++
	p.mu.Unlock()
	server, err := net.Dial("unix", realSocket)
	if err != nil {
		p.t.Errorf("these tests need a dockerd: %v", err)
		return
	}
	defer server.Close()
	if !p.add(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client) })
	both.Go(func() { p.pump(client, server) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// pump copies one direction; what comes while the proxy hangs is lost.
func (p *proxy) pump(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.isHung() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			return
		}
	}
}

// A versionProxy is a daemon that speaks another API version than the real one, as an upgrade or downgrade makes it.
type versionProxy struct {
	mu       sync.Mutex
	min, max string
	paths    []string
}

var versioned = regexp.MustCompile(`^/v(\d+\.\d+)(/.*)$`)

// startVersionProxy serves on a socket that it returns, until the test ends.
func startVersionProxy(t *testing.T, min, max string) (*versionProxy, string) {
	t.Helper()
	v := &versionProxy{min: min, max: max}
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "v.sock"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", realSocket)
	}}
	reverse := &httputil.ReverseProxy{
		Transport:    transport,
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "d"}) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ModifyResponse: func(resp *http.Response) error {
			_, max := v.limits()
			resp.Header.Set("Api-Version", max)
			return nil
		},
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		min, max := v.limits()
		if m := versioned.FindStringSubmatch(r.URL.Path); m != nil {
			v.saw(r.URL.Path)
			if versions.LessThan(m[1], min) || versions.GreaterThan(m[1], max) {
				w.Header().Set("Api-Version", max)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"message":"client version `+m[1]+` is too new or too old"}`)
				return
			}
			r.URL.Path = "/v1.41" + m[2]
		}
		reverse.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
		transport.CloseIdleConnections()
	})
	return v, "unix://" + listener.Addr().String()
}

func (v *versionProxy) limits() (string, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.min, v.max
}

func (v *versionProxy) set(min, max string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.min, v.max = min, max
}

func (v *versionProxy) saw(path string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.paths = append(v.paths, path)
}

func (v *versionProxy) taken() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	paths := slices.Clone(v.paths)
	v.paths = nil
	return paths
}
