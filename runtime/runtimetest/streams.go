package runtimetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

var attachTests = []test{
	{"Echo", func(e *env) {
		a, ok := e.engine.(runtime.Attacher)
		if !ok {
			return
		}
		spec := e.spec("cat")
		spec.OpenStdin, spec.StdinOnce = true, true
		id := e.start(spec)
		r, w := io.Pipe()
		var out locked
		done := make(chan error, 1)
		go func() { done <- a.Attach(e.ctx, id, runtime.AttachSpec{}, runtime.Streams{In: r, Out: &out}) }()
		_, _ = io.WriteString(w, "hello\n")
		e.until("the line comes back", func() bool { return out.String() == "hello\n" })
		w.Close()
		e.noError("Attach", <-done)
		e.stopped(id)
	}},
	{"BeforeStart", func(e *env) {
		a, ok := e.engine.(runtime.Attacher)
		if !ok {
			return
		}
		spec := e.spec("sh", "-c", "echo first; cat; echo last >&2")
		spec.OpenStdin, spec.StdinOnce = true, true
		id := e.create(spec)
		var out, errOut locked
		attached, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- a.Attach(e.ctx, id, runtime.AttachSpec{Attached: func() { close(attached) }},
				runtime.Streams{In: strings.NewReader("from me\n"), Out: &out, Err: &errOut})
		}()
		select {
		case <-attached:
		case err := <-done:
			e.Fatalf("Attach: %v", err)
		}
		e.must("Start", e.engine.Start(e.ctx, id))
		e.noError("Attach", <-done)
		if out.String() != "first\nfrom me\n" || errOut.String() != "last\n" {
			e.Errorf("out %q, err %q", out.String(), errOut.String())
		}
	}},
	{"LeavesProcess", func(e *env) {
		a, ok := e.engine.(runtime.Attacher)
		if !ok {
			return
		}
		id := e.start(e.spec("sh", "-c", "echo ready; sleep 1000"))
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		var out locked
		done := make(chan error, 1)
		go func() { done <- a.Attach(ctx, id, runtime.AttachSpec{Logs: true}, runtime.Streams{Out: &out}) }()
		e.until("what was said before is there", func() bool { return out.String() == "ready\n" })
		cancel()
		e.want("Attach", <-done, context.Canceled)
		if st := e.state(id); !st.Running {
			e.Error("Attach ended the container")
		}
		e.want("Attach to an unknown container", a.Attach(e.ctx, e.name(), runtime.AttachSpec{}, runtime.Streams{}), runtime.ErrNotFound)
	}},
}

