package service

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"

	"github.com/droverhq/drover/runtime"
)

// rawDockerd speaks to dockerd with nothing between: what all else is measured by.
type rawDockerd struct {
	b  *testing.B
	hc *http.Client
}

func newRaw(b *testing.B) *rawDockerd {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/var/run/docker.sock")
	}}
	b.Cleanup(tr.CloseIdleConnections)
	return &rawDockerd{b, &http.Client{Transport: tr}}
}

func (r *rawDockerd) json(method, path string, in, out any) {
	b, _ := json.Marshal(in)
	req, _ := http.NewRequest(method, "http://d/v1.41"+path, bytes.NewReader(b))
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.hc.Do(req)
	if err != nil {
		r.b.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		r.b.Fatal(resp.Status, err)
	}
}

// start creates and starts an exec and returns its connection.
func (r *rawDockerd) start(id string, tty bool, cmd ...string) (string, net.Conn, *bufio.Reader) {
	var made struct{ ID string }
	r.json(http.MethodPost, "/containers/"+id+"/exec", map[string]any{
		"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": tty, "Cmd": cmd,
	}, &made)
	conn, err := net.Dial("unix", "/var/run/docker.sock")
	if err != nil {
		r.b.Fatal(err)
	}
	body := fmt.Sprintf(`{"Detach":false,"Tty":%v}`, tty)
	fmt.Fprintf(conn, "POST /v1.41/exec/%s/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", made.ID, len(body), body)
	br := bufio.NewReaderSize(conn, 64<<10)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		r.b.Fatal(resp, err)
	}
	return made.ID, conn, br
}

func (r *rawDockerd) exec(id string, out io.Writer, cmd ...string) {
	execID, conn, br := r.start(id, false, cmd...)
	defer conn.Close()
	_ = conn.(*net.UnixConn).CloseWrite()
	for {
		var head [8]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			break
		}
		if _, err := io.CopyN(out, br, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			r.b.Fatal(err)
		}
	}
	var st struct{ ExitCode *int }
	r.json(http.MethodGet, "/exec/"+execID+"/json", nil, &st)
}

// BenchmarkExecTrue is a process that does nothing, from the request to its exit code: raw, and through each door in turn.
func BenchmarkExecTrue(b *testing.B) {
	n := newNode(b, nil)
	through := n.tunneled()
	id := n.run(runtime.ContainerSpec{})
	raw := newRaw(b)
	ways := map[string]func(){"raw": func() { raw.exec(id, io.Discard, "true") }}
	for _, door := range []struct {
		name string
		n    *node
	}{{"port", n}, {"tunnel", through}} {
		for _, kind := range []string{"spdy", "websocket"} {
			ways[door.name+" "+kind] = func() {
				err := door.n.executor(kind, execPath(id, "output=1&error=1", "true")).
					StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdout: io.Discard, Stderr: io.Discard})
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	interleaved(b, ways, 8)
}

// interleaved runs the ways in turn, rounds of a few each, and reports the median of each as its ratio to raw.
func interleaved(b *testing.B, ways map[string]func(), per int) {
	took := map[string][]time.Duration{}
	for b.Loop() {
		for name, run := range ways {
			for range per {
				start := time.Now()
				run()
				took[name] = append(took[name], time.Since(start))
			}
		}
	}
	raw := median(took["raw"])
	b.ReportMetric(0, "ns/op")
	for name := range ways {
		m := median(took[name])
		b.ReportMetric(float64(m)/1e6, strings.ReplaceAll(name, " ", "-")+"-ms")
		if name != "raw" {
			b.ReportMetric(float64(m)/float64(raw), strings.ReplaceAll(name, " ", "-")+"/raw")
		}
	}
}

func median(d []time.Duration) time.Duration {
	s := append([]time.Duration(nil), d...)
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s[len(s)/2]
}

// BenchmarkExecBulk is 100 MB of output.
func BenchmarkExecBulk(b *testing.B) {
	n := newNode(b, nil)
	through := n.tunneled()
	id := n.run(runtime.ContainerSpec{})
	raw := newRaw(b)
	cmd := []string{"head", "-c", "100000000", "/dev/zero"}
	check := func(got countWriter) {
		if got != 100_000_000 {
			b.Fatal(got)
		}
	}
	ways := map[string]func(){"raw": func() { var c countWriter; raw.exec(id, &c, cmd...); check(c) }}
	for _, door := range []struct {
		name string
		n    *node
	}{{"port", n}, {"tunnel", through}} {
		for _, kind := range []string{"spdy", "websocket"} {
			ways[door.name+" "+kind] = func() {
				var c countWriter
				err := door.n.executor(kind, execPath(id, "output=1&error=1", cmd...)).
					StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdout: &c, Stderr: io.Discard})
				if err != nil {
					b.Fatal(err)
				}
				check(c)
			}
		}
	}
	interleaved(b, ways, 1)
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) { *c += countWriter(len(p)); return len(p), nil }

