package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/droverhq/drover/runtime/cri/critest"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/node"
)

// dockerPod starts a container of dockerd that has the labels of a pod.
func dockerPod(t *testing.T, name, namespace, pod string, args ...string) string {
	t.Helper()
	run := []string{"run", "-d", "--name", name, "--network", "none", "-m", "64m", "--memory-swap", "64m"}
	for k, v := range map[string]string{"pod.name": pod, "pod.namespace": namespace, "pod.uid": pod + "-uid", "container.name": "app"} {
		run = append(run, "--label", "io.kubernetes."+k+"="+v)
	}
	out, err := exec.Command("docker", append(append(run, image), args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker run: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// openssl runs it, as the documentation has it.
func openssl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
}

// TestNode is `drover node` with dockerd and a containerd, without a server.
func TestNode(t *testing.T) {
	u := newUser(t)
	ctd := critest.Start(t)
	name := prefix(t)
	ns := strings.ReplaceAll(name, "drover-", "ns-")
	docker := dockerPod(t, name, ns, "on-docker", "sleep", "100000")
	_, ids := ctd.Pod(t, ns, "on-containerd", map[string][]string{"app": {"sleep", "100000"}})
	private, public := filepath.Join(u.dir, "private.pem"), filepath.Join(u.dir, "public.pem")
	openssl(t, "genpkey", "-algorithm", "ed25519", "-out", private)
	openssl(t, "pkey", "-in", private, "-pubout", "-out", public)
	if err := os.Chmod(private, 0o600); err != nil {
		t.Fatal(err)
	}
	port, debug, state := freePort(t), freePort(t), filepath.Join(u.dir, "state")
	config := filepath.Join(u.dir, "application.yaml")
	write := func(level string, ticker int, more string) {
		t.Helper()
		text := fmt.Sprintf(`app:
  agent: {state-dir: %s, hostname: n1}
  http: {listen: 127.0.0.1, port: %d, token-key-file: %s}
  debug: {port: %d}
  cri: {sock: %s}
  prestop: {dir: %s/prestop}
  log: {level: %s, format: json}
  container: {ticker: %d}
%s`, state, port, public, debug, ctd.Socket, u.dir, level, ticker, more)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("info", 30, "  colour: blue\n")
	if r := u.run("node", "--config", config); r.code != 3 || !strings.Contains(r.err, config+":9") || !strings.Contains(r.err, "colour") {
		t.Errorf("an unknown key: %+v", r)
	}
	write("info", 30, "")
	p := u.start("node", "--config", config)
	eventually(t, "the node", func() bool { return u.run("health", "--state-dir", state).code == 0 })

	token := func(args ...string) string {
		return strings.TrimSpace(u.must(append([]string{"node", "token", "--http-token-key-file", private, "--for", "n1", "--user", "ada"}, args...)...))
	}
	ca, err := os.ReadFile(filepath.Join(state, "port/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("https://127.0.0.1:%d", port)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	request := func(method, path, bearer, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	get := func(path, bearer string, into any) {
		t.Helper()
		resp := request("GET", path, bearer, "")
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode == 200 {
			err = json.Unmarshal(b, into)
		}
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s %s, %v", path, resp.Status, b, err)
		}
	}
	run := func(kind, path, bearer string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		target, err := url.Parse(base + path)
		if err != nil {
			t.Fatal(err)
		}
		cfg := &rest.Config{Host: base, BearerToken: bearer, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
		e, err := remotecommand.NewSPDYExecutor(cfg, http.MethodPost, target)
		if kind == "websocket" {
			e, err = remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, target.String())
		}
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out})
		return out.String(), err
	}

	bound := token("--verb", "exec", "--pod", ns+"/on-containerd", "--container", "app", "--command", "sh -c")
	for _, kind := range []string{"spdy", "websocket"} {
		out, err := run(kind, "/exec/"+ns+"/on-containerd/app?output=1&command=sh&command=-c&command=echo+hi%3Bexit+3", bound)
		var code utilexec.CodeExitError
		if out != "hi\n" || !errors.As(err, &code) || code.Code != 3 {
			t.Errorf("%s: %q, %v", kind, out, err)
		}
		if out, err := run(kind, "/dockin/opagent/exec/serverexec?output=1&containerId="+docker+"&command=echo&command=hi", token("--verb", "exec")); err != nil || out != "hi\n" {
			t.Errorf("%s: %q, %v", kind, out, err)
		}
		if _, err := run(kind, "/exec/"+ns+"/on-docker/app?output=1&command=true", bound); err == nil || !strings.Contains(err.Error(), "another pod") {
			t.Errorf("another pod: %v", err)
		}
	}
	eventually(t, "the refusal in the log", func() bool {
		return strings.Contains(p.log.String(), `"reason":"the token is for another pod"`) && strings.Contains(p.log.String(), `"user":"ada"`)
	})

	all := token("--verb", "pods,limits,streams,prestop")
	var pods node.Collection
	get("/pods?namespace="+ns, all, &pods)
	if len(pods.Data) != 2 || pods.Data[0].Name != "on-containerd" || pods.Data[0].Containers[1].ID != ids["app"] || pods.Data[1].Containers[0].Engine != "docker" {
		t.Errorf("pods: %+v", pods.Data)
	}
	var facts struct {
		Pod    string
		Memory struct{ Limit, Usage uint64 }
	}
	get("/containers/"+docker+"/facts", all, &facts)
	if facts.Pod != "on-docker" || facts.Memory.Limit != 64<<20 || facts.Memory.Usage == 0 {
		t.Errorf("facts: %+v", facts)
	}
	for _, id := range []string{docker, ids["app"]} {
		resp := request("PUT", "/containers/"+id+"/limits", all, `{"memory":50331648,"memorySwap":50331648}`)
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("limits of %s: %s %s", id, resp.Status, b)
		}
		get("/containers/"+id+"/facts", all, &facts)
		if facts.Memory.Limit != 48<<20 {
			t.Errorf("changed limits of %s: %+v", id, facts)
		}
	}
	resp := request("POST", "/dockin/opagent/prestop", all, `{"podName":"app-0","command":"echo bye"}`)
	_ = resp.Body.Close()
	if b, err := os.ReadFile(filepath.Join(u.dir, "prestop/app-0-preStop.sh")); err != nil || string(b) != "echo bye" || resp.StatusCode != 200 {
		t.Errorf("prestop: %s, %q, %v", resp.Status, b, err)
	}
	pprof, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/cmdline", debug))
	if err != nil || pprof.StatusCode != 200 {
		t.Errorf("pprof: %v", err)
	} else {
		_ = pprof.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()

	// A process that takes too much is killed, and the event names its pod.
	resp = request("GET", "/v1/events", all, "")
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	go func() {
		_, _ = run("spdy", "/exec/"+ns+"/on-docker/app?output=1&command=tail&command=/dev/zero", token("--verb", "exec"))
	}()
	kill := make(chan service.Notice, 1)
	go func() {
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var n service.Notice
			if json.Unmarshal(lines.Bytes(), &n) == nil && n.Action == "oom-kill" && n.Container == docker {
				kill <- n
				return
			}
		}
	}()
	select {
	case n := <-kill:
		if n.Labels["io.kubernetes.pod.name"] != "on-docker" || n.Labels["io.kubernetes.container.name"] != "app" || n.Labels["io.drover.oom.process"] != "tail" {
			t.Errorf("%+v", n)
		}
	case <-time.After(patience):
		t.Error("the kill was not told")
	}

	write("debug", 1, "")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the configuration is read again", func() bool { return strings.Contains(p.log.String(), "the configuration was read again") })
	resp2 := request("GET", "/v1/top/"+url.PathEscape(ns+"/on-docker"), all, "")
	_ = resp2.Body.Close()
	eventually(t, "the log tells more", func() bool { return strings.Contains(p.log.String(), `"level":"debug"`) })
	p.stop(syscall.SIGTERM)
	if strings.Contains(p.log.String(), "eyJ") {
		t.Error("a token is in the log")
	}
}

