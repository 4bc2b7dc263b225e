package docker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

// The daemon goes away in the middle of an exec and of a followed log.
func TestStreamsBreak(t *testing.T) {
	p := newProxy(t)
	p.start()
	e := open(t, docker.Config{Host: p.host(), Timeout: time.Second})
	id := run(t, &runtime.ContainerSpec{Cmd: []string{"sh", "-c", "echo ready; sleep 1000"}})
	ready := make(chan string, 3)
	failed := map[string]chan error{"Exec": make(chan error, 1), "Logs": make(chan error, 1), "Attach": make(chan error, 1), "Wait": make(chan error, 1)}
	go func() {
		failed["Exec"] <- e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"sh", "-c", "echo up; sleep 1000"}, Grace: 10 * time.Millisecond}, runtime.Streams{Out: first{ready, "Exec"}})
	}()
	go func() {
		failed["Logs"] <- e.Logs(t.Context(), id, runtime.LogOptions{Follow: true}, first{ready, "Logs"}, io.Discard)
	}()
	go func() {
		failed["Attach"] <- e.Attach(t.Context(), id, runtime.AttachSpec{Logs: true}, runtime.Streams{Out: first{ready, "Attach"}})
	}()
	go func() {
		_, err := e.Wait(t.Context(), id)
		failed["Wait"] <- err
	}()
	for range 3 {
		<-ready
	}
	p.stop()
	for name, c := range failed {
		select {
		case err := <-c:
			if !errors.Is(err, runtime.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s goes on without a daemon", name)
		}
	}
}

// first tells once that something was written.
type first struct {
	to   chan<- string
	name string
}

func (f first) Write(p []byte) (int, error) {
	select {
	case f.to <- f.name:
	default:
	}
	return len(p), nil
}

// A thousand lines of either stream arrive whole and in their order.
func TestExecManyLines(t *testing.T) {
	e := engine(t, docker.Config{})
	id := sleeper(t)
	var out, errOut, want bytes.Buffer
	for i := range 1000 {
		want.WriteString(strings.Repeat("x", i%97) + "\n")
	}
	script := `i=0; while [ $i -lt 1000 ]; do printf "%$((i%97))s\n" | tr " " x; printf "%$((i%97))s\n" >&2; i=$((i+1)); done`
	if err := e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"sh", "-c", script}}, runtime.Streams{Out: &out, Err: &errOut}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want.Bytes()) {
		t.Errorf("out: %d bytes, want %d", out.Len(), want.Len())
	}
	if got := strings.ReplaceAll(errOut.String(), " ", "x"); got != want.String() {
		t.Errorf("err: %d bytes, want %d", len(got), want.Len())
	}
}

// What is left in the container after a hundred execs, half of them ended in the middle, is what was there before.
func TestExecLeavesNothing(t *testing.T) {
	e := engine(t, docker.Config{})
	id := sleeper(t)
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		spec := runtime.ExecSpec{Cmd: []string{"true"}}
		if i%2 == 0 {
			spec.Cmd = []string{"sh", "-c", "echo up; sleep 1000"}
		}
		err := e.Exec(ctx, id, spec, runtime.Streams{Out: canceling{cancel}})
		cancel()
		if i%2 == 0 && !errors.Is(err, context.Canceled) || i%2 == 1 && err != nil {
			t.Errorf("exec %d: %v", i, err)
		}
	}
	_, processes, err := e.Top(t.Context(), id, nil)
	if err != nil || len(processes) != 1 {
		t.Errorf("left: %v, %v", processes, err)
	}
}

// canceling ends a ctx at the first byte.
type canceling struct{ cancel context.CancelFunc }

func (c canceling) Write(p []byte) (int, error) {
	c.cancel()
	return len(p), nil
}

// The terminal of a main process is resized through Attach.
func TestAttachTerminal(t *testing.T) {
	e := engine(t, docker.Config{})
	id := run(t, &runtime.ContainerSpec{TTY: true, OpenStdin: true, Cmd: []string{"sh", "-c", `read x; while [ "$(stty size 2>/dev/null)" != "40 120" ]; do sleep 0.05; done; echo is $x`}})
	sizes := make(chan runtime.TerminalSize, 1)
	sizes <- runtime.TerminalSize{Width: 120, Height: 40}
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = io.WriteString(w, "resized\n") }()
	var out bytes.Buffer
	if err := e.Attach(t.Context(), id, runtime.AttachSpec{TTY: true}, runtime.Streams{In: r, Out: &out, Resize: sizes}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "is resized\r\n") {
		t.Errorf("got %q", out.String())
	}
}

// A container whose log driver keeps nothing has no logs, and says so.
func TestLogsUnsupported(t *testing.T) {
	e := engine(t, docker.Config{})
	id := run(t, &runtime.ContainerSpec{Cmd: []string{"echo", "x"}, LogDriver: "none"})
	err := e.Logs(t.Context(), id, runtime.LogOptions{}, io.Discard, io.Discard)
	if !errors.Is(err, runtime.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
