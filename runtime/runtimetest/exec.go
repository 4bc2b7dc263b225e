package runtimetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// execer starts a container and returns a function that runs processes in it, or false.
func (e *env) execer() (string, func(spec runtime.ExecSpec, streams runtime.Streams) error, bool) {
	e.Helper()
	x, ok := e.engine.(runtime.Execer)
	if !ok {
		return "", nil, false
	}
	spec := e.spec()
	spec.Env = []string{"FROM_CONTAINER=yes"}
	id := e.start(spec)
	return id, func(spec runtime.ExecSpec, streams runtime.Streams) error { return x.Exec(e.ctx, id, spec, streams) }, true
}

func shell(script string) runtime.ExecSpec {
	return runtime.ExecSpec{Cmd: []string{"sh", "-c", script}}
}

// exitCode is that of an ExitError, 0 for nil, and -1 for another error.
func exitCode(err error) int {
	var exit *runtime.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	}
	return -1
}

// locked is a buffer that a test may read while it is written.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var execTests = []test{
	{"ExitCode", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		for script, want := range map[string]int{"true": 0, "exit 3": 3, "exit 255": 255, "nosuch-command": 127} {
			if err := exec(shell(script), runtime.Streams{}); exitCode(err) != want {
				e.Errorf("%s: %v, want %d", script, err, want)
			}
		}
		err := exec(runtime.ExecSpec{Cmd: []string{"/no/such/command"}}, runtime.Streams{})
		if code := exitCode(err); code != 126 && code != 127 {
			e.Errorf("a command that is not there: %v", err)
		}
	}},
	{"StreamsApart", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		var out, errOut bytes.Buffer
		e.noError("Exec", exec(shell("echo out; echo err >&2; printf end"), runtime.Streams{Out: &out, Err: &errOut}))
		if out.String() != "out\nend" || errOut.String() != "err\n" {
			e.Errorf("out %q, err %q", out.String(), errOut.String())
		}
		var both locked
		e.noError("Exec", exec(shell("echo out; echo err >&2"), runtime.Streams{Out: &both, Err: &both}))
		if got := both.String(); len(got) != len("out\nerr\n") {
			e.Errorf("both in one: %q", got)
		}
		e.noError("Exec with output that nobody wants", exec(shell("echo out; echo err >&2"), runtime.Streams{}))
	}},
	{"EnvDirUser", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		run := func(spec runtime.ExecSpec) string {
			e.Helper()
			var out bytes.Buffer
			e.noError("Exec", exec(spec, runtime.Streams{Out: &out}))
			return out.String()
		}
		spec := shell(`echo "$MINE $FROM_CONTAINER $EMPTY."`)
		spec.Env = []string{"MINE=a b", "EMPTY="}
		if got := run(spec); got != "a b yes .\n" {
			e.Errorf("environment: %q", got)
		}
		spec = runtime.ExecSpec{Cmd: []string{"pwd"}, WorkingDir: "/tmp"}
		if got := run(spec); got != "/tmp\n" {
			e.Errorf("working directory: %q", got)
		}
		spec = runtime.ExecSpec{Cmd: []string{"id", "-u"}, User: "nobody"}
		if got := run(spec); got != "65534\n" {
			e.Errorf("user: %q", got)
		}
		spec = runtime.ExecSpec{Cmd: []string{"echo", "-n", `"quoted" $HOME 'args' \ ;`}}
		if got := run(spec); got != `"quoted" $HOME 'args' \ ;` {
			e.Errorf("arguments are not passed as they are: %q", got)
		}
	}},
	{"Stdin", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		var out bytes.Buffer
		e.noError("Exec", exec(runtime.ExecSpec{Cmd: []string{"cat"}}, runtime.Streams{In: strings.NewReader("hello"), Out: &out}))
		if out.String() != "hello" {
			e.Errorf("got %q", out.String())
		}
		out.Reset()
		e.noError("Exec without input", exec(shell("cat; echo end"), runtime.Streams{Out: &out}))
		if out.String() != "end\n" {
			e.Errorf("got %q", out.String())
		}
		out.Reset()
		e.noError("Exec with empty input", exec(shell("cat; echo end"), runtime.Streams{In: strings.NewReader(""), Out: &out}))
		if out.String() != "end\n" {
			e.Errorf("got %q", out.String())
		}
		// What the process does not read must not keep anybody.
		big := io.LimitReader(rand.Reader, 4<<20)
		if err := exec(shell("exit 4"), runtime.Streams{In: big}); exitCode(err) != 4 {
			e.Errorf("a process that does not read its input: %v", err)
		}
		// Nor an input that never comes.
		r, w := io.Pipe()
		defer w.Close()
		if err := exec(shell("exit 5"), runtime.Streams{In: r}); exitCode(err) != 5 {
			e.Errorf("a process whose input is silent: %v", err)
		}
	}},
	{"Interactive", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		r, w := io.Pipe()
		var out locked
		done := make(chan error, 1)
		go func() { done <- exec(runtime.ExecSpec{Cmd: []string{"cat"}}, runtime.Streams{In: r, Out: &out}) }()
		for i, line := range []string{"one\n", "two\n"} {
			_, _ = io.WriteString(w, line)
			want := []string{"one\n", "one\ntwo\n"}[i]
			e.until("the line comes back", func() bool { return out.String() == want })
		}
		w.Close()
		e.noError("Exec", <-done)
	}},
	{"Binary", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		data := make([]byte, 1<<20)
		_, _ = rand.Read(data)
		var out bytes.Buffer
		e.noError("Exec", exec(runtime.ExecSpec{Cmd: []string{"cat"}}, runtime.Streams{In: bytes.NewReader(data), Out: &out}))
		if !bytes.Equal(out.Bytes(), data) {
			e.Errorf("%d bytes there, %d back, and not the same", len(data), out.Len())
		}
	}},
	{"Terminal", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		var out, errOut bytes.Buffer
		spec := shell("[ -t 1 ] && echo terminal; echo err >&2; exit 6")
		spec.TTY = true
		err := exec(spec, runtime.Streams{Out: &out, Err: &errOut})
		if exitCode(err) != 6 || unix(out.String()) != "terminal\nerr\n" || errOut.Len() != 0 {
			e.Errorf("out %q, err %q, %v", out.String(), errOut.String(), err)
		}
		spec = shell("[ -t 1 ] || echo none; stty size")
		out.Reset()
		if err := exec(spec, runtime.Streams{Out: &out}); exitCode(err) != 1 || out.String() != "none\n" {
			e.Errorf("without a terminal: out %q, %v", out.String(), err)
		}
	}},
	{"Resize", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		wait := func(size string) string {
			return `while [ "$(stty size 2>/dev/null)" != "` + size + `" ]; do sleep 0.05; done; echo ` + size + `; `
		}
		spec := shell(wait("33 111") + wait("44 122"))
		spec.TTY = true
		spec.Size = &runtime.TerminalSize{Width: 111, Height: 33}
		sizes := make(chan runtime.TerminalSize)
		var out locked
		done := make(chan error, 1)
		go func() { done <- exec(spec, runtime.Streams{Out: &out, Resize: sizes}) }()
		e.until("the first size is there", func() bool { return unix(out.String()) == "33 111\n" })
		for _, width := range []uint16{100, 101, 122} {
			sizes <- runtime.TerminalSize{Width: width, Height: 44}
		}
		close(sizes)
		e.noError("Exec", <-done)
		if got := unix(out.String()); got != "33 111\n44 122\n" {
			e.Errorf("got %q", got)
		}
	}},
	{"Errors", func(e *env) {
		x, ok := e.engine.(runtime.Execer)
		if !ok {
			return
		}
		spec := runtime.ExecSpec{Cmd: []string{"true"}}
		e.want("an unknown container", x.Exec(e.ctx, e.name(), spec, runtime.Streams{}), runtime.ErrNotFound)
		id := e.create(e.spec())
		e.want("a container that does not run", x.Exec(e.ctx, id, spec, runtime.Streams{}), runtime.ErrConflict)
		e.want("no command", x.Exec(e.ctx, id, runtime.ExecSpec{}, runtime.Streams{}), runtime.ErrInvalid)
	}},
	{"Parallel", func(e *env) {
		_, exec, ok := e.execer()
		if !ok {
			return
		}
		var wait sync.WaitGroup
		for i := range 4 {
			wait.Go(func() {
				var out bytes.Buffer
				in := strings.Repeat(string(rune('a'+i)), 100_000)
				if err := exec(runtime.ExecSpec{Cmd: []string{"cat"}}, runtime.Streams{In: strings.NewReader(in), Out: &out}); err != nil || out.String() != in {
					e.Errorf("process %d: %d bytes back, %v", i, out.Len(), err)
				}
			})
		}
		wait.Wait()
	}},
}

