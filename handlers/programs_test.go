package handlers_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/service"
)

// programs wires the events for programs over the real dockerd, and runs a container.
func programs(t *testing.T, policy func(context.Context, service.Action) error, spec runtime.ContainerSpec) (*events.Router, string) {
	t.Helper()
	engine, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	log := logrus.New()
	log.SetOutput(&lockedBuffer{})
	svc, err := service.New(service.Config{Engine: engine, Log: log, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { svc.Close() })
	spec.Name, spec.Image, spec.NetworkMode = "programs-"+newUUID(), "drover-test/busybox:1", "none"
	if spec.Cmd == nil {
		spec.Cmd = []string{"sleep", "3600"}
	}
	id, _, err := engine.Create(t.Context(), &spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Remove(cleanupContext(t), id, runtime.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	if err := engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r := events.NewRouter(events.RouterConfig{Classify: handlers.Classify})
	handlers.RegisterPrograms(r, engine, svc)
	return r, id
}

type outputText struct {
	Text, Tail, Encoding string
	Bytes                int64
	Truncated            bool
	OmittedBytes         int64
}

type execAnswer struct {
	Container      string
	ExitCode       int
	TimedOut       bool
	DurationMillis int64
	Stdout, Stderr outputText
}

func TestContainerExec(t *testing.T) {
	r, id := programs(t, nil, runtime.ContainerSpec{})
	var a execAnswer
	ask(t, r, handlers.EventContainerExec, m{
		"container": id[:12], "command": []string{"sh", "-c", `cat; echo "$A $PWD $(id -u)"; echo grüße >&2; exit 3`},
		"env": []string{"A=b c"}, "workDir": "/tmp", "user": "nobody", "stdin": "from the program\n",
	}, &a)
	if a.Container != id || a.ExitCode != 3 || a.Stdout.Text != "from the program\nb c /tmp 65534\n" || a.Stderr.Text != "grüße\n" || a.Stdout.Truncated || a.Stderr.Bytes != 8 {
		t.Errorf("%+v", a)
	}

	// Binary both ways.
	raw := bytes.Repeat([]byte{0, 1, 0xff, 0xfe}, 1000)
	a = execAnswer{}
	ask(t, r, handlers.EventContainerExec, m{"container": id, "command": []string{"cat"}, "stdinBase64": base64.StdEncoding.EncodeToString(raw)}, &a)
	if back, err := base64.StdEncoding.DecodeString(a.Stdout.Text); err != nil || a.Stdout.Encoding != "base64" || !bytes.Equal(back, raw) {
		t.Errorf("%d bytes came back as %q, %v", len(back), a.Stdout.Encoding, err)
	}

	// Too much: both ends are kept, whole characters.
	a = execAnswer{}
	ask(t, r, handlers.EventContainerExec, m{
		"container": id, "command": []string{"sh", "-c", `echo begin; i=0; while [ $i -lt 2000 ]; do echo "äöü$i"; i=$((i+1)); done; echo end`}, "maxOutputBytes": 101,
	}, &a)
	o := a.Stdout
	if !o.Truncated || o.Encoding != "" || !strings.HasPrefix(o.Text, "begin\näöü0\n") || !strings.HasSuffix(o.Tail, "äöü1999\nend\n") ||
		o.Bytes != int64(len(o.Text)+len(o.Tail))+o.OmittedBytes || len(o.Text)+len(o.Tail) > 101 {
		t.Errorf("%+v", o)
	}
	a = execAnswer{}
	ask(t, r, handlers.EventContainerExec, m{"container": id, "command": []string{"sh", "-c", "head -c 50000000 /dev/zero; head -c 3000000 /dev/zero >&2"}}, &a)
	if a.ExitCode != 0 || a.Stdout.Bytes != 50_000_000 || a.Stderr.Bytes != 3_000_000 || !a.Stdout.Truncated || a.Stdout.OmittedBytes != 50_000_000-1<<20 {
		t.Errorf("bytes %d and %d, omitted %d, code %d", a.Stdout.Bytes, a.Stderr.Bytes, a.Stdout.OmittedBytes, a.ExitCode)
	}

	// Time up: what was said so far, and nothing runs on.
	a = execAnswer{}
	ask(t, r, handlers.EventContainerExec, m{"container": id, "command": []string{"sh", "-c", "echo so far; sleep 7111"}, "timeoutMillis": 300}, &a)
	if !a.TimedOut || a.ExitCode != -1 || a.Stdout.Text != "so far\n" || a.DurationMillis < 300 {
		t.Errorf("%+v", a)
	}
	ev := imageEvent(t, handlers.EventContainerExec, m{"container": id, "command": []string{"sh", "-c", "echo so far; sleep 7111"}})
	ev.TimeoutMillis = 3000
	if reply := mustServe(t, r, ev); !strings.Contains(string(reply.Data), `"timedOut":true`) || !strings.Contains(string(reply.Data), "so far") {
		t.Errorf("the event's own deadline: %s", reply.Data)
	}
	a = execAnswer{}
	ask(t, r, handlers.EventContainerExec, m{"container": id, "command": []string{"ps"}}, &a)
	if strings.Contains(a.Stdout.Text, "7111") {
		t.Errorf("it runs on:\n%s", a.Stdout.Text)
	}
}

func TestContainerExecRefusals(t *testing.T) {
	r, id := programs(t, func(_ context.Context, a service.Action) error {
		if a.Exec != nil && a.Exec.Cmd[0] == "rm" || a.Path == "/etc/shadow" {
			return errors.New("not on this host")
		}
		return nil
	}, runtime.ContainerSpec{})
	big := strings.Repeat("x", 5<<20)
	for _, c := range []struct {
		name       string
		data       any
		code, want string
	}{
		{handlers.EventContainerExec, m{}, wire.CodeInvalid, "container: missing"},
		{handlers.EventContainerExec, m{"container": id}, wire.CodeInvalid, "command: missing"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{""}}, wire.CodeInvalid, "command"},
		{handlers.EventContainerExec, m{"container": id, "command": "true"}, wire.CodeInvalid, "command"},
		{handlers.EventContainerExec, m{"container": id, "command": []any{m{}}}, wire.CodeInvalid, "command[0]"},
		{handlers.EventContainerExec, m{"container": []string{"x"}, "command": []string{"true"}}, wire.CodeInvalid, "container"},
		{handlers.EventContainerExec, m{"container": "../../x", "command": []string{"true"}}, wire.CodeInvalid, "x"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"a\x00b"}}, wire.CodeInvalid, "zero byte"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"true"}, "env": []string{"=x"}}, wire.CodeInvalid, "env[0]"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"true"}, "maxOutputBytes": 0}, wire.CodeInvalid, "maxOutputBytes"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"true"}, "maxOutputBytes": 1 << 30}, wire.CodeInvalid, "maxOutputBytes"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"true"}, "timeoutMillis": -1}, wire.CodeInvalid, "timeoutMillis"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"true"}, "stdinBase64": "%"}, wire.CodeInvalid, "stdinBase64"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"true"}, "stdin": "a", "stdinBase64": "YQ=="}, wire.CodeInvalid, "stdin is given too"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"true"}, "stdin": big}, wire.CodeInvalid, "stdin"},
		{handlers.EventContainerExec, m{"container": "no-such", "command": []string{"true"}}, wire.CodeNotFound, "no-such"},
		{handlers.EventContainerExec, m{"container": id, "command": []string{"rm", "-r", "/"}}, wire.CodeDenied, "not on this host"},
		{handlers.EventContainerLogs, m{}, wire.CodeInvalid, "container: missing"},
		{handlers.EventContainerLogs, m{"container": id, "tail": -5}, wire.CodeInvalid, "tail"},
		{handlers.EventContainerLogs, m{"container": id, "since": "yesterday"}, wire.CodeInvalid, "since"},
		{handlers.EventContainerLogs, m{"container": id, "filter": "("}, wire.CodeInvalid, "filter"},
		{handlers.EventContainerLogs, m{"container": "no-such"}, wire.CodeNotFound, "no-such"},
		{handlers.EventContainerInspect, m{"container": "no-such"}, wire.CodeNotFound, "no-such"},
		{handlers.EventContainerInspect, []string{"x"}, wire.CodeInvalid, ""},
		{handlers.EventContainerStats, m{"container": "no-such"}, wire.CodeNotFound, "no-such"},
		{handlers.EventContainerFiles, m{"container": id, "path": "etc"}, wire.CodeInvalid, "path"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/etc", "action": "format"}, wire.CodeInvalid, "action"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/no/such"}, wire.CodeNotFound, "no/such"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/tmp", "action": "read"}, wire.CodeInvalid, "no ordinary file"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/etc/shadow", "action": "read"}, wire.CodeDenied, "not on this host"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/tmp/x", "action": "write"}, wire.CodeInvalid, "text"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/tmp/", "action": "write", "text": ""}, wire.CodeInvalid, "path"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/tmp/x", "action": "write", "text": "", "mode": "9"}, wire.CodeInvalid, "mode"},
		{handlers.EventContainerFiles, m{"container": id, "path": "/no/such/x", "action": "write", "text": ""}, wire.CodeNotFound, "no/such"},
	} {
		refused(t, r, c.name, c.data, c.code, c.want)
	}
}

