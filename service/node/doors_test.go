package node_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/pods"
	"github.com/droverhq/drover/service/node"
	"github.com/droverhq/drover/service/token"
)

func TestDoors(t *testing.T) {
	r := newRig(t, false)
	for name, f := range map[string]func(*testing.T, *rig){
		"what is refused": refused, "policies": policies, "streams of a pod": streamsOfPod, "prestop": prestop, "pod map": podMap, "watch": watchPods,
		"port-forward": forwarding, "limits": limits,
	} {
		t.Run(name, func(t *testing.T) { f(t, r) })
	}
}

// ask makes a plain request and returns the status and the body.
func (r *rig) ask(t testing.TB, method, path, bearer, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(bounded(t), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func refused(t *testing.T, r *rig) {
	good := "/exec/" + r.ns + "/docker/app?command=true&output=1"
	for name, c := range map[string]struct {
		method, path, token, body string
		code                      int
		says                      string
		header                    []string
	}{
		"no token":              {"POST", good, "", "", 401, "a valid token is needed", nil},
		"a wrong token":         {"POST", good, "eyJhbGciOiJub25lIn0.e30.", "", 401, "a valid token is needed", nil},
		"a token in the query":  {"POST", good + "&access-token=" + r.all(), "", "", 401, "a valid token is needed", nil},
		"another verb":          {"POST", good, r.sign(token.Claims{Verbs: []string{token.VerbAttach}}), "", 403, "not for exec", nil},
		"a page of others":      {"POST", good, r.all(), "", 403, "https://evil.example", []string{"Origin", "https://evil.example"}},
		"no upgrade":            {"POST", good, r.all(), "", 426, "upgrade", nil},
		"no streams":            {"POST", "/exec/" + r.ns + "/docker/app?command=true", r.all(), "", 400, "at least 1 of stdin, stdout, stderr", nil},
		"no command":            {"POST", "/exec/" + r.ns + "/docker/app?output=1", r.all(), "", 400, "command", nil},
		"an unknown pod":        {"POST", "/exec/" + r.ns + "/nope/app?command=true&output=1", r.all(), "", 404, "no pod ns=[" + r.ns + "] pod=[nope]", nil},
		"an unknown container":  {"POST", "/exec/" + r.ns + "/docker/nope?command=true&output=1", r.all(), "", 404, "no such container", nil},
		"another uid":           {"POST", "/exec/" + r.ns + "/docker/other-uid/app?command=true&output=1", r.all(), "", 404, "no pod", nil},
		"no container id":       {"POST", "/dockin/opagent/exec/serverexec?command=true&output=1", r.all(), "", 400, "containerId", nil},
		"too many names":        {"POST", "/dockin/opagent/exec/serverexec?command=true&output=1&containerId=a/b/c/d", r.all(), "", 400, "namespace/pod", nil},
		"an escape":             {"POST", "/dockin/opagent/exec/serverexec?command=true&output=1&containerId=..%2f..%2fetc", r.all(), "", 400, "", nil},
		"an unknown path":       {"GET", "/etc/passwd", r.all(), "", 404, "no such path", nil},
		"a wrong method":        {"DELETE", "/pods", r.all(), "", 404, "no such path", nil},
		"port-forward, no pod":  {"POST", "/portforward/" + r.ns + "/nope", r.all(), "", 404, "no pod", nil},
		"port-forward, plain":   {"POST", "/portforward/" + r.ns + "/docker", r.all(), "", 426, "upgrade", nil},
		"watch of nonsense":     {"GET", "/pods?watch=maybe", r.all(), "", 400, "watch", nil},
		"a broken query":        {"POST", good + "&%zz", r.all(), "", 400, "query", nil},
		"facts without cgroups": {"GET", "/containers/" + r.ids["docker"] + "/facts", r.all(), "", 501, "app.qos.path", nil},
	} {
		code, body := r.ask(t, c.method, c.path, c.token, c.body, c.header...)
		if code != c.code && (name != "an escape" || code != 404) || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s", name, code, body)
		}
		if !strings.Contains(body, `"kind":"Status"`) {
			t.Errorf("%s: no Status: %s", name, body)
		}
	}
	log := r.log.String()
	for _, want := range []string{"there is no token", "the token is not for exec", "user=ada", "remote=127.0.0.1", "https://evil.example"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q", want)
		}
	}
	if strings.Contains(log, "eyJ") {
		t.Error("a token is in the log")
	}
}

