package runtimetest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

var engineTests = []test{
	{"Info", func(e *env) {
		e.must("Ping", e.engine.Ping(e.ctx))
		info, err := e.engine.Info(e.ctx)
		e.must("Info", err)
		if info.Version == "" || info.OSType == "" || info.Architecture == "" || info.KernelVersion == "" {
			e.Errorf("Info lacks version, system, architecture or kernel: %+v", info)
		}
		if info.CPUs < 1 || info.MemoryBytes < 1 {
			e.Errorf("Info has %d CPUs and %d bytes of memory", info.CPUs, info.MemoryBytes)
		}
		before := info.ContainersRunning
		e.start(e.spec())
		info, err = e.engine.Info(e.ctx)
		e.must("Info", err)
		if info.ContainersRunning < 1 || info.Containers < info.ContainersRunning {
			e.Errorf("Info counts %d containers, %d running, after %d running and one more", info.Containers, info.ContainersRunning, before)
		}
		if e.engine.Type() == "" {
			e.Error("Type is empty")
		}
	}},
	{"CanceledContext", func(e *env) {
		id := e.create(e.spec())
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		_, err := e.engine.Inspect(ctx, id)
		e.want("Inspect", err, context.Canceled)
		if errors.Is(err, runtime.ErrUnavailable) {
			e.Errorf("Inspect blames the engine for the caller's cancel: %v", err)
		}
		e.want("Start", e.engine.Start(ctx, id), context.Canceled)
		if st := e.state(id); st.Running {
			e.Error("a cancelled Start started the container")
		}
	}},
	{"Parallel", func(e *env) {
		id := e.start(e.spec())
		var wait sync.WaitGroup
		for range 32 {
			wait.Go(func() {
				for range 8 {
					if _, err := e.engine.Inspect(e.ctx, id); err != nil {
						e.Errorf("Inspect: %v", err)
						return
					}
				}
			})
		}
		wait.Wait()
	}},
}