// BenchmarkExecEcho is a line there and back through an open process.
func BenchmarkExecEcho(b *testing.B) {
	n := newNode(b, nil)
	through := n.tunneled()
	id := n.run(runtime.ContainerSpec{})
	raw := newRaw(b)
	line := []byte("a line of some length\n")
	_, conn, br := raw.start(id, false, "cat")
	defer conn.Close()
	ways := map[string]func(){"raw": func() {
		if _, err := conn.Write(line); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(br, make([]byte, 8+len(line))); err != nil {
			b.Fatal(err)
		}
	}}
	for _, door := range []struct {
		name string
		n    *node
	}{{"port", n}, {"tunnel", through}} {
		for _, kind := range []string{"spdy", "websocket"} {
			in, w := io.Pipe()
			r, out := io.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = door.n.executor(kind, execPath(id, "input=1&output=1", "cat")).
					StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdin: in, Stdout: out})
			}()
			b.Cleanup(func() { w.Close(); r.Close(); <-done })
			ways[door.name+" "+kind] = func() {
				if _, err := w.Write(line); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, make([]byte, len(line))); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	interleaved(b, ways, 20)
}

// BenchmarkLogHistory is a million lines of 100 bytes.
func BenchmarkLogHistory(b *testing.B) {
	n := newNode(b, nil)
	through := n.tunneled()
	id := n.run(runtime.ContainerSpec{Cmd: []string{"sh", "-c", `l=$(head -c 99 /dev/zero | tr '\0' x); yes $l | head -n 1000000`}})
	eventually(b, "the container ends", func() bool {
		st, err := n.engine.State(context.Background(), id)
		return err == nil && !st.Running
	})
	raw := newRaw(b)
	get := func(hc *http.Client, url string, want int64) {
		resp, err := hc.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 64<<10)); n != want || err != nil {
			b.Fatal(n, err)
		}
	}
	interleaved(b, map[string]func(){
		"raw":    func() { get(raw.hc, "http://d/v1.41/containers/"+id+"/logs?stdout=1", 108_000_000) },
		"port":   func() { get(http.DefaultClient, n.url+"/v1/logs/"+id+"?stdout=1", 100_000_000) },
		"tunnel": func() { get(http.DefaultClient, through.url+"/v1/logs/"+id+"?stdout=1", 100_000_000) },
	}, 1)
}

// BenchmarkLogFollow is a line from a process's output to the viewer of the log.
func BenchmarkLogFollow(b *testing.B) {
	n := newNode(b, nil)
	through := n.tunneled()
	id := n.run(runtime.ContainerSpec{Cmd: []string{"cat"}, OpenStdin: true})
	raw := newRaw(b)
	conn, err := net.Dial("unix", "/var/run/docker.sock")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1.41/containers/%s/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", id)
	br := bufio.NewReader(conn)
	if _, err := http.ReadResponse(br, nil); err != nil {
		b.Fatal(err)
	}
	line := []byte("a line of some length\n")
	ways := map[string]func(){}
	follow := func(name string, hc *http.Client, url string, frame int) {
		ctx, cancel := context.WithCancel(context.Background())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		resp, err := hc.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { cancel(); resp.Body.Close() })
		ways[name] = func() {
			if _, err := conn.Write(line); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(resp.Body, make([]byte, frame+len(line))); err != nil {
				b.Fatal(err)
			}
		}
	}
	// One at a time: all of them would wake for each line.
	for _, c := range []struct {
		name, url string
		hc        *http.Client
		frame     int
	}{
		{"raw", "http://d/v1.41/containers/" + id + "/logs?stdout=1&follow=1&tail=0", raw.hc, 8},
		{"port", n.url + "/v1/logs/" + id + "?follow=1&tail=0", http.DefaultClient, 0},
		{"tunnel", through.url + "/v1/logs/" + id + "?follow=1&tail=0", http.DefaultClient, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			clear(ways)
			_, _ = conn.Write(line)
			time.Sleep(50 * time.Millisecond)
			warm := make(chan struct{})
			go func() {
				defer close(warm)
				time.Sleep(200 * time.Millisecond)
				_, _ = conn.Write(line) // the header comes with the first line
			}()
			follow(c.name, c.hc, c.url, c.frame)
			<-warm
			var took []time.Duration
			first := true
			for b.Loop() {
				start := time.Now()
				ways[c.name]()
				if !first {
					took = append(took, time.Since(start))
				}
				first = false
			}
			if len(took) > 0 {
				b.ReportMetric(float64(median(took))/1e3, "p50-us")
			}
		})
	}
}