// TestNodeAgent is a node of containerd alone that is also an agent: what the operator does with it from afar.
func TestNodeAgent(t *testing.T) {
	u := newUser(t)
	ctd := critest.Start(t)
	ns := strings.ReplaceAll(prefix(t), "drover-", "ns-")
	key, listen := filepath.Join(u.dir, "admin.key"), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	u.start("server", "--listen", listen, "--data", filepath.Join(u.dir, "server"), "--admin-key-file", key)
	eventually(t, "the server", func() bool { return u.run("health", "--state-dir", filepath.Join(u.dir, "server")).code == 0 })
	ca := filepath.Join(u.dir, "ca.pem")
	fetchCA(t, listen, ca)
	u.must("context", "add", "prod", "--server", "https://"+listen, "--key-file", key, "--ca-file", ca)
	var join struct{ RegistrationURL, Command string }
	u.json(&join, "token", "create")
	u.env = append(u.env, "DROVER_LOGS_AUTH=none", fmt.Sprintf("DROVER_LOGS_PORT=%d", freePort(t)), "DROVER_LOGS_LISTEN=127.0.0.1", "DROVER_DEBUG_PORT=0")
	kubeletURL, kubeletCA := tlsServer(t, u, "kubelet.pem", guarded("for-kubelet", kubelet(kubePod(ns, "web-0", corev1.PodRunning, "10.1.0.1"))))
	u.env = append(u.env, "DROVER_KUBELET="+kubeletURL+"/pods", "DROVER_KUBELET_CA_FILE="+kubeletCA, "DROVER_KUBELET_TOKEN_FILE="+u.write("kubelet.token", "for-kubelet"))
	p := u.start("node", "--engine", "cri", "--cri-sock", ctd.Socket, "--url", join.RegistrationURL, "--ca-checksum", after(join.Command, "CATTLE_CA_CHECKSUM="),
		"--state-dir", filepath.Join(u.dir, "agent"))
	host := u.online(1)[0]

	_, ids := ctd.Pod(t, ns, "web-0", map[string][]string{"app": {"sh", "-c", "echo started; sleep 100000"}, "helper-sidecar": {"sleep", "100000"}})
	var pods []struct {
		Host, Namespace, Name string
		Containers            []struct{ ID, Name, Role string }
	}
	eventually(t, "the pod", func() bool {
		u.json(&pods, "pods", "--namespace", ns)
		return len(pods) == 1 && len(pods[0].Containers) == 3
	})
	if pods[0].Host != host.Name || pods[0].Name != "web-0" || pods[0].Containers[1].ID != ids["app"] || pods[0].Containers[2].Role != "sidecar" {
		t.Errorf("%+v", pods)
	}
	eventually(t, "two that are ready", func() bool {
		out := u.must("pods")
		return strings.Contains(out, "web-0") && strings.Contains(out, "2/2")
	})
	eventually(t, "its address, of the kubelet", func() bool {
		var found []struct {
			IP      string
			Sources []string
		}
		u.json(&found, "pods", "--namespace", ns)
		return len(found) == 1 && found[0].IP == "10.1.0.1" && strings.Join(found[0].Sources, ",") == "labels,kubelet"
	})
	if out := u.must("pods", ns+"/web-0"); !strings.Contains(out, "helper-sidecar") || !strings.Contains(out, "sandbox") {
		t.Errorf("table:\n%s", out)
	}
	if out := u.must("--output", "yaml", "pods", ns+"/web-0"); !strings.Contains(out, "namespace: "+ns) {
		t.Errorf("YAML:\n%s", out)
	}
	for _, args := range [][]string{{"pods", "nonsense"}, {"pods", "a/b/c"}, {"pods", "--watch", ns + "/web-0"}, {"pods", "a/b", "c"}} {
		if r := u.run(args...); r.code != 2 || r.err == "" {
			t.Errorf("drover %q: %+v", args, r)
		}
	}
	if r := u.run("pods", ns+"/none"); r.code != 1 || !strings.Contains(r.err, "not found") {
		t.Errorf("%+v", r)
	}
	watch := u.start("pods", "--watch", "--namespace", ns)
	watch.says("added")
	sandbox, _ := ctd.Pod(t, ns, "web-1", map[string][]string{"app": {"sleep", "100000"}})
	watch.says(ns + "/web-1")
	ctd.RemovePod(t, sandbox)
	watch.says("removed")

	// What the first issue has works under CRI too.
	var found []container
	eventually(t, "the container", func() bool {
		u.json(&found, "ps", "--all")
		for _, c := range found {
			if c.ContainerID == ids["app"] && c.State == "running" {
				return true
			}
		}
		return false
	})
	short := ids["app"][:12]
	if out := u.must("inspect", short); !strings.Contains(out, ids["app"]) {
		t.Errorf("inspect: %s", out)
	}
	if out := u.must("exec", short, "sh", "-c", "echo inside"); out != "inside\n" {
		t.Errorf("exec: %q", out)
	}
	if out := u.must("logs", short); !strings.Contains(out, "started") {
		t.Errorf("logs: %q", out)
	}
	var samples []struct{ Memory uint64 }
	if u.json(&samples, "stats", "--no-stream", short); len(samples) != 1 || samples[0].Memory == 0 {
		t.Errorf("stats: %+v", samples)
	}
	u.must("cp", u.write("sent", "over there"), short+":/tmp/sent")
	u.must("cp", short+":/tmp/sent", filepath.Join(u.dir, "back"))
	if b, err := os.ReadFile(filepath.Join(u.dir, "back")); err != nil || string(b) != "over there" {
		t.Errorf("cp: %q, %v", b, err)
	}
	u.must("stop", "-t", "1", short)
	eventually(t, "it is stopped", func() bool {
		u.json(&found, "ps", "--all")
		for _, c := range found {
			if c.ContainerID == ids["app"] {
				return c.State == "stopped"
			}
		}
		return false
	})
	// What a CRI runtime cannot do is said in a sentence.
	for _, args := range [][]string{{"start", short}, {"top", short}} {
		if r := u.run(args...); r.code != 1 || !strings.Contains(r.err, "containerd") && !strings.Contains(r.err, "CRI") {
			t.Errorf("drover %q: %+v", args, r)
		}
	}
	u.must("rm", short)
	p.stop(syscall.SIGTERM)
}

