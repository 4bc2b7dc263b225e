package logs

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

type testDoor struct {
	*httptest.Server
	mu      sync.Mutex
	records []Record
}

func (d *testDoor) audits() []Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Record(nil), d.records...)
}

func newTestDoor(t testing.TB, cfg Config, change func(*DoorConfig)) *testDoor {
	t.Helper()
	log, _ := logrustest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	td := &testDoor{}
	dc := DoorConfig{Service: newService(t, cfg), Authorize: AllowAll, Log: log, Node: "node1", Audit: func(r Record) {
		td.mu.Lock()
		defer td.mu.Unlock()
		td.records = append(td.records, r)
	}}
	if change != nil {
		change(&dc)
	}
	d, err := NewDoor(dc)
	if err != nil {
		t.Fatal(err)
	}
	td.Server = httptest.NewServer(d)
	t.Cleanup(td.Close)
	t.Cleanup(d.Close)
	return td
}

func (d *testDoor) dial(t testing.TB, protocols ...string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: protocols}
	conn, _, err := dialer.Dial("ws"+strings.TrimPrefix(d.URL, "http")+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t testing.TB, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, conn *websocket.Conn) (int, string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	kind, p, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return kind, string(p)
}

func TestOldClientsGetALineAMessage(t *testing.T) {
	dir := fixtures(t)
	d := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	conn := d.dial(t)
	send(t, conn, "cat "+dir+"/nonl.log | grep t")
	for _, want := range []string{"two", "three without newline"} {
		if kind, got := receive(t, conn); kind != websocket.TextMessage || got != want {
			t.Fatalf("got a message of kind %d %q, want text %q", kind, got, want)
		}
	}
	// The connection stays, and a follow gives way to the next command.
	send(t, conn, "tail -n 1 -f "+dir+"/small.log")
	if _, got := receive(t, conn); got != "epsilon" {
		t.Fatalf("got %q", got)
	}
	send(t, conn, "head -n 1 "+dir+"/small.log")
	if _, got := receive(t, conn); got != "alpha" {
		t.Fatalf("after the follow: got %q", got)
	}
	send(t, conn, "cat /etc/passwd")
	if _, got := receive(t, conn); got != "cat: /etc/passwd: outside the log roots" {
		t.Fatalf("got %q", got)
	}
	send(t, conn, "rm -rf "+dir)
	if _, got := receive(t, conn); !strings.HasPrefix(got, `refused: "rm" is not among the allowed commands`) {
		t.Fatalf("got %q", got)
	}
	send(t, conn, `{"path":"small.log","lines":1}`)
	if _, got := receive(t, conn); got != "epsilon" {
		t.Fatalf("structured: got %q", got)
	}
}

