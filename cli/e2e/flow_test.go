package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// registry runs docker-registry on loopback with the test image in it, and returns the image's name there.
func registry(t *testing.T) string {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:%d}\n", dir, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("docker-registry: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	base := fmt.Sprintf("127.0.0.1:%d", port)
	eventually(t, "the registry", func() bool {
		resp, err := http.Get("http://" + base + "/v2/")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	ref := base + "/drover-e2e/busybox:1"
	for _, args := range [][]string{{"tag", image, ref}, {"push", "-q", ref}, {"rmi", ref}} {
		if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", ref).Run() }) // it may be gone
	return ref
}

// TestPullAndEvents follows a container from the image to its end, with somebody watching.
func TestPullAndEvents(t *testing.T) {
	u, name, ref := newUser(t), prefix(t), registry(t)
	dev := u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data"))
	dev.says("In a second terminal")
	u.online(1)

	watch := u.start("events", "--type", "container", "--output", "json")
	people := u.start("events", "--type", "container")
	time.Sleep(time.Second) // both subscribe; the polls below do not depend on it, the order of events does

	if out := u.must("pull", ref); !strings.Contains(out, ref) || !strings.Contains(out, "done") {
		t.Errorf("pull:\n%s", out)
	}
	var pulled []struct{ Host, State, Image string }
	u.json(&pulled, "pull", ref)
	if len(pulled) != 1 || pulled[0].State != "done" || pulled[0].Image != ref {
		t.Errorf("pull --output json: %+v", pulled)
	}
	if r := u.run("pull", strings.Replace(ref, "busybox", "nothing", 1)); r.code != 1 || !strings.Contains(r.err, "nothing") {
		t.Errorf("pull of nothing: %+v", r)
	}

	var made container
	u.json(&made, "run", "--name", name, "--pull", "always", ref, "sleep", "600")
	if made.Name != name || made.State != "running" || len(made.ContainerID) != 64 {
		t.Errorf("run --output json: %+v", made)
	}
	u.must("stop", "-t", "1", made.ID)
	u.must("rm", made.ContainerID[:8])

	// The feed tells the life of the container in order.
	var states []string
	eventually(t, "the container's end in the feed", func() bool {
		states = nil
		for line := range strings.Lines(watch.out.String()) {
			var ev struct{ ResourceType, ResourceID, Name, State string }
			if err := json.Unmarshal([]byte(line), &ev); err != nil {
				return false // half a line
			}
			if ev.ResourceType != "container" {
				t.Errorf("an event of type %s got through the filter", ev.ResourceType)
			}
			if ev.ResourceID == made.ID {
				states = append(states, ev.State)
			}
		}
		return len(states) > 0 && (states[len(states)-1] == "removed" || states[len(states)-1] == "purged")
	})
	at := -1
	for _, want := range []string{"running", "stopped"} {
		next := -1
		for i, s := range states {
			if s == want && i > at {
				next = i
				break
			}
		}
		if next < 0 {
			t.Errorf("no %q after the state before in %v", want, states)
		}
		at = max(at, next)
	}
	eventually(t, "the line for people", func() bool {
		return strings.Contains(people.out.String(), name) && strings.Contains(people.out.String(), made.ID)
	})
	watch.stop(os.Interrupt)
	people.stop(os.Interrupt)
	dev.stop(os.Interrupt)
}

// TestAgentProcess runs server and agent as operators do: apart.
func TestAgentProcess(t *testing.T) {
	u := newUser(t)
	state, key := filepath.Join(u.dir, "agent"), filepath.Join(u.dir, "admin.key")
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	srv := u.start("server", "--listen", listen, "--data", filepath.Join(u.dir, "server"), "--admin-key-file", key)
	eventually(t, "the server", func() bool {
		return u.run("health", "--state-dir", filepath.Join(u.dir, "server")).code == 0
	})
	if strings.Contains(srv.log.String()+srv.out.String(), "ak_") {
		t.Error("the admin key was printed although a file was given for it")
	}
	ca := filepath.Join(u.dir, "ca.pem")
	fetchCA(t, listen, ca)
	u.must("context", "add", "prod", "--server", "https://"+listen, "--key-file", key, "--ca-file", ca)
	var token struct{ RegistrationURL, Command string }
	u.json(&token, "token", "create", "--description", "e2e")
	sum := after(token.Command, "CATTLE_CA_CHECKSUM=")

	// Wrong in every way that a person gets it wrong.
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"agent", token.RegistrationURL, "--ca-checksum", strings.Repeat("0", 64)}, 1, sum},
		{[]string{"agent", "https://" + listen + "/v1/scripts/nonsense", "--ca-file", ca}, 3, "404"},
		{[]string{"agent", "https://" + listen + "/", "--ca-file", ca}, 3, ""},
		{[]string{"agent"}, 3, "no registration URL"},
		{[]string{"agent", "not a url"}, 3, ""},
	} {
		r := u.run(append(bad.args, "--state-dir", filepath.Join(u.dir, "bad"))...)
		if r.code != bad.code || !strings.Contains(r.err, bad.says) {
			t.Errorf("drover %q: exit code %d, want %d and %q\n%s", bad.args, r.code, bad.code, bad.says, r.err)
		}
		if strings.Contains(r.err, after(token.RegistrationURL, "/v1/scripts/")) {
			t.Errorf("drover %q printed the token:\n%s", bad.args, r.err)
		}
	}

	agent := u.start(token.RegistrationURL, "--ca-checksum", sum, "--state-dir", state, "--labels", "rack=4&disk=ssd")
	h := u.online(1)[0]
	if h.Labels["rack"] != "4" || h.Labels["disk"] != "ssd" {
		t.Errorf("labels %v", h.Labels)
	}
	if r := u.run("health", "--state-dir", state); r.code != 0 {
		t.Errorf("health: %+v", r)
	}
	metrics(t, state)
	agent.stop(syscall.SIGTERM)
	eventually(t, "the host to be away", func() bool {
		var hosts []host
		u.json(&hosts, "hosts")
		return len(hosts) == 1 && hosts[0].State != "online"
	})
	if r := u.run("health", "--state-dir", state); r.code != 1 {
		t.Errorf("health after the end: %+v", r)
	}

	// The second start needs no URL.
	agent = u.start("agent", "--state-dir", state)
	if again := u.online(1)[0]; again.ID != h.ID {
		t.Errorf("a new host: %+v, was %+v", again, h)
	}

	// A restarted server finds its agent again.
	srv.stop(syscall.SIGTERM)
	eventually(t, "the agent to notice", func() bool { return u.run("health", "--state-dir", state).code == 1 })
	u.start("server", "--listen", listen, "--data", filepath.Join(u.dir, "server"))
	eventually(t, "the host again", func() bool {
		var hosts []host
		r := u.run("hosts", "--output", "json")
		return r.code == 0 && json.Unmarshal([]byte(r.out), &hosts) == nil && len(hosts) == 1 && hosts[0].State == "online"
	})
	agent.stop(os.Interrupt)
}

