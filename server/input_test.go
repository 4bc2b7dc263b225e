package server_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/server"
)

// rawRequest sends bytes as they are and returns the status line's code and the Location header.
func rawRequest(t *testing.T, s *site, request string) (status int, location string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprint(conn, request); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, _ := conn.Read(buf)
	head := string(buf[:n])
	if _, err := fmt.Sscanf(head, "HTTP/1.1 %d", &status); err != nil {
		t.Fatalf("answer %q", head)
	}
	for line := range strings.Lines(head) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Location: "); ok {
			location = v
		}
	}
	return status, location
}

func TestPathsAreNeverRedirected(t *testing.T) {
	s := start(t, server.Config{})
	token := s.token()
	for path, want := range map[string]int{
		"/v1//scripts//" + token: 200, "//v1/scripts/" + token + "/": 200, "/v1//configcontent//configscripts?current=": 401,
		"/v1/../v1/scripts/" + token: 404, "/v1/./scripts/" + token: 404, "/v1/scripts/..%2f..%2fetc%2fpasswd": 404,
		"/..%2f..%2fetc/passwd": 404, "/%2e%2e/%2e%2e/etc/passwd": 404, "/static/../embed.go": 404, "/.git/config": 404,
		"/v1/hosts/%00": 404, "/index.html/..": 404, "//evil.example/": 404, "/v1": 401, "/v1/": 401,
	} {
		status, location := rawRequest(t, s, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if status != want || location != "" {
			t.Errorf("%s: %d, want %d; Location %q", path, status, want, location)
		}
	}
	if status, _ := rawRequest(t, s, "GET /v1 HTTP/1.1\r\nHost: a\"b\r\nConnection: close\r\n\r\n"); status != 400 {
		t.Errorf("a broken Host: %d", status)
	}
}

func TestSlashesAndCase(t *testing.T) {
	s := start(t, server.Config{})
	_, hostID := withHost(t, s)
	for _, path := range []string{"/v1/hosts/", "/v1//hosts//", "/V1/HOSTS/", "/v2-beta/host/", "/v2-beta/projects/1a1/Hosts/", "/v9/hosts/"} {
		if got := s.do("GET", path+hostID, s.key, nil); got.status != 200 || got.str("id") != hostID {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	got := s.must("GET", "/v2-beta/projects/1a1/hosts/"+hostID, s.key, nil)
	if self := got.body["links"].(map[string]any)["self"]; self != s.url+"/v2-beta/projects/1a1/hosts/"+hostID {
		t.Errorf("self link %v", self)
	}
	if got.header.Get("X-API-Schemas") != s.url+"/v2-beta/projects/1a1/schemas" {
		t.Errorf("X-API-Schemas %s", got.header.Get("X-API-Schemas"))
	}
	behind := s.must("GET", "/v1/hosts/"+hostID, s.key, nil, "X-Forwarded-Proto", "https", "Host", "drover.example:8443")
	if self := behind.body["links"].(map[string]any)["self"]; self != "https://drover.example:8443/v1/hosts/"+hostID {
		t.Errorf("behind a proxy: %v", self)
	}
	index := s.must("GET", "/v2-beta", s.key, nil)
	if links := index.body["links"].(map[string]any); links["hosts"] != s.url+"/v2-beta/hosts" || links["registrationTokens"] != s.url+"/v2-beta/registrationtokens" || index.str("type") != "apiVersion" {
		t.Errorf("index %s", index.text)
	}
}

func TestBadInput(t *testing.T) {
	s := start(t, server.Config{})
	agent, hostID := withHost(t, s)
	huge := `{"imageUuid":"` + strings.Repeat("a", 2<<20) + `"}`
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		field              string
	}{
		"HTML":                   {"POST", "/v2-beta/containers", "<html><body>502 Bad Gateway</body></html>", 400, ""},
		"no JSON":                {"POST", "/v2-beta/containers", "imageUuid=a", 400, ""},
		"list":                   {"POST", "/v2-beta/containers", "[]", 400, ""},
		"half":                   {"POST", "/v2-beta/containers", `{"imageUuid":`, 400, ""},
		"two objects":            {"POST", "/v2-beta/containers", `{}{}`, 400, ""},
		"zero bytes":             {"POST", "/v2-beta/containers", "\x00\x00", 400, ""},
		"huge":                   {"POST", "/v2-beta/containers", huge, 413, ""},
		"deep":                   {"POST", "/v2-beta/containers", `{"x":` + strings.Repeat("[", 100000), 400, ""},
		"nothing":                {"POST", "/v2-beta/containers", "", 422, "imageUuid"},
		"wrong type":             {"POST", "/v2-beta/containers", `{"imageUuid":5,"memory":"x"}`, 422, "memory"},
		"unknown host":           {"POST", "/v2-beta/containers", `{"imageUuid":"a","requestedHostId":"1h77"}`, 422, "requestedHostId"},
		"wrong id":               {"GET", "/v2-beta/containers/1i77", "", 404, ""},
		"id of another type":     {"GET", "/v2-beta/containers/" + hostID, "", 404, ""},
		"strange id":             {"GET", "/v2-beta/containers/*", "", 404, ""},
		"NATS wildcard":          {"GET", "/v2-beta/containers/>", "", 404, ""},
		"unknown link":           {"GET", "/v2-beta/hosts/" + hostID + "/nothing", "", 404, ""},
		"link of a link":         {"GET", "/v2-beta/hosts/" + hostID + "/instances/1i1", "", 404, ""},
		"unknown action":         {"POST", "/v2-beta/hosts/" + hostID + "?action=explode", "", 422, ""},
		"no action":              {"POST", "/v2-beta/hosts/" + hostID, "", 405, ""},
		"action of nothing":      {"POST", "/v2-beta/containers/1i77?action=start", "", 404, ""},
		"timeout":                {"POST", "/v2-beta/containers/1i77?action=stop", `{"timeout":-1}`, 422, "timeout"},
		"timeout of a day":       {"POST", "/v2-beta/containers/1i77?action=stop", `{"timeout":99999999}`, 422, "timeout"},
		"strange method":         {"PATCH", "/v2-beta/hosts/" + hostID, "", 405, ""},
		"event without a name":   {"POST", "/v2-beta/hosts/" + hostID + "?action=event", `{}`, 422, "name"},
		"event with a semicolon": {"POST", "/v2-beta/hosts/" + hostID + "?action=event", `{"name":"a;agent=1a2"}`, 422, ""},
		"event data":             {"POST", "/v2-beta/hosts/" + hostID + "?action=event", `{"name":"ping","data":[]}`, 422, "data"},
		"unknown event":          {"POST", "/v2-beta/hosts/" + hostID + "?action=event", `{"name":"brew.coffee"}`, 501, ""},
		"limit":                  {"GET", "/v2-beta/hosts?limit=all", "", 422, "limit"},
		"sort":                   {"GET", "/v2-beta/hosts?sort=beauty", "", 422, "sort"},
		"unknown setting":        {"PUT", "/v2-beta/settings/x.y", `{"value":"1"}`, 404, ""},
		"secret setting":         {"GET", "/v2-beta/settings/drover.bootstrapped", "", 404, ""},
		"bad api.host":           {"PUT", "/v2-beta/settings/api.host", `{"value":"javascript:alert(1)"}`, 422, "value"},
		"shell in the image":     {"PUT", "/v2-beta/settings/agent.image", `{"value":"a; reboot"}`, 422, "value"},
		"pull of nothing":        {"POST", "/v2-beta/pulltasks", `{"image":" "}`, 422, "image"},
		"event names":            {"GET", "/v2-beta/subscribe?eventNames=%0a", "", 404, ""},
	} {
		got := s.do(tc.method, tc.path, s.key, tc.body)
		if got.status != tc.status || got.str("fieldName") != tc.field || got.str("type") != "error" || got.str("message") == "" {
			t.Errorf("%s: %d %q, want %d %q: %.200s", name, got.status, got.str("fieldName"), tc.status, tc.field, got.text)
		}
	}
	for name, tc := range map[string]struct {
		body   string
		status int
	}{
		"HTML": {"<html>", 400}, "no name": {`{"previousIds":["x"]}`, 422}, "list": {"[]", 400}, "nothing": {"", 400},
		"wrong type": {`{"name":5}`, 422},
		"tolerated":  {`{"name":"reply.1","previousIds":"x","transitioningProgress":"7","unknown":{}}`, 201},
	} {
		got := s.do("POST", "/v2-beta/publish", agent.as, tc.body)
		if got.status/100 != tc.status/100 {
			t.Errorf("publish of %s: %d, want %d: %s", name, got.status, tc.status, got.text)
		}
	}
	if strings.Contains(s.log.String(), "panic") {
		t.Error("something panicked")
	}
}

func TestABodyThatDoesNotArrive(t *testing.T) {
	s := start(t, server.Config{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest("POST", s.url+"/v2-beta/containers", nil)
	user, secret, _ := strings.Cut(s.key, ":")
	r.SetBasicAuth(user, secret)
	fmt.Fprintf(conn, "POST /v2-beta/containers HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\nContent-Length: 100\r\n\r\n{", r.Header.Get("Authorization"))
	_ = conn.Close() // the client leaves in the middle
	if got := s.do("GET", "/healthz", "", nil); got.status != 200 {
		t.Errorf("healthz: %d", got.status)
	}
}
