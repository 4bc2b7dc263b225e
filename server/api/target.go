package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// The versions of the API. An unknown version counts as the latest one, as with Rancher.
const (
	v1     = "v1"
	v2     = "v2-beta"
	latest = v2
)

// A target is what a request's path names: /version[/projects/project]/segment...
type target struct {
	base     string   // scheme://host, as the client reached the server
	version  string   // v1 or v2-beta
	project  string   // project id in the path, or ""
	segments []string // unescaped, none empty
}

// prefix is what every link of an answer begins with.
func (t *target) prefix() string {
	p := t.base + "/" + t.version
	if t.project != "" {
		p += "/projects/" + t.project
	}
	return p
}

// splitPath returns the unescaped segments of a path; repeated slashes count as one. It refuses what tries to leave
// the tree, so that no segment is ".", ".." or holds a slash or a control character.
func splitPath(u *url.URL) ([]string, bool) {
	var segs []string
	for s := range strings.SplitSeq(u.EscapedPath(), "/") {
		if s == "" {
			continue
		}
		seg, err := url.PathUnescape(s)
		if err != nil || seg == "." || seg == ".." || strings.ContainsAny(seg, "/\\") ||
			strings.ContainsFunc(seg, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, false
		}
		segs = append(segs, seg)
	}
	return segs, true
}

// parseTarget finds version and project in the segments of a path. ok is false where the path is not under a version.
func parseTarget(base string, segs []string) (t target, ok bool) {
	if len(segs) == 0 || !isVersion(segs[0]) {
		return target{}, false
	}
	t = target{base: base, version: latest}
	if strings.EqualFold(segs[0], v1) {
		t.version = v1
	}
	t.segments = segs[1:]
	if len(t.segments) > 2 && strings.EqualFold(t.segments[0], "projects") && !isProjectLink(t.segments[2:]) {
		t.project, t.segments = t.segments[1], t.segments[2:]
	}
	return t, true
}

// isProjectLink reports whether what follows /projects/{id} is a link of the project itself, and not, as in
// /projects/1a5/hosts, what belongs to it.
func isProjectLink(segs []string) bool {
	return len(segs) == 1 && strings.EqualFold(segs[0], "hostStats")
}

// proxies are the peers whose X-Forwarded headers count. Loopback always does.
type proxies []netip.Prefix

func (p proxies) trusts(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsLoopback() || slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// peer returns the address of the other end of the connection.
func peer(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap().WithZone("")
}

// client returns the address a request came from: the peer, or, behind proxies that are trusted, the last address
// that is not one of them.
func (p proxies) client(r *http.Request) netip.Addr {
	addr := peer(r)
	if !p.trusts(addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, ok := parseHop(hop)
		if !ok {
			return addr
		}
		if addr = next; !p.trusts(addr) {
			return addr
		}
	}
	return addr
}

// parseHop reads one element of X-Forwarded-For: an address, perhaps with a port.
func parseHop(hop string) (netip.Addr, bool) {
	hop = strings.TrimSpace(hop)
	if ap, err := netip.ParseAddrPort(hop); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.Trim(hop, "[]"))
	return addr.Unmap().WithZone(""), err == nil
}

// base returns scheme://host as the client used it. It is false where the host is not one.
func (p proxies) base(r *http.Request) (string, bool) {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if p.trusts(peer(r)) {
		switch first(r.Header.Get("X-Forwarded-Proto")) {
		case "http", "ws":
			scheme = "http"
		case "https", "wss":
			scheme = "https"
		}
		if h := first(r.Header.Get("X-Forwarded-Host")); h != "" {
			host = h
		}
		port := first(r.Header.Get("X-Forwarded-Port"))
		standard := port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443"
		if _, _, err := net.SplitHostPort(host); err != nil && !standard {
			host += ":" + port
		}
	}
	if len(host) > 255 || !isHost(host) {
		return "", false
	}
	return scheme + "://" + host, true
}

func first(list string) string {
	head, _, _ := strings.Cut(list, ",")
	return strings.ToLower(strings.TrimSpace(head))
}
