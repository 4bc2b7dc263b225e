package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options says what and how long to measure.
type Options struct {
	Executable string // the drover binary whose agent is measured
	Docker     string // unix socket path of dockerd
	Image      string // a local image with /bin/sleep
	Rounds     int    // interleaved rounds, at least 2 for an A/A error
	Scale      float64
	Rancher    bool // answer as to a Rancher server: a POST a reply
	Progress   func(string)
}

func (o Options) n(count int) int {
	if o.Scale <= 0 {
		return count
	}
	return max(int(float64(count)*o.Scale), 10)
}

// A suite is one run's shared state.
type suite struct {
	Options
	raw   *rawDocker
	stub  *stub
	agent *child
	se    *session
	ids   atomic.Int64
	names string  // prefix of what this run makes
	rate  float64 // of raw dockerd, inspects a second with 32 in flight
}

// Events measures the control channel: event to reply through a real agent process on a real dockerd.
func Events(ctx context.Context, o Options) (report *Report, err error) {
	s := &suite{Options: o, raw: newRawDocker(o.Docker, 64), names: fmt.Sprintf("drover-bench-%d", os.Getpid())}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	defer s.raw.close()
	version, err := s.raw.version(ctx)
	if err != nil {
		return nil, fmt.Errorf("dockerd at %s: %w", o.Docker, err)
	}
	report = &Report{Suite: "drover bench events", Machine: machine(), Engine: "dockerd " + version, Rounds: o.Rounds}

	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if s.stub, err = newStub(!o.Rancher); err != nil {
		return nil, err
	}
	serving, stopServing := context.WithCancel(ctx)
	group := errgroup.Group{}
	group.Go(func() error { return s.stub.run(serving) })
	defer func() { stopServing(); _ = group.Wait() }()
	defer func() { err = errors.Join(err, s.raw.removeAll()) }()

	if s.agent, err = startAgent(o.Executable, dir, s.stub.url(), "unix://"+o.Docker); err != nil {
		return nil, err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_ = s.agent.stop(stopping)
	}()
	if s.se, err = s.stub.next(ctx); err != nil {
		return nil, err
	}

	for _, part := range []struct {
		title string
		run   func(context.Context, *Report) error
	}{
		{"start", s.start(dir)},
		{"health", s.health(dir)},
		{"idle", s.idleCost},
		{"ping", s.ping},
		{"inspect", s.inspect},
		{"burst", s.burst},
		{"one resource", s.oneResource},
		{"ping with stats", s.pingStats},
		{"lifecycle", s.lifecycle},
		{"reconnect", s.reconnect},
	} {
		s.Progress(part.title)
		if err := part.run(ctx, report); err != nil {
			return report, fmt.Errorf("%s: %w", part.title, err)
		}
	}
	if fi, err := os.Stat(o.Executable); err == nil {
		report.atMost("size of the binary", float64(fi.Size())/1e6, "MB", 45, 0, "")
	}
	return report, nil
}

func machine() string {
	model := goruntime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s", goruntime.NumCPU(), model)
}

func (s *suite) id(prefix string) string { return fmt.Sprintf("%s%d", prefix, s.ids.Add(1)) }

