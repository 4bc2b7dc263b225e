package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/runtime/cri/critest"
)

// TestLogFiles reads a host's log files through the server.
func TestLogFiles(t *testing.T) {
	u := newUser(t)
	dir := filepath.Join(u.dir, "logs")
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for i := range 100 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	write(filepath.Join(dir, "app.log"), lines.Bytes())
	big := make([]byte, 4<<20)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "big.bin"), big)
	key := filepath.Join(u.dir, "token.key")
	write(key, []byte(hex.EncodeToString(big[:32])))
	port := freePort(t)
	u.env = append(u.env, fmt.Sprintf("DROVER_LOGS_PORT=%d", port), "DROVER_LOGS_ROOT="+dir, "DROVER_LOGS_TOKEN_KEY_FILE="+key, "DROVER_LOGS_LISTEN=127.0.0.1")
	p := u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data"))
	p.says("In a second terminal")
	host := u.online(1)[0].Name
	deadline := time.Now().Add(patience)
	for u.run("ls", host).code != 0 && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond) // until the host has announced the port
	}

	if out := u.must("ls", host, dir); !strings.Contains(out, "app.log") || !strings.Contains(out, "4.19 MB") {
		t.Errorf("ls:\n%s", out)
	}
	if out := u.must("flogs", host, "app.log", "-n", "2"); out != "line 98\nline 99\n" {
		t.Errorf("the last lines: %q", out)
	}
	if out := u.must("flogs", host, "app.log", "--grep", "line 1$"); out != "line 1\n" {
		t.Errorf("grep: %q", out)
	}
	for want, args := range map[int][]string{
		1: {"flogs", host, "app.log", "--grep", "nothing like it"},
		2: {"flogs", host, "app.log", "--lines", "-3"},
	} {
		if r := u.run(args...); r.code != want {
			t.Errorf("drover %q: %+v, want exit code %d", args, r, want)
		}
	}
	for _, args := range [][]string{{"flogs", host, "/etc/passwd"}, {"ls", host, "/etc"}, {"get", host, "/etc/passwd"}, {"get", host, "gone.log"}, {"flogs", "no-such-host", "app.log"}} {
		if r := u.run(args...); r.code != 1 || r.err == "" || strings.Contains(r.out+r.err, "root:") {
			t.Errorf("drover %q: %+v", args, r)
		}
	}

	u.must("get", host, "big.bin")
	same := func(name string) bool {
		b, err := os.ReadFile(filepath.Join(u.dir, name))
		return err == nil && bytes.Equal(b, big)
	}
	if !same("big.bin") {
		t.Error("the download is another file")
	}
	write(filepath.Join(u.dir, "again.part"), big[:3<<20])
	if u.must("get", host, "big.bin", "-o", "again"); !same("again") {
		t.Error("the resumed download is another file")
	}
	write(filepath.Join(u.dir, "other.part"), append(make([]byte, 1<<20), 'x'))
	if u.must("get", host, "big.bin", "-o", "other"); !same("other") {
		t.Error("a download of another file was resumed")
	}
	if r := u.run("get", host, "app.log", "-o", "-"); r.out != lines.String() {
		t.Errorf("to standard output: %+v", r)
	}

	follow := u.start("flogs", host, "app.log", "-n", "1", "-f", "--grep", "line")
	follow.says("line 99")
	f, err := os.OpenFile(filepath.Join(dir, "app.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("other\nline 100\n"); err != nil {
		t.Fatal(err)
	}
	follow.says("line 100")
	follow.stop(os.Interrupt)
	if strings.Contains(follow.out.String(), "other") {
		t.Errorf("the filter let through %q", follow.out.String())
	}

	// The node's own port takes tokens alone.
	door := fmt.Sprintf("http://127.0.0.1:%d/files/", port)
	status := func(token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, door, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		return resp.StatusCode
	}
	if got := status(strings.TrimSpace(u.must("node", "token"))); got != http.StatusOK {
		t.Errorf("with a token: %d", got)
	}
	if got := status(strings.TrimSpace(u.must("node", "token", "--for", "another-host"))); got != http.StatusUnauthorized {
		t.Errorf("with a token for another host: %d", got)
	}
	awkByREST(t, port, strings.TrimSpace(u.must("node", "token")))
	if out := u.must("--help"); strings.Contains(out, "awk") {
		t.Errorf("the help shows what is for no one:\n%s", out)
	}
	p.stop(syscall.SIGTERM)
}

// awkByREST runs awk in a process of the binary.
func awkByREST(t *testing.T, port int, token string) {
	t.Helper()
	for line, want := range map[string][2]string{
		"awk '$2 > 97 { print $2 }' app.log":         {"98\n99\n100\n", ""},
		`awk 'BEGIN { s = "x"; while (1) s = s s }'`: {"", "app.logs.sort-memory"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/query", port), strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if cerr := resp.Body.Close(); err != nil || cerr != nil {
			t.Error(err, cerr)
		}
		said := resp.Header.Get("Drover-Error") + resp.Trailer.Get("Drover-Error")
		if want[1] == "" && string(body) != want[0] || !strings.Contains(string(body)+said, want[1]) {
			t.Errorf("%s: %d %q, %q", line, resp.StatusCode, body, said)
		}
	}
}

