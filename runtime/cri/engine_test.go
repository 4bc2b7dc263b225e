package cri_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/cri"
	"github.com/droverhq/drover/runtime/cri/critest"
)

// spec sleeps.
func spec(cmd ...string) *runtime.ContainerSpec {
	if len(cmd) == 0 {
		cmd = []string{"sleep", "1000"}
	}
	return &runtime.ContainerSpec{Image: critest.Image, Cmd: cmd, NetworkMode: "host"}
}

func create(t *testing.T, e *cri.Engine, s *runtime.ContainerSpec) string {
	t.Helper()
	id, warnings, err := e.Create(t.Context(), s)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return id
}

func run(t *testing.T, e *cri.Engine, s *runtime.ContainerSpec) string {
	t.Helper()
	id := create(t, e, s)
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func closing(t *testing.T, e *cri.Engine) *cri.Engine {
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func want(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: got error %v, want %v", what, err, class)
	}
}

// TestEngine is what the conformance suite cannot ask of a CRI runtime, on one containerd.
func TestEngine(t *testing.T) {
	c := critest.Start(t)
	e := closing(t, newEngine(t, c))
	for name, test := range map[string]func(*testing.T, *critest.Containerd, *cri.Engine){
		"Lifecycle": testLifecycle, "Refused": testRefused, "Images": testImages, "Watch": testWatch, "CopyErrors": testCopyErrors,
		"Users": testUsers, "Rotation": testRotation, "Pods": testPods,
	} {
		t.Run(name, func(t *testing.T) { test(t, c, e) })
	}
	t.Run("Crash", func(t *testing.T) { testCrash(t, c, e) }) // last: it takes the runtime away
}

func testLifecycle(t *testing.T, _ *critest.Containerd, e *cri.Engine) {
	s := spec()
	s.Labels = map[string]string{"a": "1", "b": ""}
	s.OpenStdin = true
	id := create(t, e, s)
	st, err := e.State(t.Context(), id)
	if err != nil || st.ID != id || st.Running || st.Status != "created" || st.Pid != 0 || !st.OpenStdin || st.TTY || len(st.Labels) != 2 || !st.StartedAt.IsZero() {
		t.Errorf("created: %+v, %v", st, err)
	}
	for range 2 { // the second is no error, and does nothing
		want(t, "Start", e.Start(t.Context(), id), nil)
	}
	if st, _ = e.State(t.Context(), id); !st.Running || st.Pid <= 0 || st.StartedAt.IsZero() || st.LogPath == "" {
		t.Errorf("started: %+v", st)
	}
	none := time.Duration(0)
	for range 2 {
		want(t, "Stop", e.Stop(t.Context(), id, &none), nil)
	}
	if st, _ = e.State(t.Context(), id); st.Running || st.Status != "exited" || st.Pid != 0 || st.FinishedAt.IsZero() {
		t.Errorf("stopped: %+v", st)
	}
	want(t, "Start again", e.Start(t.Context(), id), runtime.ErrUnsupported)
	want(t, "Remove", e.Remove(t.Context(), id, runtime.RemoveOptions{}), nil)
	_, err = e.State(t.Context(), id)
	want(t, "State of a removed container", err, runtime.ErrNotFound)
}

func testRefused(t *testing.T, _ *critest.Containerd, e *cri.Engine) {
	id := create(t, e, spec())
	limit := int64(5)
	for what, change := range map[string]func(*runtime.ContainerSpec){
		"removal":   func(s *runtime.ContainerSpec) { s.AutoRemove = true },
		"restart":   func(s *runtime.ContainerSpec) { s.RestartPolicy.Name = "always" },
		"network":   func(s *runtime.ContainerSpec) { s.NetworkMode = "container:x" },
		"volume":    func(s *runtime.ContainerSpec) { s.Binds = []string{"name:/data"} },
		"links":     func(s *runtime.ContainerSpec) { s.Links = []string{"a"} },
		"processes": func(s *runtime.ContainerSpec) { s.Resources.PidsLimit = &limit },
		"group":     func(s *runtime.ContainerSpec) { s.GroupAdd = []string{"wheel"} },
	} {
		s := spec()
		change(s)
		_, _, err := e.Create(t.Context(), s)
		want(t, what, err, runtime.ErrUnsupported)
	}
	s := spec()
	s.Binds = []string{"nonsense"}
	_, _, err := e.Create(t.Context(), s)
	want(t, "no mount", err, runtime.ErrInvalid)
	want(t, "Attach before Start", e.Attach(t.Context(), id, runtime.AttachSpec{}, runtime.Streams{}), runtime.ErrConflict)
	want(t, "a second name", e.TagImage(t.Context(), critest.Image, "x:1"), runtime.ErrUnsupported)
	want(t, "another platform", e.Pull(t.Context(), runtime.PullRequest{Ref: "x:1", Platform: "linux/arm64"}, nil), runtime.ErrUnsupported)
	running := run(t, e, spec())
	want(t, "a privileged process", e.Exec(t.Context(), running, runtime.ExecSpec{Cmd: []string{"true"}, Privileged: true}, runtime.Streams{}), runtime.ErrUnsupported)
	for _, id := range []string{id, running} {
		want(t, "Remove", e.Remove(t.Context(), id, runtime.RemoveOptions{Force: true}), nil)
	}
	if _, err := cri.New(cri.Config{Socket: "relative"}); err == nil {
		t.Error("a relative socket")
	}
}

func testImages(t *testing.T, _ *critest.Containerd, e *cri.Engine) {
	config, err := e.ImageConfig(t.Context(), critest.Image)
	if err != nil {
		t.Fatal(err)
	}
	list, err := e.ListImages(t.Context())
	found := false
	for _, img := range list {
		found = found || img.ID == config.ID && img.Size > 0
	}
	if err != nil || !found {
		t.Errorf("ListImages: %+v, %v", list, err)
	}
	want(t, "RemoveImage of an unknown one", e.RemoveImage(t.Context(), "no.such.registry.invalid/x:1", true), runtime.ErrNotFound)
	want(t, "RemoveImage of no reference", e.RemoveImage(t.Context(), "A B", true), runtime.ErrInvalid)
}

func testWatch(t *testing.T, _ *critest.Containerd, e *cri.Engine) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := e.Watch(ctx, time.Time{})
	type element struct {
		n   runtime.Notice
		err error
	}
	elements := make(chan element, 100)
	go func() {
		defer close(elements)
		for n, err := range stream {
			elements <- element{n, err}
		}
	}()
	s := spec()
	s.Labels = map[string]string{"a": "1"}
	id := run(t, e, s)
	none := time.Duration(0)
	var got []string
	for len(got) == 0 || got[len(got)-1] != "destroy" {
		el := <-elements
		if el.err != nil || ctx.Err() != nil {
			t.Fatal(el.err, got)
		}
		if el.n.ID != id {
			continue
		}
		if el.n.Image != critest.Image || el.n.Labels["a"] != "1" || len(el.n.Labels) != 1 || el.n.Time.IsZero() {
			t.Errorf("notice: %+v", el.n)
		}
		got = append(got, el.n.Action)
		var err error
		switch el.n.Action {
		case "start":
			err = e.Stop(t.Context(), id, &none)
		case "die":
			err = e.Remove(t.Context(), id, runtime.RemoveOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if text := strings.Join(got, " "); text != "create start die destroy" {
		t.Errorf("got %s", text)
	}
	cancel()
	for el := range elements {
		want(t, "the end of ctx", el.err, nil)
	}
}

func testCopyErrors(t *testing.T, _ *critest.Containerd, e *cri.Engine) {
	id := run(t, e, spec())
	defer e.Remove(context.WithoutCancel(t.Context()), id, runtime.RemoveOptions{Force: true})
	want(t, "a directory that is not there", e.CopyTo(t.Context(), id, "/no/such", strings.NewReader("")), runtime.ErrNotFound)
	_, _, err := e.CopyFrom(t.Context(), id, "/no/such")
	want(t, "a path that is not there", err, runtime.ErrNotFound)
	_, err = e.StatPath(t.Context(), id, "/no/such")
	want(t, "a path that is not there", err, runtime.ErrNotFound)
	want(t, "no archive", e.CopyTo(t.Context(), id, "/tmp", strings.NewReader(strings.Repeat("x", 1024))), runtime.ErrInvalid)
	// Links that lead out of the container lead to its own files.
	if err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"ln", "-s", "/../../../etc", "/tmp/out"}}, runtime.Streams{}); err != nil {
		t.Fatal(err)
	}
	body, st, err := e.CopyFrom(t.Context(), id, "/tmp/out/passwd")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(body)
	want(t, "Close", body.Close(), nil)
	if st.Name != "passwd" || !bytes.Contains(b, []byte("nobody:x:65534:65534:nobody:/:/bin/false")) {
		t.Errorf("not the container's own: %q", b)
	}
	stopped := create(t, e, spec())
	defer e.Remove(context.WithoutCancel(t.Context()), stopped, runtime.RemoveOptions{Force: true})
	want(t, "a container that does not run", e.CopyTo(t.Context(), stopped, "/tmp", strings.NewReader("")), runtime.ErrConflict)
}