var logTests = []test{
	{"Streams", func(e *env) {
		l, ok := e.engine.(runtime.LogReader)
		if !ok {
			return
		}
		id := e.start(e.spec("sh", "-c", "echo one; echo three >&2; echo two; printf four"))
		e.stopped(id)
		read := func(opts runtime.LogOptions) (string, string) {
			e.Helper()
			var out, errOut bytes.Buffer
			e.noError("Logs", l.Logs(e.ctx, id, opts, &out, &errOut))
			return out.String(), errOut.String()
		}
		check := func(what string, opts runtime.LogOptions, wantOut, wantErr string) {
			e.Helper()
			if out, errOut := read(opts); out != wantOut || errOut != wantErr {
				e.Errorf("%s: out %q, err %q", what, out, errOut)
			}
		}
		check("all", runtime.LogOptions{}, "one\ntwo\nfour", "three\n")
		check("both", runtime.LogOptions{Stdout: true, Stderr: true}, "one\ntwo\nfour", "three\n")
		check("stdout", runtime.LogOptions{Stdout: true}, "one\ntwo\nfour", "")
		check("stderr", runtime.LogOptions{Stderr: true}, "", "three\n")
		check("follow what has ended", runtime.LogOptions{Follow: true}, "one\ntwo\nfour", "three\n")
		check("nothing", runtime.LogOptions{Tail: -1}, "", "")
		check("more than there is", runtime.LogOptions{Tail: 100}, "one\ntwo\nfour", "three\n")
		check("since later", runtime.LogOptions{Since: time.Now().Add(time.Hour)}, "", "")
		check("until earlier", runtime.LogOptions{Until: time.Now().Add(-time.Hour)}, "", "")

		out, _ := read(runtime.LogOptions{Stdout: true, Timestamps: true})
		lines := strings.Split(out, "\n")
		for i, want := range []string{"one", "two", "four"} {
			stamp, text, _ := strings.Cut(lines[i], " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err != nil || text != want || time.Since(at) > 10*time.Minute {
				e.Errorf("line %d: %q", i, lines[i])
			}
		}
		e.want("an unknown container", l.Logs(e.ctx, e.name(), runtime.LogOptions{}, io.Discard, io.Discard), runtime.ErrNotFound)
	}},
	{"TailSince", func(e *env) {
		l, ok := e.engine.(runtime.LogReader)
		if !ok {
			return
		}
		id := e.start(e.spec("sh", "-c", "for i in 1 2 3 4 5; do echo line$i; sleep 0.2; done"))
		e.stopped(id)
		var out bytes.Buffer
		e.must("Logs", l.Logs(e.ctx, id, runtime.LogOptions{Tail: 2}, &out, nil))
		if out.String() != "line4\nline5\n" {
			e.Errorf("the last two: %q", out.String())
		}
		out.Reset()
		e.must("Logs", l.Logs(e.ctx, id, runtime.LogOptions{Timestamps: true}, &out, nil))
		lines := strings.Split(out.String(), "\n")
		stamp, _, _ := strings.Cut(lines[2], " ")
		third, err := time.Parse(time.RFC3339Nano, stamp)
		e.must("the time stamp", err)
		out.Reset()
		e.must("Logs", l.Logs(e.ctx, id, runtime.LogOptions{Since: third}, &out, nil))
		if out.String() != "line3\nline4\nline5\n" {
			e.Errorf("since the third: %q", out.String())
		}
		out.Reset()
		e.must("Logs", l.Logs(e.ctx, id, runtime.LogOptions{Until: third}, &out, nil))
		if out.String() != "line1\nline2\nline3\n" {
			e.Errorf("until the third: %q", out.String())
		}
	}},
	{"Follow", func(e *env) {
		l, ok := e.engine.(runtime.LogReader)
		if !ok {
			return
		}
		id := e.start(e.spec("sh", "-c", "for i in 1 2 3; do echo line$i; sleep 0.3; done; echo last >&2"))
		var out, errOut locked
		e.noError("Logs", l.Logs(e.ctx, id, runtime.LogOptions{Follow: true}, &out, &errOut))
		if out.String() != "line1\nline2\nline3\n" || errOut.String() != "last\n" {
			e.Errorf("out %q, err %q", out.String(), errOut.String())
		}

		id = e.start(e.spec("sh", "-c", "echo ready; sleep 1000"))
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		var live locked
		done := make(chan error, 1)
		go func() { done <- l.Logs(ctx, id, runtime.LogOptions{Follow: true}, &live, nil) }()
		e.until("the line is there", func() bool { return live.String() == "ready\n" })
		cancel()
		e.want("Logs", <-done, context.Canceled)

		gone := errors.New("viewer is gone")
		e.want("Logs", l.Logs(e.ctx, id, runtime.LogOptions{Follow: true}, failing{gone}, nil), gone)
	}},
	{"Terminal", func(e *env) {
		l, ok := e.engine.(runtime.LogReader)
		if !ok {
			return
		}
		spec := e.spec("sh", "-c", "echo one; echo two >&2")
		spec.TTY = true
		id := e.start(spec)
		e.stopped(id)
		var out, errOut bytes.Buffer
		e.must("Logs", l.Logs(e.ctx, id, runtime.LogOptions{}, &out, &errOut))
		if unix(out.String()) != "one\ntwo\n" || errOut.Len() != 0 {
			e.Errorf("out %q, err %q", out.String(), errOut.String())
		}
	}},
}

