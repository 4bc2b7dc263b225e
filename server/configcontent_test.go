package server_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/droverhq/drover/server"
)

// What the scripts of an original agent's image fetch is checked and applied as they do it.
func TestConfigContent(t *testing.T) {
	s := start(t, server.Config{Image: "registry.example/drover:1"})
	as := s.join(s.token(), strings.Repeat("cd", 64))
	// fetch unpacks an item and checks its sums with the tools of the image.
	fetch := func(item, current string) (folder, version string) {
		t.Helper()
		got := s.must("GET", "/v1//configcontent//"+item+"?current="+current, as, nil)
		if got.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: %s", item, got.header.Get("Content-Type"))
		}
		dir := t.TempDir()
		cmd := exec.Command("sh", "-ec", `tar xzf -; set -- */; [ $# = 1 ]; sha1sum -c "$1/SHA1SUMSSUM"; sha1sum -c "$1/SHA1SUMS"`)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader([]byte(got.text))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", item, err, out)
		}
		found, _ := filepath.Glob(dir + "/*")
		return found[0], strings.TrimPrefix(filepath.Base(found[0]), item+"-")
	}

	folder, version := fetch("host-config", "")
	if b, err := os.ReadFile(folder + "/version"); err != nil || string(b) != version || !strings.HasPrefix(version, "1-") {
		t.Errorf("version %q, %v; the folder says %q", b, err, version)
	}
	home := t.TempDir()
	for range 2 {
		cmd := exec.Command("sh", folder+"/apply.sh")
		cmd.Env = append(os.Environ(), "CATTLE_HOME="+home)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apply: %v: %s", err, out)
		}
		key, err := os.ReadFile(home + "/etc/cattle/api.crt")
		if want := s.must("GET", "/v1/scripts/api.crt", "", nil).text; err != nil || string(key) != want {
			t.Errorf("api.crt is %q, %v", key, err)
		}
	}
	if _, err := os.Stat(home + "/.pyagent-stamp"); err != nil {
		t.Errorf("the agent is not told to start again: %v", err)
	}
	folder, _ = fetch("host-config", version)
	if _, err := os.Stat(folder + "/uptodate"); err != nil {
		t.Errorf("what is up to date is sent again: %v", err)
	}
	for _, v := range []string{version, "latest"} {
		s.must("PUT", "/v1//configcontent//host-config?version="+v, as, nil)
	}

	folder, _ = fetch("configscripts", "1-old")
	if b, err := os.ReadFile(folder + "/config.sh"); err != nil || !strings.Contains(string(b), `REQUIRED_IMAGE="registry.example/drover:1"`) {
		t.Errorf("config.sh does not hand the host over: %v\n%s", err, b)
	}
	folder, _ = fetch("pyagent", "")
	if b, err := os.ReadFile(folder + "/packages"); err != nil || len(b) > 0 {
		t.Errorf("packages %q, %v", b, err)
	}

	for path, want := range map[string]int{
		"GET /v1/configcontent/agent-instance-scripts": 404, "GET /v1/configcontent": 404, "POST /v1/configcontent/pyagent": 405,
		"PUT /v1/configcontent/pyagent?version=1-other": 422, "PUT /v1/configcontent/pyagent": 422, "GET /v1/configcontent/%2e%2e": 404,
	} {
		method, rest, _ := strings.Cut(path, " ")
		if got := s.do(method, rest, as, nil); got.status != want {
			t.Errorf("%s: %d, want %d", path, got.status, want)
		}
	}
	if got := s.do("GET", "/v1/configcontent/host-config", s.key, nil); got.status != 404 {
		t.Errorf("an admin's key: %d", got.status)
	}
	if got := s.do("GET", "/v1/configcontent/host-config", "", nil); got.status != 401 {
		t.Errorf("without a key: %d", got.status)
	}
}