// policies are what a token may be bound to.
func policies(t *testing.T, r *rig) {
	other := r.container("other", "app")
	eventually(t, "the other pod is known", func() bool { _, err := r.store.GetContainerByCid(other); return err == nil })
	exec := []string{token.VerbExec}
	run := func(claims token.Claims, path string) error {
		claims.Verbs = exec
		return r.executor("spdy", path, r.sign(claims)).StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: io.Discard})
	}
	mine := r.ns + "/docker"
	byID := func(id, more string) string {
		return "/dockin/opagent/exec/serverexec?containerId=" + id + "&command=id&output=1" + more
	}
	direct := func(id, more string) string { return "/v1/exec/" + id + "?command=id&output=1" + more }
	for name, c := range map[string]struct {
		claims token.Claims
		path   string
		why    string // "" is allowed
	}{
		"its pod":                   {token.Claims{Pod: mine}, r.path("docker", "output=1", "id"), ""},
		"its pod by id":             {token.Claims{Pod: mine}, byID(r.ids["docker"], ""), ""},
		"another pod":               {token.Claims{Pod: mine}, r.path("other", "output=1", "id"), "another pod"},
		"another pod by id":         {token.Claims{Pod: mine}, byID(other, ""), "another pod"},
		"a pod that is not there":   {token.Claims{Pod: mine}, r.path("nope", "output=1", "id"), "another pod"},
		"an id that is not there":   {token.Claims{Pod: mine}, byID("0123456789ab", ""), "another container"},
		"its container":             {token.Claims{Pod: mine, Container: "app"}, r.path("docker", "output=1", "id"), ""},
		"its container by id":       {token.Claims{Container: r.ids["docker"]}, byID(r.ids["docker"], ""), ""},
		"its container by short id": {token.Claims{Container: r.ids["docker"][:12]}, byID(r.ids["docker"][:12], ""), ""},
		"a shorter beginning":       {token.Claims{Container: r.ids["docker"][:4]}, byID(r.ids["docker"], ""), "another container"},
		"another container":         {token.Claims{Pod: mine, Container: "side"}, r.path("docker", "output=1", "id"), "another container"},
		"a name without its pod":    {token.Claims{Container: "app"}, r.path("docker", "output=1", "id"), "another container"},
		"its command":               {token.Claims{Commands: []string{"ls", "id"}}, r.path("docker", "output=1", "id", "-u"), ""},
		"its words":                 {token.Claims{Commands: []string{"id -u"}}, r.path("docker", "output=1", "id", "-u"), ""},
		"other words":               {token.Claims{Commands: []string{"id -u"}}, r.path("docker", "output=1", "id", "-g"), `command "id"`},
		"another command":           {token.Claims{Commands: []string{"ls"}}, r.path("docker", "output=1", "id"), `command "id"`},
		"a path to it":              {token.Claims{Commands: []string{"id"}}, r.path("docker", "output=1", "/tmp/id"), `command "/tmp/id"`},
		"no command at all":         {token.Claims{Commands: []string{}}, r.path("docker", "output=1", "id"), ""}, // an empty list is none on the wire
		"with another PATH":         {token.Claims{Commands: []string{"id"}}, r.path("docker", "output=1&env=PATH%3D/tmp", "id"), `variable "PATH"`},
		"with a terminal's name":    {token.Claims{Commands: []string{"id"}}, r.path("docker", "output=1&env=TERM%3Dxterm&env=LC_ALL%3DC", "id"), ""},
		"in another folder":         {token.Claims{Commands: []string{"id"}}, r.path("docker", "output=1&workDir=/tmp", "id"), "another directory"},
		"as somebody":               {token.Claims{}, byID(r.ids["docker"], "&user=nobody"), `run as "nobody"`},
		"as whom it may":            {token.Claims{RunAs: []string{"nobody"}}, byID(r.ids["docker"], "&user=nobody"), ""},
		"as somebody else":          {token.Claims{RunAs: []string{"nobody"}}, byID(r.ids["docker"], "&user=root"), `run as "root"`},
		"privileged":                {token.Claims{}, byID(r.ids["docker"], "&privileged=1"), "privileged"},
		"privileged as it may":      {token.Claims{Privileged: true}, byID(r.ids["docker"], "&privileged=1"), ""},
		"direct, another pod":       {token.Claims{Pod: mine}, direct(other, ""), "another pod"},
		"direct, its pod":           {token.Claims{Pod: mine}, direct(url.PathEscape(mine+"/app"), ""), ""},
		"direct, privileged=yes":    {token.Claims{}, direct(r.ids["docker"], "&privileged=yes"), "privileged"},
		"direct, as somebody":       {token.Claims{}, direct(r.ids["docker"], "&user=nobody"), "run as"},
		"direct, workingDir":        {token.Claims{Commands: []string{"id"}}, direct(r.ids["docker"], "&workingDir=/tmp"), "another directory"},
	} {
		err := run(c.claims, c.path)
		var exit utilexec.CodeExitError // the kernel may refuse what the token allows
		switch {
		case c.why == "" && err != nil && !errors.As(err, &exit):
			t.Errorf("%s: %v", name, err)
		case c.why != "" && (err == nil || !strings.Contains(err.Error(), "forbidden: ") || !strings.Contains(err.Error(), c.why)):
			t.Errorf("%s: %v, want %q", name, err, c.why)
		case c.why != "" && !strings.Contains(r.log.String(), strings.ReplaceAll(c.why, `"`, `\"`)):
			t.Errorf("%s: the log does not say why", name)
		}
	}
}

