package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func runAwk(t *testing.T, ctx context.Context, s *Service, line string, o *output) (Result, error) {
	t.Helper()
	p, err := Parse(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return s.Run(ctx, p, o.sink())
}

// resident returns what this process has of the machine's memory.
func resident(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestAwkCannotTakeTheMemory runs programs that would take all of it. The agent does not grow meanwhile.
func TestAwkCannotTakeTheMemory(t *testing.T) {
	dir := fixtures(t)
	s := newService(t, Config{Roots: []string{dir}, Limits: Limits{SortMemory: 8 << 20, Timeout: time.Minute}})
	for name, program := range map[string]string{
		"doubling":  `BEGIN { s = "x"; while (1) s = s s }`,
		"gsub":      `BEGIN { s = "x"; while (1) gsub(/^x/, s s, s) }`,
		"array":     `BEGIN { while (1) a[i++] = i "some text" }`,
		"field":     `BEGIN { $0 = "x"; while (1) { $1 = $1 $1; $2 = $1 } }`,
		"recursion": `function f(s) { f(s s "xxxxxxxx") } BEGIN { f("x") }`,
		"sprintf":   `BEGIN { s = "x"; while (1) s = sprintf("%s%s", s, s) }`,
		"width":     `BEGIN { while (1) a[i++] = sprintf("%900000s", "x") }`,
	} {
		t.Run(name, func(t *testing.T) {
			before := resident(t)
			done := make(chan struct{})
			peak := make(chan int64)
			go func() {
				most := int64(0)
				tick := time.NewTicker(2 * time.Millisecond)
				defer tick.Stop()
				for {
					most = max(most, resident(t))
					select {
					case <-done:
						peak <- most
						return
					case <-tick.C:
					}
				}
			}()
			var got output
			result, err := runAwk(t, t.Context(), s, "awk '"+program+"'", &got)
			close(done)
			if grown := <-peak - before; grown > 24<<20 {
				t.Errorf("this process grew by %d MB", grown>>20)
			}
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Key != "app.logs.sort-memory" || limit.Limit != "8 MB" || result.ExitCode != 1 {
				t.Errorf("%+v, %v, said %q; want the limit app.logs.sort-memory", result, err, got.said())
			}
			if got.said() != "" || got.text() != "" {
				t.Errorf("it said %q and wrote %q", got.said(), got.text())
			}
		})
	}
}

// workers returns the processes that this one has started and that have not been waited for.
func workers(t *testing.T) []int {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		t.Fatalf("the children of this process: %v, %v", lists, err)
	}
	var pids []int
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// followAwk starts a pipeline that follows app.log with awk in it, and returns when a first line came through.
func followAwk(t *testing.T, ctx context.Context, s *Service, dir string) (got *output, ended chan error) {
	t.Helper()
	got, ended = &output{}, make(chan error, 1)
	p, err := Parse("tail -n 1 -f " + dir + "/app.log | awk '{ print NR, $3 }'")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := s.Run(ctx, p, got.sink())
		ended <- err
	}()
	eventually(t, "the first line", func() bool { return got.text() != "" })
	return got, ended
}

func TestAwkFollowsAndIsKilledAtTheEnd(t *testing.T) {
	dir := fixtures(t)
	s := newService(t, Config{Roots: []string{dir}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, ended := followAwk(t, ctx, s, dir)
	f, err := os.OpenFile(filepath.Join(dir, "app.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 3 {
		if _, err := fmt.Fprintf(f, "a b word%d\n", i); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%d word%d\n", i+2, i)
		eventually(t, want, func() bool { return strings.HasSuffix(got.text(), want) })
	}
	if n := len(workers(t)); n != 1 {
		t.Errorf("%d processes, want 1", n)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if left := workers(t); len(left) > 0 {
		t.Errorf("processes left: %d", left)
	}
}

func TestAwkWorkerIsKilledByOthers(t *testing.T) {
	dir := fixtures(t)
	s := newService(t, Config{Roots: []string{dir}})
	got, ended := followAwk(t, t.Context(), s, dir)
	pids := workers(t)
	if len(pids) != 1 {
		t.Fatalf("processes %d, want one", pids)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pids[0]))
	if err != nil || len(environ) > 0 {
		t.Errorf("the environment of the worker: %q, %v", environ, err)
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pids[0]))
	if err != nil || string(args) != "logs.test\x00awk-worker\x00" {
		t.Errorf("the arguments of the worker: %q, %v", args, err)
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err, want := <-ended, "awk: its process ended early: signal: killed"; err == nil || err.Error() != want {
		t.Errorf("it ended with %v, want %q", err, want)
	}
	if got.said() != "" {
		t.Errorf("it said %q", got.said())
	}
}

// TestAwkReadsWhatItAsksFor: no file is opened that the program does not come to, and the stage above ends with it.
func TestAwkReadsWhatItAsksFor(t *testing.T) {
	dir := fixtures(t)
	s := newService(t, Config{Roots: []string{dir}})
	for _, c := range []struct {
		line, out, said string
		code            int
	}{
		{"awk 'BEGIN { print 1 }' " + dir + "/missing.log", "1\n", "", 0},
		{"awk '{ print; exit 3 }' " + dir + "/small.log " + dir + "/missing.log", "alpha\n", "", 3},
		{"awk 'END { print NR }' " + dir + "/small.log " + dir + "/missing.log", "5\n", "awk: " + dir + "/missing.log: No such file or directory", 2},
		{"awk 'BEGIN { while (1) print \"y\" }' | head -n 2", "y\ny\n", "", 0},
		{"awk '{ print $1 }' " + dir + "/small.log | awk '{ print toupper($0) }' | tail -n 1", "EPSILON\n", "", 0},
		{"awk 'BEGIN { print substr(\"a\", f(1)) } function f(x) { return f(x) }'", "", "awk: calling \"f\" exceeded maximum call depth of 1000", 2},
	} {
		var got output
		result, err := runAwk(t, t.Context(), s, c.line, &got)
		if err != nil || result.ExitCode != c.code || got.text() != c.out || got.said() != c.said {
			t.Errorf("%s: %+v, %v, wrote %q, said %q", c.line, result, err, got.text(), got.said())
		}
	}
}

func TestAwkWithoutAProcess(t *testing.T) {
	dir := fixtures(t)
	for _, c := range []struct {
		command AwkCommand
		want    string
	}{
		{AwkCommand{}, "this node has no process to run it in"},
		{AwkCommand{Path: dir + "/gone", Args: []string{"x"}}, "no such file or directory"},
		{AwkCommand{Path: "/bin/true", Args: []string{"true"}}, "its process ended early: without a result"},
	} {
		s, err := New(Config{Roots: []string{dir}, Awk: c.command})
		if err != nil {
			t.Fatal(err)
		}
		var got output
		_, err = runAwk(t, t.Context(), s, "awk '{ print }' "+dir+"/app.log", &got)
		if text := fmt.Sprint(err, got.said()); !strings.Contains(text, c.want) {
			t.Errorf("%+v: %s, want %q", c.command, text, c.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAwkWorkerTakesBadTasks: what comes through the pipe is no task.
func TestAwkWorkerTakesBadTasks(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "{"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	cmd := exec.Command("/proc/self/exe", "awk-worker")
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.CombinedOutput()
	_ = r.Close()
	if err == nil || !strings.Contains(string(out), "awk worker: task: unexpected end of JSON input") {
		t.Errorf("%v, %s", err, out)
	}
}
