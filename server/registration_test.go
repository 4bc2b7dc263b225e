package server_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/server"
)

func TestRegistrationScript(t *testing.T) {
	s := start(t, server.Config{})
	token := s.token()
	for path, version := range map[string]string{
		"/v1/scripts/": "v1", "/v2-beta/scripts/": "v2-beta", "/v1//scripts//": "v1", "/V1/Scripts/": "v1", "/v1/projects/1a1/scripts/": "v1",
	} {
		got := s.do("GET", path+token, "", nil)
		want := fmt.Sprintf("#!/bin/sh\n\nexport CATTLE_REGISTRATION_ACCESS_KEY=\"registrationToken\"\nexport CATTLE_REGISTRATION_SECRET_KEY=%q\n"+
			"export CATTLE_URL=%q\nexport DETECTED_CATTLE_AGENT_IP=\"127.0.0.1\"\n", token, s.url+"/"+version)
		if got.status != 200 || got.text != want || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %q, want %q", path, got.status, got.text, want)
		}
		if strings.Contains(s.log.String(), token) {
			t.Fatal("the log holds the registration token")
		}
	}
	behind := s.do("GET", "/v1/scripts/"+token, "", nil, "X-Forwarded-Proto", "https", "X-Forwarded-For", "203.0.113.7", "Host", "drover.example")
	if v := scriptValues(behind.text); v["CATTLE_URL"] != "https://drover.example/v1" || v["DETECTED_CATTLE_AGENT_IP"] != "203.0.113.7" {
		t.Errorf("behind a proxy: %v", v)
	}
	if got := s.do("GET", "/v1/scripts/"+token, "", nil, "Host", `a";reboot;"`); got.status != 400 {
		t.Errorf("a host that is shell code: %d %s", got.status, got.text)
	}
	for _, bad := range []string{"x", "a:b:c", token + "x", token[:len(token)-1], "$(reboot)", "a:1:%22;reboot;%22", strings.Repeat("a", 5000)} {
		if got := s.do("GET", "/v1/scripts/"+bad, "", nil); got.status != 404 {
			t.Errorf("%.30s: %d", bad, got.status)
		}
	}
	if got := s.do("POST", "/v1/scripts/"+token, "", nil); got.status != 405 {
		t.Errorf("POST: %d", got.status)
	}
}

func TestScriptsOfTheServer(t *testing.T) {
	s := start(t, server.Config{TLS: server.TLS{Mode: server.TLSOwn}, Image: "registry.example/drover:1"})
	crt := s.must("GET", "/v1/scripts/api.crt", "", nil)
	block, rest := pem.Decode([]byte(crt.text))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 || crt.header.Get("Content-Type") != "application/octet-stream" ||
		crt.header.Get("Content-Disposition") != "attachment; filename=api.crt" {
		t.Errorf("api.crt: %s %v", crt.text, crt.header)
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		t.Error(err)
	}
	ca := s.must("GET", "/v1/scripts/ca.pem", "", nil).text
	if ca != string(s.srv.CAPEM()) {
		t.Errorf("ca.pem is %s", ca)
	}
	boot := s.must("GET", "/v1/scripts/bootstrap", "", nil).text
	for _, want := range []string{"#!/bin/sh\n", `REQUIRED_IMAGE="registry.example/drover:1"`, `DETECTED_CATTLE_AGENT_IP="127.0.0.1"`, ca, s.srv.CAChecksum()} {
		if !strings.Contains(boot, want) {
			t.Errorf("bootstrap lacks %q:\n%s", want, boot)
		}
	}
	if strings.Contains(boot, "%") {
		t.Errorf("bootstrap has a hole:\n%s", boot)
	}
	plain := start(t, server.Config{})
	if got := plain.do("GET", "/v1/scripts/ca.pem", "", nil); got.status != 404 {
		t.Errorf("ca.pem without TLS: %d", got.status)
	}
}

