package docker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

// rawInspect is the floor: net/http on the daemon's socket and the body read into one buffer.
func rawInspect(b testing.TB, id string) (get func(*bytes.Buffer), done func()) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", realSocket)
		},
		MaxIdleConns: 64, MaxIdleConnsPerHost: 64, DisableCompression: true,
	}
	url := "http://d/v1.41/containers/" + id + "/json"
	return func(buf *bytes.Buffer) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
		if err != nil {
			b.Error(err)
			return
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			b.Error(err)
			return
		}
		buf.Reset()
		_, err = io.Copy(buf, resp.Body)
		resp.Body.Close()
		if err != nil || buf.Len() == 0 {
			b.Errorf("%d bytes, %v", buf.Len(), err)
		}
	}, transport.CloseIdleConnections
}

// BenchmarkInspectRelay compares an inspect through the engine, through the library (which decodes), and the floor, in
// one run. Compare the medians of -count 6.
func BenchmarkInspectRelay(b *testing.B) {
	id := sleeper(b)
	e := engine(b, docker.Config{Workers: 32})
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // as every event has one
	defer cancel()
	get, done := rawInspect(b, id)
	defer done()
	relay := func() {
		if raw, err := e.Inspect(ctx, id); err != nil || len(raw) == 0 {
			b.Errorf("%d bytes, %v", len(raw), err)
		}
	}
	lib := library(b)
	decode := func() {
		if _, err := lib.ContainerInspect(ctx, id); err != nil {
			b.Error(err)
		}
	}
	for _, c := range []struct {
		name     string
		parallel int
		fn       func()
	}{
		{"floor/1", 1, nil}, {"relay/1", 1, relay}, {"library/1", 1, decode}, {"floor/32", 32, nil}, {"relay/32", 32, relay}, {"library/32", 32, decode},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			if c.parallel == 1 {
				buf := bytes.NewBuffer(make([]byte, 0, 16<<10))
				for b.Loop() {
					if c.fn == nil {
						get(buf)
					} else {
						c.fn()
					}
				}
				return
			}
			b.SetParallelism(c.parallel / 2) // of GOMAXPROCS
			b.RunParallel(func(pb *testing.PB) {
				buf := bytes.NewBuffer(make([]byte, 0, 16<<10))
				for pb.Next() {
					if c.fn == nil {
						get(buf)
					} else {
						c.fn()
					}
				}
			})
		})
	}
}

// BenchmarkList is the cost of the whole list, with and without the daemon's own JSON.
func BenchmarkList(b *testing.B) {
	sleeper(b)
	e := engine(b, docker.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for name, opts := range map[string]runtime.ListOptions{"decoded": {}, "raw": {Raw: true}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.List(ctx, opts); err != nil {
					b.Error(err)
				}
			}
		})
	}
}

// BenchmarkExec is one exec of true, which is nearly all the daemon's: through the engine, and as three bare requests.
func BenchmarkExec(b *testing.B) {
	id := sleeper(b)
	e := engine(b, docker.Config{})
	b.Run("engine", func(b *testing.B) {
		for b.Loop() {
			if err := e.Exec(b.Context(), id, runtime.ExecSpec{Cmd: []string{"true"}}, runtime.Streams{}); err != nil {
				b.Error(err)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		for b.Loop() {
			bareExec(b, id)
		}
	})
}

// bareExec creates, starts and inspects an exec over connections that it closes.
func bareExec(b *testing.B, id string) {
	call := func(method, path, body string) []byte {
		conn, err := net.Dial("unix", realSocket)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		req, err := http.NewRequestWithContext(b.Context(), method, "http://d/v1.41"+path, strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if err := req.Write(conn); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			b.Fatal(err)
		}
		return answer
	}
	var created struct{ ID string }
	if err := json.Unmarshal(call("POST", "/containers/"+id+"/exec", `{"AttachStdout":true,"AttachStderr":true,"Cmd":["true"]}`), &created); err != nil {
		b.Fatal(err)
	}
	call("POST", "/exec/"+created.ID+"/start", `{}`)
	call("GET", "/exec/"+created.ID+"/json", "")
}

// BenchmarkExecOutput is how fast the output of a process comes out.
func BenchmarkExecOutput(b *testing.B) {
	id := sleeper(b)
	e := engine(b, docker.Config{})
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		var n counter
		err := e.Exec(b.Context(), id, runtime.ExecSpec{Cmd: []string{"dd", "if=/dev/zero", "bs=65536", "count=1024"}}, runtime.Streams{Out: &n})
		if err != nil || n != size {
			b.Errorf("%d bytes, %v", n, err)
		}
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