func TestTextMessagesAreAlwaysUTF8(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "bin.log"), "ok\xff\xfe\x80end\r\n\xc3\xa9\n\n")
	d := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	conn := d.dial(t)
	send(t, conn, "cat bin.log")
	for _, want := range []string{"ok\uFFFDend", "é", ""} {
		if _, got := receive(t, conn); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// collect reads one command's messages in the subprotocol.
func collect(t testing.TB, conn *websocket.Conn) (out string, errs []string, end ending) {
	t.Helper()
	var b strings.Builder
	for {
		kind, p := receive(t, conn)
		if kind == websocket.BinaryMessage {
			if len(p) > maxFrame {
				t.Fatalf("a frame of %d bytes", len(p))
			}
			b.WriteString(p)
			continue
		}
		var n notice
		if err := json.Unmarshal([]byte(p), &n); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if n.Error != "" {
			errs = append(errs, n.Error)
		}
		if n.End != nil {
			return b.String(), errs, *n.End
		}
	}
}

func TestSubprotocol(t *testing.T) {
	dir := fixtures(t)
	app, err := os.ReadFile(filepath.Join(dir, "app.log"))
	if err != nil {
		t.Fatal(err)
	}
	d := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	conn := d.dial(t, Subprotocol)
	send(t, conn, `{"run":"cat app.log"}`)
	out, errs, end := collect(t, conn)
	if out != string(app) || errs != nil || end.Exit != 0 || end.Lines != 5000 || end.Bytes != int64(len(app)) || end.Read != end.Bytes {
		t.Errorf("cat gave %d bytes, %q, %+v", len(out), errs, end)
	}
	send(t, conn, `{"run":"cat missing.log"}`)
	if out, errs, end := collect(t, conn); out != "" || len(errs) != 1 || end.Exit != 1 {
		t.Errorf("a missing file: %q, %q, %+v", out, errs, end)
	}
	send(t, conn, `{"run":"cat a; id"}`)
	if _, _, end := collect(t, conn); end.Exit != 2 || !strings.Contains(end.Error, "only one pipeline") {
		t.Errorf("a refused line: %+v", end)
	}
	send(t, conn, `{"run":{"mode":"grep","path":"app.log","filter":"id=37 ","context":1}}`)
	if out, _, end := collect(t, conn); end.Exit != 0 || !strings.Contains(out, "id=37 ") || !strings.Contains(out, "--\n") {
		t.Errorf("structured grep: %q %+v", out, end)
	}
	for _, bad := range []string{`nonsense`, `{}`, `{"run":"x","stop":true}`, `[]`, `{"run":5}`, `{"run":{"mode":"rm","path":"x"}}`, `{"run":{"pth":"x"}}`} {
		send(t, conn, bad)
		kind, p := receive(t, conn)
		for strings.HasPrefix(p, `{"start"`) {
			kind, p = receive(t, conn)
		}
		if kind != websocket.TextMessage || !strings.Contains(p, `"error"`) {
			t.Errorf("%s: answered %q", bad, p)
		}
	}
}

func TestAFollowIsStoppedWithoutClosing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	appendTo(t, file, "first\n")
	d := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	conn := d.dial(t, Subprotocol)
	for round := range 3 {
		send(t, conn, `{"run":"tail -n 1 -f app.log"}`)
		if _, p := receive(t, conn); !strings.Contains(p, `"start"`) {
			t.Fatalf("got %q", p)
		}
		if kind, _ := receive(t, conn); kind != websocket.BinaryMessage {
			t.Fatal("no line")
		}
		line := fmt.Sprintf("round %d\n", round)
		appendTo(t, file, line)
		if _, p := receive(t, conn); p != line {
			t.Fatalf("got %q, want %q", p, line)
		}
		send(t, conn, `{"stop":true}`)
		if _, _, end := collect(t, conn); !end.Stopped || end.Error != "" || end.Lines != 2 {
			t.Fatalf("after stop: %+v", end)
		}
	}
	if n := len(d.audits()); n != 3 {
		t.Errorf("%d audit records", n)
	}
}

func TestAViewerThatGoesAwayEndsItsCommand(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "app.log"), "first\n")
	d := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	conn := d.dial(t)
	send(t, conn, "tail -f app.log")
	receive(t, conn)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the audit says that the follow ended", func() bool { return len(d.audits()) == 1 })
}

func TestDoorIsClosedByDefault(t *testing.T) {
	dir := fixtures(t)
	d := newTestDoor(t, Config{Roots: []string{dir}, StdinRoots: []string{dir}}, func(c *DoorConfig) { c.Authorize = nil })
	for _, path := range []string{"/", "/files/", "/download" + dir + "/small.log"} {
		resp, err := http.Get(d.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(string(body), "a token is needed") {
			t.Errorf("%s without a token: %s %s", path, resp.Status, body)
		}
	}
	if _, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(d.URL, "http")+"/", nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a socket without a token: %v, %v", resp, err)
	}
}

