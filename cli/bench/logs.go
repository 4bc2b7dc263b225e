package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// LogsOptions says what of the log service to measure.
type LogsOptions struct {
	Executable string // the drover binary whose node is measured
	Dir        string // where the files are made, on the disk that is to be measured; "" is the folder for temporary files
	Rounds     int    // interleaved rounds, at least 2 for an A/A error
	SizeMB     int    // of the file that is read whole
	Followers  int
	Progress   func(string)
}

// logsSuite is one run's shared state.
type logsSuite struct {
	LogsOptions
	node *child
	url  string
	dir  string
	big  string // SizeMB of lines, one of them with the rare word
	size int64
}

const rareWord = "needleword"

// Logs measures the log service of a real node process against a plain read, GNU cat and grep, and websocketd, or a
// stand-in where it is not installed, all in the same run.
func Logs(ctx context.Context, o LogsOptions) (*Report, error) {
	s := &logsSuite{LogsOptions: o}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	report := &Report{Suite: "drover bench logs", Machine: machine(), Engine: "files in the page cache", Rounds: o.Rounds}
	var err error
	if s.dir, err = os.MkdirTemp(o.Dir, "drover-bench-logs-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.dir)
	s.Progress("making the files")
	if err := s.files(); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_ = s.node.stop(stopping)
	}()
	for _, part := range []struct {
		title string
		run   func(context.Context, *Report) error
	}{
		{"read and send", s.throughput},
		{"grep", s.grep},
		{"tail of 1 GB", s.tail},
		{"follow", s.follow},
		{"idle follows", s.idle},
		{"10 GB", s.sparse},
	} {
		s.Progress(part.title)
		if err := part.run(ctx, report); err != nil {
			return report, fmt.Errorf("%s: %w", part.title, err)
		}
	}
	return report, nil
}

// files makes the file of SizeMB that is read whole.
func (s *logsSuite) files() error {
	s.big = filepath.Join(s.dir, "big.log")
	f, err := os.Create(s.big)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := 0; s.size < int64(s.SizeMB)<<20; i++ {
		word := "something"
		if i == 700_001 {
			word = rareWord
		}
		n, err := fmt.Fprintf(w, "2026-01-02T03:04:05.%06dZ INFO request %08d handled, %s went well in %d ms\n", i%1_000_000, i, word, i%977)
		if err != nil {
			return err
		}
		s.size += int64(n)
	}
	return w.Flush()
}

