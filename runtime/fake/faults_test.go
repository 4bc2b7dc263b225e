package fake_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/fake"
)

// started returns an engine with one container that runs.
func started(t testing.TB, opts ...fake.Option) (*fake.Engine, string) {
	t.Helper()
	e := fake.New(append([]fake.Option{fake.WithImages("nginx:1")}, opts...)...)
	t.Cleanup(func() { e.Close() })
	id, _, err := e.Create(context.Background(), &runtime.ContainerSpec{Name: "web", Image: "nginx:1", Labels: map[string]string{"a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	return e, id
}

func TestDown(t *testing.T) {
	e, id := started(t)
	broken := make(chan error, 1)
	following := make(chan error, 1)
	go func() {
		for _, err := range e.Watch(t.Context(), time.Now()) {
			broken <- err
		}
	}()
	go func() {
		following <- e.Logs(t.Context(), id, runtime.LogOptions{Follow: true}, nil, nil)
	}()
	for e.Calls("Watch") == 0 || e.Calls("Logs") == 0 {
		time.Sleep(time.Millisecond)
	}
	e.Down()
	if _, err := e.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	for _, c := range []chan error{broken, following} {
		if err := <-c; !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("a stream: %v", err)
		}
	}
	e.Up()
	if st, err := e.State(t.Context(), id); err != nil || !st.Running {
		t.Errorf("afterwards: %+v, %v", st, err)
	}
}

func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, id := started(t)
		e.Hang()
		began := time.Now()
		if err := e.Ping(t.Context()); !errors.Is(err, runtime.ErrUnavailable) || time.Since(began) != 30*time.Second {
			t.Errorf("without a deadline: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		err := e.Start(ctx, id)
		if !errors.Is(err, runtime.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("with a deadline: %v after %v", err, time.Since(began))
		}
		time.AfterFunc(5*time.Second, e.Up)
		began = time.Now()
		if _, err := e.Inspect(t.Context(), id); err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("until it answers again: %v after %v", err, time.Since(began))
		}
		e.Delay("Inspect", time.Minute)
		began = time.Now()
		if _, err := e.Inspect(t.Context(), id); err != nil || time.Since(began) != time.Minute {
			t.Errorf("delayed: %v after %v", err, time.Since(began))
		}
		e.Close()
	})
}

func TestFail(t *testing.T) {
	e, id := started(t)
	reason := errors.New("disk full")
	e.Fail("Inspect", 2, reason)
	for i := range 3 {
		_, err := e.Inspect(t.Context(), id)
		if i < 2 && !errors.Is(err, reason) || i == 2 && err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	e.Fail("Stop", -1, runtime.ErrConflict)
	for range 3 {
		if err := e.Stop(t.Context(), id, nil); !errors.Is(err, runtime.ErrConflict) {
			t.Errorf("got %v", err)
		}
	}
	e.Fail("Stop", 0, nil)
	if err := e.Stop(t.Context(), id, nil); err != nil {
		t.Error(err)
	}
	if n := e.Calls("Inspect"); n != 3 {
		t.Errorf("%d calls counted", n)
	}
}

// A consumer that falls behind is told so; one that asks for what was forgotten gets what is left.
func TestWatchBehind(t *testing.T) {
	e, id := started(t)
	count := 0
	var last error
	for _, err := range e.Watch(t.Context(), time.Now().Add(-time.Hour)) {
		if err != nil {
			last = err
			break
		}
		if count++; count == 1 { // while the first is looked at, much happens
			for range 500 {
				if err := e.Kill(t.Context(), id, "WINCH"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if !errors.Is(last, runtime.ErrUnavailable) {
		t.Errorf("got %v after %d notices", last, count)
	}
	e.Forget()
	if err := e.Kill(t.Context(), id, "WINCH"); err != nil {
		t.Fatal(err)
	}
	for n, err := range e.Watch(t.Context(), time.Now().Add(-time.Hour)) {
		if err != nil || n.Action != "kill" {
			t.Errorf("after it forgot: %+v, %v", n, err)
		}
		break
	}
}

// An engine's JSON has what a server reads of dockerd's.
func TestInspectShape(t *testing.T) {
	e := fake.New(fake.WithImage("app:1", runtime.ImageConfig{Cmd: []string{"serve"}, Env: []string{"PATH=/bin"}, ExposedPorts: []runtime.Port{{PrivatePort: 80, Protocol: "tcp"}}}))
	defer e.Close()
	id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{
		Name: "x", Image: "app:1", Env: []string{"A=1"}, Labels: map[string]string{"k": "v"}, Binds: []string{"/a:/b:ro"},
		PortBindings: []runtime.Port{{PrivatePort: 80, PublicPort: 8080}}, Resources: runtime.Resources{CPUShares: 7},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	raw, err := e.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		ID, Name, Image string
		State           struct {
			Running   bool
			Pid       int
			StartedAt time.Time
		}
		Config struct {
			Env    []string
			Labels map[string]string
		}
		HostConfig struct {
			CPUShares int `json:"CpuShares"`
		}
		Mounts []struct {
			Source, Destination, Mode string
			RW                        bool
		}
		NetworkSettings struct {
			IPAddress string
			Ports     map[string][]struct{ HostIP, HostPort string }
		}
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	if c.ID != id || c.Name != "/x" || !strings.HasPrefix(c.Image, "sha256:") || !c.State.Running || c.State.Pid == 0 || c.State.StartedAt.IsZero() ||
		strings.Join(c.Config.Env, " ") != "PATH=/bin A=1" || c.Config.Labels["k"] != "v" || c.HostConfig.CPUShares != 7 || len(c.Mounts) != 1 ||
		c.Mounts[0].Destination != "/b" || c.Mounts[0].RW || c.NetworkSettings.IPAddress == "" || c.NetworkSettings.Ports["80/tcp"][0].HostPort != "8080" {
		t.Errorf("%s", raw)
	}
}

func TestProgram(t *testing.T) {
	e, id := started(t, fake.WithProgram("hello", func(_ context.Context, p *fake.Process) int {
		fmt.Fprintf(p.Stdout, "hello %s", p.Getenv("WHO"))
		return 3
	}))
	var out bytes.Buffer
	err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"/bin/hello"}, Env: []string{"WHO=world"}}, runtime.Streams{Out: &out})
	var exit *runtime.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "hello world" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestCloseEndsProcesses(t *testing.T) {
	e, id := started(t)
	done := make(chan error, 1)
	go func() {
		done <- e.Exec(context.Background(), id, runtime.ExecSpec{Cmd: []string{"sleep", "1000"}}, runtime.Streams{})
	}()
	for e.Calls("Exec") == 0 {
		time.Sleep(time.Millisecond)
	}
	e.Close()
	if err := <-done; err == nil {
		t.Error("a process survived the engine")
	}
	if err := e.Ping(t.Context()); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// FuzzShell: whatever a script is, it ends with its ctx.
func FuzzShell(f *testing.F) {
	for _, s := range []string{"echo a; exit 3", "for i in 1 2; do echo $i; done", "a && b || c | d", "x=1; echo \"$x\" > /tmp/f; cat < /tmp/f", "while true; do true; done", "( : ) & wait", "$((", "echo ${x:?}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		e, id := started(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_ = e.Exec(ctx, id, runtime.ExecSpec{Cmd: []string{"sh", "-c", script}, Grace: time.Millisecond}, runtime.Streams{})
		e.Close()
	})
}

func BenchmarkInspect(b *testing.B) {
	e, id := started(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Inspect(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}
