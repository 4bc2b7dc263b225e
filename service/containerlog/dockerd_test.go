package containerlog

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 90 * time.Second

// dockerd is the real one's API, used without any client library: it says what is right.
type dockerd struct {
	t  testing.TB
	hc *http.Client
}

func realDockerd(t testing.TB) *dockerd {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/var/run/docker.sock")
	}}
	t.Cleanup(tr.CloseIdleConnections)
	d := &dockerd{t: t, hc: &http.Client{Transport: tr}}
	d.call(http.MethodGet, "/_ping", nil, nil)
	return d
}

func (d *dockerd) request(method, path string, body any) *http.Response {
	d.t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			d.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://docker/v1.41"+path, in)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.hc.Do(req)
	if err != nil {
		d.t.Fatalf("these tests need a dockerd: %v", err)
	}
	return resp
}

func (d *dockerd) call(method, path string, body, out any) {
	d.t.Helper()
	resp := d.request(method, path, body)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotModified {
		d.t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, b, err)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			d.t.Fatal(err)
		}
	}
}

// A container of the tests.
type container struct {
	driver string
	opts   map[string]string
	tty    bool
	stdin  bool
	script string
}

// run starts c and returns its id; it is removed with the test.
func (d *dockerd) run(c container) string {
	d.t.Helper()
	if c.driver == "" {
		c.driver = "json-file"
	}
	var suffix [6]byte
	_, _ = rand.Read(suffix[:])
	var made struct{ ID string }
	d.call(http.MethodPost, "/containers/create?name=containerlog-"+hex.EncodeToString(suffix[:]), map[string]any{
		"Image": "drover-test/busybox:1", "Cmd": []string{"sh", "-c", c.script}, "Tty": c.tty,
		"OpenStdin": c.stdin, "StdinOnce": false,
		"HostConfig": map[string]any{"NetworkMode": "none", "LogConfig": map[string]any{"Type": c.driver, "Config": c.opts}},
	}, &made)
	d.t.Cleanup(func() { d.call(http.MethodDelete, "/containers/"+made.ID+"?force=1", nil, nil) })
	d.call(http.MethodPost, "/containers/"+made.ID+"/start", nil, nil)
	return made.ID
}

func (d *dockerd) wait(id string) {
	d.t.Helper()
	d.call(http.MethodPost, "/containers/"+id+"/wait", nil, nil)
}

// State implements Stater.
func (d *dockerd) State(_ context.Context, id string) (runtime.ContainerStatus, error) {
	resp := d.request(http.MethodGet, "/containers/"+id+"/json", nil)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return runtime.ContainerStatus{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	var c struct {
		ID      string
		LogPath string
		State   struct {
			Running   bool
			StartedAt time.Time
		}
		Config     struct{ Tty bool }
		HostConfig struct{ LogConfig struct{ Type string } }
	}
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		return runtime.ContainerStatus{}, err
	}
	return runtime.ContainerStatus{
		ID: c.ID, Running: c.State.Running, StartedAt: c.State.StartedAt, TTY: c.Config.Tty,
		LogPath: c.LogPath, LogDriver: c.HostConfig.LogConfig.Type,
	}, nil
}

func (d *dockerd) dataRoot(context.Context) (string, error) {
	var info struct{ DockerRootDir string }
	d.call(http.MethodGet, "/info", nil, &info)
	return info.DockerRootDir, nil
}

func (d *dockerd) reader() *Reader {
	return New(Config{Containers: d, DataRoot: d.dataRoot})
}

// A chunk is output of one stream; streams of chunks are compared.
type chunk struct {
	stream byte
	data   string
}

// chunks joins neighbours of the same stream.
type chunks []chunk

func (c *chunks) add(stream byte, p []byte) {
	if n := len(*c); n > 0 && (*c)[n-1].stream == stream {
		(*c)[n-1].data += string(p)
		return
	}
	*c = append(*c, chunk{stream, string(p)})
}

type chunkWriter struct {
	to     *chunks
	stream byte
}

func (w chunkWriter) Write(p []byte) (int, error) { w.to.add(w.stream, p); return len(p), nil }

