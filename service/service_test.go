package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"

	"github.com/droverhq/drover/runtime"
)

// A stub is an engine of which the test decides what it can and does.
type stub struct {
	status runtime.ContainerStatus
	err    error
}

func (s *stub) State(_ context.Context, id string) (runtime.ContainerStatus, error) {
	st := s.status
	st.ID, st.Name = id, id
	return st, s.err
}

func (s *stub) List(context.Context, runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	return []runtime.ContainerSummary{{ID: "a", Names: []string{"one"}}, {ID: "b", Names: []string{"two"}}}, s.err
}

// rich can do more.
type rich struct {
	stub
	exec  func(ctx context.Context, id string, spec runtime.ExecSpec, s runtime.Streams) error
	logs  func(ctx context.Context, opts runtime.LogOptions, out, errOut io.Writer) error
	stats atomic.Int32
	gate  chan struct{}
}

func (r *rich) Exec(ctx context.Context, id string, spec runtime.ExecSpec, s runtime.Streams) error {
	return r.exec(ctx, id, spec, s)
}

func (r *rich) Logs(ctx context.Context, _ string, opts runtime.LogOptions, out, errOut io.Writer) error {
	return r.logs(ctx, opts, out, errOut)
}

func (r *rich) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	r.stats.Add(1)
	if id == "b" {
		return runtime.Stats{}, fmt.Errorf("no figures: %w", runtime.ErrUnavailable)
	}
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return runtime.Stats{}, ctx.Err()
		}
	}
	return runtime.Stats{ID: id, Time: time.Now(), Memory: 1}, nil
}

func stubNode(t testing.TB, engine Engine, change func(*Config)) *node {
	t.Helper()
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
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return &node{t: t, service: s, url: srv.URL}
}

// TestErrorsAreOneClearLine: every refusal is a JSON object with a status that fits.
func TestErrorsAreOneClearLine(t *testing.T) {
	running := runtime.ContainerStatus{Running: true, Status: "running"}
	able := func(st runtime.ContainerStatus) *rich {
		return &rich{stub: stub{status: st}, exec: func(context.Context, string, runtime.ExecSpec, runtime.Streams) error { return nil }}
	}
	for _, c := range []struct {
		name, method, path string
		engine             Engine
		status             int
		code, text         string
	}{
		{"no route", "GET", "/v1/nothing", &stub{}, 404, "notFound", "/v1/nothing"},
		{"no such container", "GET", "/v1/logs/x", &stub{err: fmt.Errorf("x: %w", runtime.ErrNotFound)}, 404, "notFound", "x: not found"},
		{"engine down", "GET", "/v1/logs/x", &stub{err: runtime.ErrUnavailable}, 503, "unavailable", ""},
		{"engine cannot exec", "POST", "/v1/exec/x?command=a&detach=1", &stub{status: running}, 501, "unsupported", "exec"},
		{"engine cannot copy", "GET", "/v1/files/x/etc", &stub{}, 501, "unsupported", "files"},
		{"engine cannot top", "GET", "/v1/top/x", &stub{}, 501, "unsupported", "process"},
		{"engine cannot watch", "GET", "/v1/events", &stub{}, 501, "unsupported", "events"},
		{"engine cannot sample", "GET", "/v1/stats/x", &stub{}, 501, "unsupported", "stats"},
		{"no log at all", "GET", "/v1/logs/x", &stub{}, 501, "unsupported", "logs of x"},
		{"no upgrade", "POST", "/v1/exec/x?command=a", able(running), 426, "upgradeRequired", "websocket"},
		{"no command", "POST", "/v1/exec/x?detach=1", able(running), 400, "invalid", "command"},
		{"bad flag", "POST", "/v1/exec/x?command=a&detach=maybe", able(running), 400, "invalid", "detach"},
		{"no stream", "POST", "/v1/exec/x?command=a&output=0", able(running), 400, "invalid", "at least one"},
		{"bad env", "POST", "/v1/exec/x?command=a&env=novalue&detach=1", able(running), 400, "invalid", "env"},
		{"bad size", "POST", "/v1/exec/x?command=a&tty=1&cols=99999&detach=1", able(running), 400, "invalid", "cols"},
		{"not running", "POST", "/v1/exec/x?command=a&detach=1", able(runtime.ContainerStatus{Status: "exited"}), 409, "conflict", "exited"},
		{"paused", "POST", "/v1/exec/x?command=a&detach=1", able(runtime.ContainerStatus{Running: true, Paused: true, Status: "paused"}), 409, "conflict", "paused"},
		{"bad filter", "GET", "/v1/logs/x?filter=(", able(running), 400, "invalid", "filter"},
		{"bad since", "GET", "/v1/logs/x?since=someday", able(running), 400, "invalid", "since"},
		{"bad tail", "GET", "/v1/logs/x?tail=-3", able(running), 400, "invalid", "tail"},
		{"bad cursor", "GET", "/v1/logs/x?cursor=zzz", able(running), 400, "invalid", "cursor"},
		{"since after until", "GET", "/v1/logs/x?since=200&until=100", able(running), 400, "invalid", "until"},
		{"bad query", "GET", "/v1/logs/x?a=%zz", able(running), 400, "invalid", "query"},
		{"bad port", "GET", "/v1/forward/x/70000", &stub{}, 400, "invalid", "port"},
		{"no forward upgrade", "GET", "/v1/forward/x/80", &stub{}, 426, "upgradeRequired", "tcp"},
		{"bad interval", "GET", "/v1/stats/x?stream=1&interval=1us", able(running), 400, "invalid", "interval"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := stubNode(t, c.engine, nil)
			req, _ := http.NewRequest(c.method, n.url+c.path, nil)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			var e Error
			if err := json.Unmarshal(b, &e); err != nil {
				t.Fatalf("%s: %q", resp.Status, b)
			}
			if resp.StatusCode != c.status || e.Status != c.status || e.Code != c.code || e.Type != "error" || !strings.Contains(e.Message, c.text) || strings.Contains(e.Message, "\n") {
				t.Errorf("%s: %s", resp.Status, b)
			}
		})
	}
}

