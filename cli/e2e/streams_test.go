package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestStreams drives the streams of containers as a user does, through server and tunnel.
func TestStreams(t *testing.T) {
	u := newUser(t)
	port := freePort(t)
	p := u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--data", filepath.Join(u.dir, "data"))
	p.says("In a second terminal")
	host := u.online(1)[0].Name
	name := prefix(t)
	// These run side by side, and the group waits for all of them.
	t.Run("group", func(t *testing.T) {
		t.Run("terminal", func(t *testing.T) { testTerminal(t, u.in(t), name+"-term") })
		t.Run("recording", func(t *testing.T) { testRecording(t, u.in(t), name+"-rec") })
		t.Run("bytes", func(t *testing.T) { testBytes(t, u.in(t), name+"-bytes") })
		t.Run("forward", func(t *testing.T) { testForward(t, u.in(t), name+"-fwd") })
		t.Run("stats", func(t *testing.T) { testLiveStats(t, u.in(t), host, name+"-stats") })
		t.Run("cut", func(t *testing.T) { testCut(t, u.in(t), port, name+"-cut") })
	})
	p.stop(os.Interrupt)
}

// testBytes sends and fetches what is no text.
func testBytes(t *testing.T, u *user, name string) {
	t.Parallel()
	u.must("run", "--name", name, image, "sleep", "600")
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	cmd := exec.Command("drover", "exec", "-i", name, "sh", "-c", "tee /tmp/copy; sha256sum /tmp/copy >&2")
	var out, errOut bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = u.env, u.dir, bytes.NewReader(data), &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errOut.String())
	}
	if !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%d bytes came back, and are others", out.Len())
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(data)); !strings.HasPrefix(errOut.String(), want) {
		t.Errorf("there it was %s, here %s", errOut.String(), want)
	}

	// A file that is larger than any buffer, there and back, with a bar on a terminal.
	big := filepath.Join(u.dir, "big")
	f, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), rand.Reader, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := u.terminal(t, 80, 24, "cp", big, name+":/tmp/big")
	s.says("16.8 MB")
	s.ends(0)
	if got := u.must("exec", name, "sha256sum", "/tmp/big"); !strings.HasPrefix(got, fmt.Sprintf("%x", sum.Sum(nil))) {
		t.Errorf("the file arrived as another: %s", got)
	}
	u.must("cp", name+":/tmp/big", "back")
	if out, err := exec.Command("cmp", big, filepath.Join(u.dir, "back")).CombinedOutput(); err != nil {
		t.Errorf("the file came back as another: %v %s", err, out)
	}
	u.must("rm", "-f", name)
}

// testForward reaches servers in a container that publishes nothing.
func testForward(t *testing.T, u *user, name string) {
	t.Parallel()
	u.must("run", "--name", name, image, "sh", "-c", "echo page > /tmp/index.html; httpd -p 80 -h /tmp; exec nc -ll -p 7 -e cat")
	fwd := u.start("port-forward", name, ":80", "0:7", "9999")
	fwd.says(":9999")
	addresses := map[string]string{}
	for line := range strings.Lines(fwd.out.String()) {
		local, remote, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		addresses[remote[strings.LastIndex(remote, ":")+1:]] = local
	}
	dial := func(port string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", addresses[port])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	eventually(t, "the page", func() bool {
		conn := dial("80")
		_, _ = io.WriteString(conn, "GET /index.html HTTP/1.0\r\n\r\n")
		page, _ := io.ReadAll(conn)
		return strings.HasSuffix(string(page), "\n\npage\n") || strings.HasSuffix(string(page), "\r\n\r\npage\n")
	})
	// Several at a time, each with its own bytes, and the end of one direction is no end of the other.
	var echoing sync.WaitGroup
	for range 5 {
		echoing.Go(func() {
			data := make([]byte, 256<<10)
			_, _ = rand.Read(data)
			conn, err := net.Dial("tcp", addresses["7"])
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			go func() {
				_, _ = conn.Write(data)
				_ = conn.(*net.TCPConn).CloseWrite()
			}()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %d came back, %v", len(got), len(data), err)
			}
		})
	}
	echoing.Wait()
	// Nobody listens there.
	conn := dial("9999")
	if b, _ := io.ReadAll(conn); len(b) > 0 {
		t.Errorf("a closed port said %q", b)
	}
	eventually(t, "the reason", func() bool { return strings.Contains(fwd.log.String(), "port 9999") })
	fwd.stop(os.Interrupt)
	u.must("rm", "-f", name)
}