// start runs a node of this very binary without limits that end a measurement.
func (s *logsSuite) start(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "node.out"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(s.Executable, "node", "--log-level", "warn")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "DROVER_LOGS_PORT=" + strconv.Itoa(port), "DROVER_LOGS_LISTEN=127.0.0.1",
		"DROVER_LOGS_ROOT=" + s.dir, "DROVER_LOGS_AUTH=none", "DROVER_LOGS_TIMEOUT=10m", "DROVER_LOGS_MAX_FILE_SIZE=100000",
		"DROVER_LOGS_MAX_PER_CLIENT=100000", "DROVER_LOGS_MAX_PER_NODE=100000",
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.node = &child{cmd: cmd, log: log, started: time.Now(), ended: make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	go func() { s.node.ended <- cmd.Wait() }()
	s.url = "ws://127.0.0.1:" + strconv.Itoa(port) + "/"
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return c.Close()
		}
		select {
		case err := <-s.node.ended:
			s.node.ended <- err
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("the node ended: %w: %s", err, said)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// dial opens a socket, framed or with a line a message.
func (s *logsSuite) dial(ctx context.Context, framed bool) (*websocket.Conn, error) {
	d := websocket.Dialer{HandshakeTimeout: 30 * time.Second, ReadBufferSize: 64 << 10}
	if framed {
		d.Subprotocols = []string{"drover.logs.v1"}
	}
	conn, resp, err := d.DialContext(ctx, s.url, nil)
	if resp != nil {
		_ = resp.Body.Close()
	}
	return conn, err
}

// command runs one command over a framed socket and returns the bytes of its output and how long it took.
func (s *logsSuite) command(conn *websocket.Conn, line string) (n int64, took time.Duration, err error) {
	begin := time.Now()
	if err := conn.WriteJSON(map[string]string{"run": line}); err != nil {
		return 0, 0, err
	}
	buf := make([]byte, 64<<10)
	for {
		kind, r, err := conn.NextReader()
		if err != nil {
			return n, 0, err
		}
		if kind == websocket.BinaryMessage {
			k, err := io.CopyBuffer(discard{}, r, buf)
			if n += k; err != nil {
				return n, 0, err
			}
			continue
		}
		var m struct {
			End *struct {
				Exit  int
				Error string
			}
		}
		if err := json.NewDecoder(r).Decode(&m); err != nil {
			return n, 0, err
		}
		if m.End != nil {
			if m.End.Error != "" {
				err = errors.New(m.End.Error)
			}
			return n, time.Since(begin), err
		}
	}
}

// discard hides io.Discard's own way of reading, so that every client copies in the same way.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// once is a round of one operation.
func once(took time.Duration) Series { return Series{Latencies: []time.Duration{took}, Elapsed: took} }

// rate returns MB a second of size bytes.
func rate(size int64) func(Series) float64 {
	return func(s Series) float64 { return float64(size) / 1e6 / s.Elapsed.Seconds() }
}

func (s *logsSuite) throughput(ctx context.Context, report *Report) error {
	other, err := s.websocketd(ctx)
	if err != nil {
		return err
	}
	defer other.close()
	var plain, gnu, framed, lines, asLines, asBinary []Series
	read := func(r io.Reader) error {
		_, err := io.CopyBuffer(discard{}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		return err
	}
	sides := []struct {
		into *[]Series
		run  func() error
	}{
		{&plain, func() error {
			f, err := os.Open(s.big)
			if err != nil {
				return err
			}
			defer f.Close()
			return read(f)
		}},
		{&gnu, func() error {
			cmd := exec.CommandContext(ctx, "cat", s.big)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				return err
			}
			return errors.Join(read(out), cmd.Wait())
		}},
		{&framed, func() error {
			conn, err := s.dial(ctx, true)
			if err != nil {
				return err
			}
			defer conn.Close()
			n, _, err := s.command(conn, "cat "+s.big)
			if err == nil && n != s.size {
				err = fmt.Errorf("%d of %d bytes came", n, s.size)
			}
			return err
		}},
		{&lines, func() error {
			conn, err := s.dial(ctx, false)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.WriteMessage(websocket.TextMessage, []byte("cat "+s.big)); err != nil {
				return err
			}
			return s.messages(conn, 1)
		}},
		{&asLines, func() error { return s.peer(ctx, other.lines, 1) }},
		{&asBinary, func() error { return s.peer(ctx, other.binary, 0) }},
	}
	for range s.Rounds + 1 {
		for _, side := range sides {
			begin := time.Now()
			if err := side.run(); err != nil {
				return err
			}
			*side.into = append(*side.into, once(time.Since(begin)))
		}
	}
	f := rate(s.size)
	for _, side := range sides {
		*side.into = (*side.into)[1:] // the first warms up
	}
	speed := func(rounds []Series) float64 { return median(each(rounds, f)) }
	aa := noise(framed, f)
	report.note("plain read", speed(plain), "MB/s", "read(2) of 256 KiB")
	report.note("GNU cat into a pipe", speed(gnu), "MB/s", "")
	report.note(other.name+", a line a message", speed(asLines), "MB/s", "child cat, a message a line")
	report.note(other.name+", binary", speed(asBinary), "MB/s", "child cat, a message a read")
	report.atLeast("cat, framed, over WebSocket", speed(framed), "MB/s", 340, aa, "25 x 13.6 MB/s, websocketd 0.5.0's text rate as measured before")
	report.atLeast("cat, framed / "+other.name+"'s lines", ratio(framed, asLines, f), "x", 25, aa, "")
	report.atLeast("cat, framed / "+other.name+"'s binary", ratio(framed, asBinary, f), "x", 0.6, aa, "")
	report.note("cat, a line a message, over WebSocket", speed(lines), "MB/s", "as old clients get it")
	report.note("cat, a line a message / "+other.name+"'s", ratio(lines, asLines, f), "x", "")
	report.note("cat, framed / plain read", ratio(framed, plain, f), "x", "")
	return nil
}

// messages reads until all bytes came; each message stands for extra bytes more than it holds.
func (s *logsSuite) messages(conn *websocket.Conn, extra int64) error {
	buf := make([]byte, 64<<10)
	for n := int64(0); n < s.size; {
		_, r, err := conn.NextReader()
		if err != nil {
			return err
		}
		k, err := io.CopyBuffer(discard{}, r, buf)
		if err != nil {
			return err
		}
		n += k + extra
	}
	return nil
}

func (s *logsSuite) peer(ctx context.Context, url string, extra int64) error {
	d := websocket.Dialer{ReadBufferSize: 64 << 10}
	conn, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(url, "http"), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	defer conn.Close()
	return s.messages(conn, extra)
}

func (s *logsSuite) grep(ctx context.Context, report *Report) error {
	conn, err := s.dial(ctx, true)
	if err != nil {
		return err
	}
	defer conn.Close()
	var ours, gnu []Series
	for i := range s.Rounds + 1 {
		n, took, err := s.command(conn, "grep "+rareWord+" "+s.big)
		if err != nil {
			return err
		}
		begin := time.Now()
		out, err := exec.CommandContext(ctx, "env", "LC_ALL=C", "grep", rareWord, s.big).Output()
		if err != nil {
			return err
		}
		if int64(len(out)) != n {
			return fmt.Errorf("grep found %d bytes, GNU grep %d", n, len(out))
		}
		if i > 0 {
			ours, gnu = append(ours, once(took)), append(gnu, once(time.Since(begin)))
		}
	}
	f := rate(s.size)
	report.atLeast("grep of a rare word", median(each(ours, f)), "MB/s", 500, noise(ours, f), "over WebSocket")
	report.atLeast("grep / GNU grep", ratio(ours, gnu, f), "x", 0.5, noise(ours, f), fmt.Sprintf("GNU, LC_ALL=C: %s MB/s", number(median(each(gnu, f)))))
	return nil
}

// holes makes a file of size bytes that is nearly all holes: a line ends every step bytes.
func holes(name string, size, step int64, end string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for off := step; off < size; off += step {
		if _, err := f.WriteAt([]byte{'\n'}, off); err != nil {
			return err
		}
	}
	_, err = f.WriteAt([]byte(end), size-int64(len(end)))
	return err
}

func (s *logsSuite) tail(ctx context.Context, report *Report) error {
	name := filepath.Join(s.dir, "1g.log")
	if err := holes(name, 1<<30, 1<<30, "\n"+strings.Repeat("a line of some length at the end of a long file\n", 1000)); err != nil {
		return err
	}
	conn, err := s.dial(ctx, true)
	if err != nil {
		return err
	}
	defer conn.Close()
	var rounds []Series
	for range s.Rounds {
		var one Series
		for range 100 {
			n, took, err := s.command(conn, "tail -n 100 "+name)
			if err != nil || n != 4800 {
				return fmt.Errorf("%d bytes: %w", n, err)
			}
			one.Latencies = append(one.Latencies, took)
		}
		rounds = append(rounds, one)
	}
	report.atMost("tail -n 100 of 1 GB, p50", median(each(rounds, p50ms)), "ms", 1, noise(rounds, p50ms), "command to end message; the file is sparse but for its end")
	return nil
}

func (s *logsSuite) follow(ctx context.Context, report *Report) error {
	name := filepath.Join(s.dir, "follow.log")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := s.follower(ctx, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	var rounds []Series
	for range s.Rounds {
		var one Series
		for i := range 300 {
			begin := time.Now()
			line := fmt.Appendf(nil, "line %d\n", i)
			if _, err := f.Write(line); err != nil {
				return err
			}
			if _, m, err := conn.ReadMessage(); err != nil || !bytes.Equal(m, line) {
				return fmt.Errorf("follow: %q: %w", m, err)
			}
			one.Latencies = append(one.Latencies, time.Since(begin))
		}
		rounds = append(rounds, one)
	}
	report.atMost("follow, write to receipt, p50", median(each(rounds, p50ms)), "ms", 0.3, noise(rounds, p50ms), "")
	report.atMost("follow, write to receipt, p99", median(each(rounds, p99ms)), "ms", 5, noise(rounds, p99ms), "")
	return nil
}

// follower opens a follow of an empty file and returns once it has begun.
func (s *logsSuite) follower(ctx context.Context, name string) (*websocket.Conn, error) {
	conn, err := s.dial(ctx, true)
	if err != nil {
		return nil, err
	}
	err = conn.WriteJSON(map[string]string{"run": "tail -n 1 -F " + name})
	if err == nil {
		_, _, err = conn.ReadMessage() // the start notice
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (s *logsSuite) idle(ctx context.Context, report *Report) error {
	name := filepath.Join(s.dir, "idle.log")
	if err := os.WriteFile(name, []byte("a line\n"), 0o600); err != nil {
		return err
	}
	before, _, err := s.node.memory()
	if err != nil {
		return err
	}
	for range s.Followers {
		conn, err := s.follower(ctx, name)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, _, err := conn.ReadMessage(); err != nil { // the line that is there
			return err
		}
	}
	select {
	case <-time.After(3 * time.Second): // the garbage of 1,000 handshakes goes
	case <-ctx.Done():
		return ctx.Err()
	}
	after, _, err := s.node.memory()
	if err != nil {
		return err
	}
	report.atMost(fmt.Sprintf("an idle follow, of %d", s.Followers), float64(after-before)/float64(s.Followers)/1000, "KB", 30, 0,
		"resident, the process's growth")
	return nil
}

func (s *logsSuite) sparse(ctx context.Context, report *Report) error {
	name := filepath.Join(s.dir, "10g.log")
	const size = 10 << 30
	if err := holes(name, size, 1<<20, "the end\n"); err != nil {
		return err
	}
	conn, err := s.dial(ctx, true)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, line := range []string{"cat ", "grep -c " + rareWord + " ", "tail -n 1000 "} {
		before, _, err := s.node.memory()
		if err == nil {
			err = s.node.resetPeak()
		}
		if err != nil {
			return err
		}
		_, took, err := s.command(conn, line+name)
		if err != nil {
			return err
		}
		_, peak, err := s.node.memory()
		if err != nil {
			return err
		}
		report.atMost(strings.Fields(line)[0]+" of a 10 GB sparse file, memory", float64(peak-before)/1e6, "MB", 32, 0,
			fmt.Sprintf("peak over what was resident before, in %s", took.Round(time.Millisecond)))
	}
	return nil
}
