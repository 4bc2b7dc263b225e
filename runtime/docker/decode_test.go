package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/droverhq/drover/runtime"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind error
		text string
		lost bool
	}{
		{fmt.Errorf("Error response from daemon: No such container: x: %w", errdefs.ErrNotFound), runtime.ErrNotFound, "No such container", false},
		{errdefs.ErrConflict, runtime.ErrConflict, "", false},
		{errdefs.ErrInvalidArgument, runtime.ErrInvalid, "", false},
		{errdefs.ErrNotImplemented, runtime.ErrUnsupported, "", false},
		{errdefs.ErrPermissionDenied, runtime.ErrUnsupported, "", false},
		{errdefs.ErrUnavailable, runtime.ErrUnavailable, "", true},
		{errdefs.ErrInternal, nil, "", false},
		{&url.Error{Op: "Get", URL: "http://d", Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}}, runtime.ErrUnavailable, "refused", true},
		{io.ErrUnexpectedEOF, runtime.ErrUnavailable, "", true},
		{&json.SyntaxError{}, runtime.ErrUnavailable, "", true},
		{errors.New("Error response from daemon: <html>\n<body>"), runtime.ErrUnavailable, "web page", true},
		{errors.New("what else"), nil, "what else", false},
	} {
		text, lost, kind := classify(c.err)
		if kind != c.kind || !strings.Contains(text, c.text) || strings.HasPrefix(text, "Error response") || lost != c.lost {
			t.Errorf("%v: got %v, %q, %v", c.err, kind, text, lost)
		}
	}
}