func TestContainerLogsStatsInspect(t *testing.T) {
	r, id := programs(t, nil, runtime.ContainerSpec{Cmd: []string{"sh", "-c", `for i in 1 2 3; do echo "out $i"; echo "err $i" >&2; done; sleep 3600`}})
	type answer struct{ Stdout, Stderr outputText }
	var a answer
	for deadline := time.Now().Add(time.Minute); !strings.Contains(a.Stderr.Text, "err 3"); {
		a = answer{}
		ask(t, r, handlers.EventContainerLogs, m{"container": id}, &a)
		if time.Now().After(deadline) {
			t.Fatalf("%+v", a)
		}
	}
	if a.Stdout.Text != "out 1\nout 2\nout 3\n" || a.Stderr.Text != "err 1\nerr 2\nerr 3\n" {
		t.Errorf("%+v", a)
	}
	for want, data := range map[string]m{
		"out 2\n":               {"container": id, "stdout": true, "filter": "2$"},
		"out 1\nout 2\nout 3\n": {"container": id, "stdout": true, "tail": 6, "since": "1h"},
		"":                      {"container": id, "tail": 0},
	} {
		a = answer{}
		ask(t, r, handlers.EventContainerLogs, data, &a)
		if a.Stdout.Text != want {
			t.Errorf("%v: %+v", data, a)
		}
	}
	var stats struct {
		Stats struct {
			ID          string
			MemoryBytes uint64
			Pids        uint64
		}
	}
	ask(t, r, handlers.EventContainerStats, m{"container": id[:12]}, &stats)
	if stats.Stats.ID != id || stats.Stats.MemoryBytes == 0 || stats.Stats.Pids == 0 {
		t.Errorf("%+v", stats)
	}
	var inspect struct {
		Container struct {
			ID    string `json:"Id"`
			State struct{ Running bool }
		}
	}
	ask(t, r, handlers.EventContainerInspect, m{"container": id[:12]}, &inspect)
	if inspect.Container.ID != id || !inspect.Container.State.Running {
		t.Errorf("%+v", inspect)
	}
}