var statsTests = []test{
	{"Sample", func(e *env) {
		s, ok := e.engine.(runtime.Statser)
		if !ok {
			return
		}
		id := e.start(e.spec("sh", "-c", "while true; do true; done"))
		first, err := s.Stats(e.ctx, id)
		e.must("Stats", err)
		if first.ID != id || first.Memory == 0 || first.MemoryLimit < first.Memory || first.Pids == 0 || time.Since(first.Time).Abs() > 10*time.Minute {
			e.Errorf("Stats: %+v", first)
		}
		e.until("the counters grow", func() bool {
			second, err := s.Stats(e.ctx, id)
			e.must("Stats", err)
			return second.CPUTotal > first.CPUTotal && second.Time.After(first.Time)
		})
		_, err = s.Stats(e.ctx, e.create(e.spec()))
		e.want("Stats of a container that does not run", err, runtime.ErrConflict)
		_, err = s.Stats(e.ctx, e.name())
		e.want("Stats of an unknown container", err, runtime.ErrNotFound)
	}},
}

// archive is a tar stream of files and their contents, in order.
func archive(pairs ...string) *bytes.Buffer {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := 0; i < len(pairs); i += 2 {
		h := &tar.Header{Name: pairs[i], Mode: 0o640, Size: int64(len(pairs[i+1])), ModTime: time.Unix(1_700_000_000, 0)}
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		_ = w.WriteHeader(h)
		_, _ = io.WriteString(w, pairs[i+1])
	}
	_ = w.Close()
	return &buf
}

var copyTests = []test{
	{"ThereAndBack", func(e *env) {
		c, ok := e.engine.(runtime.Copier)
		if !ok {
			return
		}
		id := e.start(e.spec())
		big := strings.Repeat("0123456789abcdef", 1<<16)
		e.must("CopyTo", c.CopyTo(e.ctx, id, "/tmp", archive("dir/", "", "dir/a.txt", "hello", "dir/big", big)))
		if x, ok := e.engine.(runtime.Execer); ok {
			var out bytes.Buffer
			e.noError("Exec", x.Exec(e.ctx, id, runtime.ExecSpec{Cmd: []string{"cat", "/tmp/dir/a.txt"}}, runtime.Streams{Out: &out}))
			if out.String() != "hello" {
				e.Errorf("the file in the container: %q", out.String())
			}
		}
		stat, err := c.StatPath(e.ctx, id, "/tmp/dir/a.txt")
		e.must("StatPath", err)
		if stat.Name != "a.txt" || stat.Size != 5 || stat.Mode.Perm() != 0o640 || stat.Mode.IsDir() || stat.Mtime.Unix() != 1_700_000_000 {
			e.Errorf("StatPath: %+v", stat)
		}
		if stat, err := c.StatPath(e.ctx, id, "/tmp/dir"); err != nil || !stat.Mode.IsDir() {
			e.Errorf("StatPath of a directory: %+v, %v", stat, err)
		}
		body, stat, err := c.CopyFrom(e.ctx, id, "/tmp/dir")
		e.must("CopyFrom", err)
		defer body.Close()
		if stat.Name != "dir" || !stat.Mode.IsDir() {
			e.Errorf("CopyFrom: %+v", stat)
		}
		found := map[string]string{}
		r := tar.NewReader(body)
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			e.must("the archive", err)
			content, err := io.ReadAll(r)
			e.must("the archive", err)
			found[h.Name] = string(content)
		}
		if found["dir/a.txt"] != "hello" || found["dir/big"] != big || len(found) != 3 {
			e.Errorf("the archive has %d entries", len(found))
		}
	}},
	{"Errors", func(e *env) {
		c, ok := e.engine.(runtime.Copier)
		if !ok {
			return
		}
		id := e.create(e.spec())
		e.want("CopyTo a directory that is not there", c.CopyTo(e.ctx, id, "/no/such/dir", archive("a", "b")), runtime.ErrNotFound)
		_, _, err := c.CopyFrom(e.ctx, id, "/no/such/file")
		e.want("CopyFrom a path that is not there", err, runtime.ErrNotFound)
		_, err = c.StatPath(e.ctx, id, "/no/such/file")
		e.want("StatPath of a path that is not there", err, runtime.ErrNotFound)
		e.want("CopyTo an unknown container", c.CopyTo(e.ctx, e.name(), "/tmp", archive("a", "b")), runtime.ErrNotFound)
		cut := errors.New("the source is cut")
		e.want("CopyTo from a source that fails", c.CopyTo(e.ctx, id, "/tmp", io.MultiReader(bytes.NewReader(archive("a", "b").Bytes()[:512]), failingReader{cut})), cut)
	}},
}

// failingReader is a source that is cut.
type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
