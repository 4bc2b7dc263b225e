package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startFollow runs a command line until the returned stop, which gives the result.
func startFollow(t *testing.T, s *Service, line string) (*output, func() (Result, error)) {
	t.Helper()
	p, err := Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := &output{}
	type end struct {
		result Result
		err    error
	}
	done := make(chan end, 1)
	go func() {
		r, err := s.Run(ctx, p, got.sink())
		done <- end{r, err}
	}()
	stop := func() (Result, error) { cancel(); e := <-done; done <- e; return e.result, e.err }
	t.Cleanup(func() { _, _ = stop() })
	return got, stop
}

func (o *output) said() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.errs, "\n")
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func appendTo(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFollowSurvivesRotation(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, "old 1\nold 2\n")
	s := newService(t, Config{Roots: []string{dir}})
	got, stop := startFollow(t, s, "tail -n 1 -f "+file)
	eventually(t, "the last line", func() bool { return got.text() == "old 2\n" })

	var want strings.Builder
	want.WriteString("old 2\n")
	for gen := range 5 {
		for i := range 200 {
			line := fmt.Sprintf("generation %d line %d\n", gen, i)
			appendTo(t, file, line)
			want.WriteString(line)
		}
		if err := os.Rename(file, fmt.Sprintf("%s.%d", file, gen)); err != nil {
			t.Fatal(err)
		}
		appendTo(t, fmt.Sprintf("%s.%d", file, gen), "written after the rename\n") // a writer that has the file open
		want.WriteString("written after the rename\n")
		appendTo(t, file, "")
		eventually(t, "the new file is followed", func() bool {
			return strings.Count(got.said(), "following new file") == gen+1
		})
	}
	appendTo(t, file, "the end\n")
	want.WriteString("the end\n")
	eventually(t, "the last line", func() bool { return strings.HasSuffix(got.text(), "the end\n") })
	if got.text() != want.String() {
		t.Errorf("lost or doubled:\n%s", diff(got.text(), want.String()))
	}
	if _, err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestFollowSeesCopyTruncate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, "")
	s := newService(t, Config{Roots: []string{dir}})
	got, _ := startFollow(t, s, "tail -n +1 -f "+file)
	var want strings.Builder
	for gen := range 5 {
		for i := range 100 {
			line := fmt.Sprintf("generation %d line %d\n", gen, i)
			appendTo(t, file, line)
			want.WriteString(line)
		}
		eventually(t, "all is read before it is cut away", func() bool { return got.text() == want.String() })
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
		// A rewrite that is longer than what was there before hides the truncation from whoever looks at sizes only
		// now and then; what must not happen is that the follow stands still.
		eventually(t, "the truncation is told", func() bool { return strings.Count(got.said(), noteTruncated) == gen+1 })
	}
	appendTo(t, file, "the end\n")
	want.WriteString("the end\n")
	eventually(t, "the end", func() bool { return got.text() == want.String() })
}

func TestFollowThroughAPipeIsNotHeldBack(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, "error 0\n")
	s := newService(t, Config{Roots: []string{dir}})
	for _, line := range []string{
		"tail -n 0 -f " + file + " | grep -i error | cat",
		"tail -n 0 -f " + file + " | awk '/error/ {print}'",
		"tail -n 0 -f " + file + " | grep error | uniq",
	} {
		got, stop := startFollow(t, s, line)
		eventually(t, "the file is followed", func() bool { return following(s) })
		appendTo(t, file, "error 1\nfine\n")
		want := "error 1\n"
		if strings.HasSuffix(line, "uniq") { // it holds a line until it sees the next one
			appendTo(t, file, "error 2\n")
		}
		eventually(t, line, func() bool { return got.text() == want })
		_, _ = stop()
	}
}

func following(s *Service) bool {
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	return len(s.watches.byName) > 0
}

func TestFollowOfAMissingFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "later.log")
	s := newService(t, Config{Roots: []string{dir}})
	var once output
	p, err := Parse("tail -f " + file)
	if err != nil {
		t.Fatal(err)
	}
	result, err := s.Run(context.Background(), p, once.sink())
	if err != nil || result.ExitCode != 1 || !strings.Contains(once.said(), "No such file or directory") {
		t.Errorf("tail -f of a missing file: %+v, %v, %q", result, err, once.said())
	}
	got, _ := startFollow(t, s, "tail -F "+file)
	eventually(t, "the complaint", func() bool { return strings.Contains(got.said(), "No such file") })
	appendTo(t, file, "hello\n")
	eventually(t, "the new file's line", func() bool { return got.text() == "hello\n" })
}

