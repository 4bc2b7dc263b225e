package bench

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/service/streamclient"
)

// history compares ways of reading what a container has written.
func (s *streamsSuite) history(ctx context.Context, r *Report) error {
	const line = 100
	name := s.names + "-history"
	id, err := s.container(ctx, "history", "sh", "-c", fmt.Sprintf(
		`l=$(head -c %d /dev/zero | tr '\0' x); i=0; yes $l | head -n %d`, line-1, s.Lines))
	if err != nil {
		return err
	}
	if _, err := s.raw.do(ctx, http.MethodPost, "/containers/"+id+"/wait", nil); err != nil {
		return err
	}
	size := int64(s.Lines * line)
	// What comes is hashed in a round of its own: the bytes must be the same, and hashing must not count.
	sums := map[string]string{}
	var check hash.Hash
	out := func() io.WriteCloser {
		w := &sink{want: size}
		if check == nil {
			return w
		}
		return struct {
			io.Writer
			io.Closer
		}{io.MultiWriter(w, check), w}
	}
	read := func(c *streamclient.Client) func(context.Context) error {
		return func(ctx context.Context) error {
			w := out()
			_, err := c.Logs(ctx, id, streamclient.LogOptions{}, w, w)
			return errors.Join(err, w.Close())
		}
	}
	sides := []side{
		{"raw", func(ctx context.Context) error { return s.rawLogs(ctx, id, out()) }},
		{"port", read(s.direct)},
		{"server", read(s.through)},
		{"command", func(ctx context.Context) error {
			return s.command(ctx, out(), s.Executable, "logs", s.host+"/"+name)
		}},
	}
	if docker, err := exec.LookPath("docker"); err == nil {
		sides = append(sides, side{"docker logs", func(ctx context.Context) error {
			return s.command(ctx, out(), docker, "--host", "unix://"+s.Docker, "logs", id)
		}})
	}
	for _, side := range sides {
		check = sha256.New()
		if err := side.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", side.name, err)
		}
		sums[side.name] = hex.EncodeToString(check.Sum(nil))
		if sums[side.name] != sums["raw"] {
			return fmt.Errorf("what %s brings is not what dockerd brings", side.name)
		}
	}
	check = nil
	got, err := s.rounds(ctx, 1, 1, sides)
	if err != nil {
		return err
	}
	// The command is compared with dockerd's own command where that is here, else with the API.
	floor := "raw"
	if got["docker logs"] != nil {
		floor = "docker logs"
	}
	detail := func(name string) string {
		return fmt.Sprintf("%.0f MB/s, %s %.1f MB/s, the same bytes", median(each(got[name], rate(size))), floor, median(each(got[floor], rate(size))))
	}
	for _, row := range []struct {
		title, name string
		limit       float64
	}{
		{"history, node port", "port", 20},
		{"history, agent, server and command", "command", 10},
	} {
		r.atLeast(row.title, ratio(got[row.name], got[floor], rate(size)), "times "+floor, row.limit,
			max(noise(got[row.name], rate(size)), noise(got[floor], rate(size))), detail(row.name))
	}
	r.note("history, agent and server", ratio(got["server"], got[floor], rate(size)), "times "+floor, detail("server"))
	return nil
}

// rawLogs reads a log through dockerd's API.
func (s *streamsSuite) rawLogs(ctx context.Context, id string, out io.WriteCloser) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.raw.base+"/containers/"+id+"/logs?stdout=1&stderr=1", nil)
	if err != nil {
		return err
	}
	resp, err := s.raw.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return out.Close()
		} else if err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}

// command runs a command and passes its output on.
func (s *streamsSuite) command(ctx context.Context, out io.WriteCloser, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.environment()
	var said strings.Builder
	cmd.Stderr = &said
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{pipe}, make([]byte, 256<<10))
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("%w: %s", werr, said.String())
	}
	return errors.Join(err, out.Close())
}

