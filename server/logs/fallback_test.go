package logs

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/droverhq/drover/server/store"
)

// TestThePortServesWhereTheTunnelDoesNot asks for the logs of hosts with a tunnel, a port, or both.
func TestThePortServesWhereTheTunnelDoesNot(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "port "+r.URL.Path)
	}))
	defer node.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(node.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		port     string
		announce bool // a tunnel
		broken   bool // the tunnel
		status   int
		body     string
	}{
		"both":                           {port, true, false, http.StatusOK, "tunnel " + TunnelPath + "/below"},
		"both, the tunnel is broken":     {port, true, true, http.StatusOK, "port /below"},
		"a tunnel alone":                 {"", true, false, http.StatusOK, "tunnel " + TunnelPath + "/below"},
		"a tunnel alone, that is broken": {"", true, true, http.StatusServiceUnavailable, "no tunnel now"},
		"a port alone":                   {port, false, false, http.StatusOK, "port /below"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host("1h1", "a", "127.0.0.1", c.port)
			if c.announce {
				h.Labels[LabelTunnel] = "true"
			}
			p := proxy(t, someHosts{hosts: []*store.Host{h}, agent: store.Agent{RemoteAddr: "127.0.0.1:999"}}, func(cfg *Config) {
				cfg.Tunnel = func(w http.ResponseWriter, _ *http.Request, _ *store.Host, user string, client netip.Addr, path string) error {
					if c.broken {
						return problem(http.StatusServiceUnavailable, "no tunnel now")
					}
					if user != "ada" || client.String() != "192.0.2.7" {
						t.Errorf("the tunnel hears of %q at %s", user, client)
					}
					_, err := io.WriteString(w, "tunnel "+path)
					return err
				}
			})
			srv := front(t, p, h)
			resp, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.status || !strings.Contains(string(body), c.body) {
				t.Errorf("%d %q %v, want %d %q", resp.StatusCode, body, err, c.status, c.body)
			}
		})
	}
}