// after returns the word that follows a mark in text.
func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	word, _, _ := strings.Cut(rest, " ")
	return strings.TrimSpace(word)
}

// metrics looks at what an agent tells Prometheus.
func metrics(t *testing.T, state string) {
	t.Helper()
	addr, err := os.ReadFile(filepath.Join(state, "health.addr"))
	if err != nil {
		t.Fatal(err)
	}
	body := get(t, http.DefaultClient, "http://"+strings.TrimSpace(string(addr))+"/metrics")
	for _, want := range []string{
		"drover_connected 1", "drover_engine_up 1", "drover_dropped_total 0", "drover_build_info{", "drover_queue_depth 0",
		`drover_events_total{name="ping",result="ok"}`, "drover_event_duration_seconds_bucket{", "drover_last_frame_age_seconds ",
		`drover_reconnects_total{reason="lost"} 0`, "drover_clock_skew_seconds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if !strings.Contains(get(t, http.DefaultClient, "http://"+strings.TrimSpace(string(addr))+"/readyz?verbose"), `"ready":true`) {
		t.Error("/readyz?verbose does not say ready")
	}
	resp, err := http.Get("http://" + strings.TrimSpace(string(addr)) + "/debug/pprof/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("pprof is on without having been asked for: %s", resp.Status)
	}
}