// A heart is a process that lets a file grow as long as it lives.
const heart = `while true; do echo x >> /tmp/beat; sleep 0.05; done`

// beats is how large the file is.
func (e *env) beats(id string) int {
	x, ok := e.engine.(runtime.Execer)
	if !ok {
		return 0
	}
	var out bytes.Buffer
	if err := x.Exec(e.ctx, id, shell("cat /tmp/beat | wc -c"), runtime.Streams{Out: &out}); err != nil {
		return 0
	}
	n := 0
	for _, c := range strings.TrimSpace(out.String()) {
		n = n*10 + int(c-'0')
	}
	return n
}

// alive reports whether the heart of a container beats.
func (e *env) alive(id string) bool {
	before := e.beats(id)
	time.Sleep(time.Second)
	return e.beats(id) != before
}

// leave runs a process and ends its ctx when it is up; it returns how long Exec took after that.
func (e *env) leave(id string, spec runtime.ExecSpec, in io.Reader) (time.Duration, error) {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	x, _ := e.engine.(runtime.Execer)
	done := make(chan error, 1)
	go func() { done <- x.Exec(ctx, id, spec, runtime.Streams{In: in}) }()
	e.until("the process is up", func() bool { return e.beats(id) > 0 })
	cancel()
	began := time.Now()
	select {
	case err := <-done:
		return time.Since(began), err
	case <-e.ctx.Done():
		e.Fatal("Exec did not return after its ctx ended")
		return 0, nil
	}
}

