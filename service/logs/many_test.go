package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func runLine(t *testing.T, s *Service, line string) (*output, Result, error) {
	t.Helper()
	p, err := Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	got := &output{}
	r, err := s.Run(context.Background(), p, got.sink())
	return got, r, err
}

// A writer goes on with the file that was renamed until it is told to open the new one, which exists by then.
func TestFollowReadsTheOldFileUntilTheNewOneIsUsed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, "one\n")
	s := newService(t, Config{Roots: []string{dir}})
	got, _ := startFollow(t, s, "tail -n 1 -F "+file)
	eventually(t, "the first line", func() bool { return got.text() == "one\n" })
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, file, "")
	eventually(t, "the rotation is told", func() bool { return strings.Contains(got.said(), noteReplaced) })
	appendTo(t, file+".1", "two\n")
	eventually(t, "what the writer still says into the old file", func() bool { return got.text() == "one\ntwo\n" })
	appendTo(t, file+".1", "three\n")
	appendTo(t, file, "four\n")
	eventually(t, "old before new", func() bool { return got.text() == "one\ntwo\nthree\nfour\n" })
	if n := strings.Count(got.said(), noteReplaced); n != 1 {
		t.Errorf("the rotation was told %d times: %s", n, got.said())
	}
}

// More changes than inotify's queue takes: the kernel drops them and says so.
func TestFollowSurvivesAnEventOverflow(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, "one\n")
	s := newService(t, Config{Roots: []string{dir}})
	got, _ := startFollow(t, s, "tail -n 1 -F "+file)
	eventually(t, "the first line", func() bool { return got.text() == "one\n" })
	s.watches.mu.Lock() // nobody takes events now
	other := filepath.Join(dir, "x")
	appendTo(t, other, "")
	for range 10_000 { // two events each, none of which merge
		if err := errors.Join(os.Rename(other, other+"y"), os.Rename(other+"y", other)); err != nil {
			t.Fatal(err)
		}
	}
	appendTo(t, file, "two\n")
	s.watches.mu.Unlock()
	eventually(t, "the line behind the overflow", func() bool { return got.text() == "one\ntwo\n" })
	appendTo(t, file, "three\n")
	eventually(t, "the line after it", func() bool { return got.text() == "one\ntwo\nthree\n" })
}

