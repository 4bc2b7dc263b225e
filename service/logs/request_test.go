package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

// TestEveryFieldOfARequest sends the structured form with each of its fields.
func TestEveryFieldOfARequest(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().UTC().Truncate(time.Second)
	line := func(ago time.Duration, text string) string {
		return now.Add(-ago).Format(time.RFC3339) + " " + text + "\n"
	}
	old, mid, late := line(3*time.Hour, "old error"), line(2*time.Hour, "mid fine"), line(time.Minute, "late error")
	appendTo(t, filepath.Join(dir, "a.log"), old+mid+late)
	appendTo(t, filepath.Join(dir, "b.log"), "b one\nb two\n")
	many := ""
	for i := range 30 {
		many += fmt.Sprintf("line %02d\n", i)
	}
	appendTo(t, filepath.Join(dir, "many.log"), many)
	conn := newTestDoor(t, Config{Roots: []string{dir}}, func(c *DoorConfig) {
		c.Lookup = TableLookup(map[string]Place{"7": {Path: filepath.Join(dir, "b.log")}})
	}).dial(t, Subprotocol)
	for request, want := range map[string]string{
		`{"path":"many.log"}`:                                                                         many[20*8:],
		`{"mode":"tail","path":"many.log","lines":2}`:                                                 many[28*8:],
		`{"mode":"cat","path":"many.log"}`:                                                            many,
		`{"mode":"cat","files":["b.log","a*.log"]}`:                                                   "b one\nb two\n" + old + mid + late,
		`{"mode":"grep","path":"a.log","filter":"old|late"}`:                                          old + late,
		`{"mode":"cat","path":"a.log","filter":"error"}`:                                              old + late,
		`{"mode":"tail","path":"a.log","lines":2,"filter":"e"}`:                                       mid + late,
		`{"mode":"grep","path":"many.log","filter":"15","context":1}`:                                 "line 14\nline 15\nline 16\n",
		`{"mode":"cat","path":"a.log","since":"150m"}`:                                                mid + late,
		`{"mode":"cat","path":"a.log","since":"4h","until":"1h"}`:                                     old + mid,
		`{"path":"a.log","since":"` + now.Add(-150*time.Minute).Format(time.RFC3339) + `","lines":1}`: late,
		`{"mode":"cat","taskId":"7"}`:                                                                 "b one\nb two\n", `{"requestId":"7","lines":1}`: "b two\n",
	} {
		send(t, conn, `{"run":`+request+`}`)
		if out, errs, end := collect(t, conn); out != want || errs != nil || end.Error != "" {
			t.Errorf("%s: %q, %q, %+v; want %q", request, out, errs, end, want)
		}
	}
	for request, want := range map[string]string{
		`{"mode":"rm","path":"a.log"}`: "mode", `{}`: "neither path nor files", `{"mode":"grep","path":"a.log"}`: "needs a filter",
		`{"path":"a.log","lines":-1}`: "negative", `{"mode":"cat","path":"a.log","follow":true}`: "follows", `{"path":5}`: "path",
		`{"path":"a.log","since":"yesterday"}`: "neither a time", `{"path":"a.log","filter":"("}`: "", `{"path":"a.log","taskId":"7"}`: "together",
		`{"taskId":"8"}`: "unknown task", `{"path":"a.log","nonsense":1}`: "nonsense", `{"files":[]}`: "neither",
	} {
		send(t, conn, `{"run":`+request+`}`)
		if out, _, end := collect(t, conn); out != "" || end.Exit == 0 || end.Error == "" || !strings.Contains(end.Error, want) {
			t.Errorf("%s: %q, %+v, want %q", request, out, end, want)
		}
	}

	// A follow with since and filter begins with what is there, and is stopped without closing.
	send(t, conn, `{"run":{"path":"a.log","follow":true,"since":"150m","filter":"error|more"}}`)
	receive(t, conn)
	if _, got := receive(t, conn); got != late {
		t.Errorf("the follow begins with %q", got)
	}
	more := now.Format(time.RFC3339) + " one more\n"
	appendTo(t, filepath.Join(dir, "a.log"), more)
	if _, got := receive(t, conn); got != more {
		t.Errorf("the follow goes on with %q", got)
	}
	send(t, conn, `{"stop":true}`)
	if _, _, end := collect(t, conn); !end.Stopped {
		t.Errorf("the end: %+v", end)
	}
}

// TestAuditLine: every command leaves who, from where, node, command, exit code and bytes in the log.
func TestAuditLine(t *testing.T) {
	dir := t.TempDir()
	stdin := filepath.Join(dir, "stdin")
	appendTo(t, filepath.Join(dir, "a.log"), "hello\n")
	appendTo(t, stdin, "")
	log, hook := logrustest.NewNullLogger()
	door := newTestDoor(t, Config{Roots: []string{dir}, StdinRoots: []string{dir}}, func(c *DoorConfig) { c.Log = log })
	conn := door.dial(t, Subprotocol)
	for _, c := range []struct {
		line       string
		exit       int
		read, sent int64
		failed     bool
	}{
		{"cat a.log", 0, 6, 6, false},
		{"grep nothing a.log", 1, 6, 0, false},
		{"cat a.log; id", 2, 0, 0, true},
		{"rm a.log", 126, 0, 0, true},
		{"echo x >> " + stdin, 0, 0, 0, false},
		{"cat /etc/passwd", 1, 0, 0, false},
	} {
		hook.Reset()
		send(t, conn, `{"run":`+fmt.Sprintf("%q", c.line)+`}`)
		collect(t, conn)
		var found []*logrus.Entry
		for _, e := range hook.AllEntries() {
			if e.Data["command"] == c.line {
				found = append(found, e)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s: %d lines", c.line, len(found))
			continue
		}
		d := found[0].Data
		if d["who"] != "anonymous" || d["client"] != "127.0.0.1" || d["node"] != "node1" || d["exit"] != c.exit || d["read"] != c.read || d["sent"] != c.sent ||
			(d["error"] != "") != c.failed {
			t.Errorf("%s: %v", c.line, d)
		}
	}
	if b, err := os.ReadFile(stdin); err != nil || string(b) != "x\n" {
		t.Errorf("appended %q, %v", b, err)
	}
}