// streamsOfPod reaches what package service serves by the name of a pod.
func streamsOfPod(t *testing.T, r *rig) {
	claims := token.Claims{Verbs: []string{token.VerbStreams}, Pod: r.ns + "/docker"}
	name := url.PathEscape(r.ns + "/docker/app")
	code, body := r.ask(t, "GET", "/v1/files/"+name+"/etc/passwd", r.sign(claims), "")
	if code != 200 || !strings.Contains(body, "root") {
		t.Errorf("a file: %d %.200s", code, body)
	}
	if code, body := r.ask(t, "GET", "/v1/top/"+name, r.sign(claims), ""); code != 200 || !strings.Contains(body, "sleep") {
		t.Errorf("top: %d %.200s", code, body)
	}
	for _, path := range []string{"/v1/events", "/v1/stats", "/v1/", "/v1/top/" + url.PathEscape(r.ns+"/nope")} {
		if code, body := r.ask(t, "GET", path, r.sign(claims), ""); code != 403 {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
	}
	if code, _ := r.ask(t, "GET", "/v1/exec/"+name, r.sign(claims), ""); code != 403 {
		t.Errorf("exec with a token for streams: %d", code)
	}
}

func prestop(t *testing.T, r *rig) {
	mine := r.sign(token.Claims{Verbs: []string{token.VerbPrestop}})
	post := func(bearer, body string) (int, string) {
		return r.ask(t, "POST", "/dockin/opagent/prestop", "", body, "access-token", bearer)
	}
	script := "/bin/sh /data/stop.sh 'ä'\n"
	body, _ := json.Marshal(map[string]string{"podName": "app-1-0", "command": script})
	for range 2 { // and over the one that is there
		if code, answer := post(mine, string(body)); code != 200 || strings.TrimSpace(answer) != `{"code":0,"message":"success","data":""}` {
			t.Fatalf("%d %s", code, answer)
		}
	}
	file := filepath.Join(r.prestop, "app-1-0-preStop.sh")
	if b, err := os.ReadFile(file); err != nil || string(b) != script {
		t.Errorf("%q, %v", b, err)
	}
	// Whoever writes to the folder cannot lead the agent elsewhere.
	victim := filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("mine"), 0o600), os.Remove(file), os.Symlink(victim, file)); err != nil {
		t.Fatal(err)
	}
	if code, answer := post(mine, string(body)); code != 200 {
		t.Errorf("%d %s", code, answer)
	}
	if b, _ := os.ReadFile(victim); string(b) != "mine" {
		t.Errorf("a link was followed: %q", b)
	}
	if fi, err := os.Lstat(file); err != nil || !fi.Mode().IsRegular() {
		t.Errorf("%v, %v", fi, err)
	}
	bound := r.sign(token.Claims{Verbs: []string{token.VerbPrestop}, Pod: r.ns + "/app-1-0"})
	if code, answer := post(bound, string(body)); code != 200 {
		t.Errorf("its pod: %d %s", code, answer)
	}
	for name, c := range map[string]struct {
		token, body string
		code        int
	}{
		"no token":        {"", string(body), 401},
		"another verb":    {r.sign(token.Claims{Verbs: []string{token.VerbExec}}), string(body), 403},
		"another pod":     {bound, `{"podName":"b","command":"x"}`, 403},
		"traversal":       {mine, `{"podName":"../../etc/cron.d/x","command":"x"}`, 400},
		"a hidden one":    {mine, `{"podName":".x","command":"x"}`, 400},
		"a zero byte":     {mine, `{"podName":"a\u0000b","command":"x"}`, 400},
		"a long name":     {mine, `{"podName":"` + strings.Repeat("a", 250) + `","command":"x"}`, 400},
		"no name":         {mine, `{"command":"x"}`, 400},
		"no command":      {mine, `{"podName":"a"}`, 400},
		"a number":        {mine, `{"podName":1,"command":"x"}`, 400},
		"no JSON":         {mine, `<html>`, 400},
		"a huge command":  {mine, `{"podName":"a","command":"` + strings.Repeat("x", 70<<10) + `"}`, 413},
		"an endless body": {mine, strings.Repeat("x", 1<<20), 413},
	} {
		code, answer := post(c.token, c.body)
		if code != c.code || !strings.HasPrefix(answer, `{"code":-1,"message":"`) {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	entries, err := os.ReadDir(r.prestop)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func podMap(t *testing.T, r *rig) {
	all, bound := r.all(), r.sign(token.Claims{Verbs: []string{token.VerbPods}, Pod: r.ns + "/docker"})
	var list node.Collection
	for _, bearer := range []string{all, bound} {
		code, body := r.ask(t, "GET", "/pods?namespace="+r.ns, bearer, "")
		if err := json.Unmarshal([]byte(body), &list); code != 200 || err != nil || len(list.Data) == 0 {
			t.Fatalf("%d %s", code, body)
		}
		if bearer == bound && (len(list.Data) != 1 || list.Data[0].Name != "docker") {
			t.Errorf("a bound token sees %+v", list.Data)
		}
	}
	var pod pods.View
	code, body := r.ask(t, "GET", "/pods/"+r.ns+"/docker", bound, "")
	if err := json.Unmarshal([]byte(body), &pod); code != 200 || err != nil || pod.Containers[0].ID != r.ids["docker"] || pod.UID != "docker-uid" {
		t.Errorf("%d %s", code, body)
	}
	var c pods.ContainerView
	code, body = r.ask(t, "GET", "/containers/"+r.ids["docker"][:12], bound, "")
	if err := json.Unmarshal([]byte(body), &c); code != 200 || err != nil || c.ID != r.ids["docker"] || c.Pod != "docker" {
		t.Errorf("%d %s", code, body)
	}
	for path, want := range map[string]int{"/pods/" + r.ns + "/nope": 404, "/containers/zz": 404, "/containers/": 404} {
		if code, body := r.ask(t, "GET", path, all, ""); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, body := r.ask(t, "GET", "/containers/zz", bound, ""); code != 403 {
		t.Errorf("a bound token learns of others: %d %s", code, body)
	}
	if code, body := r.ask(t, "POST", "/pods/refresh", all, ""); code != 202 {
		t.Errorf("%d %s", code, body)
	}
}

func watchPods(t *testing.T, r *rig) {
	req, err := http.NewRequestWithContext(bounded(t), http.MethodGet, r.url+"/pods?watch=true&namespace="+r.ns, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.all())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func(want ...string) *pods.View {
		t.Helper()
		for lines.Scan() {
			var c node.Change
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				t.Fatal(err)
			}
			for _, w := range want {
				if c.Type == w && (c.Pod == nil || c.Pod.Name == "watched" || w == "added") {
					return c.Pod
				}
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return nil
	}
	if p := next("added"); p.Namespace != r.ns {
		t.Errorf("%+v", p)
	}
	next("synced")
	var id string
	t.Run("made", func(t *testing.T) {
		id = (&rig{t: t, docker: r.docker, ns: r.ns}).container("watched", "app")
		if p := next("added"); p.Name != "watched" {
			t.Errorf("%+v", p)
		}
		for p := next("modified", "added"); !p.Containers[0].Running; p = next("modified") {
			_ = p
		}
	})
	if p := next("removed"); p.Containers[0].ID != id {
		t.Errorf("%+v", p)
	}
}

// forwarding reaches a port that is open on the loopback of a container alone.
func forwarding(t *testing.T, r *rig) {
	id := r.container("ports", "app", func(s *runtime.ContainerSpec) {
		s.Cmd = []string{"nc", "-ll", "-p", "7000", "-e", "cat"}
	})
	eventually(t, "the pod runs", func() bool { c, err := r.store.GetContainerByCid(id); return err == nil && c.IsRunning() })
	forward := func(t *testing.T, port int, use func(t *testing.T, address string)) {
		t.Helper()
		cfg := &rest.Config{Host: r.url, BearerToken: r.all()}
		transport, upgrader, err := spdy.RoundTripperFor(cfg)
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(r.url + "/portforward/" + r.ns + "/ports")
		dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
		stop, ready := make(chan struct{}), make(chan struct{})
		f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprint("0:", port)}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- f.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-done:
			t.Fatal(err)
		}
		ports, err := f.GetPorts()
		if err != nil {
			t.Fatal(err)
		}
		use(t, fmt.Sprint("127.0.0.1:", ports[0].Local))
		close(stop)
		<-done
	}
	echo := func(t *testing.T, address string) {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		data := bytes.Repeat([]byte("0123456789"), 20000)
		go func() {
			_, _ = conn.Write(data)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		back, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(back, data) {
			t.Errorf("%d bytes of %d, %v", len(back), len(data), err)
		}
	}
	forward(t, 7000, func(t *testing.T, address string) {
		for range 3 {
			echo(t, address)
		}
	})
	forward(t, 7001, func(t *testing.T, address string) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(conn); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a port where nobody listens: %q, %v", b, err)
		}
		_ = conn.Close()
	})

	// And over a WebSocket, with a pair of channels a port.
	u := "ws" + strings.TrimPrefix(r.url, "http") + "/portforward/" + r.ns + "/ports?port=7000"
	ws, resp, err := (&websocket.Dialer{Subprotocols: []string{"v4.channel.k8s.io"}}).Dial(u, http.Header{"Authorization": {"Bearer " + r.all()}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	defer ws.Close()
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("\x00hello")); err != nil {
		t.Fatal(err)
	}
	got := ""
	for !strings.Contains(got, "hello") {
		_, m, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if len(m) > 1 && m[0] == 0 {
			got += string(m[1:])
		}
	}
}

func limits(t *testing.T, r *rig) {
	path := "/containers/" + r.ids["docker"] + "/limits"
	code, body := r.ask(t, "PUT", path, r.all(), `{"memory":67108864,"memorySwap":134217728,"cpuQuota":50000,"pidsLimit":50}`)
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	raw, err := r.docker.Inspect(t.Context(), r.ids["docker"])
	if err != nil || !bytes.Contains(raw, []byte(`"Memory":67108864`)) || !bytes.Contains(raw, []byte(`"PidsLimit":50`)) {
		t.Errorf("%.3000s, %v", raw, err)
	}
	for body, want := range map[string]int{`{}`: 400, `{"memory":1}`: 400, `{"x":1}`: 400, `no`: 400} {
		if code, answer := r.ask(t, "PUT", path, r.all(), body); code != want {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
	if code, _ := r.ask(t, "PUT", path, r.sign(token.Claims{Verbs: []string{token.VerbPods}}), `{"memory":67108864}`); code != 403 {
		t.Errorf("without the verb: %d", code)
	}
}
