package server

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// publicURL returns the address that agents are told for a server that listens on addr.
func publicURL(cfg *Config, addr net.Addr) string {
	if cfg.URL != "" {
		return cfg.URL
	}
	scheme := "https"
	if cfg.TLS.Mode == TLSOff {
		scheme = "http"
	}
	host, port, _ := net.SplitHostPort(addr.String())
	if named, _, _ := net.SplitHostPort(cfg.Listen); !unspecified(named) {
		host = named // as the operator wrote it
	}
	if len(cfg.Hosts) > 0 || unspecified(host) {
		host = reachableHost(cfg.Hosts)
	}
	return address(scheme, host, port)
}

// replicaURL returns the address at which other replicas reach a server that listens on addr: this machine's own, since
// the public one may lead to any of them.
func replicaURL(cfg *Config, addr net.Addr) string {
	if cfg.ReplicaURL != "" {
		return cfg.ReplicaURL
	}
	alone := Config{Listen: cfg.Listen, TLS: cfg.TLS}
	return publicURL(&alone, addr)
}

func address(scheme, host, port string) string {
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

func unspecified(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

// reachableHost picks what others most likely reach this machine by: the first name given, or else an address of a
// network card, or else loopback.
func reachableHost(hosts []string) string {
	if len(hosts) > 0 {
		return hosts[0]
	}
	for _, a := range localAddrs() {
		if a.Is4() && a.IsGlobalUnicast() {
			return a.String()
		}
	}
	return "127.0.0.1"
}

// localAddrs returns the addresses of the interfaces that are up, those of bridges that container engines make left
// out: no other machine reaches them.
func localAddrs() []netip.Addr {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, i := range ifaces {
		virtual := slices.ContainsFunc([]string{"docker", "br-", "veth", "cni", "flannel", "virbr"}, func(p string) bool {
			return strings.HasPrefix(i.Name, p)
		})
		if i.Flags&net.FlagUp == 0 || virtual {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				out = append(out, p.Addr().Unmap())
			}
		}
	}
	return out
}

// certificateNames are the names of the server's certificate: those given, those of the machine, and every address at
// which it listens.
func certificateNames(cfg *Config, publicHost string) []string {
	names := append(slices.Clone(cfg.Hosts), publicHost, "localhost", "127.0.0.1", "::1")
	if h, err := os.Hostname(); err == nil && !strings.ContainsAny(h, " /") {
		names = append(names, h)
	}
	host, _, _ := net.SplitHostPort(cfg.Listen)
	if !unspecified(host) {
		return append(names, host)
	}
	for _, a := range localAddrs() {
		names = append(names, a.String())
	}
	const most = 90 // a machine with more addresses gets the rest when a client uses them
	return names[:min(len(names), most)]
}