// TestLogFilesThroughTheTunnel needs no port and no key: the host is reached through its agent's tunnel.
func TestLogFilesThroughTheTunnel(t *testing.T) {
	u := newUser(t)
	dir := filepath.Join(u.dir, "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "app.log")
	if err := os.WriteFile(file, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.env = append(u.env, "DROVER_LOGS_TUNNEL=true", "DROVER_LOGS_ROOT="+dir)
	p := u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data"))
	p.says("In a second terminal")
	host := u.online(1)[0].Name
	deadline := time.Now().Add(patience)
	for u.run("ls", host).code != 0 && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond) // until the host has announced it
	}
	if out := u.must("ls", host, dir); !strings.Contains(out, "app.log") {
		t.Errorf("ls:\n%s", out)
	}
	if out := u.must("flogs", host, "app.log", "--grep", "t"); out != "two\n" {
		t.Errorf("grep: %q", out)
	}
	if out := u.must("get", host, "app.log", "-o", "-"); out != "one\ntwo\n" {
		t.Errorf("get: %q", out)
	}
	if r := u.run("flogs", host, "/etc/passwd"); r.code != 1 || strings.Contains(r.out+r.err, "root:") {
		t.Errorf("outside of the roots: %+v", r)
	}
	a := u.api()
	h := u.online(1)[0]
	logsByToken(t, a, h.ID)
	if status, body := a.get(http.MethodGet, "/v2-beta/hosts/"+h.ID+"/logs/download/app.log"); status != http.StatusOK || body != "one\ntwo\n" {
		t.Errorf("REST: %d %s", status, body)
	}
	for query, want := range map[string]int{"ip=169.254.169.254": 404, "host=no-such-host": 404, "": 400, "host=" + h.ID: 426} {
		if status, body := a.get(http.MethodGet, "/logs?"+query); status != want {
			t.Errorf("?%s: %d %s, want %d", query, status, body, want)
		}
	}
	follow := u.start("flogs", host, "app.log", "-f", "-n", "1")
	follow.says("two")
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("three\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	follow.says("three")
	follow.stop(os.Interrupt)
	p.stop(syscall.SIGTERM)
}

// logsByToken reads a log as a page in a browser does, which shows a token that was made for it.
func logsByToken(t *testing.T, a *api, host string) {
	t.Helper()
	status, body := a.get(http.MethodPost, "/v2-beta/hosts/"+host+"/logs/token")
	var token struct{ Protocol, URL string }
	if err := json.Unmarshal([]byte(body), &token); err != nil || status != http.StatusOK || token.URL != "/logs?host="+host {
		t.Fatalf("the token: %d %s", status, body)
	}
	dial := func(path string, protocols ...string) (*websocket.Conn, int) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(a.roots)
		d := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: roots}, HandshakeTimeout: patience, Subprotocols: protocols}
		conn, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(a.url, "http")+path, http.Header{"Origin": {"https://another.example"}})
		if resp == nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err != nil {
			return nil, resp.StatusCode
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn, resp.StatusCode
	}
	conn, status := dial(token.URL, "drover.lines.v1", token.Protocol)
	if conn == nil || conn.Subprotocol() != "drover.lines.v1" {
		t.Fatalf("with a token: %d", status)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("cat app.log")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		if _, got, err := conn.ReadMessage(); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	for name, protocols := range map[string][]string{
		"no token": {"drover.lines.v1"}, "a changed token": {"drover.lines.v1", token.Protocol[:len(token.Protocol)-4] + "AAAA"}, "an empty one": {"drover.token."},
	} {
		if conn, status := dial(token.URL, protocols...); conn != nil || status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, status)
		}
	}
	if conn, status := dial("/logs?host=no-such-host", token.Protocol); conn != nil || status != http.StatusNotFound {
		t.Errorf("another host: %d", status)
	}
}

// TestLogsOfPods reads what containers of dockerd and of a containerd write, by the names of their pods.
func TestLogsOfPods(t *testing.T) {
	u := newUser(t)
	ctd := critest.Start(t)
	name := prefix(t)
	ns := strings.ReplaceAll(name, "drover-", "ns-")
	script := "echo one; echo two error; exec sleep 100000"
	dockerPod(t, name, ns, "on-docker", "sh", "-c", script)
	ctd.Pod(t, ns, "on-containerd", map[string][]string{"app": {"sh", "-c", script}})
	dir, port := filepath.Join(u.dir, "logs"), freePort(t)
	config := filepath.Join(u.dir, "application.yaml")
	text := fmt.Sprintf(`app:
  agent: {state-dir: %s/state, hostname: n1}
  cri: {sock: %s}
  debug: {port: %d}
  logs: {listen: 127.0.0.1, port: %d, auth: none, root: %s}
`, u.dir, ctd.Socket, freePort(t), port, dir)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := u.start("node", "--config", config)
	query := func(line string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/query", port), strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return string(b) + resp.Trailer.Get("Drover-Error")
	}
	for _, pod := range []string{"on-docker", "on-containerd"} {
		of := "pod:" + ns + ":" + pod
		eventually(t, "the log of "+pod, func() bool { return strings.Contains(query("grep -c . "+of), "2\n") })
		if out := query("grep error " + of + "/app"); !strings.Contains(out, "two error") || strings.Contains(out, "one") {
			t.Errorf("%s: %q", pod, out)
		}
		if out := query("ls " + of); out != "app\n" {
			t.Errorf("%s, ls: %q", pod, out)
		}
		if out := query("cat " + of + "/app/config.v2.json"); !strings.Contains(out, "no log file of the container") {
			t.Errorf("%s, what is no log: %q", pod, out)
		}
	}
	p.stop(syscall.SIGTERM)
}