func TestOrigins(t *testing.T) {
	dir := fixtures(t)
	d := newTestDoor(t, Config{Roots: []string{dir}}, func(c *DoorConfig) { c.Origins = []string{"https://console.example"} })
	for origin, ok := range map[string]bool{
		"": true, d.URL: true, "https://console.example": true, "https://evil.example": false, "null": false, "http://console.example": false,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(d.URL, "http")+"/", header)
		if (err == nil) != ok {
			t.Errorf("origin %q: %v", origin, err)
		}
		if err == nil {
			_ = conn.Close()
		} else if resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: %s", origin, resp.Status)
		}
	}
}

func TestPlacesAreLimited(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "app.log"), "first\n")
	d := newTestDoor(t, Config{Roots: []string{dir}}, func(c *DoorConfig) { c.PerClient = 2 })
	for range 2 {
		conn := d.dial(t)
		send(t, conn, "tail -f app.log")
		receive(t, conn)
	}
	conn := d.dial(t)
	send(t, conn, "tail -f app.log")
	if _, got := receive(t, conn); !strings.Contains(got, "app.logs.max-per-client") {
		t.Errorf("the third of two: %q", got)
	}
	node := newTestDoor(t, Config{Roots: []string{dir}}, func(c *DoorConfig) { c.PerNode = 1 })
	first := node.dial(t)
	send(t, first, "tail -f app.log")
	receive(t, first)
	if resp, body := get(t, node.URL+"/download"+dir+"/app.log"); resp.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(body), "app.logs.max-per-node") {
		t.Errorf("the second of one: %s %s", resp.Status, body)
	}
}