func TestRegister(t *testing.T) {
	s := start(t, server.Config{})
	token := s.token()
	as := "registrationToken:" + token
	key := strings.Repeat("5f", 64)

	for body, field := range map[string]string{`{}`: "key", `{"key":""}`: "key", `{"key":["x"]}`: "key", `{"key":"short"}`: "key"} {
		if got := s.do("POST", "/v1/register", as, body); got.status != 422 || got.str("fieldName") != field || got.str("type") != "error" {
			t.Errorf("%s: %d %s", body, got.status, got.text)
		}
	}
	if got := s.must("GET", "/v1/register", as, nil); len(got.data()) != 0 {
		t.Errorf("the list without a key shows %v", got.data())
	}
	if got := s.must("GET", "/v1/register?key="+key, as, nil); len(got.data()) != 0 {
		t.Errorf("the list of an unknown key shows %v", got.data())
	}
	made := s.must("POST", "/v1/register", as, map[string]any{"key": key, "links": nil, "actions": nil})
	if made.status != 201 || made.str("type") != "register" || made.str("state") != "activating" || made.str("transitioning") != "yes" ||
		made.body["accessKey"] != nil || made.body["secretKey"] != nil || strings.Contains(made.text, key) {
		t.Errorf("POST: %d %s", made.status, made.text)
	}
	self, _ := made.body["links"].(map[string]any)["self"].(string)
	if self != s.url+"/v1/register/"+made.str("id") {
		t.Errorf("self link %s", self)
	}
	byID := s.must("GET", self, as, nil)
	if byID.str("state") != "active" || byID.str("transitioning") != "no" || byID.body["secretKey"] != nil {
		t.Errorf("by id: %s", byID.text)
	}
	list := s.must("GET", "/v1/register?key="+key, as, nil)
	if list.str("resourceType") != "register" || len(list.data()) != 1 {
		t.Fatalf("list: %s", list.text)
	}
	item := list.data()[0]
	access, _ := item["accessKey"].(string)
	secret, _ := item["secretKey"].(string)
	if !regexp.MustCompile(`^[0-9A-F]{20}$`).MatchString(access) || len(secret) != 40 || item["key"] != key || item["state"] != "active" {
		t.Errorf("item %v", item)
	}
	if got := s.do("GET", "/v1", access+":"+secret, nil); got.status != 200 || got.header.Get("X-API-Schemas") != s.url+"/v1/schemas" {
		t.Errorf("the agent's credentials: %d %v", got.status, got.header)
	}
	// Original agents take success here for a sign that the keys are not an agent's.
	if got := s.do("GET", "/v1/schemas/account", access+":"+secret, nil); got.status != 404 {
		t.Errorf("schemas/account: %d", got.status)
	}

	again := s.must("POST", "/v1/register", as, map[string]any{"key": key})
	if again.str("id") != made.str("id") {
		t.Error("the same key made a second agent")
	}
	second := s.must("GET", "/v1/register?key="+key, as, nil).data()[0]
	if second["accessKey"] != access {
		t.Error("registering again changed the access key")
	}
	if got := s.do("GET", "/v1", access+":"+second["secretKey"].(string), nil); got.status != 200 {
		t.Errorf("the credentials of the second registration: %d", got.status)
	}
	if got := len(s.must("GET", "/v2-beta/agents", s.key, nil).data()); got != 1 {
		t.Errorf("%d agents", got)
	}
}