func TestManyFilesAreSearchedInOrder(t *testing.T) {
	dir := t.TempDir()
	for i := range 12 {
		var b bytes.Buffer
		for n := range 30_000 + 5_000*(i%3) { // more output than a file may hold
			fmt.Fprintf(&b, "file %d line %d %s INFO something went well\n", i, n, strings.Repeat("pad ", 10))
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.log", i)), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newService(t, Config{Roots: []string{dir}, Limits: Limits{Timeout: -1}})
	for _, line := range []string{
		"grep INFO", "grep -c 9", "grep -i info", "grep -n 'line 7'", "grep -l 34999", "grep -L 34999", "grep -h nothing", "grep -m 2 line",
	} {
		got, result, err := runLine(t, s, line+" "+dir+"/*.log")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "LC_ALL=C "+line+" "+dir+"/*.log")
		want, _ := cmd.Output()
		if got.text() != string(want) || result.ExitCode != cmd.ProcessState.ExitCode() {
			t.Errorf("%s: %d bytes, exit %d; GNU: %d bytes, exit %d", line, len(got.text()), result.ExitCode, len(want), cmd.ProcessState.ExitCode())
		}
	}
	got, result, err := runLine(t, s, "grep 'line 5 ' "+dir+"/00.log "+dir+"/gone.log "+dir+"/01.log")
	if err != nil || result.ExitCode != 2 || strings.Count(got.text(), "\n") != 2 || !strings.Contains(got.said(), "gone.log: No such file") {
		t.Errorf("with a missing file: %v, exit %d, %q, %q", err, result.ExitCode, got.text(), got.said())
	}
	if _, result, err = runLine(t, s, "grep -q INFO "+dir+"/*.log"); err != nil || result.ExitCode != 0 {
		t.Errorf("quiet: %v, exit %d", err, result.ExitCode)
	}
	if got, _, err := runLine(t, s, "grep -h INFO "+dir+"/*.log | head -n 1"); err != nil || !strings.HasPrefix(got.text(), "file 0 line 0 ") {
		t.Errorf("with a reader that has enough: %v, %q", err, got.text())
	}
	small := newService(t, Config{Roots: []string{dir}, Limits: Limits{MaxRead: 1 << 20}})
	var limit *LimitError
	if _, _, err := runLine(t, small, "grep -c INFO "+dir+"/*.log"); !errors.As(err, &limit) || limit.Key != "app.logs.max-file-size" {
		t.Errorf("all files together: %v", err)
	}
}

func TestZgrepReadsZstandard(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Write([]byte("alpha\nbeta\n"))
	if err := errors.Join(err, z.Close(), os.WriteFile(filepath.Join(dir, "a.zst"), b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := newService(t, Config{Roots: []string{dir}})
	if got, _, err := runLine(t, s, "zgrep b "+dir+"/a.zst"); err != nil || got.text() != "beta\n" {
		t.Errorf("%v, %q", err, got.text())
	}
}

func TestFollowFromTheStartIsMeasuredToo(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, strings.Repeat("x\n", 2<<20))
	s := newService(t, Config{Roots: []string{dir}, Limits: Limits{MaxRead: 1 << 20}})
	var limit *LimitError
	if _, _, err := runLine(t, s, "tail -n +1 -f "+file); !errors.As(err, &limit) || limit.Key != "app.logs.max-file-size" {
		t.Errorf("ended with %v", err)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "a.log"), "one\ntwo\n")
	s := newService(t, Config{Roots: []string{dir}, Commands: []string{"cat"}})
	var refusal *Refusal
	if _, _, err := runLine(t, s, "head -n 2 a.log"); !errors.As(err, &refusal) {
		t.Fatalf("head: %v", err)
	}
	if err := s.Reload([]string{"head"}, Limits{MaxLines: 1}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := runLine(t, s, "head -n 2 a.log"); err != nil || got.text() != "one\n" || !strings.Contains(got.said(), "app.logs.max-line") {
		t.Errorf("%v, %q, %q", err, got.text(), got.said())
	}
	if err := s.Reload([]string{"bash"}, Limits{}); err == nil {
		t.Error("a command that does not exist was taken")
	}
}

func TestTasks(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "7.log"), "seven\n")
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("requestId") {
		case "7":
			fmt.Fprintf(w, `{"path":%q,"node":"10.0.0.1"}`, dir+"/7.log")
		case "8":
			fmt.Fprintf(w, `{"path":%q,"node":"10.0.0.2"}`, dir+"/7.log")
		case "9":
			fmt.Fprint(w, `<html>`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer backend.Close()
	byHTTP, err := HTTPLookup(backend.URL+"/tasks", nil)
	if err != nil {
		t.Fatal(err)
	}
	byTable := TableLookup(map[string]Place{"7": {Path: dir + "/7.log"}, "8": {Path: dir + "/7.log", Node: "other"}, "*": {Path: dir + "/{id}.log", Node: "node1"}})
	for name, lookup := range map[string]Lookup{"HTTP": byHTTP, "table": byTable} {
		door := newTestDoor(t, Config{Roots: []string{dir}}, func(c *DoorConfig) { c.Lookup, c.Addresses = lookup, []string{"10.0.0.1"} })
		ask := func(id string) (string, string) {
			conn := door.dial(t, Subprotocol)
			send(t, conn, `{"run":{"mode":"cat","requestId":"`+id+`"}}`)
			out, _, end := collect(t, conn)
			return out, end.Error
		}
		if out, bad := ask("7"); out != "seven\n" || bad != "" {
			t.Errorf("%s: %q, %q", name, out, bad)
		}
		if out, bad := ask("8"); out != "" || !strings.Contains(bad, "is on node") {
			t.Errorf("%s, on another node: %q, %q", name, out, bad)
		}
		if out, bad := ask("../../etc/passwd"); out != "" || !strings.Contains(bad, "unknown task") {
			t.Errorf("%s, no such task: %q, %q", name, out, bad)
		}
	}
	if _, err := HTTPLookup("file:///etc", nil); err == nil {
		t.Error("a lookup that is no URL was taken")
	}
}

func TestLimitsOfDownloads(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "big.log"), strings.Repeat("x\n", 2<<20))
	door := newTestDoor(t, Config{Roots: []string{dir}, Limits: Limits{MaxRead: 1 << 20}}, nil)
	for _, query := range []string{"", "?compress=gz"} {
		resp, body := get(t, door.URL+"/download"+dir+"/big.log"+query)
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), "app.logs.max-file-size") {
			t.Errorf("%s: %s %s", query, resp.Status, body)
		}
	}
	if resp, body := get(t, door.URL+"/download/big.log", "Range", "bytes=0-1"); string(body) != "x\n" {
		t.Errorf("relative to the root: %s %q", resp.Status, body)
	}
	if resp, body := get(t, door.URL+"/download"+dir+"/big.log", "Range", "bytes=0-1"); string(body) != "x\n" {
		t.Errorf("a part: %s %q", resp.Status, body)
	}
}

func TestAPanicEndsOneCommand(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "a.log"), "one\n")
	service := newService(t, Config{Roots: []string{dir}})
	service.programs["wc"] = func(context.Context, *env, []Word) (int, error) { panic("boom") }
	if err := service.Reload([]string{"wc", "cat"}, Limits{}); err != nil {
		t.Fatal(err)
	}
	door := newTestDoor(t, Config{Roots: []string{dir}}, func(c *DoorConfig) { c.Service = service })
	conn := door.dial(t, Subprotocol)
	send(t, conn, `{"run":"cat a.log | wc -l"}`)
	if _, _, end := collect(t, conn); end.Exit == 0 || !strings.Contains(end.Error, "internal error") || strings.Contains(end.Error, "boom") {
		t.Errorf("ended with %+v", end)
	}
	send(t, conn, `{"run":"cat a.log"}`)
	if out, _, end := collect(t, conn); out != "one\n" || end.Exit != 0 {
		t.Errorf("the next command: %q, %+v", out, end)
	}
}