// follow measures a line from a process's input to the viewer of its log.
func (s *streamsSuite) follow(ctx context.Context, r *Report) error {
	b, err := s.raw.do(ctx, http.MethodPost, "/containers/create?name="+s.names+"-follow", map[string]any{
		"Image": s.Image, "Cmd": []string{"cat"}, "OpenStdin": true, "Labels": map[string]string{benchLabel: s.raw.run},
		"HostConfig": map[string]any{"NetworkMode": "none"},
	})
	if err != nil {
		return err
	}
	id := strings.SplitN(string(b), `"`, 5)[3]
	if err := s.raw.start(ctx, id); err != nil {
		return err
	}
	stdin, err := (&net.Dialer{}).DialContext(ctx, "unix", s.Docker)
	if err != nil {
		return err
	}
	defer stdin.Close()
	if _, err := fmt.Fprintf(stdin, "POST /containers/%s/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", id); err != nil {
		return err
	}
	if _, err := http.ReadResponse(bufio.NewReader(stdin), nil); err != nil {
		return err
	}
	line := []byte("a line of some length\n")
	got := map[string][]Series{}
	watch := map[string]func(context.Context, io.Writer) error{
		"raw": func(ctx context.Context, w io.Writer) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.raw.base+"/containers/"+id+"/logs?stdout=1&follow=1&tail=0", nil)
			if err != nil {
				return err
			}
			resp, err := s.raw.http.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			for in := bufio.NewReader(resp.Body); ; {
				if _, err := io.CopyN(io.Discard, in, 8); err != nil {
					return err
				}
				if _, err := io.CopyN(w, in, int64(len(line))); err != nil {
					return err
				}
			}
		},
	}
	for name, c := range map[string]*streamclient.Client{"port": s.direct, "tunnel": s.through} {
		watch[name] = func(ctx context.Context, w io.Writer) error {
			_, err := c.Logs(ctx, id, streamclient.LogOptions{Follow: true, Tail: -1}, w, nil)
			return err
		}
	}
	for range s.Rounds {
		for _, name := range []string{"raw", "port", "tunnel"} { // one at a time: all of them would wake for each line
			series, err := s.followOnce(ctx, stdin, line, watch[name])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			got[name] = append(got[name], series)
		}
	}
	base := median(each(got["raw"], p50ms))
	for _, name := range []string{"port", "tunnel"} {
		r.atMost("follow, "+name, median(each(got[name], p50ms))-base, "ms over raw p50", 0.15, max(noise(got[name], p50ms), noise(got["raw"], p50ms)),
			fmt.Sprintf("p50 %.3f ms, p99 %.3f ms, raw %.3f and %.3f ms", median(each(got[name], p50ms)), median(each(got[name], p99ms)), base, median(each(got["raw"], p99ms))))
	}
	return nil
}

func (s *streamsSuite) followOnce(ctx context.Context, stdin io.Writer, line []byte, watch func(context.Context, io.Writer) error) (Series, error) {
	ctx, cancel := context.WithCancel(ctx)
	back := make(chan int, 64)
	var watching errgroup.Group
	watching.Go(func() error {
		defer cancel()
		return watch(ctx, heard(back))
	})
	defer func() { cancel(); _ = watching.Wait() }()
	write := func(ctx context.Context) error {
		if _, err := stdin.Write(line); err != nil {
			return err
		}
		for n := 0; n < len(line); {
			select {
			case m := <-back:
				n += m
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	// The first lines find out since when the log is watched.
	for quiet := false; !quiet; {
		if _, err := stdin.Write(line); err != nil {
			return Series{}, err
		}
		select {
		case <-back:
			quiet = true
		case <-ctx.Done():
			return Series{}, errors.Join(ctx.Err(), watching.Wait())
		case <-time.After(100 * time.Millisecond):
		}
	}
	for settled := false; !settled; {
		select {
		case <-back:
		case <-time.After(50 * time.Millisecond):
			settled = true
		}
	}
	return inFlight(ctx, s.n(200), 1, timed(write))
}

// fileTail reads the end of a file of a container.
func (s *streamsSuite) fileTail(ctx context.Context, r *Report) error {
	id, err := s.container(ctx, "file", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo \"line $i of a log\"; i=$((i+1)); done >/app.log; echo done; exec sleep 86400")
	if err != nil {
		return err
	}
	for whole := false; !whole; {
		var out strings.Builder
		if err := s.rawRun(ctx, id, &out, "tail", "-n", "1", "/app.log"); err != nil {
			return err
		}
		whole = out.String() == "line 19999 of a log\n"
	}
	want := int64(100 * len("line 19999 of a log\n"))
	got, err := s.rounds(ctx, s.n(10), 1, []side{
		{"raw", func(ctx context.Context) error {
			w := &sink{want: want}
			return errors.Join(s.rawRun(ctx, id, w, "tail", "-n", "100", "/app.log"), w.Close())
		}},
		{"tunnel", func(ctx context.Context) error {
			in, err := s.through.Tail(ctx, id, "/app.log", 100)
			if err != nil {
				return err
			}
			defer in.Close()
			w := &sink{want: want}
			_, err = io.Copy(w, in)
			return errors.Join(err, w.Close())
		}},
	})
	if err != nil {
		return err
	}
	s.atMostRaw(r, "tail of a file, without exec", got, "tunnel", 0.05, p50ms)
	return nil
}
