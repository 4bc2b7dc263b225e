package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"debug/elf"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v\n%s", url, resp.Status, err, b)
	}
	return string(b)
}

// fetchCA downloads the server's authority as somebody does who has no way to verify it yet.
func fetchCA(t *testing.T, listen, file string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	pem := get(t, &http.Client{Transport: transport}, "https://"+listen+"/v1/scripts/ca.pem")
	if err := os.WriteFile(file, []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
}

// repository is the folder of the module.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// isStatic checks that a program needs nothing of the machine it runs on and carries no symbols.
func isStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is linked dynamically", path)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Errorf("%s is not stripped", path)
	}
}

// TestOneLiner builds the image as `make docker-build` does and runs the line that the server prints, word for word but
// for the name and the folder of the host, which other containers of this machine may use, and the wait for the first
// health check.
func TestOneLiner(t *testing.T) {
	u, name := newUser(t), prefix(t)
	tag := name + "/drover:e2e"
	for _, script := range [][]string{{"scripts/build"}, {"scripts/image", tag}} {
		cmd := exec.Command(filepath.Join(repository(t), script[0]), script[1:]...)
		cmd.Dir = repository(t)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", script, err, out)
		}
	}
	t.Cleanup(func() {
		removeContainers(t, name)
		docker(t, "rmi", "-f", tag)
	})
	isStatic(t, filepath.Join(repository(t), "bin/drover"))
	for _, want := range []string{"org.opencontainers.image.version", "org.opencontainers.image.revision"} {
		if docker(t, "image", "inspect", "-f", `{{index .Config.Labels "`+want+`"}}`, tag) == "" {
			t.Errorf("the image has no label %s", want)
		}
	}

	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	key := filepath.Join(u.dir, "admin.key")
	u.start("server", "--listen", listen, "--data", filepath.Join(u.dir, "server"), "--admin-key-file", key, "--image", tag)
	eventually(t, "the server", func() bool {
		return u.run("health", "--state-dir", filepath.Join(u.dir, "server")).code == 0
	})
	ca := filepath.Join(u.dir, "ca.pem")
	fetchCA(t, listen, ca)
	u.must("context", "add", "prod", "--server", "https://"+listen, "--key-file", key, "--ca-file", ca)

	line := strings.TrimSpace(u.must("token", "create"))
	if strings.Contains(line, "--privileged") {
		t.Errorf("the line asks for --privileged: %s", line)
	}
	agent := name + "-agent"
	state := filepath.Join(u.dir, "state")
	run := strings.Replace(line, "--name drover-agent", "--health-interval 1s --name "+agent, 1)
	run = strings.Replace(run, "/var/lib/drover:/var/lib/drover", state+":/var/lib/drover", 1)
	if run == line || !strings.Contains(run, agent) || !strings.Contains(run, state) {
		t.Fatalf("the line has another form than this test knows: %s", line)
	}
	if out, err := exec.Command("sh", "-c", run).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", run, err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("docker", "logs", "--tail", "50", agent).CombinedOutput()
			t.Logf("the agent logged:\n%s", out)
		}
	})
	first := u.online(1)[0]
	if machine, _ := os.Hostname(); first.Name != machine {
		t.Errorf("the host calls itself %q, the machine %q", first.Name, machine)
	}
	roots := filepath.Join(u.dir, "roots.pem")
	docker(t, "cp", agent+":/etc/ssl/certs/ca-certificates.crt", roots)
	if pem, err := os.ReadFile(roots); err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
		t.Errorf("the image has no roots of certificate authorities: %v", err)
	}
	if docker(t, "inspect", "-f", "{{.HostConfig.Privileged}}", agent) != "false" {
		t.Error("the agent runs privileged")
	}

	// It drives the engine from inside, and its own container is listed but not taken.
	id := strings.TrimSpace(u.must("run", "--name", name+"-job", image, "sleep", "600"))
	if docker(t, "inspect", "-f", "{{.State.Running}}", id) != "true" {
		t.Error("the container does not run")
	}
	eventually(t, "the image's health check", func() bool {
		return docker(t, "inspect", "-f", "{{.State.Health.Status}}", agent) == "healthy"
	})

	docker(t, "restart", "-t", "15", agent)
	eventually(t, "the host after a restart", func() bool {
		var hosts []host
		u.json(&hosts, "hosts")
		return len(hosts) == 1 && hosts[0].ID == first.ID && hosts[0].UUID == first.UUID && hosts[0].State == "online"
	})
	if docker(t, "inspect", "-f", "{{.State.Running}}", id) != "true" {
		t.Error("the restart of the agent touched a container")
	}
	u.must("stop", "-t", "1", name+"-job")

	// A new container on the same folder is the same host too.
	docker(t, "rm", "-f", agent)
	if out, err := exec.Command("sh", "-c", run).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", run, err, out)
	}
	eventually(t, "the host with a new container", func() bool {
		var hosts []host
		u.json(&hosts, "hosts")
		return len(hosts) == 1 && hosts[0].ID == first.ID && hosts[0].State == "online"
	})
	u.must("rm", name+"-job")
	docker(t, "stop", "-t", "15", agent)
	if code := docker(t, "inspect", "-f", "{{.State.ExitCode}}", agent); code != "0" {
		t.Errorf("the agent ended with %s", code)
	}
}
