package streamclient

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service"
)

func TestBadBases(t *testing.T) {
	for _, base := range []string{"", "x", "ftp://x", "https://", "https://u:secret@x", "https://x/?q=1", "https://x/#f", "http://[::1"} {
		_, err := New(Config{Base: base})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestExec(t *testing.T) {
	n := newNode(t, nil)
	c, id := n.client(), n.run(runtime.ContainerSpec{})
	var out, errOut bytes.Buffer
	err := c.Exec(bounded(t), id, ExecOptions{
		Cmd: []string{"sh", "-c", `echo "$A $PWD $(id -u)"; echo oops >&2; exit 3`},
		Env: []string{"A=b c"}, WorkingDir: "/tmp", User: "nobody", Streams: Streams{Stdout: &out, Stderr: &errOut},
	})
	var exit *runtime.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "b c /tmp 65534\n" || errOut.String() != "oops\n" {
		t.Errorf("stdout %q, stderr %q, %v", out.String(), errOut.String(), err)
	}

	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	out.Reset()
	if err := c.Exec(bounded(t), id, ExecOptions{Cmd: []string{"cat"}, Streams: Streams{Stdin: bytes.NewReader(data), Stdout: &out}}); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%d bytes came back, want the same %d; %v", out.Len(), len(data), err)
	}

	out.Reset()
	sizes := make(chan runtime.TerminalSize, 1)
	ready := func(p []byte) { // the second size comes when the first was seen
		if bytes.Contains(p, []byte("43 132")) {
			sizes <- runtime.TerminalSize{Width: 99, Height: 33}
		}
	}
	err = c.Exec(bounded(t), id, ExecOptions{
		Cmd:  []string{"sh", "-c", "sleep 0.3; stty size; until stty size | grep -x '33 99'; do sleep 0.1; done"},
		TTY:  true,
		Size: &runtime.TerminalSize{Width: 132, Height: 43}, Streams: Streams{Stdout: io.MultiWriter(&out, tell(ready)), Resize: sizes},
	})
	if err != nil || strings.TrimSpace(out.String()) != "43 132\r\n33 99" {
		t.Errorf("sizes %q, %v", out.String(), err)
	}

	d, err := c.ExecDetached(bounded(t), id, ExecOptions{Cmd: []string{"sh", "-c", "exit 4"}})
	if err != nil || d.State != "ended" || d.ExitCode != 4 {
		t.Errorf("detached: %+v, %v", d, err)
	}
	d, err = c.ExecDetached(bounded(t), id, ExecOptions{Cmd: []string{"sleep", "7041"}})
	if err != nil || d.State != "running" || n.processes(id, "7041") != 1 {
		t.Errorf("detached: %+v, %v", d, err)
	}
}

// tell is a writer that calls a function.
type tell func(p []byte)

func (f tell) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestAttach(t *testing.T) {
	n := newNode(t, nil)
	id := n.run(runtime.ContainerSpec{Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true})
	var out bytes.Buffer
	err := n.client().Attach(bounded(t), id, AttachOptions{Streams: Streams{Stdin: strings.NewReader("through the main process\n"), Stdout: &out}})
	if err != nil || out.String() != "through the main process\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestCancel: the call returns its context's cause, and the process is ended.
func TestCancel(t *testing.T) {
	n := newNode(t, nil)
	c, id := n.client(), n.run(runtime.ContainerSpec{})
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stdin, hold := io.Pipe()
	defer hold.Close()
	err := c.Exec(ctx, id, ExecOptions{Cmd: []string{"sh", "-c", "echo up; sleep 7051"}, Streams: Streams{Stdin: stdin, Stdout: tell(func([]byte) { cancel(reason) })}})
	if !errors.Is(err, reason) {
		t.Errorf("the call returned %v", err)
	}
	eventually(t, "the process is gone", func() bool { return n.processes(id, "7051") == 0 })

	refuse := errors.New("disk full")
	err = c.Exec(bounded(t), id, ExecOptions{Cmd: []string{"sh", "-c", "echo up; sleep 7052"}, Streams: Streams{Stdout: failing{refuse}}})
	if !errors.Is(err, refuse) {
		t.Errorf("a writer that fails: %v", err)
	}
	eventually(t, "the process is gone", func() bool { return n.processes(id, "7052") == 0 })
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestRefusals: the host's sentence, status and class.
func TestRefusals(t *testing.T) {
	n := newNode(t, func(c *service.Config) {
		c.Policy = func(_ context.Context, a service.Action) error {
			if a.Path == "/etc/shadow" {
				return errors.New("this file is private")
			}
			return nil
		}
	})
	c, id := n.client(), n.run(runtime.ContainerSpec{})
	ctx := bounded(t)
	discard := Streams{Stdout: io.Discard}
	for name, test := range map[string]struct {
		err    error
		status int
		class  error
		says   string
	}{
		"no container": {c.Exec(ctx, "no-such", ExecOptions{Cmd: []string{"true"}, Streams: discard}), 404, runtime.ErrNotFound, "no-such"},
		"a strange name": {
			c.Exec(ctx, "../../v1/stats", ExecOptions{Cmd: []string{"true"}, Streams: discard}), 400, runtime.ErrInvalid, "v1/stats",
		},
		"no command": {c.Exec(ctx, id, ExecOptions{Streams: discard}), 400, runtime.ErrInvalid, "command"},
		"bad env":    {c.Exec(ctx, id, ExecOptions{Cmd: []string{"x"}, Env: []string{"y"}, Streams: discard}), 400, runtime.ErrInvalid, "env"},
		"no program": {c.Exec(ctx, id, ExecOptions{Cmd: []string{"/no/such"}, Streams: discard}), 0, nil, ""},
		"no input":   {c.Attach(ctx, id, AttachOptions{Streams: Streams{Stdin: strings.NewReader("")}}), 409, runtime.ErrConflict, "input"},
		"no file":    {second(c.Stat(ctx, id, "/no/such")), 404, runtime.ErrNotFound, "no/such"},
		"private":    {second(c.Stat(ctx, id, "/etc/shadow")), 403, nil, "this file is private"},
		"bad log":    {second(c.Logs(ctx, id, LogOptions{Filter: "("}, io.Discard, nil)), 400, runtime.ErrInvalid, "filter"},
		"bad port":   {second(c.Forward(ctx, id, 70000)), 400, runtime.ErrInvalid, "port"},
		"no network": {second(c.Forward(ctx, id, 80)), 409, runtime.ErrConflict, "network"},
	} {
		var refused *Error
		var exit *runtime.ExitError
		switch {
		case test.status == 0 && errors.As(test.err, &exit):
			if exit.Code != 126 && exit.Code != 127 {
				t.Errorf("%s: %v", name, test.err)
			}
		case !errors.As(test.err, &refused) || refused.Status != test.status && test.status != 0 || !strings.Contains(refused.Message, test.says):
			t.Errorf("%s: %#v", name, test.err)
		case test.class != nil && !errors.Is(test.err, test.class):
			t.Errorf("%s: %v is not %v", name, test.err, test.class)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestStrangers: answers of what is no host.
func TestStrangers(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"a web page": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "<html>"+strings.Repeat("x", 1<<20))
		}, "502"},
		"Rancher's error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"type":"error","status":401,"code":"Unauthorized","message":"no such key","detail":null}`)
		}, "no such key"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, "302"},
		"nonsense": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "\xff{{{") }, ""},
	} {
		srv := httptest.NewServer(test.answer)
		c := clientOf(t, Config{Base: srv.URL})
		for call, err := range map[string]error{
			"exec":  c.Exec(bounded(t), "x", ExecOptions{Cmd: []string{"true"}}),
			"stats": second(c.Stats(bounded(t), "x")),
			"stat":  second(c.Stat(bounded(t), "x", "/")),
		} {
			if err == nil || !strings.Contains(err.Error(), test.says) || len(err.Error()) > 3<<10 {
				t.Errorf("%s, %s: %.200v", name, call, err)
			}
		}
		srv.Close()
	}
	c := clientOf(t, Config{Base: "http://127.0.0.1:1"})
	if err := c.Exec(bounded(t), "x", ExecOptions{Cmd: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestLogs(t *testing.T) {
	n := newNode(t, nil)
	c, id := n.client(), n.run(runtime.ContainerSpec{Cmd: []string{"sh", "-c", `for i in 1 2 3; do echo "out $i"; sleep 0.05; echo "err $i" >&2; sleep 0.05; done`}})
	ctx := bounded(t)
	var out, errOut bytes.Buffer
	cursor, err := c.Logs(ctx, id, LogOptions{Follow: true}, &out, &errOut)
	if err != nil || out.String() != "out 1\nout 2\nout 3\n" || errOut.String() != "err 1\nerr 2\nerr 3\n" || cursor == "" {
		t.Errorf("%q %q %q %v", out.String(), errOut.String(), cursor, err)
	}
	for want, opts := range map[string]LogOptions{
		"out 3\nerr 3\n":        {Tail: 2},
		"":                      {Tail: -1},
		"out 2\n":               {Filter: "^out 2"},
		"err 1\nerr 2\nerr 3\n": {Stderr: true, Since: "1h"},
	} {
		var both bytes.Buffer
		if _, err := c.Logs(ctx, id, opts, &both, &both); err != nil || both.String() != want {
			t.Errorf("%+v: %q, %v", opts, both.String(), err)
		}
	}
	var texts []string
	for line, err := range c.LogLines(ctx, id, LogOptions{Tail: 3}) {
		if err != nil || line.Time.IsZero() || line.Cursor == "" {
			t.Errorf("%+v, %v", line, err)
		}
		texts = append(texts, line.Stream+" "+line.Log)
	}
	if want := []string{"stderr err 2\n", "stdout out 3\n", "stderr err 3\n"}; !slices.Equal(texts, want) {
		t.Errorf("lines %q", texts)
	}
}

func TestFiguresAndEvents(t *testing.T) {
	n := newNode(t, func(c *service.Config) {
		c.HostStats = func(context.Context) (runtime.Stats, error) {
			return runtime.Stats{Time: time.Now(), CPUTotal: 1, Memory: 2}, nil
		}
	})
	c, id := n.client(), n.run(runtime.ContainerSpec{Cmd: []string{"sleep", "7061"}})
	ctx, cancel := context.WithCancel(bounded(t))
	defer cancel()
	titles, rows, err := c.Top(ctx, id, "-o", "pid,args")
	if err != nil || len(titles) != 2 || len(rows) != 1 || !strings.Contains(rows[0][1], "7061") {
		t.Errorf("top: %q %q %v", titles, rows, err)
	}
	if one, err := c.Stats(ctx, id); err != nil || len(one) != 1 || one[0].ID != id {
		t.Errorf("stats: %+v, %v", one, err)
	}
	if all, err := c.Stats(ctx, ""); err != nil || len(all) < 2 || all[0].Type != "host" {
		t.Errorf("all stats: %+v, %v", all, err)
	}
	began := time.Now()
	rounds := 0
	for s, err := range c.StatsStream(ctx, id, 200*time.Millisecond) {
		if err != nil || (s.CPU.Percent == nil) != (rounds == 0) {
			t.Errorf("round %d: %+v, %v", rounds, s, err)
		}
		if rounds++; rounds == 3 {
			if err := n.engine.Kill(ctx, id, "KILL"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if rounds < 3 {
		t.Errorf("%d rounds", rounds)
	}
	for e, err := range c.Events(ctx, began) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Container == id && e.Action == "die" {
			break
		}
	}
}

func TestFiles(t *testing.T) {
	n := newNode(t, nil)
	c, id, ctx := n.client(), n.run(runtime.ContainerSpec{}), bounded(t)
	content := make([]byte, 3<<20)
	_, _ = rand.Read(content)
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	_ = tw.WriteHeader(&tar.Header{Name: "a b?%2F#", Typeflag: tar.TypeReg, Mode: 0o640, Size: int64(len(content))})
	_, _ = tw.Write(content)
	tw.Close()
	if err := c.Put(ctx, id, "/tmp", &archive); err != nil {
		t.Fatal(err)
	}
	f, err := c.Stat(ctx, id, "/tmp/a b?%2F#")
	if err != nil || f.Type != "file" || f.Size != int64(len(content)) || f.Mode != "0640" {
		t.Errorf("stat: %+v, %v", f, err)
	}
	files, truncated, err := c.List(ctx, id, "/tmp")
	if err != nil || truncated || len(files) != 1 || files[0].Name != "a b?%2F#" {
		t.Errorf("list: %+v, %v", files, err)
	}
	in, f, err := c.Get(ctx, id, "/tmp/a b?%2F#")
	if err != nil || f.Name != "a b?%2F#" {
		t.Fatalf("get: %+v, %v", f, err)
	}
	defer in.Close()
	tr := tar.NewReader(in)
	if _, err := tr.Next(); err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(tr); err != nil || !bytes.Equal(back, content) {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
}

func TestForward(t *testing.T) {
	n := newNode(t, nil)
	c := n.client()
	id := n.run(runtime.ContainerSpec{Cmd: []string{"sh", "-c", "while :; do nc -l -p 7000 -e cat; done"}, NetworkMode: "bridge"})
	eventually(t, "the port answers", func() bool {
		conn, err := c.Forward(bounded(t), id, 7000)
		if err != nil {
			return false
		}
		defer conn.Close()
		fmt.Fprint(conn, "hello")
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		b, err := io.ReadAll(conn) // to the end, which follows ours
		return err == nil && string(b) == "hello"
	})
}

// TestTail: the last lines of a file, read from the host while the container runs, and from the engine after it.
func TestTail(t *testing.T) {
	n := newNode(t, nil)
	c, ctx := n.client(), bounded(t)
	id := n.run(runtime.ContainerSpec{Cmd: []string{"sh", "-c", `
		i=0; while [ $i -lt 9000 ]; do echo "line $i"; i=$((i+1)); done >/log
		printf 'no\nend' >/open; : >/empty; ln -s /log /link; ln -s ../../../../../../etc/hostname /out; mkfifo /pipe; echo up; exec sleep 3600`}})
	if _, err := c.Logs(ctx, id, LogOptions{Follow: true}, failing{io.EOF}, nil); !errors.Is(err, io.EOF) { // it has written everything
		t.Fatal(err)
	}
	tail := func(name string, lines int) (string, error) {
		in, err := c.Tail(ctx, id, name, lines)
		if err != nil {
			return "", err
		}
		defer in.Close()
		b, err := io.ReadAll(in)
		return string(b), err
	}
	var all strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&all, "line %d\n", i)
	}
	for _, running := range []bool{true, false} {
		if !running {
			now := time.Duration(0)
			if err := n.engine.Stop(ctx, id, &now); err != nil {
				t.Fatal(err)
			}
		}
		for _, test := range []struct {
			name  string
			lines int
			want  string
		}{
			{"/log", 2, "line 8998\nline 8999\n"},
			{"/log", 8000, all.String()[strings.Index(all.String(), "line 1000\n"):]},
			{"/log", 9000, all.String()},
			{"/log", 1_000_000, all.String()},
			{"/log", 0, ""},
			{"/open", 1, "end"},
			{"/open", 2, "no\nend"},
			{"/empty", 5, ""},
		} {
			if got, err := tail(test.name, test.lines); err != nil || got != test.want {
				t.Errorf("running %v: %d lines of %s: %d bytes, %v", running, test.lines, test.name, len(got), err)
			}
		}
		for _, name := range []string{"/no/such", "/pipe", "/tmp", ""} {
			var refused *Error
			if _, err := tail(name, 5); !errors.As(err, &refused) || refused.Status/100 != 4 {
				t.Errorf("running %v: %s: %v", running, name, err)
			}
		}
		if running {
			if got, err := tail("/link", 1); err != nil || got != "line 8999\n" {
				t.Errorf("through a link: %q, %v", got, err)
			}
		}
		if got, err := tail("/out", 1); err == nil {
			if own, _ := os.ReadFile("/etc/hostname"); got == string(own) && got != "" {
				t.Error("a link leads out of the container")
			}
		}
		var refused *Error
		if _, err := tail("/log", -1); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Errorf("-1 lines: %v", err)
		}
	}
}
