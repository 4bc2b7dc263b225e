package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

// childEnv makes the test binary an agent: its value is a childConfig.
const childEnv = "EVENTS_TEST_CHILD"

// cutDelay is how long an agent waits at most whose server cuts it again and again: the tests are about what arrives,
// and not about the minute between two attempts.
const cutDelay = 500 * time.Millisecond

type childConfig struct {
	URL, Journal string
	Reply        int // bytes of each reply
}

// childMain is an agent in a process of its own, which can be killed and weighed.
func childMain() int {
	var cfg childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	h := map[string]events.HandlerFunc{"inspect": inspect, "ping": pong}
	if cfg.Reply > 0 {
		doc := json.RawMessage(`{"a":"` + strings.Repeat("x", cfg.Reply) + `"}`)
		h["inspect"] = func(ctx context.Context, _ *wire.Event, _ events.Progress) (any, error) {
			return append(json.RawMessage(nil), doc...), nil // as if an engine had sent it
		}
	}
	c, err := events.New(events.Config{
		URL: cfg.URL, AccessKey: eventstest.AccessKey, SecretKey: eventstest.SecretKey, Router: routes(h), Journal: cfg.Journal, Log: quiet(),
		MaxDelay: cutDelay,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := c.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type child struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func startChild(t testing.TB, cfg childConfig) *child {
	t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(c.done) }()
	t.Cleanup(func() { c.end(syscall.SIGKILL) })
	return c
}

func (c *child) end(sig os.Signal) {
	_ = c.cmd.Process.Signal(sig)
	<-c.done
}

// TestTenThousandAndSuddenDeath kills the agent in the middle, again and again, while the server cuts the socket and
// fails POSTs.
func TestTenThousandAndSuddenDeath(t *testing.T) {
	flavours(t, func(t *testing.T, srv *eventstest.Server) {
		cfg := childConfig{URL: srv.URL(), Journal: t.TempDir() + "/journal.db"}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		agent := startChild(t, cfg)
		if _, err := srv.Next(ctx); err != nil {
			t.Fatal(err)
		}
		srv.FailPublish(3, 503)
		stop := srv.CutEvery(time.Second)
		sent := many(manyEvents)
		kills := 0
		for i := 0; i < len(sent); i += 1000 {
			if err := srv.Deliver(ctx, sent[i:i+1000]...); err != nil {
				t.Fatal(err)
			}
			if i%3000 == 1000 {
				time.Sleep(100 * time.Millisecond)
				agent.end(syscall.SIGKILL)
				kills++
				agent = startChild(t, cfg)
			}
		}
		if err := srv.WaitAnswered(ctx, manyEvents); err != nil {
			t.Fatal(err)
		}
		stop()
		t.Logf("killed %d times, %d duplicates refused by the server", kills, srv.Duplicates())
		checkAnswers(t, srv, sent, false)
		agent.end(syscall.SIGTERM)
		if code := agent.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

// rss returns what the kernel says of the process's memory, in bytes: now, and at most.
func (c *child) rss(t testing.TB) (now, peak int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			now = kb << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			peak = kb << 10
		}
	}
	return now, peak
}