var execEndTests = []test{
	{"Cancel", func(e *env) {
		id, _, ok := e.execer()
		if !ok {
			return
		}
		_, err := e.leave(id, shell(heart), nil)
		e.want("Exec", err, context.Canceled)
		if e.alive(id) {
			e.Error("the process outlived its ctx")
		}
	}},
	{"Timeout", func(e *env) {
		id, _, ok := e.execer()
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(e.ctx, 3*time.Second)
		defer cancel()
		x, _ := e.engine.(runtime.Execer)
		e.want("Exec", x.Exec(ctx, id, shell(heart), runtime.Streams{}), context.DeadlineExceeded)
		if e.alive(id) {
			e.Error("the process outlived its ctx")
		}
	}},
	{"Stubborn", func(e *env) {
		id, _, ok := e.execer()
		if !ok {
			return
		}
		spec := shell(`trap '' HUP; trap '' TERM; ` + heart)
		spec.Grace = 500 * time.Millisecond
		took, err := e.leave(id, spec, nil)
		e.want("Exec", err, context.Canceled)
		if took < spec.Grace {
			e.Errorf("no grace: Exec returned after %v", took)
		}
		if e.alive(id) {
			e.Error("a process that ignores SIGHUP outlived its ctx")
		}
	}},
	{"Children", func(e *env) {
		id, _, ok := e.execer()
		if !ok {
			return
		}
		_, err := e.leave(id, shell(`(`+heart+`) & sleep 1000`), nil)
		e.want("Exec", err, context.Canceled)
		if e.alive(id) {
			e.Error("a child outlived the ctx of its parent")
		}
	}},
	{"EndsOnEOF", func(e *env) {
		id, _, ok := e.execer()
		if !ok {
			return
		}
		// It would ignore SIGHUP, and leaves a trace when it ends by itself.
		r, w := io.Pipe()
		defer w.Close()
		_, err := e.leave(id, shell(`trap '' HUP; echo x > /tmp/beat; cat; echo end > /tmp/end`), r)
		e.want("Exec", err, context.Canceled)
		x, _ := e.engine.(runtime.Execer)
		e.until("the process has ended by itself", func() bool {
			return x.Exec(e.ctx, id, shell("[ -f /tmp/end ]"), runtime.Streams{}) == nil
		})
	}},
	{"TerminalCancel", func(e *env) {
		id, _, ok := e.execer()
		if !ok {
			return
		}
		spec := shell(heart)
		spec.TTY = true
		_, err := e.leave(id, spec, nil)
		e.want("Exec", err, context.Canceled)
		if e.alive(id) {
			e.Error("the process outlived its ctx")
		}
	}},
	{"Keep", func(e *env) {
		id, _, ok := e.execer()
		if !ok {
			return
		}
		spec := shell(heart)
		spec.Keep = true
		_, err := e.leave(id, spec, nil)
		e.want("Exec", err, context.Canceled)
		if !e.alive(id) {
			e.Error("a process that was to be kept is gone")
		}
	}},
	{"WriterFails", func(e *env) {
		id, exec, ok := e.execer()
		if !ok {
			return
		}
		gone := errors.New("viewer is gone")
		err := exec(shell(`echo x; `+heart), runtime.Streams{Out: failing{gone}})
		e.want("Exec", err, gone)
		if e.alive(id) {
			e.Error("the process outlived its viewer")
		}
	}},
	{"ContainerEnds", func(e *env) {
		id, exec, ok := e.execer()
		if !ok {
			return
		}
		done := make(chan error, 1)
		go func() { done <- exec(shell(heart), runtime.Streams{}) }()
		e.until("the process is up", func() bool { return e.beats(id) > 0 })
		e.must("Kill", e.engine.Kill(e.ctx, id, ""))
		if err := <-done; err == nil {
			e.Error("Exec succeeded though its container was killed")
		}
	}},
}

// failing is a viewer that is gone.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