func testUsers(t *testing.T, _ *critest.Containerd, e *cri.Engine) {
	id := run(t, e, spec())
	defer e.Remove(context.WithoutCancel(t.Context()), id, runtime.RemoveOptions{Force: true})
	for user, want := range map[string]string{"": "0\n", "root": "0\n", "0": "0\n", "nobody": "65534\n", "65534": "65534\n", "65534:0": "65534\n"} {
		var out, errOut bytes.Buffer
		err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"id", "-u"}, User: user, Env: []string{"A=b c"}, WorkingDir: "/tmp"}, runtime.Streams{Out: &out, Err: &errOut})
		if err != nil || out.String() != want {
			t.Errorf("user %q: %q, %q, %v", user, out.String(), errOut.String(), err)
		}
	}
	var exit *runtime.ExitError
	if err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"id"}, User: "no-such-user"}, runtime.Streams{}); !errors.As(err, &exit) {
		t.Errorf("an unknown user: %v", err)
	}
	if err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"id"}, User: "1234"}, runtime.Streams{}); !errors.As(err, &exit) || exit.Code != 126 {
		t.Errorf("a number that this container has no way to: %v", err)
	}
	if err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"pwd"}, WorkingDir: "/no/such"}, runtime.Streams{}); !errors.As(err, &exit) || exit.Code != 126 {
		t.Errorf("an unknown directory: %v", err)
	}
}