var lifecycleTests = []test{
	{"CreateStartStopRemove", func(e *env) {
		spec := e.spec()
		spec.Labels = map[string]string{"a": "1", "b": ""}
		spec.OpenStdin = true
		id := e.create(spec)
		st := e.state(id)
		if st.ID != id || st.Name != spec.Name || st.Image != spec.Image || st.Running || st.Status != "created" || st.Pid != 0 {
			e.Errorf("created container: %+v", st)
		}
		if !st.OpenStdin || st.TTY || st.Labels["a"] != "1" || !st.StartedAt.IsZero() {
			e.Errorf("created container: %+v", st)
		}
		e.must("Start", e.engine.Start(e.ctx, id))
		st = e.state(id)
		if !st.Running || st.Status != "running" || st.Pid <= 0 || st.StartedAt.IsZero() {
			e.Errorf("started container: %+v", st)
		}
		e.noError("Start of a running container", e.engine.Start(e.ctx, id))
		if again := e.state(id); again.Pid != st.Pid {
			e.Error("Start of a running container restarted it")
		}
		none := time.Duration(0)
		e.must("Stop", e.engine.Stop(e.ctx, id, &none))
		st = e.state(id)
		if st.Running || st.Status != "exited" || st.Pid != 0 || st.FinishedAt.IsZero() {
			e.Errorf("stopped container: %+v", st)
		}
		e.noError("Stop of a stopped container", e.engine.Stop(e.ctx, id, &none))
		e.must("Start again", e.engine.Start(e.ctx, id))
		e.must("Stop again", e.engine.Stop(e.ctx, id, &none))
		e.must("Remove", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{}))
		_, err := e.engine.State(e.ctx, id)
		e.want("State of a removed container", err, runtime.ErrNotFound)
	}},
	{"CreateErrors", func(e *env) {
		spec := e.spec()
		spec.Image = e.opts.Prefix + "no/such-image:1"
		_, _, err := e.engine.Create(e.ctx, spec)
		e.want("an unknown image", err, runtime.ErrNotFound)
		if err != nil && !strings.Contains(err.Error(), "no/such-image") {
			e.Errorf("the error does not name the image: %v", err)
		}
		spec = e.spec()
		e.create(spec)
		_, _, err = e.engine.Create(e.ctx, spec)
		e.want("a name that is taken", err, runtime.ErrConflict)
		for _, name := range []string{"../etc", "a b", "a/b?c", "-x", strings.Repeat("x", 1000) + "/"} {
			spec = e.spec()
			spec.Name = name
			_, _, err = e.engine.Create(e.ctx, spec)
			e.want("the name "+name[:min(10, len(name))], err, runtime.ErrInvalid)
		}
		spec = e.spec()
		spec.Image = "UPPER CASE"
		_, _, err = e.engine.Create(e.ctx, spec)
		e.want("no reference", err, runtime.ErrInvalid)
		_, _, err = e.engine.Create(e.ctx, nil)
		e.want("no spec", err, runtime.ErrInvalid)
	}},
	{"Unknown", func(e *env) {
		for class, id := range map[error]string{runtime.ErrNotFound: e.name(), runtime.ErrInvalid: "../images/x?"} {
			_, err := e.engine.Inspect(e.ctx, id)
			e.want("Inspect", err, class)
			_, err = e.engine.State(e.ctx, id)
			e.want("State", err, class)
			e.want("Start", e.engine.Start(e.ctx, id), class)
			e.want("Stop", e.engine.Stop(e.ctx, id, nil), class)
			e.want("Kill", e.engine.Kill(e.ctx, id, ""), class)
			e.want("Remove", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{Force: true}), class)
		}
	}},
	{"Inspect", func(e *env) {
		spec := e.spec()
		id := e.create(spec)
		for _, key := range []string{id, id[:16], spec.Name, "/" + spec.Name} {
			raw, err := e.engine.Inspect(e.ctx, key)
			e.must("Inspect "+key, err)
			var c struct{ ID, Name string }
			e.must("Unmarshal", json.Unmarshal(raw, &c))
			if c.ID != id || strings.TrimPrefix(c.Name, "/") != spec.Name {
				e.Errorf("Inspect %s: got %+v", key, c)
			}
			if raw[0] != '{' || raw[len(raw)-1] != '}' {
				e.Errorf("Inspect %s: not a bare JSON object", key)
			}
			if st := e.state(key); st.ID != id {
				e.Errorf("State %s: got %s", key, st.ID)
			}
		}
		first, _ := e.engine.Inspect(e.ctx, id)
		for i := range first {
			first[i] = 'x'
		}
		second, err := e.engine.Inspect(e.ctx, id)
		if err != nil || !json.Valid(second) {
			e.Errorf("the answer of Inspect is not the caller's own: %v", err)
		}
	}},
	{"Stop", func(e *env) {
		id := e.start(e.spec("sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"))
		e.until("the signal is ignored", func() bool { return e.ready(id) })
		second := 300 * time.Millisecond
		e.must("Stop", e.engine.Stop(e.ctx, id, &second))
		if st := e.state(id); st.Running || st.ExitCode != 137 {
			e.Errorf("after Stop: running %v, exit code %d", st.Running, st.ExitCode)
		}
		negative := -time.Second
		e.want("a negative timeout", e.engine.Stop(e.ctx, id, &negative), runtime.ErrInvalid)
		e.noError("Stop of a container that never ran", e.engine.Stop(e.ctx, e.create(e.spec()), nil))
	}},
	{"StopTimeoutOfContainer", func(e *env) {
		spec := e.spec("sh", "-c", "trap '' TERM; while true; do sleep 0.1; done")
		one := 1
		spec.StopTimeout = &one
		id := e.start(spec)
		e.must("Stop", e.engine.Stop(e.ctx, id, nil))
		if st := e.state(id); st.Running {
			e.Error("still running after Stop")
		}
	}},
	{"Kill", func(e *env) {
		id := e.create(e.spec())
		e.want("Kill of a container that never ran", e.engine.Kill(e.ctx, id, ""), runtime.ErrConflict)
		e.must("Start", e.engine.Start(e.ctx, id))
		e.want("an unknown signal", e.engine.Kill(e.ctx, id, "NOSUCH"), runtime.ErrInvalid)
		e.noError("a harmless signal", e.engine.Kill(e.ctx, id, "SIGWINCH"))
		if st := e.state(id); !st.Running {
			e.Error("SIGWINCH ended the container")
		}
		e.must("Kill", e.engine.Kill(e.ctx, id, ""))
		if st := e.stopped(id); st.ExitCode != 137 {
			e.Errorf("exit code %d after SIGKILL", st.ExitCode)
		}
		e.want("Kill of a stopped container", e.engine.Kill(e.ctx, id, "KILL"), runtime.ErrConflict)
	}},
	{"ExitCode", func(e *env) {
		id := e.start(e.spec("sh", "-c", "exit 7"))
		if st := e.stopped(id); st.ExitCode != 7 || st.Status != "exited" {
			e.Errorf("status %s, exit code %d", st.Status, st.ExitCode)
		}
	}},
	{"Remove", func(e *env) {
		id := e.start(e.spec())
		e.want("Remove of a running container", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{}), runtime.ErrConflict)
		if st := e.state(id); !st.Running {
			e.Error("a refused Remove stopped the container")
		}
		e.must("Remove by force", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{Force: true}))
		e.want("Remove again", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{Force: true}), runtime.ErrNotFound)
	}},
	{"AutoRemove", func(e *env) {
		spec := e.spec("true")
		spec.AutoRemove = true
		id := e.start(spec)
		e.until("the container is gone", func() bool {
			_, err := e.engine.State(e.ctx, id)
			return errors.Is(err, runtime.ErrNotFound)
		})
	}},
	{"RestartPauseWait", func(e *env) {
		id := e.start(e.spec())
		if r, ok := e.engine.(runtime.Restarter); ok {
			before := e.state(id).Pid
			none := time.Duration(0)
			e.must("Restart", r.Restart(e.ctx, id, &none))
			if st := e.state(id); !st.Running || st.Pid == before {
				e.Errorf("after Restart: %+v", st)
			}
			e.want("Restart of an unknown container", r.Restart(e.ctx, e.name(), nil), runtime.ErrNotFound)
		}
		if p, ok := e.engine.(runtime.Pauser); ok {
			e.want("Unpause of a running container", p.Unpause(e.ctx, id), runtime.ErrConflict)
			e.must("Pause", p.Pause(e.ctx, id))
			if st := e.state(id); !st.Paused || st.Status != "paused" || !st.Running {
				e.Errorf("after Pause: %+v", st)
			}
			e.want("Pause of a paused container", p.Pause(e.ctx, id), runtime.ErrConflict)
			e.must("Unpause", p.Unpause(e.ctx, id))
		}
		w, ok := e.engine.(runtime.Waiter)
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(e.ctx, 200*time.Millisecond)
		defer cancel()
		_, err := w.Wait(ctx, id)
		e.want("Wait for a running container", err, context.DeadlineExceeded)
		id = e.start(e.spec("sh", "-c", "sleep 0.3; exit 5"))
		for range 2 { // while it runs, and after
			if code, err := w.Wait(e.ctx, id); err != nil || code != 5 {
				e.Errorf("Wait: code %d, error %v", code, err)
			}
		}
		_, err = w.Wait(e.ctx, e.name())
		e.want("Wait for an unknown container", err, runtime.ErrNotFound)
	}},
	{"Top", func(e *env) {
		top, ok := e.engine.(runtime.Toper)
		if !ok {
			return
		}
		id := e.start(e.spec())
		titles, processes, err := top.Top(e.ctx, id, nil)
		e.must("Top", err)
		if len(titles) == 0 || len(processes) != 1 || !strings.Contains(strings.Join(processes[0], " "), "sleep 1000") {
			e.Errorf("Top: %v %v", titles, processes)
		}
		_, _, err = top.Top(e.ctx, e.create(e.spec()), nil)
		e.want("Top of a stopped container", err, runtime.ErrConflict)
	}},
}

