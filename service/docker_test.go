package service

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/droverhq/drover/events/tunnel"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/utils/backoff"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 90 * time.Second
	image    = "drover-test/busybox:1"
)

// A node is a service on the real dockerd, behind a door.
type node struct {
	t       testing.TB
	engine  *docker.Engine
	service *Service
	url     string
}

func quiet(t testing.TB) logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// newNode serves dockerd over plain HTTP.
func newNode(t testing.TB, change func(*Config)) *node {
	t.Helper()
	engine, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Ping(t.Context()); err != nil {
		t.Fatalf("these tests need a dockerd: %v", err)
	}
	cfg := Config{Engine: engine, Log: quiet(t), Grace: time.Second}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		s.Close()
		engine.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return &node{t: t, engine: engine, service: s, url: srv.URL}
}

// tunneled puts a tunnel and a reverse proxy before the node.
func (n *node) tunneled() *node {
	n.t.Helper()
	ts, err := tunnel.NewServer(tunnel.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	sessions := make(chan *tunnel.Session, 1)
	entry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s, err := ts.Accept(w, r, nil); err == nil {
			sessions <- s
		}
	}))
	c, err := tunnel.NewClient(tunnel.Config{URL: entry.URL, Handler: n.service, Backoff: backoff.Policy{}})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	s := <-sessions
	tr := s.Transport()
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { p.SetURL(&url.URL{Scheme: "http", Host: "agent"}) },
		Transport:     tr,
		FlushInterval: -1,
	})
	n.t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		cancel()
		s.Close()
		running.Wait()
		entry.Close()
	})
	through := *n
	through.url = front.URL
	return &through
}

// run starts a container that is removed with the test.
func (n *node) run(spec runtime.ContainerSpec) string {
	n.t.Helper()
	var suffix [6]byte
	_, _ = rand.Read(suffix[:])
	spec.Name = "service-" + hex.EncodeToString(suffix[:])
	spec.Image = image
	if spec.NetworkMode == "" {
		spec.NetworkMode = "none"
	}
	if spec.Cmd == nil {
		spec.Cmd = []string{"sleep", "3600"}
	}
	id, _, err := n.engine.Create(context.Background(), &spec)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := n.engine.Remove(context.Background(), id, runtime.RemoveOptions{Force: true}); err != nil {
			n.t.Error(err)
		}
	})
	if err := n.engine.Start(context.Background(), id); err != nil {
		n.t.Fatal(err)
	}
	return id
}

// executor is client-go's, "spdy" or "websocket".
func (n *node) executor(kind, path string) remotecommand.Executor {
	n.t.Helper()
	u, err := url.Parse(n.url + path)
	if err != nil {
		n.t.Fatal(err)
	}
	cfg := &rest.Config{Host: n.url}
	var e remotecommand.Executor
	if kind == "spdy" {
		e, err = remotecommand.NewSPDYExecutor(cfg, http.MethodPost, u)
	} else {
		e, err = remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, u.String())
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return e
}

func execPath(id string, params string, cmd ...string) string {
	v := url.Values{"command": cmd}
	return "/v1/exec/" + id + "?" + v.Encode() + "&" + params
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// everyDoor runs a test over both protocols, at the node and through the tunnel.
func everyDoor(t *testing.T, change func(*Config), test func(t *testing.T, n *node, kind string)) {
	for _, door := range []string{"port", "tunnel"} {
		for _, kind := range []string{"spdy", "websocket"} {
			t.Run(door+" "+kind, func(t *testing.T) {
				n := newNode(t, change)
				if door == "tunnel" {
					n = n.tunneled()
				}
				test(t, n, kind)
			})
		}
	}
}

func TestExecExitCodeAndStreams(t *testing.T) {
	everyDoor(t, nil, func(t *testing.T, n *node, kind string) {
		id := n.run(runtime.ContainerSpec{})
		var out, errOut bytes.Buffer
		err := n.executor(kind, execPath(id, "output=1&error=1&env=A%3Db+c&workDir=/tmp&user=nobody", "sh", "-c", `echo "$A $PWD $(id -u)"; echo oops >&2; exit 3`)).
			StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
		var code utilexec.CodeExitError
		if !errors.As(err, &code) || code.Code != 3 {
			t.Errorf("error %v, want exit code 3", err)
		}
		if out.String() != "b c /tmp 65534\n" || errOut.String() != "oops\n" {
			t.Errorf("stdout %q, stderr %q", out.String(), errOut.String())
		}
	})
}

func TestExecBytesBothWays(t *testing.T) {
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	everyDoor(t, nil, func(t *testing.T, n *node, kind string) {
		id := n.run(runtime.ContainerSpec{})
		var out bytes.Buffer
		err := n.executor(kind, execPath(id, "stdin=true&stdout=true&stderr=true", "cat")).
			StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdin: bytes.NewReader(data), Stdout: &out, Stderr: io.Discard})
		if err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%d bytes came back, want the same %d; %v", out.Len(), len(data), err)
		}
	})
}

