package register

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// ProxyConfig names the proxies as the environment variables of the same names do. Each is a URL with the scheme http,
// https, socks5 or socks5h and perhaps a user and a password; without a scheme it is http. Requests to localhost and to
// loopback addresses never go through a proxy.
type ProxyConfig struct {
	URL   string // for every request that NoProxy does not exempt; beats the three below
	HTTP  string // for http and ws
	HTTPS string // for https and wss
	All   string // where HTTP or HTTPS is empty
	// NoProxy lists what is reached directly: host names with their subdomains, ".domain", addresses, CIDR ranges,
	// each perhaps with a port; "*" is everything.
	NoProxy string
}

// Func returns the function that chooses a proxy, for http.Transport.Proxy and websocket.Dialer.Proxy; it returns nil
// for a direct connection. The error of Func names the setting and never shows its value, which may hold a password.
func (c ProxyConfig) Func() (func(*http.Request) (*url.URL, error), error) {
	cfg := httpproxy.Config{HTTPProxy: c.HTTP, HTTPSProxy: c.HTTPS, NoProxy: c.NoProxy}
	if cfg.HTTPProxy == "" {
		cfg.HTTPProxy = c.All
	}
	if cfg.HTTPSProxy == "" {
		cfg.HTTPSProxy = c.All
	}
	if c.URL != "" {
		cfg.HTTPProxy, cfg.HTTPSProxy = c.URL, c.URL
	}
	for _, p := range []struct{ name, value string }{
		{"explicit proxy", c.URL}, {"HTTP_PROXY", c.HTTP}, {"HTTPS_PROXY", c.HTTPS}, {"ALL_PROXY", c.All},
	} {
		if err := checkProxy(p.value); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	choose := cfg.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) {
		// httpproxy knows http and https alone; a WebSocket takes the way of its HTTP request.
		u := *r.URL
		u.Scheme = httpScheme(u.Scheme)
		return choose(&u)
	}, nil
}

// Describe says which proxy a request to target takes, without credentials; "" is none.
func (c ProxyConfig) Describe(target *url.URL) string {
	choose, err := c.Func()
	if err != nil {
		return ""
	}
	p, err := choose(&http.Request{URL: target})
	if err != nil || p == nil {
		return ""
	}
	return maskUser(p)
}

// httpScheme returns the scheme of the HTTP request that opens a connection of the given scheme.
func httpScheme(scheme string) string {
	switch scheme {
	case "ws":
		return "http"
	case "wss":
		return "https"
	}
	return scheme
}

func checkProxy(text string) error {
	if text == "" {
		return nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("not a proxy URL: want [scheme://][user:password@]host[:port]")
	}
	if schemes := []string{"http", "https", "socks5", "socks5h"}; !slices.Contains(schemes, u.Scheme) {
		return fmt.Errorf("proxy scheme %q is not one of %s", u.Scheme, strings.Join(schemes, ", "))
	}
	return nil
}

// maskUser prints a URL with its user and password, if any, replaced.
func maskUser(u *url.URL) string {
	shown := *u
	if shown.User != nil {
		// url.URL would escape brackets in a user name, so the mark is put in by hand.
		shown.User = nil
		return strings.Replace(shown.String(), "://", "://[redacted]@", 1)
	}
	return shown.String()
}
