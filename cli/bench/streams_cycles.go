package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/service/streamclient"
)

// cycleContainers are opened in turn: processes in one container are started one at a time.
const cycleContainers = 8

// cycles opens and closes streams of all kinds, and looks at what is left of them. Every fourth is a process, whose input
// is given back: dockerd starts 20 to 40 of them a second, and many more of the others.
func (s *streamsSuite) cycles(ctx context.Context, r *Report) error {
	if s.Cycles <= 0 {
		return nil
	}
	var ids []string
	free := make(chan string, cycleContainers)
	for i := range cycleContainers {
		id, err := s.container(ctx, "cycles-"+strconv.Itoa(i), "sh", "-c", "echo x; exec sleep 86400")
		if err != nil {
			return err
		}
		ids = append(ids, id)
		free <- id
	}
	kinds := make(chan int, 4)
	for kind := range cap(kinds) {
		kinds <- kind
	}
	counts := make(chan [4]int, 1)
	counts <- [4]int{}
	cycle := func(ctx context.Context) error {
		id, kind := <-free, <-kinds
		kinds <- kind // to the end of the queue
		defer func() { free <- id }()
		n := <-counts
		n[kind]++
		counts <- n
		c := s.through
		if n[kind]%2 == 0 {
			c = s.direct
		}
		if err := s.cycle(ctx, c, id, kind); err != nil {
			return fmt.Errorf("cycle of %s: %w", [...]string{"exec", "attach", "logs", "stats"}[kind], err)
		}
		return nil
	}
	run := func(n int) error {
		_, err := inFlight(ctx, n, 4, timed(cycle))
		return err
	}
	if err := run(min(s.Cycles, 400)); err != nil {
		return err
	}
	before, err := s.look(ctx, ids)
	if err != nil {
		return err
	}
	warm := <-counts
	counts <- [4]int{}
	began := time.Now()
	if err := run(s.Cycles); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := s.look(ctx, ids)
	if err != nil {
		return err
	}
	n := <-counts
	detail := fmt.Sprintf("%.0f before, %.0f after", before.goroutines, after.goroutines)
	r.atMost("goroutines left", after.goroutines-before.goroutines, "", 10, 0, detail)
	r.atMost("descriptors left", float64(after.files-before.files), "", 10, 0, fmt.Sprintf("%d before, %d after", before.files, after.files))
	r.atMost("memory left", float64(after.memory-before.memory)/1e6, "MB", 20, 0,
		fmt.Sprintf("%.1f MB before, %.1f MB after", float64(before.memory)/1e6, float64(after.memory)/1e6))
	r.atMost("processes left in the containers", float64(after.processes-before.processes), "", 0, 0, "by ps")
	r.atMost("processes dockerd still counts", float64(after.execs), "", 0, 0, "ExecIDs of the containers that run")
	r.note("streams opened and closed", float64(s.Cycles), "", fmt.Sprintf("%d exec, %d attach, %d logs, %d stats in %s, after %d that do not count",
		n[0], n[1], n[2], n[3], took.Round(time.Second), warm[0]+warm[1]+warm[2]+warm[3]))
	return nil
}

var errSeen = errors.New("seen enough")

// untilSeen ends a stream at the first thing that it brings.
type untilSeen struct{ seen context.CancelCauseFunc }

func (u untilSeen) Write(p []byte) (int, error) { u.seen(errSeen); return len(p), nil }

func (s *streamsSuite) cycle(ctx context.Context, c *streamclient.Client, id string, kind int) error {
	if kind == 0 {
		w := &sink{want: 1}
		err := c.Exec(ctx, id, streamclient.ExecOptions{Cmd: []string{"cat"}, Streams: streamclient.Streams{Stdin: strings.NewReader("x"), Stdout: w}})
		return errors.Join(err, w.Close())
	}
	open, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	var err error
	switch kind {
	case 1:
		err = c.Attach(open, id, streamclient.AttachOptions{Streams: streamclient.Streams{Stdout: untilSeen{leave}}, Logs: true})
	case 2:
		_, err = c.Logs(open, id, streamclient.LogOptions{Follow: true}, untilSeen{leave}, nil)
	case 3:
		for _, err = range c.StatsStream(open, id, time.Second) {
			break
		}
		return err
	}
	if errors.Is(context.Cause(open), errSeen) {
		return nil
	}
	return errors.Join(err, errors.New("the stream ended before it brought anything"))
}

// left is what there is of the node, and in the containers.
type left struct {
	goroutines       float64
	files            int
	memory           int64
	processes, execs int
}

// look waits a moment for what is about to end.
func (s *streamsSuite) look(ctx context.Context, ids []string) (left, error) {
	var l left
	if err := sleep(ctx, 7*time.Second); err != nil {
		return l, err
	}
	for _, id := range ids {
		_, rows, err := s.through.Top(ctx, id)
		if err != nil {
			return l, err
		}
		l.processes += len(rows)
		n, err := s.execs(ctx, id)
		if err != nil {
			return l, err
		}
		l.execs += n
	}
	fds, err := os.ReadDir("/proc/" + strconv.Itoa(s.node.cmd.Process.Pid) + "/fd")
	if err != nil {
		return l, err
	}
	l.files = len(fds)
	if l.memory, _, err = s.node.memory(); err != nil {
		return l, err
	}
	l.goroutines, err = s.figure(ctx, "go_goroutines")
	return l, err
}

// figure reads one of the node's figures.
func (s *streamsSuite) figure(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.health+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the node does not tell %s", name)
}

// execs is how many processes dockerd knows of beside the container's own.
func (s *streamsSuite) execs(ctx context.Context, id string) (int, error) {
	b, err := s.raw.do(ctx, http.MethodGet, "/containers/"+id+"/json", nil)
	if err != nil {
		return 0, err
	}
	var v struct{ ExecIDs []string }
	if err := json.Unmarshal(b, &v); err != nil {
		return 0, err
	}
	return len(v.ExecIDs), nil
}