type once struct {
	sent bool
	size remotecommand.TerminalSize
}

func (o *once) Next() *remotecommand.TerminalSize {
	if o.sent {
		return nil
	}
	o.sent = true
	return &o.size
}

// TestTerminalSizeAtTheFirstPrompt asks for the size as the very first thing.
func TestTerminalSizeAtTheFirstPrompt(t *testing.T) {
	everyDoor(t, nil, func(t *testing.T, n *node, kind string) {
		id := n.run(runtime.ContainerSpec{})
		for range 3 {
			var out bytes.Buffer
			err := n.executor(kind, execPath(id, "output=1&tty=1&cols=132&rows=43", "sh", "-c", "sleep 0.3; stty size")).
				StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: &out, Tty: true})
			if err != nil || strings.TrimSpace(out.String()) != "43 132" {
				t.Errorf("size %q, %v", out.String(), err)
			}
		}
		// And as the client's own first resize.
		var out bytes.Buffer
		err := n.executor(kind, execPath(id, "output=1&tty=1", "sh", "-c", "sleep 0.5; stty size")).
			StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: &out, Tty: true, TerminalSizeQueue: &once{size: remotecommand.TerminalSize{Width: 99, Height: 33}}})
		if err != nil || strings.TrimSpace(out.String()) != "33 99" {
			t.Errorf("size %q, %v", out.String(), err)
		}
	})
}

// processes returns how many processes of the container have mark in their command line.
func (n *node) processes(id, mark string) int {
	n.t.Helper()
	_, rows, err := n.engine.Top(context.Background(), id, []string{"-o", "pid,args"})
	if err != nil {
		n.t.Fatal(err)
	}
	count := 0
	for _, row := range rows {
		if strings.Contains(strings.Join(row[1:], " "), mark) { // a pid may hold the mark too
			count++
		}
	}
	return count
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestProcessEndsWithItsViewer: the client goes away, the process that ignores SIGHUP and all else ends.
func TestProcessEndsWithItsViewer(t *testing.T) {
	everyDoor(t, nil, func(t *testing.T, n *node, kind string) {
		id := n.run(runtime.ContainerSpec{})
		for name, script := range map[string]string{
			"an obedient one":    "echo up; sleep 7001",
			"a stubborn one":     `trap "" HUP TERM INT; echo up; while :; do sleep 7002; done`,
			"one that only cats": "echo up; cat; sleep 7003",
		} {
			ctx, cancel := context.WithCancel(context.Background())
			up := make(chan struct{})
			in, w := io.Pipe()
			done := make(chan error, 1)
			go func() {
				done <- n.executor(kind, execPath(id, "input=1&output=1", "sh", "-c", script)).
					StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: notify(func() { close(up) })})
			}()
			select {
			case <-up:
			case <-time.After(patience):
				t.Fatal("the process did not start")
			}
			cancel()
			<-done
			w.Close()
			eventually(t, name+" is gone", func() bool { return n.processes(id, "700") == 0 })
		}
	})
}

// notify calls the function at the first byte.
func notify(f func()) io.Writer { return &notifier{f: f} }

type notifier struct {
	once sync.Once
	f    func()
}

func (n *notifier) Write(p []byte) (int, error) {
	if len(p) > 0 {
		n.once.Do(n.f)
	}
	return len(p), nil
}

func TestKeptProcessSurvivesItsViewer(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{})
	ctx, cancel := context.WithCancel(context.Background())
	up := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- n.executor("websocket", execPath(id, "output=1&keep=1", "sh", "-c", "echo up; sleep 7011")).
			StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: notify(func() { close(up) })})
	}()
	<-up
	cancel()
	<-done
	time.Sleep(2 * time.Second)
	if n.processes(id, "7011") == 0 {
		t.Error("the process that was to be kept is gone")
	}
}

