package server_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/droverhq/drover/server"
)

// Every route for every kind of caller. The columns are: nobody, a wrong secret, an admin, a user, an agent, a
// registration token, a revoked token, an expired token.
func TestAuthMatrix(t *testing.T) {
	s := start(t, server.Config{})
	_, hostID := withHost(t, s)
	c := s.must("POST", "/v2-beta/containers", s.key, map[string]any{"imageUuid": "docker:nginx"})
	eventually(t, "the container runs", func() bool {
		return s.must("GET", "/v2-beta/containers/"+c.str("id"), s.key, nil).str("state") == "running"
	})
	userKey := s.must("POST", "/v2-beta/apikeys", s.key, map[string]any{"name": "u"})
	if userKey.str("accountKind") != "user" || !strings.HasPrefix(userKey.str("publicValue"), "ak_") || len(userKey.str("secretValue")) != 40 {
		t.Fatalf("user key: %s", userKey.text)
	}
	token := s.token()
	revoked := s.must("POST", "/v2-beta/registrationtokens", s.key, nil)
	s.must("DELETE", "/v2-beta/registrationtokens/"+revoked.str("id"), s.key, nil)
	expired := s.must("POST", "/v2-beta/registrationtokens", s.key, map[string]any{"expiresIn": 1})
	agentKey := s.join(token, strings.Repeat("77", 64))
	eventually(t, "the short token expires", func() bool {
		return s.do("GET", "/v1/scripts/"+expired.str("token"), "", nil).status == 410
	})
	callers := []struct{ name, as string }{
		{"nobody", ""},
		{"wrong", s.key + "x"},
		{"admin", s.key},
		{"user", userKey.str("publicValue") + ":" + userKey.str("secretValue")},
		{"agent", agentKey},
		{"registration", "registrationToken:" + token},
		{"revoked", "registrationToken:" + revoked.str("token")},
		{"expired", "registrationToken:" + expired.str("token")},
	}
	host, container := "/v2-beta/hosts/"+hostID, "/v2-beta/containers/"+c.str("id")
	for _, row := range []struct {
		request string
		body    string
		want    string // admin user agent registration; nobody, wrong, revoked and expired get 401 everywhere
	}{
		{"GET /v1", "", "200 200 200 200"},
		{"GET /v2-beta", "", "200 200 200 200"},
		{"GET /v2-beta/schemas", "", "200 200 200 200"},
		{"GET /v1/schemas/account", "", "200 200 404 404"},
		{"GET /v1/schemas/publish", "", "404 404 200 404"},
		{"GET /v1/schemas/register", "", "404 404 404 200"},
		{"GET /v1/schemas/host", "", "200 200 404 404"},
		{"GET /v2-beta/hosts", "", "200 200 404 404"},
		{"GET " + host, "", "200 200 404 404"},
		{"PUT " + host, `{"description":"d"}`, "200 405 404 404"},
		{"GET " + host + "/instances", "", "200 200 404 404"},
		{"POST " + host + "?action=event", `{"name":"compute.instance.inspect","data":{"instanceInspect":{"id":"x"}}}`, "200 200 404 404"},
		{"GET /v2-beta/containers", "", "200 200 404 404"},
		{"POST /v2-beta/containers", `{"imageUuid":""}`, "422 422 404 404"},
		{"GET " + container, "", "200 200 404 404"},
		{"GET " + container + "/inspect", "", "200 200 404 404"},
		{"PUT " + container, `{"description":"d"}`, "200 200 404 404"},
		{"POST " + container + "?action=start", "", "202 202 404 404"},
		{"GET /v2-beta/instances", "", "200 200 404 404"},
		{"GET /v2-beta/pulltasks", "", "200 200 404 404"},
		{"POST /v2-beta/pulltasks", `{}`, "422 422 404 404"},
		{"GET /v2-beta/agents", "", "200 404 200 404"},
		{"GET /v2-beta/registrationtokens", "", "200 404 404 404"},
		{"POST /v2-beta/registrationtokens", "", "201 404 404 404"},
		{"GET /v2-beta/apikeys", "", "200 404 404 404"},
		{"POST /v2-beta/apikeys", "", "201 404 404 404"},
		{"GET /v2-beta/accounts", "", "200 200 404 404"},
		{"GET /v2-beta/projects", "", "200 200 404 404"},
		{"GET /v2-beta/settings", "", "200 200 404 404"},
		{"PUT /v2-beta/settings/agent.image", `{"value":"a/b:c"}`, "200 405 404 404"},
		{"DELETE /v2-beta/settings/agent.image", "", "200 405 404 404"},
		{"GET /v1/register", "", "404 404 404 200"},
		{"POST /v1/register", `{}`, "404 404 404 422"},
		{"POST /v2-beta/publish", `{"name":"reply.1","previousIds":["x"]}`, "404 404 201 404"},
		{"POST /v2-beta/publish", `{"name":"host.delete","previousIds":["x"]}`, "404 404 403 404"},
		{"GET /v2-beta/publish", "", "404 404 405 404"},
		{"POST /v1/containerevents", `{"externalId":"x","reportedHostUuid":"y"}`, "404 404 422 404"},
		{"GET /v1/containerevents", "", "404 404 405 404"},
		{"POST /v1/hostapiproxytokens", `{"reportedUuid":"x"}`, "404 404 422 404"},
		{"GET /v1/subscribe?eventNames=ping", "", "404 404 404 404"}, // no upgrade
		{"GET /v2-beta/nothing", "", "404 404 404 404"},
		{"GET /v2-beta/projects/1a1/hosts", "", "200 200 404 404"},
		{"GET /v2-beta/projects/1a77/hosts", "", "404 404 404 404"},
	} {
		method, path, _ := strings.Cut(row.request, " ")
		want := strings.Fields(row.want)
		for i, caller := range callers {
			expected := 401
			if i >= 2 && i <= 5 {
				expected, _ = strconv.Atoi(want[i-2])
			}
			got := s.do(method, path, caller.as, row.body)
			// Wrong credentials are limited after a while: that, too, is a refusal.
			if got.status != expected && !(expected == 401 && got.status == 429 && caller.as != "") {
				t.Errorf("%s as %s: %d, want %d: %.200s", row.request, caller.name, got.status, expected, got.text)
			}
			if got.status >= 400 && (got.str("type") != "error" || got.body["status"] != float64(got.status) || got.str("code") == "" || got.str("id") == "") {
				t.Errorf("%s as %s: the error has another form: %s", row.request, caller.name, got.text)
			}
			if got.status != 429 && got.status != 401 && got.header.Get("X-API-Schemas") == "" {
				t.Errorf("%s as %s lacks X-API-Schemas", row.request, caller.name)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/ping", "/", "/v1/scripts/api.crt"} {
		if got := s.do("GET", path, "", nil); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	log := s.log.String()
	for _, caller := range callers {
		if _, secret, ok := strings.Cut(caller.as, ":"); ok && secret != "" && strings.Contains(log, secret) {
			t.Errorf("the log holds the secret of %s", caller.name)
		}
	}
}

func TestAgentsSeeThemselvesAlone(t *testing.T) {
	s := start(t, server.Config{})
	token := s.token()
	one, two := s.join(token, strings.Repeat("11", 64)), s.join(token, strings.Repeat("22", 64))
	list := s.must("GET", "/v1/agents", one, nil).data()
	if len(list) != 1 || list[0]["uri"] != nil || list[0]["accountId"] != nil {
		t.Fatalf("agents %v", list)
	}
	mine := list[0]["id"].(string)
	theirs := s.must("GET", "/v1/agents", two, nil).data()[0]["id"].(string)
	if got := s.do("GET", "/v1/agents/"+theirs, one, nil); got.status != 404 {
		t.Errorf("another agent: %d", got.status)
	}
	if got := s.do("DELETE", "/v1/agents/"+mine, one, nil); got.status != 405 {
		t.Errorf("an agent deletes itself: %d", got.status)
	}
	s.must("DELETE", "/v1/agents/"+mine, s.key, nil)
	if got := s.do("GET", "/v1", one, nil); got.status != 401 {
		t.Errorf("the key of a removed agent: %d", got.status)
	}
	if got := s.do("GET", "/v1", two, nil); got.status != 200 {
		t.Errorf("the key of the other agent: %d", got.status)
	}
}

func TestRemovingAHostCutsItsAgent(t *testing.T) {
	s := start(t, server.Config{})
	agent, hostID := withHost(t, s)
	if got := s.must("DELETE", "/v2-beta/hosts/"+hostID, s.key, nil); got.str("state") != "removed" {
		t.Errorf("removed: %s", got.text)
	}
	if got := s.do("GET", "/v2-beta/hosts/"+hostID, s.key, nil); got.status != 404 {
		t.Errorf("afterwards: %d", got.status)
	}
	if got := s.do("GET", "/v1", agent.as, nil); got.status != 401 {
		t.Errorf("its key: %d", got.status)
	}
	agent.wg.Wait() // ends when its socket does
}

func TestWrongCredentialsAreLimited(t *testing.T) {
	s := start(t, server.Config{})
	codes := map[int]int{}
	for range 40 {
		got := s.do("GET", "/v1", "ABCDEF:guess", nil)
		codes[got.status]++
		if got.status == 429 && got.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if codes[401] == 0 || codes[429] == 0 || codes[401]+codes[429] != 40 {
		t.Errorf("answers %v", codes)
	}
	if got := s.do("GET", "/v1", s.key, nil); got.status != 200 {
		t.Errorf("a good key from the same address: %d", got.status)
	}
}

func TestForms(t *testing.T) {
	s := start(t, server.Config{})
	bare := strings.TrimPrefix(s.key, "ak_")
	if got := s.do("GET", "/v1", bare, nil); got.status != 200 {
		t.Errorf("without the prefix: %d", got.status)
	}
	if got := s.do("GET", "/v1", "", nil, "Authorization", "Bearer "+s.key); got.status != 200 || got.header.Get("X-API-ACCOUNT-KIND") != "admin" {
		t.Errorf("bearer: %d %v", got.status, got.header)
	}
	for _, bad := range []string{"Bearer", "Bearer x", "Bearer :", "Basic", "Basic !!", "Basic Og==", "Digest a", s.key, "Bearer \x00:\x00"} {
		if strings.ContainsRune(bad, 0) {
			continue
		}
		if got := s.do("GET", "/v1", "", nil, "Authorization", bad); got.status != 401 {
			t.Errorf("%q: %d", bad, got.status)
		}
	}
	if got := s.do("GET", "/v1", "", nil); !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
		t.Error("no challenge")
	}
	if got := s.do("GET", "/v1", "", nil, "X-API-No-Challenge", "true"); got.header.Get("WWW-Authenticate") != "" {
		t.Error("a challenge in spite of the header: browsers would ask for a password")
	}
}

func TestBrowsersOfOtherSites(t *testing.T) {
	s := start(t, server.Config{})
	body := `{"description":"x"}`
	for name, tc := range map[string]struct {
		headers []string
		status  int
	}{
		"no browser":    {nil, 201},
		"own page":      {[]string{"Origin", s.url, "Sec-Fetch-Site", "same-origin"}, 201},
		"another site":  {[]string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		"old browser":   {[]string{"Origin", "https://evil.example"}, 403},
		"sibling site":  {[]string{"Sec-Fetch-Site", "same-site"}, 403},
		"opaque origin": {[]string{"Origin", "null"}, 403},
	} {
		if got := s.do("POST", "/v2-beta/registrationtokens", s.key, body, tc.headers...); got.status != tc.status {
			t.Errorf("%s: %d, want %d", name, got.status, tc.status)
		}
	}
	_, res, err := s.dial("/v2-beta/subscribe?eventNames=resource.change", s.key, "Origin", "https://evil.example")
	if err == nil || res == nil || res.StatusCode != 403 {
		t.Errorf("a socket of another site: %v %v", err, res)
	}
	got := s.do("GET", "/v2-beta/hosts", s.key, nil, "Origin", "https://evil.example")
	if h := got.header.Get("Access-Control-Allow-Origin"); h != "" {
		t.Errorf("other sites may read: %s", h)
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s: %q", name, got.header.Get(name))
		}
	}
	if !strings.Contains(got.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Error("no content security policy")
	}
}

func TestKeys(t *testing.T) {
	s := start(t, server.Config{})
	made := s.must("POST", "/v2-beta/apikeys", s.key, map[string]any{"name": "ci", "accountKind": "admin"})
	key := made.str("publicValue") + ":" + made.str("secretValue")
	if got := s.do("GET", "/v2-beta/apikeys", key, nil); got.status != 200 {
		t.Fatalf("the new key: %d", got.status)
	}
	if got := s.must("GET", "/v2-beta/apikeys/"+made.str("id"), s.key, nil); got.body["secretValue"] != nil {
		t.Error("the secret is shown a second time")
	}
	if got := s.do("DELETE", "/v2-beta/apikeys/"+made.str("id"), key, nil); got.status != 409 {
		t.Errorf("a key revokes itself: %d", got.status)
	}
	s.must("DELETE", "/v2-beta/apikeys/"+made.str("id"), s.key, nil)
	if got := s.do("GET", "/v2-beta/apikeys", key, nil); got.status != 401 {
		t.Errorf("the revoked key: %d", got.status)
	}
	if got := s.do("POST", "/v2-beta/apikeys", s.key, map[string]any{"accountKind": "god"}); got.status != 422 || got.str("code") != "InvalidOption" {
		t.Errorf("unknown kind: %d %s", got.status, got.text)
	}
	fresh, err := s.srv.RotateAdminKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.do("GET", "/v1", s.key, nil); got.status != 401 {
		t.Errorf("the old admin key: %d", got.status)
	}
	if got := s.do("GET", "/v1", fresh, nil); got.status != 200 {
		t.Errorf("the new admin key: %d", got.status)
	}
}