func get(t *testing.T, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestDownload(t *testing.T) {
	dir := fixtures(t)
	d := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	app, err := os.ReadFile(filepath.Join(dir, "app.log"))
	if err != nil {
		t.Fatal(err)
	}
	url := d.URL + "/download" + dir + "/app.log"
	if resp, body := get(t, url); resp.StatusCode != 200 || !bytes.Equal(body, app) || !strings.Contains(resp.Header.Get("Content-Disposition"), "app.log") {
		t.Errorf("whole: %s, %d bytes, %v", resp.Status, len(body), resp.Header)
	}
	if resp, body := get(t, url, "Range", "bytes=1000-"); resp.StatusCode != 206 || !bytes.Equal(body, app[1000:]) {
		t.Errorf("resumed: %s, %d bytes", resp.Status, len(body))
	}
	resp, body := get(t, url+"?compress=gz")
	if r, err := gzip.NewReader(bytes.NewReader(body)); err != nil {
		t.Errorf("gz: %s, %v", resp.Status, err)
	} else if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, app) {
		t.Errorf("gz: %d bytes, %v", len(got), err)
	}
	_, body = get(t, url+"?compress=zst")
	if r, err := zstd.NewReader(bytes.NewReader(body)); err != nil {
		t.Error(err)
	} else {
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, app) {
			t.Errorf("zst: %d bytes, %v", len(got), err)
		}
		r.Close()
	}
	_, body = get(t, d.URL+"/download/?path="+dir+"/app.log&path="+dir+"/sub/*.txt")
	z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, filepath.Base(f.Name))
	}
	if strings.Join(names, " ") != "app.log one.txt two.txt" {
		t.Errorf("the archive holds %v", names)
	}
	_, body = get(t, url+"?since=2026-11-20T12:10:00Z&until=2026-11-20T12:10:30Z")
	for line := range strings.Lines(string(body)) {
		if at := line[:20]; at < "2026-11-20T12:10:00" || at > "2026-11-20T12:10:31" {
			t.Fatalf("a line of %s in the range", at)
		}
	}
	for path, code := range map[string]int{
		"/download" + dir + "/missing": 404, "/download/etc/passwd": 403, "/download" + dir: 400, "/download" + dir + "/app.log?compress=rar": 400,
		"/download" + dir + "/app.log?since=yesterday": 400, "/download/?path=" + dir + "/zz*": 404, "/files/etc": 403, "/files" + dir + "/app.log": 400,
	} {
		resp, body := get(t, d.URL+path)
		var e struct{ Message string }
		if err := json.Unmarshal(body, &e); err != nil || resp.StatusCode != code || e.Message == "" || strings.Contains(e.Message, "\n") {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
}

func TestListing(t *testing.T) {
	dir := fixtures(t)
	d := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	var list struct{ Data []FileInfo }
	_, body := get(t, d.URL+"/files"+dir+"/sub")
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list.Data {
		got = append(got, fmt.Sprintf("%s %s %d", f.Name, f.Type, f.Size))
	}
	if want := "link link 7, one.txt file 3000, two.txt file 1"; strings.Join(got, ", ") != want {
		t.Errorf("listed %q", got)
	}
	if _, body = get(t, d.URL+"/files/"); !strings.Contains(string(body), dir) {
		t.Errorf("the roots: %s", body)
	}
}

func TestQueryAndStdin(t *testing.T) {
	dir := fixtures(t)
	d := newTestDoor(t, Config{Roots: []string{dir}, StdinRoots: []string{dir}}, func(c *DoorConfig) {
		c.Lookup = nil
	})
	post := func(path, body string) (*http.Response, string) {
		t.Helper()
		resp, err := http.Post(d.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(out)
	}
	resp, out := post("/query", `{"path":"small.log","lines":2}`)
	if out != "delta\nepsilon\n" || resp.Trailer.Get("Drover-Exit") != "0" {
		t.Errorf("query: %q, trailer %v", out, resp.Trailer)
	}
	if resp, out := post("/query", "<html>"); resp.StatusCode != 400 {
		t.Errorf("HTML: %s %s", resp.Status, out)
	}
	if resp, out := post("/query", `{"taskId":"7"}`); resp.StatusCode != 400 || !strings.Contains(out, "app.logs.lookup") {
		t.Errorf("a task without a lookup: %s %s", resp.Status, out)
	}
	if resp, _ := post("/query", strings.Repeat("x", 100<<10)); resp.StatusCode != 413 {
		t.Errorf("a huge request: %s", resp.Status)
	}
	if resp, out := post("/stdin"+dir+"/empty.log", "typed\n"); resp.StatusCode != 204 {
		t.Errorf("stdin: %s %s", resp.Status, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "empty.log")); err != nil || string(got) != "typed\n" {
		t.Errorf("stdin wrote %q, %v", got, err)
	}
	if resp, _ := post("/stdin/etc/passwd", "x"); resp.StatusCode != 400 {
		t.Errorf("stdin outside: %s", resp.Status)
	}
}

// TestIdleFollowsAreCheap prints what an idle follow costs and holds it to the promise.
func TestIdleFollowsAreCheap(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "app.log"), "first\n")
	d := newTestDoor(t, Config{Roots: []string{dir}}, func(c *DoorConfig) { c.PerClient, c.PerNode = 2000, 2000 })
	const n = 400
	open := func() {
		conn := d.dial(t)
		send(t, conn, "tail -f app.log")
		receive(t, conn)
	}
	open()
	before := inUse()
	for range n {
		open()
	}
	// The clients live in this process too, so what is measured is both ends.
	each := (inUse() - before) / n
	t.Logf("an idle follow costs %d bytes with its client", each)
	if !raceEnabled && each > 60<<10 {
		t.Errorf("an idle follow and its client cost %d bytes", each)
	}
	appendTo(t, filepath.Join(dir, "app.log"), "second\n")
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no root": {}, "relative": {Roots: []string{"logs"}}, "the whole host": {Roots: []string{"/"}}, "unknown command": {Roots: []string{"/l"}, Commands: []string{"rm"}},
		"stdin root": {Roots: []string{"/l"}, StdinRoots: []string{"/l/../"}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewDoor(DoorConfig{}); err == nil || errors.Is(err, ErrUnauthorized) {
		t.Errorf("NewDoor without a service: %v", err)
	}
}