func (n *node) get(path string) (int, string, http.Header) {
	n.t.Helper()
	resp, err := http.Get(n.url + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestDetached(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{})
	post := func(cmd ...string) (int, map[string]any) {
		resp, err := http.Post(n.url+execPath(id, "detach=1", cmd...), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	if status, body := post("sleep", "7021"); status != http.StatusAccepted || body["state"] != "running" {
		t.Errorf("a long one: %d %v", status, body)
	}
	if n.processes(id, "7021") != 1 {
		t.Error("the detached process does not run")
	}
	if status, body := post("sh", "-c", "exit 4"); status != http.StatusOK || body["exitCode"] != 4.0 {
		t.Errorf("one that ends at once: %d %v", status, body)
	}
	n.service.Close()
	if status, body := post("true"); status != http.StatusServiceUnavailable {
		t.Errorf("after Close: %d %v", status, body)
	}
	if n.processes(id, "7021") != 1 {
		t.Error("Close has ended the detached process")
	}
}

func TestAttach(t *testing.T) {
	everyDoor(t, nil, func(t *testing.T, n *node, kind string) {
		id := n.run(runtime.ContainerSpec{Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true})
		var out bytes.Buffer
		err := n.executor(kind, "/v1/attach/"+id+"?stdin=1&stdout=1").
			StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdin: strings.NewReader("through the main process\n"), Stdout: &out})
		if err != nil || out.String() != "through the main process\n" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
}

func TestLogsOfContainers(t *testing.T) {
	n := newNode(t, nil).tunneled()
	id := n.run(runtime.ContainerSpec{Cmd: []string{"sh", "-c", `for i in 1 2 3 4 5; do echo "out $i"; sleep 0.05; echo "err $i" >&2; sleep 0.05; done`}})
	eventually(t, "the container ends", func() bool {
		st, err := n.engine.State(context.Background(), id)
		return err == nil && !st.Running
	})
	want := "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nout 4\nerr 4\nout 5\nerr 5\n"
	for query, want := range map[string]string{
		"":                         want,
		"?tail=2":                  "out 5\nerr 5\n",
		"?tail=all&stderr=1":       "err 1\nerr 2\nerr 3\nerr 4\nerr 5\n",
		"?tail=0":                  "",
		"?filter=%5Eout+%5B24%5D":  "out 2\nout 4\n",
		"?since=1h":                want,
		"?until=1h":                "",
		"?follow=1":                want,
		"?since=2200000000":        "",
		"?stdout=1&filter=err&x=y": "",
	} {
		status, body, header := n.get("/v1/logs/" + id + query)
		if status != http.StatusOK || body != want || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %q %v", query, status, body, header)
		}
	}
	// Framed, as dockerd does it.
	req, _ := http.NewRequest(http.MethodGet, n.url+"/v1/logs/"+id+"?tail=2&timestamps=1", nil)
	req.Header.Set("Accept", "text/html, "+MediaFramed+";q=0.9")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	frames, err := io.ReadAll(resp.Body)
	if err != nil || len(frames) != 2*(8+31+6) || frames[0] != 1 || frames[8+31+6] != 2 || frames[7] != 31+6 {
		t.Errorf("framed: %q, %v", frames, err)
	}
	// A JSON object a line.
	req.Header.Set("Accept", MediaLines)
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	var cursors []string
	for i, want := range []LogLine{{Stream: "stdout", Log: "out 5\n"}, {Stream: "stderr", Log: "err 5\n"}} {
		var line LogLine
		if err := dec.Decode(&line); err != nil || line.Stream != want.Stream || line.Log != want.Log || line.Time.IsZero() || line.Cursor == "" {
			t.Errorf("line %d: %+v, %v", i, line, err)
		}
		cursors = append(cursors, line.Cursor)
	}
	if _, body, _ := n.get("/v1/logs/" + id + "?cursor=" + cursors[0]); body != "err 5\n" {
		t.Errorf("after a cursor: %q", body)
	}
}

// TestFollowSurvivesCuts cuts the stream again and again; by the cursors nothing is lost and nothing comes twice.
func TestFollowSurvivesCuts(t *testing.T) {
	n := newNode(t, nil)
	const lines = 3000
	id := n.run(runtime.ContainerSpec{
		Cmd:        []string{"sh", "-c", fmt.Sprintf(`i=0; while [ $i -lt %d ]; do echo "line $i"; [ $((i %% 100)) = 99 ] && sleep 0.05; i=$((i+1)); done`, lines)},
		LogOptions: map[string]string{"max-size": "20k", "max-file": "3"}, LogDriver: "json-file",
	})
	var all strings.Builder
	cursor, cuts := "", 0
	for ended := false; !ended; {
		ctx, cancel := context.WithCancel(context.Background())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/v1/logs/"+id+"?follow=1&cursor="+cursor, nil)
		req.Header.Set("Accept", MediaResumable)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		pending, frames := "", 0
		for {
			var head [8]byte
			if _, err := io.ReadFull(resp.Body, head[:]); err != nil {
				ended = err == io.EOF
				break
			}
			p := make([]byte, int(head[4])<<24|int(head[5])<<16|int(head[6])<<8|int(head[7]))
			if _, err := io.ReadFull(resp.Body, p); err != nil {
				break
			}
			switch head[0] {
			case 1:
				pending = string(p)
			case 4:
				all.WriteString(pending)
				cursor = string(p)
			default:
				t.Errorf("frame of kind %d: %q", head[0], p)
			}
			if frames++; frames == 9 {
				break // between the output and its cursor
			}
		}
		cancel()
		resp.Body.Close()
		cuts++
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if all.String() != want.String() {
		t.Errorf("%d bytes over %d streams, want %d", all.Len(), cuts, want.Len())
	}
	if cuts < 3 {
		t.Errorf("%d streams only", cuts)
	}
}

func TestFilesBothWays(t *testing.T) {
	n := newNode(t, nil).tunneled()
	id := n.run(runtime.ContainerSpec{})
	content := make([]byte, 3<<20)
	_, _ = rand.Read(content)
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, h := range []*tar.Header{
		{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "dir/big", Typeflag: tar.TypeReg, Mode: 0o640, Size: int64(len(content))},
		{Name: "dir/grüße", Typeflag: tar.TypeReg, Mode: 0o600},
		{Name: "dir/link", Typeflag: tar.TypeSymlink, Linkname: "big"},
		{Name: "dir/sub/", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "dir/sub/deep", Typeflag: tar.TypeReg, Mode: 0o600},
	} {
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = tw.Write(content)
		}
	}
	tw.Close()
	req, _ := http.NewRequest(http.MethodPut, n.url+"/v1/files/"+id+"/tmp", &archive)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("PUT: %s", resp.Status)
	}
	// Back again.
	resp, err = http.Get(n.url + "/v1/files/" + id + "/tmp/dir/big")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	tr := tar.NewReader(resp.Body)
	h, err := tr.Next()
	if err != nil || h.Name != "big" {
		t.Fatalf("GET: %+v, %v", h, err)
	}
	if back, err := io.ReadAll(tr); err != nil || !bytes.Equal(back, content) {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
	// What it is.
	head, err := http.Head(n.url + "/v1/files/" + id + "/tmp/dir/link")
	if err != nil {
		t.Fatal(err)
	}
	head.Body.Close()
	var f File
	b, _ := base64.StdEncoding.DecodeString(head.Header.Get(HeaderFileStat))
	if err := json.Unmarshal(b, &f); err != nil || f.Type != "symlink" || f.Name != "link" {
		t.Errorf("HEAD: %+v, %v", f, err)
	}
	// What is in the directory, from the host and from the archive.
	for _, stopped := range []bool{false, true} {
		if stopped {
			zero := time.Duration(0)
			if err := n.engine.Stop(context.Background(), id, &zero); err != nil {
				t.Fatal(err)
			}
		}
		_, body, _ := n.get("/v1/files/" + id + "/tmp/dir?list=1")
		var list struct{ Data []File }
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range list.Data {
			got = append(got, fmt.Sprintf("%s %s %s", f.Path, f.Type, f.Mode))
		}
		want := "/tmp/dir/big file 0640, /tmp/dir/grüße file 0600, /tmp/dir/link symlink 0777, /tmp/dir/sub directory 0700"
		if strings.Join(got, ", ") != want {
			t.Errorf("list, stopped %v: %s\n got %s\nwant %s", stopped, body, strings.Join(got, ", "), want)
		}
	}
	if status, body, _ := n.get("/v1/files/" + id + "/no/such"); status != http.StatusNotFound || !strings.Contains(body, `"code":"notFound"`) {
		t.Errorf("a missing path: %d %s", status, body)
	}
}

func TestTopStatsAndEvents(t *testing.T) {
	n := newNode(t, func(c *Config) {
		c.HostStats = func(context.Context) (runtime.Stats, error) {
			return runtime.Stats{Time: time.Now(), CPUTotal: 1, Memory: 2}, nil
		}
	}).tunneled()
	id := n.run(runtime.ContainerSpec{Cmd: []string{"sleep", "7031"}})
	if status, body, _ := n.get("/v1/top/" + id); status != http.StatusOK || !strings.Contains(body, "7031") {
		t.Errorf("top: %d %s", status, body)
	}
	var one Sample
	status, body, _ := n.get("/v1/stats/" + id[:12])
	if err := json.Unmarshal([]byte(body), &one); err != nil || status != http.StatusOK || one.ID != id || one.Memory.Usage == 0 {
		t.Errorf("stats: %d %s %v", status, body, err)
	}
	var all struct{ Data []Sample }
	_, body, _ = n.get("/v1/stats")
	if err := json.Unmarshal([]byte(body), &all); err != nil || len(all.Data) < 2 || all.Data[0].Type != "host" || all.Data[0].Memory.Usage != 2 {
		t.Errorf("all stats: %s %v", body, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream := func(path string) *json.Decoder {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, n.url+path, nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return json.NewDecoder(resp.Body)
	}
	events := stream("/v1/events")
	samples := stream("/v1/stats/" + id + "?stream=1&interval=200ms")
	for i := range 3 {
		var s Sample
		if err := samples.Decode(&s); err != nil || (s.CPU.Percent == nil) != (i == 0) {
			t.Errorf("sample %d: %+v, %v", i, s, err)
		}
	}
	if err := n.engine.Kill(ctx, id, "KILL"); err != nil {
		t.Fatal(err)
	}
	for {
		var s Sample
		if err := samples.Decode(&s); err != nil {
			if err != io.EOF {
				t.Errorf("the samples of a container that ended end with %v", err)
			}
			break
		}
	}
	for {
		var e Notice
		if err := events.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Container == id && e.Action == "die" {
			break
		}
	}
}

func TestForward(t *testing.T) {
	n := newNode(t, nil).tunneled()
	id := n.run(runtime.ContainerSpec{Cmd: []string{"sh", "-c", "while :; do nc -l -p 7000 -e cat; done"}, NetworkMode: "bridge"})
	st, err := n.engine.State(context.Background(), id)
	if err != nil || st.IP == "" {
		t.Fatalf("no address: %+v, %v", st, err)
	}
	eventually(t, "the port answers", func() bool {
		conn, err := n.forward(id, 7000)
		if err != nil {
			return false
		}
		defer conn.Close()
		fmt.Fprint(conn, "hello")
		b := make([]byte, 5)
		_, err = io.ReadFull(conn, b)
		return err == nil && string(b) == "hello"
	})
	if _, err := n.forward(id, 7001); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a closed port: %v", err)
	}
}

// forward opens a port of a container.
func (n *node) forward(id string, port int) (io.ReadWriteCloser, error) {
	req, _ := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/v1/forward/%s/%d", n.url, id, port), nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s", resp.Status, b)
	}
	return resp.Body.(io.ReadWriteCloser), nil
}

// TestCyclesLeaveNothing opens and closes many processes.
func TestCyclesLeaveNothing(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{})
	files := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	var before int
	for i := range 60 {
		if i == 10 {
			before = files()
		}
		kind := []string{"spdy", "websocket"}[i%2]
		var out bytes.Buffer
		err := n.executor(kind, execPath(id, "input=1&output=1", "cat")).
			StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdin: strings.NewReader("x"), Stdout: &out})
		if err != nil || out.String() != "x" {
			t.Fatalf("cycle %d: %q, %v", i, out.String(), err)
		}
	}
	eventually(t, "descriptors as before", func() bool { return files() <= before+3 })
	eventually(t, "no process is left", func() bool { return n.processes(id, "cat") == 0 })
}