func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		kind   error
		text   string
	}{
		{404, `{"message":"No such container: x"}`, runtime.ErrNotFound, "No such container: x"},
		{409, `{"message":"conflict\n"}`, runtime.ErrConflict, "conflict"},
		{400, `plain text` + "\n", runtime.ErrInvalid, "plain text"},
		{403, ``, runtime.ErrUnsupported, "403 Forbidden"},
		{500, `{"message":"disk"}`, nil, "disk"},
		{501, `{"message":"logs"}`, runtime.ErrUnsupported, "logs"},
		{503, `{"message":"starting"}`, runtime.ErrUnavailable, "starting"},
		{500, `<html><h1>502</h1></html>`, runtime.ErrUnavailable, "web page"},
		{418, `{}`, runtime.ErrInvalid, "{}"},
		{500, strings.Repeat("x", 1<<20), nil, "xxx"},
	} {
		resp := &http.Response{StatusCode: c.status, Status: fmt.Sprintf("%d %s", c.status, http.StatusText(c.status)), Body: io.NopCloser(strings.NewReader(c.body))}
		var err *runtime.Error
		if !errors.As(refusal(resp), &err) || err.Kind != c.kind || !strings.Contains(err.Message, c.text) || len(err.Message) > maxMessage+10 {
			t.Errorf("%d %.20s: got %+v", c.status, c.body, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	session, _, errno := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if state, got, ok := parseStat(string(own)); !ok || got != int(session) || state == 0 {
		t.Errorf("%s: %c %d %v", own, state, got, ok)
	}
	if state, got, ok := parseStat("12 (a) b) S 1 2 (c) 34 0"); ok {
		t.Errorf("a name that hides fields: %c %d", state, got)
	}
	if state, got, ok := parseStat("12 (evil) S 1 1 99) R 7 8 34 0 -1"); !ok || state != 'R' || got != 34 {
		t.Errorf("a name with a parenthesis: %c %d %v", state, got, ok)
	}
}

func TestNotice(t *testing.T) {
	var m message
	text := `{"status":"exec_start: sh -c x","id":"abc","from":"img","Type":"container","Action":"exec_start: sh -c x",
		"Actor":{"ID":"abc","Attributes":{"execID":"e","image":"img:1","name":"web","com.example":"1","exitCode":"0"}},"time":1700000000,"timeNano":1700000000123456789}`
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	n := noticeOf(m)
	if n.ID != "abc" || n.Name != "web" || n.Image != "img:1" || n.Action != "exec_start" || len(n.Labels) != 1 || n.Labels["com.example"] != "1" ||
		!n.Time.Equal(time.Unix(1700000000, 123456789)) {
		t.Errorf("got %+v", n)
	}
	m.TimeNano = 0
	if n := noticeOf(m); !n.Time.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("without nanoseconds: %v", n.Time)
	}
}

func TestStatsOf(t *testing.T) {
	for name, c := range map[string]struct{ memory, want string }{
		"v1":        {`{"usage":1000,"limit":5000,"stats":{"total_inactive_file":300,"inactive_file":1}}`, "700"},
		"v2":        {`{"usage":1000,"limit":5000,"stats":{"inactive_file":400}}`, "600"},
		"too large": {`{"usage":1000,"limit":5000,"stats":{"inactive_file":4000}}`, "1000"},
		"none":      {`{"usage":1000,"limit":5000}`, "1000"},
	} {
		text := `{"read":"2026-01-01T00:00:00Z","id":"x","pids_stats":{"current":3},"cpu_stats":{"cpu_usage":{"total_usage":9,"usage_in_usermode":5,"usage_in_kernelmode":4}},
			"blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":1},{"op":"read","value":2},{"op":"Write","value":5},{"op":"Total","value":99}]},
			"networks":{"eth1":{"rx_bytes":1},"eth0":{"rx_bytes":2,"tx_dropped":3}},"memory_stats":` + c.memory + `}`
		s, err := decodeStats([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(s.Memory) != c.want || s.MemoryLimit != 5000 || s.Pids != 3 || s.CPUTotal != 9 || s.CPUUser != 5 || s.CPUSystem != 4 ||
			s.ReadBytes != 3 || s.WriteBytes != 5 || len(s.Networks) != 2 || s.Networks[0].Name != "eth0" || s.Networks[0].TxDropped != 3 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestIdentifiers(t *testing.T) {
	for _, id := range []string{"", "/", "a/b", "a?b", "a#b", "a%2fb", "..", ".a", "a b", "a\nb", strings.Repeat("x", 300)} {
		if _, err := containerID("op", id); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("container %q: %v", id, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "../x"} {
		if _, err := volumeName("op", name); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("volume %q: %v", name, err)
		}
	}
	for _, ref := range []string{"x", "x:1", "reg:5000/a/b@sha256:" + strings.Repeat("a", 64), strings.Repeat("a", 64), "sha256:" + strings.Repeat("a", 64), "0123456789ab"} {
		if _, err := imageRef("op", ref); err != nil {
			t.Errorf("image %q: %v", ref, err)
		}
	}
}

// Whatever a stream holds, reading it ends, and only a stream that says so is good.
func FuzzProgress(f *testing.F) {
	f.Add(`{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a"}{"status":"Status: ok"}`)
	f.Add(`{"error":"x"}`)
	f.Add(`{"stream":"Successfully built abc\n","aux":{"ID":"sha256:x"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		complete := false
		err := readProgress(strings.NewReader(text), func(p runtime.PullProgress) {
			if p.Status == "" {
				t.Error("a step without words")
			}
		}, func() {}, func(l progressLine) bool {
			complete = complete || strings.HasPrefix(l.Status, "Status: ")
			return complete
		})
		if err == nil && !complete {
			t.Errorf("%q is good", text)
		}
	})
}

// A list is decoded or refused, and its raw elements are JSON.
func FuzzSummaries(f *testing.F) {
	f.Add([]byte(`[{"Id":"a","Names":["/x","/y/z"],"Created":1,"Ports":[{"PrivatePort":80,"Type":"tcp"}],"Labels":{"a":"b"}}]`))
	f.Add([]byte(`[null,{}]`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := summaries(raw, runtime.ListOptions{Raw: true})
		if err != nil {
			return
		}
		for _, c := range list {
			if !json.Valid(c.Raw) {
				t.Errorf("%q", c.Raw)
			}
		}
	})
}

// An event is decoded or refused.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"Action":"start","Actor":{"ID":"x","Attributes":{"name":"n"}},"timeNano":1}`))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var m message
		if json.Unmarshal(raw, &m) == nil {
			noticeOf(m)
		}
	})
}

// The line of a process is read or refused.
func FuzzStat(f *testing.F) {
	f.Add("1 (systemd) S 0 1 1 0 -1")
	f.Add(") ) )")
	f.Fuzz(func(_ *testing.T, text string) { parseStat(text) })
}

// What the daemon says of a file, and of a container's use, is decoded or refused.
func FuzzHeaderAndStats(f *testing.F) {
	f.Add([]byte(`{"name":"x","size":5,"mode":420,"mtime":"2026-01-01T00:00:00Z","linkTarget":""}`))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = statHeader(http.Header{"X-Docker-Container-Path-Stat": {base64.StdEncoding.EncodeToString(raw)}})
		_, _ = statHeader(http.Header{"X-Docker-Container-Path-Stat": {string(raw)}})
		_, _ = decodeStats(raw)
	})
}

// Two sizes at once become the newer one.
func TestResizeCoalesces(t *testing.T) {
	sizes := make(chan runtime.TerminalSize, 3)
	for i := range uint16(3) {
		sizes <- runtime.TerminalSize{Width: i + 1}
	}
	close(sizes)
	var got []uint16
	resizeLoop(context.Background(), sizes, func(_ context.Context, s runtime.TerminalSize) error {
		got = append(got, s.Width)
		return nil
	})
	if len(got) != 1 || got[0] != 3 {
		t.Errorf("got %v", got)
	}
}