func TestOneWatchServesAllFollowers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, "")
	s := newService(t, Config{Roots: []string{dir}})
	before := openFiles(t)
	const n = 200
	outputs := make([]*output, n)
	stops := make([]func() (Result, error), n)
	for i := range n {
		outputs[i], stops[i] = startFollow(t, s, "tail -f "+file)
	}
	appendTo(t, file, "one line\n")
	for _, o := range outputs {
		eventually(t, "every follower gets the line", func() bool { return o.text() == "one line\n" })
	}
	if extra := openFiles(t) - before; extra > 6 {
		t.Errorf("%d followers of one file hold %d descriptors", n, extra)
	}
	for _, stop := range stops {
		_, _ = stop()
	}
	eventually(t, "all descriptors are closed", func() bool { return openFiles(t) <= before })
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestLimits(t *testing.T) {
	dir := fixtures(t)
	big := filepath.Join(dir, "sparse.log")
	if err := os.WriteFile(big, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 10<<30); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line   string
		limits Limits
		key    string
		code   int
	}{
		{"cat " + big, Limits{MaxRead: 16 << 20, Timeout: -1}, "app.logs.max-file-size", 1},
		{"cat " + big, Limits{Timeout: 100 * time.Millisecond, MaxRead: -1}, "app.logs.cmd-timeout", 124},
		{"sort " + dir + "/app.log", Limits{SortMemory: 64 << 10, SortDisk: 100 << 10}, "app.logs.sort-disk", 1},
		{"head -n -4000 " + dir + "/app.log", Limits{SortMemory: 64 << 10}, "app.logs.sort-memory", 1},
		{"cat " + dir + "/*.log", Limits{MaxFiles: 2}, "app.logs.max-files", 1},
		{"cat " + dir + "/app.log " + dir + "/app.log " + dir + "/app.log", Limits{MaxFiles: 2}, "app.logs.max-files", 1},
		{"cat " + dir + "/app.log " + dir + "/app.log", Limits{ByteRate: 1000, Timeout: time.Second}, "app.logs.byte-rate", 1},
		{"awk 'BEGIN { while (1) a[i++] = i \"some text\" }'", Limits{SortMemory: 1 << 20, Timeout: time.Minute}, "app.logs.sort-memory", 1},
		{"awk 'BEGIN { while (1) i++ }'", Limits{Timeout: 100 * time.Millisecond}, "app.logs.cmd-timeout", 124},
		{"tail -f " + dir + "/app.log", Limits{Idle: 50 * time.Millisecond}, "app.logs.idle-timeout", 1},
	} {
		s := newService(t, Config{Roots: []string{dir}, Limits: c.limits})
		p, err := Parse(c.line)
		if err != nil {
			t.Fatal(err)
		}
		var got output
		result, err := s.Run(context.Background(), p, got.sink())
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Key != c.key || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: %v, want the limit %s", c.line, err, c.key)
		}
		if err == nil || result.ExitCode != c.code {
			t.Errorf("%s: exit code %d (%v), want %d", c.line, result.ExitCode, err, c.code)
		}
	}
	s := newService(t, Config{Roots: []string{dir}, Limits: Limits{MaxLines: 7}})
	for _, line := range []string{"tail -n 500 ", "head -n 500 ", "tail -500 "} {
		p, err := Parse(line + dir + "/app.log")
		if err != nil {
			t.Fatal(err)
		}
		var got output
		if _, err := s.Run(context.Background(), p, got.sink()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(got.text(), "\n"); n != 7 || !strings.Contains(got.said(), "app.logs.max-line") {
			t.Errorf("%s gave %d lines and said %q", line, n, got.said())
		}
	}
}

func TestSortSpillsAndMerges(t *testing.T) {
	dir := fixtures(t)
	var want, got output
	for o, limits := range map[*output]Limits{&want: {}, &got: {SortMemory: 100 << 10}} {
		s := newService(t, Config{Roots: []string{dir}, Limits: limits, SpillDir: t.TempDir()})
		p, err := Parse("sort -k 6 " + dir + "/app.log")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Run(context.Background(), p, o.sink()); err != nil {
			t.Fatal(err)
		}
	}
	if got.text() != want.text() || want.text() == "" {
		t.Errorf("a sort that spills differs:\n%s", diff(got.text(), want.text()))
	}
}
