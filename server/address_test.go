package server

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestPublicURL(t *testing.T) {
	addr := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	own := "127.0.0.1"
	for _, a := range localAddrs() {
		if a.Is4() && a.IsGlobalUnicast() {
			own = a.String()
			break
		}
	}
	for _, tc := range []struct {
		cfg  Config
		addr string
		want string
	}{
		{Config{Listen: "127.0.0.1:0"}, "127.0.0.1:4711", "https://127.0.0.1:4711"},
		{Config{Listen: "localhost:8443"}, "127.0.0.1:8443", "https://localhost:8443"},
		{Config{Listen: "[::1]:8443"}, "[::1]:8443", "https://[::1]:8443"},
		{Config{Listen: "10.0.0.1:443"}, "10.0.0.1:443", "https://10.0.0.1"},
		{Config{Listen: "[::1]:443"}, "[::1]:443", "https://[::1]"},
		{Config{Listen: "10.0.0.1:80", TLS: TLS{Mode: TLSOff}}, "10.0.0.1:80", "http://10.0.0.1"},
		{Config{Listen: ":8443", Hosts: []string{"drover.example", "x"}}, "[::]:8443", "https://drover.example:8443"},
		{Config{Listen: "127.0.0.1:8443", Hosts: []string{"drover.example"}}, "127.0.0.1:8443", "https://drover.example:8443"},
		{Config{Listen: ":8443"}, "[::]:8443", "https://" + own + ":8443"},
		{Config{Listen: "0.0.0.0:8443"}, "0.0.0.0:8443", "https://" + own + ":8443"},
		{Config{Listen: ":8443", URL: "https://public.example"}, "[::]:8443", "https://public.example"},
	} {
		if got := publicURL(&tc.cfg, addr(tc.addr)); got != tc.want {
			t.Errorf("%q on %s: %s, want %s", tc.cfg.Listen, tc.addr, got, tc.want)
		}
	}
}

func TestCertificateNames(t *testing.T) {
	cfg := &Config{Listen: "10.1.2.3:8443", Hosts: []string{"drover.example"}}
	names := certificateNames(cfg, "drover.example")
	for _, want := range []string{"drover.example", "localhost", "127.0.0.1", "::1", "10.1.2.3"} {
		if !slices.Contains(names, want) {
			t.Errorf("%v lacks %s", names, want)
		}
	}
	if all := certificateNames(&Config{Listen: ":8443"}, "h"); len(all) < 4 || len(all) > 90 {
		t.Errorf("a server that listens everywhere is named %v", all)
	}
}