// frame builds one event. A resource of its own for each event leaves them unordered.
func frame(id, name, resourceType, resourceID, data string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"name":%q,"replyTo":"reply.%s","resourceId":%q,"resourceType":%q,"time":%d,"timeoutMillis":60000,"data":%s}`,
		id, name, strings.TrimLeft(id, "abcdefghijklmnopqrstuvwxyz-"), resourceID, resourceType, time.Now().UnixMilli(), data)
}

func (s *suite) pingFrame(options string) (string, []byte) {
	id := s.id("p")
	return id, frame(id, "ping", "agent", "1a1", `{"options":{`+options+`},"resources":[]}`)
}

func (s *suite) inspectFrame(container, resource string) (string, []byte) {
	id := s.id("i")
	return id, frame(id, "compute.instance.inspect", "instanceInspect", resource, `{"instanceInspect":{"kind":"docker","id":"`+container+`"}}`)
}

// inFlight runs op n times, c at a time, and returns the latencies that op reports.
func inFlight(ctx context.Context, n, c int, op func(context.Context) (time.Duration, error)) (Series, error) {
	out := Series{Latencies: make([]time.Duration, n)}
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for range c {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				d, err := op(ctx)
				if err != nil {
					return err
				}
				out.Latencies[i] = d
			}
		})
	}
	err := group.Wait()
	out.Elapsed = time.Since(start)
	return out, err
}

func (s *suite) callPing(options string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		id, f := s.pingFrame(options)
		return s.stub.call(ctx, s.se, id, f)
	}
}

func timed(f func(context.Context) error) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		err := f(ctx)
		return time.Since(start), err
	}
}

// settle is how long the machine rests between the end of an agent and the start of the next.
const settle = 200 * time.Millisecond

func (s *suite) start(dir string) func(context.Context, *Report) error {
	return func(ctx context.Context, r *Report) error {
		var times, empty []float64
		for range max(3*s.Rounds, 3) {
			stopping, cancel := context.WithTimeout(ctx, 20*time.Second)
			err := s.agent.stop(stopping)
			cancel()
			if err != nil {
				return err
			}
			// What the end of the one before costs the kernel and dockerd is no part of the start.
			if err := sleep(ctx, settle); err != nil {
				return err
			}
			floor, err := emptyProcess(ctx)
			if err != nil {
				return err
			}
			empty = append(empty, floor)
			if s.agent, err = startAgent(s.Executable, dir, s.stub.url(), "unix://"+s.Docker); err != nil {
				return err
			}
			if s.se, err = s.stub.next(ctx); err != nil {
				return err
			}
			times = append(times, float64(s.se.at.Sub(s.agent.started))/1e6)
		}
		r.atMost("start to subscribed", median(times), "ms", 15, 0, "process start to upgrade, registered before; "+timesEmpty(times, empty))
		return nil
	}
}

// health measures what a container's health check runs, the process included.
func (s *suite) health(dir string) func(context.Context, *Report) error {
	return func(ctx context.Context, r *Report) error {
		check := func() error {
			return exec.CommandContext(ctx, s.Executable, "health", "--state-dir", filepath.Join(dir, "state")).Run()
		}
		for end := time.Now().Add(20 * time.Second); check() != nil; {
			if time.Now().After(end) {
				return errors.New("the agent does not become healthy")
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
		var times, empty []float64
		for range max(s.n(20), 5) {
			floor, err := emptyProcess(ctx)
			if err != nil {
				return err
			}
			empty = append(empty, floor)
			start := time.Now()
			if err := check(); err != nil {
				return err
			}
			times = append(times, float64(time.Since(start))/1e6)
		}
		r.atMost("drover health", median(times), "ms", 20, 0, "process start to exit; "+timesEmpty(times, empty))
		return nil
	}
}

// emptyProcess is the least that a process costs on this machine now, in ms: start to exit of one that does nothing.
// What a start is worth on a busy machine shows beside it.
func emptyProcess(ctx context.Context) (float64, error) {
	start := time.Now()
	if err := exec.CommandContext(ctx, "true").Run(); err != nil {
		return 0, fmt.Errorf("an empty process, to compare with: %w", err)
	}
	return float64(time.Since(start)) / 1e6, nil
}

func timesEmpty(times, empty []float64) string {
	return fmt.Sprintf("least %.1f, %.1f times an empty process (%.1f ms)", slices.Min(times), median(times)/median(empty), median(empty))
}

func (s *suite) idleCost(ctx context.Context, r *Report) error {
	for i := range 50 {
		id, err := s.raw.create(ctx, fmt.Sprintf("%s-idle-%d", s.names, i), s.Image, "/bin/sleep", "86400")
		if err != nil {
			return err
		}
		if i < s.n(10) {
			if err := s.raw.start(ctx, id); err != nil {
				return err
			}
		}
	}
	wait := time.Duration(float64(10*time.Second) * max(s.Scale, 0.3))
	if err := sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	before, err := s.agent.cpu()
	if err != nil {
		return err
	}
	if err := sleep(ctx, wait); err != nil {
		return err
	}
	after, err := s.agent.cpu()
	if err != nil {
		return err
	}
	rss, _, err := s.agent.memory()
	if err != nil {
		return err
	}
	r.atMost("idle memory, 50 containers", float64(rss)/1e6, "MB", 20, 0, "resident, all pages")
	r.atMost("idle processor, 50 containers", 100*float64(after-before)/float64(wait), "% of a core", 0.3, 0, fmt.Sprintf("over %s", wait))
	return s.raw.removeAll()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *suite) ping(ctx context.Context, r *Report) error {
	for _, c := range []int{1, 8, 32} {
		var rounds []Series
		for range s.Rounds {
			round, err := inFlight(ctx, s.n(2000*min(c, 10)), c, s.callPing(""))
			if err != nil {
				return err
			}
			rounds = append(rounds, round)
		}
		detail := fmt.Sprintf("p50 %.3f ms, p99 %.3f ms", median(each(rounds, p50ms)), median(each(rounds, p99ms)))
		name := fmt.Sprintf("ping, %d in flight", c)
		rate := median(each(rounds, Series.Rate))
		if c == 32 && !s.Rancher {
			r.atLeast(name, rate, "/s", 30000, noise(rounds, Series.Rate), detail)
		} else {
			r.note(name, rate, "/s", detail)
		}
	}
	return nil
}

func (s *suite) inspect(ctx context.Context, r *Report) error {
	id, err := s.raw.create(ctx, s.names+"-inspect", s.Image, "/bin/sleep", "86400")
	if err != nil {
		return err
	}
	if err := s.raw.start(ctx, id); err != nil {
		return err
	}
	raw := timed(func(ctx context.Context) error { return s.raw.inspect(ctx, id) })
	agent := func(ctx context.Context) (time.Duration, error) {
		eid, f := s.inspectFrame(id, s.id("r"))
		return s.stub.call(ctx, s.se, eid, f)
	}
	for _, c := range []int{1, 32} {
		var a, b []Series
		n := s.n(600 * min(c, 4))
		for range s.Rounds {
			for _, side := range []struct {
				op     func(context.Context) (time.Duration, error)
				rounds *[]Series
			}{{raw, &a}, {agent, &b}} {
				round, err := inFlight(ctx, n, c, side.op)
				if err != nil {
					return err
				}
				*side.rounds = append(*side.rounds, round)
			}
		}
		figure, unit := p50ms, "times raw p50"
		if c > 1 {
			figure, unit = Series.Rate, "of raw rate"
		}
		aa := max(noise(a, figure), noise(b, figure))
		detail := fmt.Sprintf("raw p50 %.3f ms %.0f/s, agent p50 %.3f ms %.0f/s",
			median(each(a, p50ms)), median(each(a, Series.Rate)), median(each(b, p50ms)), median(each(b, Series.Rate)))
		s.rate = median(each(a, Series.Rate)) // at the end that of 32
		if c == 1 {
			r.atMost("inspect, event to reply", ratio(b, a, figure), unit, 2.7, aa, detail)
		} else {
			r.atLeast("inspect, 32 in flight", ratio(b, a, figure), unit, 0.4, aa, detail)
		}
	}
	return nil
}

func (s *suite) burst(ctx context.Context, r *Report) error {
	const n = 10_000
	if err := s.agent.resetPeak(); err != nil {
		return err
	}
	s.stub.count(true)
	defer s.stub.count(false)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	var answered atomic.Int64
	for i := range n {
		id, f := s.inspectFrame(s.names+"-inspect", fmt.Sprintf("1b%d", i%200))
		c, err := s.stub.begin(s.se, id, f)
		if err != nil {
			return err
		}
		wg.Go(func() {
			select {
			case <-c.done:
				answered.Add(1)
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	finals, _ := s.stub.counted()
	twice := 0
	for _, k := range finals {
		if k > 1 {
			twice++
		}
	}
	_, peak, err := s.agent.memory()
	if err != nil {
		return err
	}
	r.atMost("burst of 10,000 events: lost", float64(n-answered.Load()), "", 0, 0, fmt.Sprintf("%d answered, %d answered twice", answered.Load(), twice))
	r.atMost("burst of 10,000 events: time", elapsed.Seconds(), "s", 3, 0,
		fmt.Sprintf("over 200 resources; raw dockerd, 32 in flight: %.3g s", n/s.rate))
	r.atMost("burst of 10,000 events: peak memory", float64(peak)/1e6, "MB", 32, 0, "resident, all pages")
	return nil
}

func (s *suite) oneResource(ctx context.Context, r *Report) error {
	s.stub.count(true)
	defer s.stub.count(false)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var sent []string
	var calls []*call
	for range 50 {
		id, f := s.inspectFrame(s.names+"-inspect", "1one")
		c, err := s.stub.begin(s.se, id, f)
		if err != nil {
			return err
		}
		sent, calls = append(sent, id), append(calls, c)
	}
	answered := 0
	for _, c := range calls {
		select {
		case <-c.done:
			answered++
		case <-ctx.Done():
		}
	}
	_, order := s.stub.counted()
	inOrder := strings.Join(order, " ") == strings.Join(sent, " ")
	detail := "in order"
	if !inOrder {
		detail = "OUT OF ORDER"
		answered = 0
	}
	r.atLeast("50 events on one resource", float64(answered), "answers in order", 50, 0, detail)
	return nil
}

func (s *suite) pingStats(ctx context.Context, r *Report) error {
	var rounds []Series
	for range s.Rounds {
		round, err := inFlight(ctx, s.n(200), 1, s.callPing(`"resources":true,"stats":true,"instances":true`))
		if err != nil {
			return err
		}
		rounds = append(rounds, round)
	}
	r.atMost("ping with stats, resources and instances, p50", median(each(rounds, p50ms)), "ms", 5, noise(rounds, p50ms), "")
	return nil
}

func (s *suite) lifecycle(ctx context.Context, r *Report) error {
	var a, b []Series
	n := s.n(8)
	for range s.Rounds {
		round, err := inFlight(ctx, n, 1, timed(func(ctx context.Context) error {
			id, err := s.raw.create(ctx, s.id(s.names+"-life-"), s.Image, "/bin/sleep", "86400")
			if err != nil {
				return err
			}
			return errors.Join(s.raw.start(ctx, id), s.raw.kill(ctx, id), s.raw.remove(ctx, id))
		}))
		if err != nil {
			return err
		}
		a = append(a, round)
		round, err = inFlight(ctx, n, 1, timed(s.lifeByEvents))
		if err != nil {
			return err
		}
		b = append(b, round)
	}
	aa := max(noise(a, p50ms), noise(b, p50ms))
	r.atMost("create, start, stop, remove", ratio(b, a, p50ms), "times raw", 1.03, aa,
		fmt.Sprintf("raw p50 %.0f ms, agent p50 %.0f ms", median(each(a, p50ms)), median(each(b, p50ms))))
	return nil
}

func (s *suite) lifeByEvents(ctx context.Context) error {
	n := s.ids.Add(1)
	uuid := fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
	resource := fmt.Sprintf("1ihm%d", n)
	instance := fmt.Sprintf(`"instance":{"id":%d,"type":"instance","kind":"container","name":"bench%d","uuid":%q,`+
		`"data":{"fields":{"imageUuid":"docker:%s","command":["/bin/sleep","86400"],"labels":{%q:%q},"restartPolicy":{"name":"no"}}},`+
		`"nics":[{"deviceNumber":0,"network":{"kind":"dockerNone"}}]}`, n, n, uuid, s.Image, benchLabel, s.raw.run)
	for _, step := range []struct{ name, process string }{
		{"compute.instance.activate", ""}, {"compute.instance.deactivate", `"processData":{"timeout":0},`}, {"compute.instance.remove", ""},
	} {
		id := s.id("l")
		f := frame(id, step.name, "instanceHostMap", resource, fmt.Sprintf(`{%s"instanceHostMap":{"id":%d,%s}}`, step.process, n, instance))
		if _, err := s.stub.call(ctx, s.se, id, f); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func (s *suite) reconnect(ctx context.Context, r *Report) error {
	var attempts []float64
	var first float64
	for i := range 3 {
		closed := time.Now()
		if err := s.se.conn.Close(); err != nil {
			return err
		}
		next, err := s.stub.next(ctx)
		if err != nil {
			return err
		}
		s.se = next
		attempts = append(attempts, float64(next.took)/1e6)
		if i == 0 {
			first = float64(next.at.Sub(closed)) / 1e6
		}
	}
	r.atMost("reconnect: the attempt itself", median(attempts), "ms", 50, 0, "first byte of the connection to subscribed")
	r.note("reconnect: after a lost connection", first, "ms", "with the random first delay of at most 1 s")
	return nil
}