// TestStartScript starts and stops a node as hosts without systemd do.
func TestStartScript(t *testing.T) {
	u := newUser(t)
	script, err := filepath.Abs("../../scripts/start.sh")
	if err != nil {
		t.Fatal(err)
	}
	drover, err := exec.LookPath("drover")
	if err != nil {
		t.Fatal(err)
	}
	run := func(want int, says string, args ...string) {
		t.Helper()
		cmd := exec.Command("sh", append([]string{script}, args...)...)
		cmd.Env = append(u.env, "APP_HOME="+u.dir, "DROVER_BIN="+drover)
		out, _ := cmd.CombinedOutput() // the code says it
		if cmd.ProcessState.ExitCode() != want || !strings.Contains(string(out), says) {
			t.Errorf("start.sh %q: %d, want %d and %q\n%s", args, cmd.ProcessState.ExitCode(), want, says, out)
		}
	}
	run(1, "application.yaml is not there", "start")
	run(3, "does not run", "status")
	if err := os.Mkdir(filepath.Join(u.dir, "configs"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(u.dir, "configs/application.yaml")
	write := func(more string) {
		t.Helper()
		text := fmt.Sprintf("app:\n  agent: {state-dir: %s/state}\n  logs: {auth: none, listen: 127.0.0.1, port: %d}\n  debug: {port: 0}\n%s", u.dir, freePort(t), more)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("  nonsense: 1\n")
	run(1, "application.yaml:5", "start")
	write("")
	run(0, "started as process", "start")
	t.Cleanup(func() { run(0, "does not run", "stop") })
	eventually(t, "the node", func() bool { return u.run("health", "--state-dir", filepath.Join(u.dir, "state")).code == 0 })
	run(0, "runs already", "start")
	run(0, "runs as process", "status")
	run(0, "stopped", "stop")
	run(3, "does not run", "status")
}
