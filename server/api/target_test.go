package api

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestSplitPath(t *testing.T) {
	for path, want := range map[string][]string{
		"/":                         nil,
		"//":                        nil,
		"/v1//configcontent//item":  {"v1", "configcontent", "item"},
		"/v2-beta/hosts/1h1/":       {"v2-beta", "hosts", "1h1"},
		"/v1/settings/api%2Ehost":   {"v1", "settings", "api.host"},
		"/v1/scripts/a:1:b%20c":     {"v1", "scripts", "a:1:b c"},
		"/v1/hosts/%C3%A4":          {"v1", "hosts", "ä"},
		"/v1/../v2-beta":            {"refused"},
		"/v1/./hosts":               {"refused"},
		"/v1/%2e%2e/etc":            {"refused"},
		"/v1/hosts/1h1%2f..%2f1h2":  {"refused"},
		"/v1/hosts/..%5cwindows":    {"refused"},
		"/v1/hosts/1h1%00":          {"refused"},
		"/v1/hosts/1h1%0d%0aX: y":   {"refused"},
		"/static/..%252f/etc/passw": {"static", "..%2f", "etc", "passw"},
	} {
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := splitPath(u)
		if !ok {
			got = []string{"refused"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for path, want := range map[string]string{
		"v1":                              "http://h/v1 []",
		"V1/hosts":                        "http://h/v1 [hosts]",
		"v2-beta":                         "http://h/v2-beta []",
		"v3/hosts":                        "http://h/v2-beta [hosts]", // unknown: the latest
		"v1/projects":                     "http://h/v1 [projects]",
		"v1/projects/1a1":                 "http://h/v1 [projects 1a1]",
		"v1/projects/1a1/hosts":           "http://h/v1/projects/1a1 [hosts]",
		"v2-beta/Projects/1a5/schemas":    "http://h/v2-beta/projects/1a5 [schemas]",
		"v2-beta/projects/1a1/hosts/1h1/": "http://h/v2-beta/projects/1a1 [hosts 1h1]",
		"console":                         "none",
		"":                                "none",
	} {
		u, _ := url.Parse("/" + path)
		segs, _ := splitPath(u)
		got := "none"
		if tg, ok := parseTarget("http://h", segs); ok {
			got = tg.prefix() + " [" + strings.Join(tg.segments, " ") + "]"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func aRequest(t *testing.T, remote, host string, headers ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://"+"x"+"/", nil)
	r.RemoteAddr, r.Host = remote, host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestBase(t *testing.T) {
	p := proxies{netip.MustParsePrefix("10.0.0.0/8")}
	for name, tc := range map[string]struct {
		r    *http.Request
		want string
	}{
		"plain":                    {aRequest(t, "192.0.2.1:5", "drover.example:8080"), "http://drover.example:8080"},
		"IPv6":                     {aRequest(t, "192.0.2.1:5", "[2001:db8::1]:8080"), "http://[2001:db8::1]:8080"},
		"headers of a stranger":    {aRequest(t, "192.0.2.1:5", "a", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil"), "http://a"},
		"headers of loopback":      {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "drover.example"), "https://drover.example"},
		"headers of a proxy":       {aRequest(t, "10.9.9.9:5", "a", "X-Forwarded-Proto", "https,http", "X-Forwarded-Host", "b, c"), "https://b"},
		"a proxy's port":           {aRequest(t, "[::1]:5", "a", "X-Forwarded-Proto", "https", "X-Forwarded-Port", "8443"), "https://a:8443"},
		"a proxy's standard port":  {aRequest(t, "[::1]:5", "a", "X-Forwarded-Proto", "https", "X-Forwarded-Port", "443"), "https://a"},
		"websocket":                {aRequest(t, "[::ffff:127.0.0.1]:5", "a", "X-Forwarded-Proto", "wss"), "https://a"},
		"nonsense proto":           {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-Proto", "javascript"), "http://a"},
		"shell in the host":        {aRequest(t, "127.0.0.1:5", `a";reboot;"`), ""},
		"shell in the header":      {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-Host", "$(reboot)"), ""},
		"no host":                  {aRequest(t, "127.0.0.1:5", ""), ""},
		"user in the host":         {aRequest(t, "127.0.0.1:5", "a@b"), ""},
		"path in the host":         {aRequest(t, "127.0.0.1:5", "a/b"), ""},
		"endless host":             {aRequest(t, "127.0.0.1:5", strings.Repeat("a.", 200)), ""},
		"evil port from the proxy": {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-Port", "80;reboot"), ""},
	} {
		if got, ok := p.base(tc.r); got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s: %q %v, want %q", name, got, ok, tc.want)
		}
	}
	r := aRequest(t, "192.0.2.1:5", "a")
	r.TLS = &tls.ConnectionState{}
	if got, _ := p.base(r); got != "https://a" {
		t.Errorf("over TLS: %s", got)
	}
}

func TestClient(t *testing.T) {
	p := proxies{netip.MustParsePrefix("10.0.0.0/8")}
	for name, tc := range map[string]struct {
		r    *http.Request
		want string
	}{
		"direct":               {aRequest(t, "192.0.2.1:5", "a"), "192.0.2.1"},
		"a stranger's header":  {aRequest(t, "192.0.2.1:5", "a", "X-Forwarded-For", "198.51.100.7"), "192.0.2.1"},
		"behind loopback":      {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", "198.51.100.7"), "198.51.100.7"},
		"behind two proxies":   {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", "198.51.100.7, 10.1.1.1"), "198.51.100.7"},
		"forged first element": {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", "1.2.3.4, 198.51.100.7"), "198.51.100.7"},
		"two headers":          {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", "1.2.3.4", "X-Forwarded-For", "198.51.100.7"), "198.51.100.7"},
		"with a port":          {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", "198.51.100.7:80"), "198.51.100.7"},
		"IPv6":                 {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", "[2001:db8::1]"), "2001:db8::1"},
		"rubbish":              {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", `";reboot`), "127.0.0.1"},
		"all trusted":          {aRequest(t, "127.0.0.1:5", "a", "X-Forwarded-For", "10.0.0.1"), "10.0.0.1"},
	} {
		if got := p.client(tc.r).String(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestMaskPath(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/hosts": "/v1/hosts", "/v1/scripts/abc:1:def": "/v1/scripts/***", "/v1/Scripts//abc:1:def": "/v1/Scripts/***",
		"/v1/scripts/api.crt": "/v1/scripts/api.crt", "/v2-beta/projects/1a1/scripts/x:1:y": "/v2-beta/projects/1a1/scripts/***",
	} {
		if got := maskPath(path); got != want {
			t.Errorf("%s is logged as %s, want %s", path, got, want)
		}
	}
}

func FuzzSplitPath(f *testing.F) {
	f.Add("/v1//a/%2e%2e/b")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		segs, ok := splitPath(u)
		if !ok {
			return
		}
		for _, s := range segs {
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\\x00\r\n") {
				t.Fatalf("%q has segment %q", raw, s)
			}
		}
		parseTarget("http://h", segs)
		maskPath(u.Path)
	})
}
