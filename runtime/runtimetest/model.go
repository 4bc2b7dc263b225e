package runtimetest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// model returns the engine as the pod model uses it, and a running container, or false.
func (e *env) model() (runtime.ContainerEngine, *runtime.Container, bool) {
	e.Helper()
	source, ok := e.engine.(runtime.ModelSource)
	if !ok {
		return nil, nil, false
	}
	m := runtime.NewModelEngine(source)
	e.must("Init", m.Init(e.ctx))
	spec := e.spec()
	spec.Env = []string{"FROM_CONTAINER=yes"}
	spec.Labels = map[string]string{"a": "1"}
	return m, &runtime.Container{Id: e.start(spec)}, true
}

var modelTests = []test{
	{"ListAndDetail", func(e *env) {
		m, c, ok := e.model()
		if !ok {
			return
		}
		if m.Type() != e.engine.Type() {
			e.Errorf("Type: %s of %s", m.Type(), e.engine.Type())
		}
		row := func() *runtime.EngineSimpleContainer {
			list, err := m.ListAllContainers(e.ctx)
			e.must("ListAllContainers", err)
			for _, r := range list {
				if r.ID == c.Id {
					return r
				}
			}
			return nil
		}
		if r := row(); r == nil || !r.Running || r.Labels["a"] != "1" {
			e.Errorf("the row of a running container: %+v", r)
		}
		d, err := m.GetContainerDetail(e.ctx, c.Id)
		e.must("GetContainerDetail", err)
		st := e.state(c.Id)
		if d.ID != c.Id || d.Name != st.Name || d.Image != st.Image || d.IsSandbox || d.Runtime == "" || d.Labels["a"] != "1" ||
			d.State.Pid != st.Pid || !d.State.IsRunning() || time.Since(d.Created).Abs() > 10*time.Minute {
			e.Errorf("GetContainerDetail: %+v", d)
		}
		if !strings.Contains(strings.Join(d.Env, "\n"), "FROM_CONTAINER=yes") {
			e.Errorf("environment: %v", d.Env)
		}
		e.must("Kill", e.engine.Kill(e.ctx, c.Id, ""))
		e.stopped(c.Id)
		if r := row(); r == nil || r.Running {
			e.Errorf("the row of an ended container: %+v", r)
		}
		if d, err := m.GetContainerDetail(e.ctx, c.Id); err != nil || d.State.Pid != 0 || d.State.IsRunning() {
			e.Errorf("GetContainerDetail of an ended container: %+v, %v", d, err)
		}
		_, err = m.GetContainerDetail(e.ctx, strings.Repeat("0", 64))
		e.want("GetContainerDetail of an unknown container", err, runtime.ErrNotFound)
	}},
	{"Exec", func(e *env) {
		m, c, ok := e.model()
		if !ok {
			return
		}
		r, err := m.Exec(e.ctx, c, runtime.ExecRequest{
			Cmd: []string{"sh", "-c", `pwd; cat; echo "$MINE $FROM_CONTAINER"; echo err >&2; exit 3`}, Env: []string{"MINE=1"}, WorkingDir: "/tmp",
			Input: strings.NewReader("in\n"),
		})
		e.must("Exec", err)
		if r.ExitCode != 3 || r.Stdout.String() != "/tmp\nin\n1 yes\n" || r.Stderr.String() != "err\n" || r.StdoutTruncated {
			e.Errorf("Exec: %d, %q, %q", r.ExitCode, r.Stdout, r.Stderr)
		}
		r, err = m.Exec(e.ctx, c, runtime.ExecRequest{Cmd: []string{"sh", "-c", "echo 0123456789"}, MaxOutput: 4})
		e.must("Exec", err)
		if r.Stdout.String() != "0123" || !r.StdoutTruncated || r.StderrTruncated {
			e.Errorf("Exec with a bound: %q, %v", r.Stdout, r.StdoutTruncated)
		}
		ctx, cancel := context.WithTimeout(e.ctx, 3*time.Second)
		defer cancel()
		r, err = m.Exec(ctx, c, runtime.ExecRequest{Cmd: []string{"sh", "-c", heart}})
		e.want("Exec that takes too long", err, context.DeadlineExceeded)
		if r.ExitCode != -1 || e.alive(c.Id) {
			e.Errorf("exit code %d, and the process must be gone", r.ExitCode)
		}
		_, err = m.Exec(e.ctx, nil, runtime.ExecRequest{Cmd: []string{"true"}})
		e.want("Exec in nil", err, runtime.ErrInvalid)
		_, err = m.Exec(e.ctx, c, runtime.ExecRequest{Cmd: []string{"echo", strings.Repeat("x", 1<<20)}})
		e.want("Exec of a megabyte", err, runtime.ErrInvalid)
		_, err = m.Exec(e.ctx, &runtime.Container{Id: e.create(e.spec())}, runtime.ExecRequest{Cmd: []string{"true"}})
		e.want("Exec in a container that does not run", err, runtime.ErrConflict)
	}},
	{"ExecAsync", func(e *env) {
		m, c, ok := e.model()
		if !ok {
			return
		}
		script := runtime.ExecRequest{Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 4"}}
		// The result first, though nobody has read.
		r, err := m.ExecAsync(e.ctx, c, script)
		e.must("ExecAsync", err)
		if got := <-r.Result; got.Code != 4 || got.Err != nil {
			e.Errorf("ExecAsync: %+v", got)
		}
		out, _ := io.ReadAll(r.Stdout)
		errOut, _ := io.ReadAll(r.Stderr)
		if string(out) != "out\n" || string(errOut) != "err\n" {
			e.Errorf("out %q, err %q", out, errOut)
		}
		if _, open := <-r.Result; open {
			e.Error("a second result")
		}
		// The output first, and only one stream of it; the other is closed.
		r, err = m.ExecAsync(e.ctx, c, script)
		e.must("ExecAsync", err)
		e.noError("Close", r.Stderr.Close())
		if out, err := io.ReadAll(r.Stdout); err != nil || string(out) != "out\n" {
			e.Errorf("out %q, %v", out, err)
		}
		if got := <-r.Result; got.Code != 4 {
			e.Errorf("ExecAsync: %+v", got)
		}
		// Nobody reads what does not end; ctx ends it.
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		r, err = m.ExecAsync(ctx, c, runtime.ExecRequest{Cmd: []string{"sh", "-c", "while true; do echo x; echo x >> /tmp/beat; done"}})
		e.must("ExecAsync", err)
		e.until("the process is up", func() bool { return e.beats(c.Id) > 0 })
		cancel()
		if got := <-r.Result; got.Code != -1 || !errors.Is(got.Err, context.Canceled) {
			e.Errorf("after ctx: %+v", got)
		}
		if e.alive(c.Id) {
			e.Error("the process outlived its ctx")
		}
	}},
	{"Copy", func(e *env) {
		m, c, ok := e.model()
		if !ok || !m.Supports(runtime.ContainerEngineFeatureCopy) {
			return
		}
		dir := e.TempDir()
		src, back := filepath.Join(dir, "src"), filepath.Join(dir, "back")
		content := strings.Repeat("0123456789abcdef", 1<<14)
		e.must("WriteFile", os.WriteFile(src, []byte(content), 0o640))
		e.must("CopyToContainer", m.CopyToContainer(e.ctx, c, src, "/tmp/renamed"))
		e.must("CopyToContainer into a directory", m.CopyToContainer(e.ctx, c, src, "/tmp"))
		for _, name := range []string{"/tmp/renamed", "/tmp/src"} {
			e.must("CopyFromContainer", m.CopyFromContainer(e.ctx, c, name, back))
			got, err := os.ReadFile(back)
			fi, _ := os.Stat(back)
			if err != nil || string(got) != content || fi.Mode().Perm() != 0o640 {
				e.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		e.want("a source that is not there", m.CopyToContainer(e.ctx, c, filepath.Join(dir, "no"), "/tmp"), runtime.ErrNotFound)
		e.want("a source that is a directory", m.CopyToContainer(e.ctx, c, dir, "/tmp"), runtime.ErrInvalid)
		e.want("a path that is not there", m.CopyFromContainer(e.ctx, c, "/no/such", back), runtime.ErrNotFound)
		e.want("a directory", m.CopyFromContainer(e.ctx, c, "/tmp", back), runtime.ErrInvalid)
		e.want("nil", m.CopyFromContainer(e.ctx, nil, "/tmp", back), runtime.ErrInvalid)
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 2 {
			e.Errorf("files are left over: %v, %v", left, err)
		}
	}},
}