// ready reports whether the container's shell has come past its trap: it is asked by a file where that can be looked
// for, and given time where not.
func (e *env) ready(id string) bool {
	return e.state(id).Running && time.Since(e.state(id).StartedAt) > 500*time.Millisecond
}

var listTests = []test{
	{"Filters", func(e *env) {
		mark := e.name()
		spec := e.spec()
		spec.Labels = map[string]string{"mark": mark, "kind": "one"}
		one := e.start(spec)
		name := spec.Name
		spec = e.spec()
		spec.Name = name + "-2"
		spec.Labels = map[string]string{"mark": mark, "kind": "two"}
		two := e.create(spec)

		list := func(opts runtime.ListOptions) []string {
			e.Helper()
			l, err := e.engine.List(e.ctx, opts)
			e.must("List", err)
			return ids(l)
		}
		check := func(what string, got, want []string) {
			e.Helper()
			if strings.Join(got, ",") != strings.Join(want, ",") {
				e.Errorf("%s: got %v, want %v", what, got, want)
			}
		}
		check("one label", list(runtime.ListOptions{Labels: map[string]string{"mark": mark}}), sorted(one, two))
		check("two labels", list(runtime.ListOptions{Labels: map[string]string{"mark": mark, "kind": "two"}}), []string{two})
		check("any value", list(runtime.ListOptions{Labels: map[string]string{"mark": mark, "kind": ""}}), sorted(one, two))
		check("running", list(runtime.ListOptions{Running: true, Labels: map[string]string{"mark": mark}}), []string{one})
		check("exact name", list(runtime.ListOptions{Name: name}), []string{one})
		check("name with slash", list(runtime.ListOptions{Name: "/" + name}), []string{one})
		check("unknown name", list(runtime.ListOptions{Name: e.name()}), nil)
		all := strings.Join(list(runtime.ListOptions{}), ",")
		if !strings.Contains(all, one) || !strings.Contains(all, two) {
			e.Error("the list of all lacks a container")
		}
	}},
	{"Fields", func(e *env) {
		spec := e.spec()
		spec.Labels = map[string]string{"mark": spec.Name}
		id := e.start(spec)
		l, err := e.engine.List(e.ctx, runtime.ListOptions{Name: spec.Name})
		e.must("List", err)
		if len(l) != 1 {
			e.Fatalf("%d rows", len(l))
		}
		c := l[0]
		if c.ID != id || len(c.Names) != 1 || c.Names[0] != spec.Name || c.Image != spec.Image || c.ImageID == "" || c.State != "running" ||
			!strings.HasPrefix(c.Status, "Up") || c.Labels["mark"] != spec.Name || !strings.Contains(c.Command, "sleep 1000") {
			e.Errorf("row: %+v", c)
		}
		if age := time.Since(c.Created); age < -time.Minute || age > 10*time.Minute {
			e.Errorf("created %v ago", age)
		}
		if c.Raw != nil {
			e.Error("Raw without being asked for")
		}
		l, err = e.engine.List(e.ctx, runtime.ListOptions{Name: spec.Name, Raw: true})
		e.must("List", err)
		var row struct{ ID string }
		if err := json.Unmarshal(l[0].Raw, &row); err != nil || row.ID != id {
			e.Errorf("Raw: id %q, error %v", row.ID, err)
		}
	}},
}