// testLiveStats looks at the table that moves, and at the end of a container.
func testLiveStats(t *testing.T, u *user, host, name string) {
	t.Parallel()
	u.must("run", "--name", name, image, "sh", "-c", "while :; do :; done")
	s := u.terminal(t, 80, 24, "stats", "--host", host, "--sort", "cpu")
	s.says("MEM USAGE / LIMIT")
	s.says(name[:12]) // it may be shortened
	s.says("\x1b[J")
	s.says("MEM USAGE / LIMIT") // again, in place
	for line := range strings.Lines(s.out.String()) {
		if i := strings.LastIndex(line, "\x1b[K"); i >= 0 {
			line = line[:i]
		}
		if n := len([]rune(plain(line))); n >= 80 {
			t.Errorf("a line of %d characters on 80 columns: %q", n, line)
		}
	}
	s.types("\x03")
	s.ends(0)

	lines := u.start("stats", "--interval", "200ms", "--output", "json", name)
	lines.says("\n")
	eventually(t, "a share of the processor", func() bool {
		for line := range strings.Lines(lines.out.String()) {
			var v struct {
				Name       string
				CPUPercent *float64
			}
			if json.Unmarshal([]byte(line), &v) == nil && v.Name == name && v.CPUPercent != nil && *v.CPUPercent > 1 {
				return true
			}
		}
		return false
	})
	u.must("stop", "-t", "0", name)
	<-lines.ended
	if code := lines.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("stats of a container that has ended: %d %s", code, lines.log.String())
	}
	u.must("rm", "-f", name)
}

// plain takes the colours and movements out of what a terminal was sent.
func plain(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "\x1b[")
		b.WriteString(strings.Trim(before, "\r\n"))
		if !found {
			return b.String()
		}
		s = strings.TrimLeft(after, "0123456789;?")
		if s != "" {
			s = s[1:]
		}
	}
}

// testCut follows a log, and a process, whose connections are cut again and again; nothing is lost or doubled.
func testCut(t *testing.T, u *user, port int, name string) {
	t.Parallel()
	const script = "i=0; until [ -e /tmp/stop ]; do echo line $i; usleep 10000; i=$((i+1)); done; exit 3"
	u.must("run", "--name", name, image, "sh", "-c", script)
	u.must("run", "--name", name+"-2", image, "sleep", "600")
	for where, args := range map[string][]string{name: {"logs", "-f", name}, name + "-2": {"exec", name + "-2", "sh", "-c", script}} {
		cable := newCable(t, fmt.Sprintf("127.0.0.1:%d", port))
		p := u.through(t, port, cable.port()).start(args...)
		p.says("line 5\n")
		for range 3 {
			made, printed := cable.connections(), len(p.out.String())
			cable.cut()
			eventually(t, "another connection, and more lines over it", func() bool {
				return cable.connections() > made && len(p.out.String()) > printed
			})
		}
		u.must("exec", where, "touch", "/tmp/stop")
		<-p.ended
		code := 0
		if args[0] == "exec" {
			code = 3
		}
		out := p.out.String()
		var want strings.Builder
		for i := range strings.Count(out, "\n") {
			fmt.Fprintf(&want, "line %d\n", i)
		}
		if out != want.String() || p.cmd.ProcessState.ExitCode() != code {
			t.Errorf("%s: code %d, %s, and printed\n%s", args[0], p.cmd.ProcessState.ExitCode(), p.log.String(), out)
		}
	}
	u.must("rm", "-f", name, name+"-2")
}

// in returns the same user in a part of a test.
func (u *user) in(t *testing.T) *user {
	part := *u
	part.t, part.env = t, slices.Clone(u.env)
	return &part
}

// through returns a user who reaches the server at another port.
func (u *user) through(t *testing.T, port, other int) *user {
	t.Helper()
	far := newUser(t)
	dir := filepath.Join(far.dir, "config", "drover")
	contexts, err := os.ReadFile(filepath.Join(u.dir, "config", "drover", "contexts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	contexts = bytes.ReplaceAll(contexts, fmt.Appendf(nil, ":%d", port), fmt.Appendf(nil, ":%d", other))
	if err := os.WriteFile(filepath.Join(dir, "contexts.yaml"), contexts, 0o600); err != nil {
		t.Fatal(err)
	}
	return far
}

// A cable leads to a server and can be cut.
type cable struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns map[net.Conn]bool
	made  int
	work  sync.WaitGroup
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l, to: to, conns: map[net.Conn]bool{}}
	c.work.Go(c.serve)
	t.Cleanup(func() {
		_ = l.Close()
		c.cut()
		c.work.Wait()
	})
	return c
}

func (c *cable) port() int { return c.listener.Addr().(*net.TCPAddr).Port }

func (c *cable) serve() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		c.mu.Lock()
		c.conns[in], c.conns[out] = true, true
		c.made++
		c.mu.Unlock()
		for dst, src := range map[net.Conn]net.Conn{in: out, out: in} {
			c.work.Go(func() {
				_, _ = io.Copy(dst, src)
				_ = dst.Close()
				_ = src.Close()
			})
		}
	}
}

// connections is how many were made.
func (c *cable) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// cut breaks all connections, as a router that forgets them does.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	clear(c.conns)
}
