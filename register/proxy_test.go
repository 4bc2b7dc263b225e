package register

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/utils/secret"
)

// testProxy is an HTTP proxy (CONNECT and absolute URLs) that knows one name, drover.test, and sends all else away.
type testProxy struct {
	target string // host:port of the server behind it
	auth   string // "user:password", or "" for everyone

	mu   sync.Mutex
	seen []string // "METHOD host:port"
}

func (p *testProxy) used() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

func (p *testProxy) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, fmt.Sprintf(format, args...))
}

func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.auth)); p.auth != "" && r.Header.Get("Proxy-Authorization") != want {
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.note("%s %s", r.Method, r.Host)
	if host, _, _ := net.SplitHostPort(r.Host); host != "drover.test" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if r.Method != http.MethodConnect {
		req := r.Clone(r.Context())
		req.RequestURI, req.URL.Host = "", p.target
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		for k, v := range res.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	_, _ = rw.WriteString("HTTP/1.1 200 Connection established\r\n\r\n")
	_ = rw.Flush()
	relay(client, rw.Reader, server)
}

// relay copies both ways until both ends are done.
func relay(client net.Conn, from io.Reader, server net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, from)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	wg.Wait()
}

// serveSOCKS answers one SOCKS5 connection (RFC 1928, 1929) the way testProxy does.
func (p *testProxy) serveSOCKS(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(r, b)
		return b
	}
	methods := read(int(read(2)[1]))
	method := byte(0)
	if p.auth != "" {
		method = 2
	}
	if !slices.Contains(methods, method) {
		_, _ = c.Write([]byte{5, 0xff})
		return
	}
	_, _ = c.Write([]byte{5, method})
	if method == 2 {
		user := read(int(read(2)[1]))
		password := read(int(read(1)[0]))
		if string(user)+":"+string(password) != p.auth {
			_, _ = c.Write([]byte{1, 1})
			return
		}
		_, _ = c.Write([]byte{1, 0})
	}
	head := read(4)
	var host string
	switch head[3] {
	case 1:
		host = net.IP(read(4)).String()
	case 3:
		host = string(read(int(read(1)[0])))
	default:
		return
	}
	port := binary.BigEndian.Uint16(read(2))
	p.note("SOCKS %s:%d", host, port)
	server, err := net.Dial("tcp", p.target)
	if host != "drover.test" || err != nil {
		_, _ = c.Write([]byte{5, 2, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	defer server.Close()
	_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	relay(c, r, server)
}

// listenSOCKS serves until the test ends.
func (p *testProxy) listenSOCKS(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serveSOCKS(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func (p *testProxy) listenHTTP(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestJoinThroughProxies reaches a name that only the proxy knows.
func TestJoinThroughProxies(t *testing.T) {
	const auth = "proxy-user:p%40ss-word"
	plain := func(t *testing.T) *fakeServer { return newFakeServer(t) }
	secure := func(t *testing.T) *fakeServer { return newTLSServer(t) }
	for name, c := range map[string]struct {
		server func(*testing.T) *fakeServer
		auth   string
		socks  bool
		config func(addr string) ProxyConfig
		want   string // what the proxy sees first; "" is nothing
		failed string
		shown  string
	}{
		"https through CONNECT": {server: secure, config: func(a string) ProxyConfig { return ProxyConfig{HTTPS: "http://" + a} }, want: "CONNECT drover.test", shown: "http://ADDR"},
		"with password":         {server: secure, auth: auth, config: func(a string) ProxyConfig { return ProxyConfig{HTTPS: "http://" + auth + "@" + a} }, want: "CONNECT drover.test", shown: "http://[redacted]@ADDR"},
		"wrong password":        {server: secure, auth: auth, config: func(a string) ProxyConfig { return ProxyConfig{HTTPS: "http://proxy-user:wrong-word@" + a} }, failed: "does not connect to drover.test"},
		"no password":           {server: secure, auth: auth, config: func(a string) ProxyConfig { return ProxyConfig{HTTPS: a} }, failed: "give user and password in the proxy URL"},
		"without scheme":        {server: secure, config: func(a string) ProxyConfig { return ProxyConfig{HTTPS: a} }, want: "CONNECT drover.test", shown: "http://ADDR"},
		"ALL_PROXY":             {server: secure, config: func(a string) ProxyConfig { return ProxyConfig{All: a} }, want: "CONNECT drover.test", shown: "http://ADDR"},
		"http":                  {server: plain, config: func(a string) ProxyConfig { return ProxyConfig{HTTP: "http://" + a} }, want: "GET drover.test", shown: "http://ADDR"},
		"http with password":    {server: plain, auth: auth, config: func(a string) ProxyConfig { return ProxyConfig{HTTP: "http://" + auth + "@" + a} }, want: "GET drover.test", shown: "http://[redacted]@ADDR"},
		"http without password": {server: plain, auth: auth, config: func(a string) ProxyConfig { return ProxyConfig{HTTP: a} }, failed: "HTTP 407"},
		"socks5":                {server: secure, socks: true, config: func(a string) ProxyConfig { return ProxyConfig{All: "socks5://" + a} }, want: "SOCKS drover.test", shown: "socks5://ADDR"},
		"socks5h with password": {server: plain, socks: true, auth: "proxy-user:word", config: func(a string) ProxyConfig { return ProxyConfig{HTTP: "socks5h://proxy-user:word@" + a} }, want: "SOCKS drover.test", shown: "socks5h://[redacted]@ADDR"},
		"socks5 wrong password": {server: plain, socks: true, auth: "proxy-user:word", config: func(a string) ProxyConfig { return ProxyConfig{HTTP: "socks5://proxy-user:x@" + a} }, failed: "username/password"},
		"explicit beats the others": {server: secure, config: func(a string) ProxyConfig {
			return ProxyConfig{URL: a, HTTP: "127.0.0.1:1", HTTPS: "127.0.0.1:1", All: "127.0.0.1:1"}
		}, want: "CONNECT drover.test", shown: "http://ADDR"},
		"HTTPS beats ALL": {server: secure, config: func(a string) ProxyConfig { return ProxyConfig{HTTPS: a, All: "127.0.0.1:1"} }, want: "CONNECT drover.test", shown: "http://ADDR"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.server(t)
			p := &testProxy{target: s.Listener.Addr().String(), auth: strings.ReplaceAll(c.auth, "%40", "@")}
			addr := ""
			if c.socks {
				addr = p.listenSOCKS(t)
			} else {
				addr = p.listenHTTP(t)
			}
			cfg := testConfig(t, nil)
			_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
			cfg.URL = secret.New(strings.Replace(s.registrationURL(), "127.0.0.1", "drover.test", 1))
			if s.ca != nil {
				cfg.TLS.CAChecksum = s.ca.checksum()
			}
			cfg.Proxy = c.config(addr)
			cfg.RequestTimeout = 20 * time.Second
			r, err := Join(t.Context(), cfg)
			if c.failed != "" {
				if err == nil || !strings.Contains(err.Error(), c.failed) || strings.Contains(err.Error(), "-word") || strings.Contains(err.Error(), "proxy-user") {
					t.Errorf("got %v, want %q", err, c.failed)
				}
				if used := p.used(); len(used) != 0 || len(s.seen()) != 0 {
					t.Errorf("the proxy saw %v, the server %v", used, s.seen())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			used := p.used()
			if len(used) == 0 {
				t.Fatal("the proxy was not used")
			}
			for _, u := range used {
				if !strings.HasPrefix(u, strings.Fields(c.want)[0]+" ") && !strings.HasPrefix(u, "POST ") || !strings.HasSuffix(u, " drover.test:"+port) {
					t.Errorf("the proxy saw %s, want %s:%s", u, c.want, port)
				}
			}
			if want := strings.Replace(c.shown, "ADDR", addr, 1); r.ProxyUsed != want {
				t.Errorf("described as %q, want %q", r.ProxyUsed, want)
			}
			http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		})
	}
}

func TestProxyChoice(t *testing.T) {
	cfg := ProxyConfig{HTTP: "plain:1", HTTPS: "secure:2", NoProxy: "direct.test, 10.0.0.0/8, .sub.test, other.test:8443"}
	choose, err := cfg.Func()
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"http://a.test/": "plain:1", "ws://a.test/v1/subscribe": "plain:1", "https://a.test/": "secure:2", "wss://a.test/": "secure:2",
		"https://direct.test/": "", "wss://x.direct.test/": "", "http://10.1.2.3/": "", "https://b.sub.test": "", "https://sub.test": "secure:2",
		"https://other.test:8443": "", "https://other.test": "secure:2", "http://127.0.0.1:8080/": "", "ws://localhost/": "", "https://[::1]/": "",
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		got, err := choose(&http.Request{URL: u})
		host := ""
		if got != nil {
			host = got.Host
		}
		if err != nil || host != want {
			t.Errorf("%s: got %q, %v, want %q", target, host, err, want)
		}
		if u.String() != target {
			t.Errorf("%s was changed to %s", target, u)
		}
	}
	if got := (ProxyConfig{}).Describe(&url.URL{Scheme: "https", Host: "a.test"}); got != "" {
		t.Errorf("no proxy is described as %q", got)
	}
}

func TestBadProxies(t *testing.T) {
	for _, text := range []string{"ftp://u:hunter2@p", "http://", "http://:3128", "http://u:hunter2@", "http://u:hunter2@p:port", "://hunter2", "a b:hunter2", "http://p/%zz-hunter2", "quic://p"} {
		for name, cfg := range map[string]ProxyConfig{
			"HTTP_PROXY": {HTTP: text}, "HTTPS_PROXY": {HTTPS: text}, "ALL_PROXY": {All: text}, "explicit proxy": {URL: text},
		} {
			if _, err := cfg.Func(); err == nil || !strings.HasPrefix(err.Error(), name+": ") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: got %v", text, err)
			}
		}
	}
}

// A proxy that fails for a while is waited for; one that refuses is not.
func TestProxyThatIsDown(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, nil)
	cfg.URL = secret.New("https://drover.test/v1/scripts/token-part")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Proxy.URL = "http://proxy-user:hunter2@" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.RetryFor = 700 * time.Millisecond
	_, err = Join(t.Context(), cfg)
	var se *ScriptError
	if err == nil || errors.As(err, &se) || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(cfg.StateDir); err != nil {
		t.Error(err)
	}
}