func TestContainerFiles(t *testing.T) {
	r, id := programs(t, nil, runtime.ContainerSpec{})
	ask(t, r, handlers.EventContainerFiles, m{"container": id, "action": "write", "path": "/tmp/a b", "text": "grüße", "mode": "0600", "uid": 7}, nil)
	ask(t, r, handlers.EventContainerFiles, m{"container": id, "action": "write", "path": "/tmp/raw", "base64": "AAH/"}, nil)
	var f struct {
		File struct {
			Type, Mode string
			Size       int64
		}
	}
	ask(t, r, handlers.EventContainerFiles, m{"container": id, "path": "/tmp/a b"}, &f)
	if f.File.Type != "file" || f.File.Mode != "0600" || f.File.Size != 7 {
		t.Errorf("%+v", f)
	}
	var content struct {
		Content outputText
		Mode    string
	}
	ask(t, r, handlers.EventContainerFiles, m{"container": id, "path": "/tmp/a b", "action": "read"}, &content)
	if content.Content.Text != "grüße" || content.Mode != "0600" {
		t.Errorf("%+v", content)
	}
	content.Content = outputText{}
	ask(t, r, handlers.EventContainerFiles, m{"container": id, "path": "/tmp/raw", "action": "read"}, &content)
	if content.Content.Text != "AAH/" || content.Content.Encoding != "base64" {
		t.Errorf("%+v", content)
	}
	var list struct {
		Files     []struct{ Name string }
		Truncated bool
	}
	ask(t, r, handlers.EventContainerFiles, m{"container": id, "path": "/tmp", "action": "list"}, &list)
	if len(list.Files) != 2 || list.Files[0].Name != "a b" || list.Files[1].Name != "raw" || list.Truncated {
		t.Errorf("%+v", list)
	}
}