func TestRegistrationTokens(t *testing.T) {
	s := start(t, server.Config{Image: "droverhq/drover:9"})
	made := s.must("POST", "/v2-beta/registrationtokens", s.key, map[string]any{"description": "rack 7", "expiresIn": 3600})
	token, command := made.str("token"), made.str("command")
	if made.status != 201 || made.str("state") != "active" || made.str("description") != "rack 7" || made.str("image") != "droverhq/drover:9" ||
		made.str("registrationUrl") != s.url+"/v1/scripts/"+token {
		t.Errorf("made: %s", made.text)
	}
	want := "docker run -d --name drover-agent --restart=unless-stopped --net=host -v /var/run/docker.sock:/var/run/docker.sock " +
		"-v /var/lib/drover:/var/lib/drover droverhq/drover:9 " + s.url + "/v1/scripts/" + token
	if command != want {
		t.Errorf("command\n%s, want\n%s", command, want)
	}
	expires, err := time.Parse(time.RFC3339, made.str("expires"))
	if err != nil || time.Until(expires) > time.Hour || time.Until(expires) < 50*time.Minute {
		t.Errorf("expires %q", made.str("expires"))
	}
	if got := s.must("GET", "/v2-beta/registrationTokens/"+made.str("id"), s.key, nil); got.str("token") != token {
		t.Errorf("read back at once: %s", got.text)
	}
	if got := s.must("DELETE", "/v2-beta/registrationtokens/"+made.str("id"), s.key, nil); got.str("state") != "removed" || got.body["token"] != nil {
		t.Errorf("revoked: %s", got.text)
	}
	if got := s.do("GET", "/v1/scripts/"+token, "", nil); got.status != 410 || !strings.Contains(got.str("message"), "revoked") {
		t.Errorf("script of a revoked token: %d %s", got.status, got.text)
	}
	if n, all := len(s.must("GET", "/v2-beta/registrationtokens", s.key, nil).data()), len(s.must("GET", "/v2-beta/registrationtokens?all=true", s.key, nil).data()); n != 0 || all != 1 {
		t.Errorf("%d tokens are listed, %d with those that are revoked", n, all)
	}
	for _, bad := range []string{`{"expiresIn":0}`, `{"expiresIn":-5}`, `{"expiresIn":"soon"}`, `{"expiresIn":99999999999}`} {
		if got := s.do("POST", "/v2-beta/registrationtokens", s.key, bad); got.status != 422 || got.str("fieldName") != "expiresIn" {
			t.Errorf("%s: %d %s", bad, got.status, got.text)
		}
	}
	forever := s.must("POST", "/v2-beta/registrationtokens", s.key, nil)
	if forever.body["expires"] != nil {
		t.Errorf("a token without expiry expires %v", forever.body["expires"])
	}
}

func TestOneLiner(t *testing.T) {
	s := start(t, server.Config{TLS: server.TLS{Mode: server.TLSOwn}})
	line, err := s.srv.OneLiner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.srv.OneLiner(t.Context())
	if err != nil || again != line {
		t.Errorf("a second call gives another line: %v", err)
	}
	m := regexp.MustCompile(` -e CATTLE_CA_CHECKSUM=([0-9a-f]{64}) \S+ (https://\S+)$`).FindStringSubmatch(line)
	if m == nil || strings.Contains(line, "privileged") {
		t.Fatalf("line: %s", line)
	}
	// What a host does with it: fetch the authority without trust, compare, and then trust it alone.
	blind := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	res, err := blind.Get(m[2][:strings.LastIndex(m[2], "/")] + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	ca := make([]byte, 64<<10)
	n, _ := res.Body.Read(ca)
	sum := sha256.Sum256(ca[:n])
	if hex.EncodeToString(sum[:]) != m[1] || m[1] != s.srv.CAChecksum() {
		t.Errorf("the checksum in the line is not that of ca.pem")
	}
	script := s.must("GET", m[2], "", nil).text // over a connection that trusts the CA alone
	if v := scriptValues(script); v["CATTLE_URL"] != s.url+"/v1" {
		t.Errorf("script %s", script)
	}
}

func TestBootstrapHandsOver(t *testing.T) {
	s := start(t, server.Config{TLS: server.TLS{Mode: server.TLSOwn}})
	dir := t.TempDir()
	script := s.must("GET", "/v1/scripts/bootstrap", "", nil).text
	// A docker that writes down how it is called, and knows no container yet.
	docker := "#!/bin/sh\necho \"$@\" >>" + dir + "/calls\nenv >" + dir + "/env\n[ \"$1\" != inspect ]\n"
	for name, text := range map[string]string{"docker": docker, "boot": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := runShell(dir, "CATTLE_URL=https://s/v1", "CATTLE_ACCESS_KEY=AK", "CATTLE_SECRET_KEY=SK-secret")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
	env, _ := os.ReadFile(filepath.Join(dir, "env"))
	if !strings.Contains(string(calls), "run -d --name drover-agent") || strings.Contains(string(calls), "SK-secret") {
		t.Errorf("docker was called with %s", calls)
	}
	for _, want := range []string{"CATTLE_SECRET_KEY=SK-secret", "CATTLE_CA_CHECKSUM=" + s.srv.CAChecksum(), "CATTLE_AGENT_IP=127.0.0.1"} {
		if !strings.Contains(string(env), want) {
			t.Errorf("the container's environment lacks %s", want)
		}
	}
}