// TestPolicyDecides: each verb can be refused, with the reason, before anything is done.
func TestPolicyDecides(t *testing.T) {
	var asked []Action
	did := false
	engine := &rich{stub: stub{status: runtime.ContainerStatus{Running: true}}, exec: func(context.Context, string, runtime.ExecSpec, runtime.Streams) error {
		did = true
		return nil
	}}
	n := stubNode(t, engine, func(c *Config) {
		c.Policy = func(_ context.Context, a Action) error {
			asked = append(asked, a)
			return errors.New("the owner says no")
		}
	})
	for path, verb := range map[string]string{"/v1/exec/x?command=id&user=u&detach=1": VerbExec, "/v1/logs/x": VerbLogs, "/v1/stats": VerbStats} {
		asked = nil
		status, body, _ := n.get(path)
		if status != http.StatusForbidden || !strings.Contains(body, "the owner says no") || !strings.Contains(body, `"denied"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if len(asked) != 1 || asked[0].Verb != verb || asked[0].Request == nil {
			t.Errorf("%s: the policy was asked %+v", path, asked)
		}
		if verb == VerbExec && (asked[0].Exec == nil || asked[0].Exec.User != "u" || asked[0].Container.ID != "x") {
			t.Errorf("of exec the policy was told %+v", asked[0])
		}
	}
	if did {
		t.Error("what was refused was done")
	}
}

// TestFairLimit: two processes start at a time in one container, in order; another container is not held up; who comes
// when the queue is full is sent away.
func TestFairLimit(t *testing.T) {
	l := newLimiter(2, 3)
	var leaves []func()
	for range 2 {
		leave, err := l.enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	if leave, err := l.enter(t.Context(), "b"); err != nil {
		t.Errorf("another container waits: %v", err)
	} else {
		leave()
	}
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	gone, cancel := context.WithCancel(t.Context())
	for i := range 3 {
		ctx := t.Context()
		if i == 1 {
			ctx = gone
		}
		wg.Go(func() {
			leave, err := l.enter(ctx, "a")
			if err != nil {
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			leave()
			leave() // twice does no harm
		})
		eventually(t, "it waits", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.keys["a"].waiting) == i+1
		})
	}
	if _, err := l.enter(t.Context(), "a"); !errors.Is(err, errBusy) {
		t.Errorf("beyond the queue: %v", err)
	}
	cancel() // the second one leaves the queue
	eventually(t, "two wait", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.keys["a"].waiting) == 2 })
	for _, leave := range leaves {
		leave()
	}
	wg.Wait()
	if len(order) != 2 || order[0] == 1 || order[1] == 1 {
		t.Errorf("order %v", order)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.keys) != 0 {
		t.Errorf("%d keys are left", len(l.keys))
	}
}

// TestBusyContainerSaysSo over HTTP, with a time to come again.
func TestBusyContainerSaysSo(t *testing.T) {
	release := make(chan struct{})
	engine := &rich{stub: stub{status: runtime.ContainerStatus{Running: true}}, exec: func(ctx context.Context, _ string, _ runtime.ExecSpec, _ runtime.Streams) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}}
	n := stubNode(t, engine, func(c *Config) { c.ExecSlots, c.ExecQueue = 1, 1 })
	leave, err := n.service.limit.enter(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		if leave, err := n.service.limit.enter(ctx, "x"); err == nil {
			leave()
		}
	}()
	eventually(t, "one waits", func() bool {
		n.service.limit.mu.Lock()
		defer n.service.limit.mu.Unlock()
		return len(n.service.limit.keys["x"].waiting) == 1
	})
	status, body, header := n.get("/v1/exec/x?command=a&detach=1")
	if status != http.StatusTooManyRequests || header.Get("Retry-After") == "" || !strings.Contains(body, `"busy"`) {
		t.Errorf("%d %s %v", status, body, header)
	}
	cancel()
	<-waiting
	leave()
	close(release)
}

// TestOneStuckTailOf200: two hundred viewers follow a log, one of them reads nothing; the others lose nothing.
func TestOneStuckTailOf200(t *testing.T) {
	const viewers, lines = 200, 2000
	engine := &rich{stub: stub{status: runtime.ContainerStatus{Running: true}}, logs: func(ctx context.Context, _ runtime.LogOptions, out, _ io.Writer) error {
		for i := range lines {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if _, err := fmt.Fprintf(out, "line %d %s\n", i, strings.Repeat("x", 200)); err != nil {
				return err
			}
		}
		return nil
	}}
	n := stubNode(t, engine, nil)
	stuck, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	fmt.Fprint(stuck, "GET /v1/logs/x?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	var wg sync.WaitGroup
	for v := range viewers - 1 {
		wg.Go(func() {
			resp, err := http.Get(n.url + "/v1/logs/x?follow=1")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			scan := bufio.NewScanner(resp.Body)
			i := 0
			for ; scan.Scan(); i++ {
				if want := fmt.Sprintf("line %d ", i); !strings.HasPrefix(scan.Text(), want) {
					t.Errorf("viewer %d: line %d is %.20q", v, i, scan.Text())
					return
				}
			}
			if i != lines {
				t.Errorf("viewer %d has %d lines of %d (%v)", v, i, lines, scan.Err())
			}
		})
	}
	wg.Wait()
}

// TestErrorInTheMiddleCutsTheStream: what is short must not look whole.
func TestErrorInTheMiddleCutsTheStream(t *testing.T) {
	engine := &rich{logs: func(_ context.Context, _ runtime.LogOptions, out, _ io.Writer) error {
		_, _ = io.WriteString(out, strings.Repeat("x", 100_000))
		return errors.New("the engine broke off")
	}}
	n := stubNode(t, engine, nil)
	resp, err := http.Get(n.url + "/v1/logs/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes and no error", len(b))
	}
	// Where there are frames, they say why.
	req, _ := http.NewRequest(http.MethodGet, n.url+"/v1/logs/x", nil)
	req.Header.Set("Accept", MediaFramed)
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil || !strings.HasSuffix(string(b), "the engine broke off") {
		t.Errorf("framed: %d bytes, %v", len(b), err)
	}
}

// TestSamplesAreShared: many watch, the engine is asked once; one that cannot be sampled says why and stops nobody.
func TestSamplesAreShared(t *testing.T) {
	engine := &rich{gate: make(chan struct{})}
	s := newSampler(engine)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if st, err := s.take(t.Context(), "a", time.Minute); err != nil || st.Memory != 1 {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
	eventually(t, "the engine is asked", func() bool { return engine.stats.Load() > 0 })
	time.Sleep(20 * time.Millisecond)
	close(engine.gate)
	wg.Wait()
	if n := engine.stats.Load(); n != 1 {
		t.Errorf("the engine was asked %d times", n)
	}
	// Whoever leaves in the middle takes the sample from nobody else.
	engine = &rich{gate: make(chan struct{})}
	s = newSampler(engine)
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { _, _ = s.take(ctx, "a", time.Minute) })
	eventually(t, "the engine is asked", func() bool { return engine.stats.Load() == 1 })
	got := make(chan error, 1)
	wg.Go(func() { _, err := s.take(t.Context(), "a", time.Minute); got <- err })
	cancel()
	eventually(t, "it is asked again", func() bool { return engine.stats.Load() == 2 })
	close(engine.gate)
	if err := <-got; err != nil {
		t.Errorf("the other one got %v", err)
	}
	wg.Wait()

	n := stubNode(t, &rich{}, nil)
	_, body, _ := n.get("/v1/stats")
	var all struct{ Data []Sample }
	if err := json.Unmarshal([]byte(body), &all); err != nil || len(all.Data) != 2 || all.Data[0].Error != "" || !strings.Contains(all.Data[1].Error, "no figures") {
		t.Errorf("%s, %v", body, err)
	}
}

// TestExecOptionsReachTheEngine as they were asked for.
func TestExecOptionsReachTheEngine(t *testing.T) {
	specs := make(chan runtime.ExecSpec, 1)
	engine := &rich{stub: stub{status: runtime.ContainerStatus{Running: true}}, exec: func(_ context.Context, _ string, spec runtime.ExecSpec, s runtime.Streams) error {
		specs <- spec
		if s.In != nil || s.Out == nil || s.Err != nil || s.Resize == nil {
			return fmt.Errorf("streams %+v", s)
		}
		return nil
	}}
	n := stubNode(t, engine, nil)
	params := url.Values{"command": {"a b", "c"}, "env": {"A=1", "B="}, "tty": {"true"}, "output": {"1"}, "error": {"1"}, "cols": {"100"}, "rows": {"30"}, "user": {"u:g"}, "workdir": {"/w"}, "privileged": {"1"}, "grace": {"3s"}}
	for _, kind := range []string{"spdy", "websocket"} {
		err := n.executor(kind, "/v1/exec/x?"+params.Encode()).StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: io.Discard, Tty: true})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		spec := <-specs
		size := spec.Size
		spec.Size = nil
		want := runtime.ExecSpec{Cmd: []string{"a b", "c"}, Env: []string{"A=1", "B="}, User: "u:g", WorkingDir: "/w", TTY: true, Privileged: true, Grace: 3 * time.Second}
		if fmt.Sprint(spec) != fmt.Sprint(want) || size == nil || *size != (runtime.TerminalSize{Width: 100, Height: 30}) {
			t.Errorf("%s: %+v %v", kind, spec, size)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no engine": {Log: quiet(t)}, "no log": {Engine: &stub{}},
		"slots": {Engine: &stub{}, Log: quiet(t), ExecSlots: -1}, "queue": {Engine: &stub{}, Log: quiet(t), ExecQueue: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPanicIsAnError(t *testing.T) {
	engine := &rich{stub: stub{status: runtime.ContainerStatus{Running: true}}, logs: func(context.Context, runtime.LogOptions, io.Writer, io.Writer) error { panic("deep inside") }}
	var seen atomic.Value
	n := stubNode(t, engine, func(c *Config) {
		c.Observe = func(verb, result string, _ time.Duration) { seen.Store(verb + " " + result) }
	})
	if status, body, _ := n.get("/v1/logs/x"); status != http.StatusInternalServerError || strings.Contains(body, "deep inside") {
		t.Errorf("%d %s", status, body)
	}
	if seen.Load() != "logs internal" {
		t.Errorf("observed %v", seen.Load())
	}
}