// api is the log as dockerd's API gives it.
func (d *dockerd) api(id string, opts runtime.LogOptions, tty bool) chunks {
	d.t.Helper()
	q := url.Values{}
	if opts.Stdout || !opts.Stderr {
		q.Set("stdout", "1")
	}
	if opts.Stderr || !opts.Stdout {
		q.Set("stderr", "1")
	}
	if opts.Timestamps {
		q.Set("timestamps", "1")
	}
	switch {
	case opts.Tail > 0:
		q.Set("tail", fmt.Sprint(opts.Tail))
	case opts.Tail < 0:
		q.Set("tail", "0")
	}
	if !opts.Since.IsZero() {
		q.Set("since", unixNano(opts.Since))
	}
	if !opts.Until.IsZero() {
		q.Set("until", unixNano(opts.Until))
	}
	resp := d.request(http.MethodGet, "/containers/"+id+"/logs?"+q.Encode(), nil)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		d.t.Fatalf("logs: %s %s", resp.Status, b)
	}
	var out chunks
	if tty {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			d.t.Fatal(err)
		}
		if len(b) > 0 {
			out.add(1, b)
		}
		return out
	}
	for {
		var head [8]byte
		if _, err := io.ReadFull(resp.Body, head[:]); err == io.EOF {
			return out
		} else if err != nil {
			d.t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(resp.Body, b); err != nil {
			d.t.Fatal(err)
		}
		out.add(head[0], b)
	}
}

func unixNano(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

// ours is the log as the reader gives it.
func ours(t testing.TB, r *Reader, id string, opts runtime.LogOptions) chunks {
	t.Helper()
	var out chunks
	if err := r.Logs(t.Context(), id, opts, chunkWriter{&out, 1}, chunkWriter{&out, 2}); err != nil {
		t.Fatal(err)
	}
	return out
}

// sameAsAPI compares both ways of reading, for many choices. compressed says that there are compressed files: asked for
// a time after the oldest of them, dockerd 20.10 leaves out the other compressed ones too, so there the entries of the
// whole log are what is right.
func sameAsAPI(t *testing.T, d *dockerd, id string, tty, compressed bool) {
	t.Helper()
	r := d.reader()
	var times []time.Time
	type entry struct {
		stream byte
		line   string
		at     time.Time
	}
	var whole []entry
	if err := r.Entries(t.Context(), id, Query{}, func(e *Entry) error {
		times = append(times, e.Time())
		stream := byte(1)
		if e.Stderr {
			stream = 2
		}
		whole = append(whole, entry{stream, string(e.Line), e.Time()})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(times) == 0 {
		t.Fatal("an empty log compares with nothing")
	}
	mid := times[len(times)/2]
	choices := map[string]runtime.LogOptions{
		"all":        {},
		"stdout":     {Stdout: true},
		"stderr":     {Stderr: true},
		"timestamps": {Timestamps: true},
		"tail -1":    {Tail: -1},
		"tail 1":     {Tail: 1},
		"tail 7":     {Tail: 7, Timestamps: true},
		"tail many":  {Tail: len(times) - 1},
		"tail all":   {Tail: len(times) + 100},
		"tail err":   {Tail: 3, Stderr: true},
		"since":      {Since: mid},
		"until":      {Until: mid, Timestamps: true},
		"window":     {Since: times[len(times)/3], Until: mid},
		"since end":  {Since: times[len(times)-1].Add(time.Hour)},
		"both":       {Since: mid, Tail: len(times) / 4},
	}
	for name, opts := range choices {
		want, got := d.api(id, opts, tty), ours(t, r, id, opts)
		if compressed && !opts.Since.IsZero() {
			want = nil
			tail := whole
			if opts.Tail > 0 {
				tail = whole[max(0, len(whole)-opts.Tail):]
			}
			for _, e := range tail {
				if !e.at.Before(opts.Since) && (opts.Until.IsZero() || !e.at.After(opts.Until)) {
					want.add(e.stream, []byte(e.line))
				}
			}
		}
		if len(want) != len(got) {
			t.Errorf("%s: %d runs of output, dockerd has %d", name, len(got), len(want))
			continue
		}
		for i := range want {
			if want[i] != got[i] {
				t.Errorf("%s: run %d differs\n got %d %.200q (%d bytes)\nwant %d %.200q (%d bytes)", name, i,
					got[i].stream, got[i].data, len(got[i].data), want[i].stream, want[i].data, len(want[i].data))
				break
			}
		}
	}
}

// everything writes what is hard to read back: long lines, broken UTF-8, ten-byte lines, no last newline.
const everything = long + short

const long = `
head -c 102400 /dev/zero | tr '\0' x; echo
head -c 16384 /dev/zero | tr '\0' y; echo
head -c 16383 /dev/zero | tr '\0' z; echo
head -c 40000 /dev/zero | tr '\0' '\377'; echo
`

const short = `
i=0; while [ $i -lt 300 ]; do echo "line $i on stdout"; [ $((i % 7)) = 0 ] && echo "error $i" >&2; i=$((i+1)); done
echo 123456789; echo; echo
printf 'grüße \342\202\254 \360\237\230\200 <b>&amp;</b> "quoted" back\\slash\ttab\r\n'
printf 'bad \377\376 \342\202 utf8 \000 nul \033[1mbold\033[0m \177 \342\200\250 sep\n'
echo '","stream":"stderr","time":"2026-01-01T00:00:00Z"}'
printf 'error without newline' >&2
printf 'the end, without newline'
`