func testRotation(t *testing.T, c *critest.Containerd, e *cri.Engine) {
	id := run(t, e, spec("sh", "-c", "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; printf second"))
	defer e.Remove(context.WithoutCancel(t.Context()), id, runtime.RemoveOptions{Force: true})
	st, err := e.State(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the first line is there", func() bool { b, _ := os.ReadFile(st.LogPath); return len(b) > 0 })
	// As the kubelet does it.
	if err := os.Rename(st.LogPath, st.LogPath+".20260102-150405"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client(t).ReopenContainerLog(t.Context(), reopen(id)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- e.Logs(t.Context(), id, runtime.LogOptions{Follow: true}, &out, nil) }()
	if err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"touch", "/tmp/go"}}, runtime.Streams{}); err != nil {
		t.Fatal(err)
	}
	want(t, "Logs", <-done, nil)
	if out.String() != "first\nsecond" {
		t.Errorf("got %q", out.String())
	}
	if m, _ := filepath.Glob(st.LogPath + "*"); len(m) != 2 {
		t.Errorf("files: %v", m)
	}
}

func testPods(t *testing.T, c *critest.Containerd, e *cri.Engine) {
	sandbox, ids := c.Pod(t, "ns", "web", map[string][]string{"app": {"sleep", "1000"}})
	for _, name := range []string{"ns/web/app", "k8s_app_web_ns_web-uid_0", ids["app"][:16]} {
		if st, err := e.State(t.Context(), name); err != nil || st.ID != ids["app"] {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := e.ModelDetail(t.Context(), sandbox)
	if err != nil || !d.IsSandbox || d.NetworkMode != "host" || d.State.Pid <= 0 || d.Labels["io.kubernetes.pod.name"] != "web" {
		t.Errorf("sandbox: %+v, %v", d, err)
	}
	if d, err := e.ModelDetail(t.Context(), ids["app"]); err != nil || d.IsSandbox || d.SandboxID != sandbox || d.Runtime != runtime.Runc {
		t.Errorf("container: %+v, %v", d, err)
	}
	want(t, "Remove", e.Remove(t.Context(), ids["app"], runtime.RemoveOptions{Force: true}), nil)
	if _, err := e.ModelDetail(t.Context(), sandbox); err != nil {
		t.Errorf("the sandbox of a pod went with a container: %v", err)
	}
}

func testCrash(t *testing.T, c *critest.Containerd, e *cri.Engine) {
	id := run(t, e, spec())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	broken := make(chan error, 1)
	go func() {
		for _, err := range e.Watch(ctx, time.Time{}) {
			if err != nil {
				broken <- err
			}
		}
	}()
	c.Kill(t)
	short, cut := context.WithTimeout(t.Context(), 10*time.Second)
	defer cut()
	err := e.Ping(short)
	if !errors.Is(err, runtime.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ping while it is away: %v", err)
	}
	want(t, "Watch", <-broken, runtime.ErrUnavailable)
	c.Restart(t)
	until(t, "it answers again", func() bool { return e.Ping(ctx) == nil })
	if st, err := e.State(t.Context(), id); err != nil || !st.Running {
		t.Errorf("the container after the crash: %+v, %v", st, err)
	}
	var out bytes.Buffer
	if err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"echo", "hi"}}, runtime.Streams{Out: &out}); err != nil || out.String() != "hi\n" {
		t.Errorf("Exec after the crash: %q, %v", out.String(), err)
	}
	want(t, "Remove", e.Remove(t.Context(), id, runtime.RemoveOptions{Force: true}), nil)
}
