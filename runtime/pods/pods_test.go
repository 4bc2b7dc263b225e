package pods_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/fake"
	"github.com/droverhq/drover/runtime/pods"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	image    = "drover-test/busybox:1"
	patience = time.Minute
)

// engine returns an engine in memory that ends with the test.
func engine(t testing.TB) *fake.Engine {
	e := fake.New(fake.WithImages(image))
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// start runs a store until the test ends. Its host is empty unless HostFS is set.
func start(t testing.TB, cfg pods.Config, engines ...runtime.ModelSource) *pods.Store {
	t.Helper()
	for _, e := range engines {
		cfg.Engines = append(cfg.Engines, runtime.NewModelEngine(e))
	}
	if cfg.HostFS == "" {
		cfg.HostFS = t.TempDir()
	}
	if cfg.Ticker == 0 {
		cfg.Ticker = time.Hour // what is seen is seen by events
	}
	s, err := pods.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	t.Cleanup(s.Stop)
	if err := s.Start(ctx); err != nil {
		t.Fatalf("Start: %v; %+v", err, s.Health())
	}
	return s
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kube are the labels of a container of a pod.
func kube(namespace, pod, uid, container string) map[string]string {
	l := map[string]string{"io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.name": pod, "io.kubernetes.pod.uid": uid, "io.kubernetes.container.name": container}
	if container == "POD" {
		l["io.kubernetes.docker.type"] = "podsandbox"
	}
	return l
}

// add makes a container of the labels and starts it.
func add(t testing.TB, e runtime.Containers, labels map[string]string, change ...func(*runtime.ContainerSpec)) string {
	t.Helper()
	spec := &runtime.ContainerSpec{Image: image, Cmd: []string{"sleep", "1000"}, NetworkMode: "none", Labels: labels}
	for _, c := range change {
		c(spec)
	}
	id, _, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func remove(t testing.TB, e runtime.Containers, id string) {
	t.Helper()
	if err := e.Remove(t.Context(), id, runtime.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

// names is a state in one line.
func names(list []*runtime.Pod) string {
	var out []string
	for _, p := range list {
		out = append(out, p.Namespace+"/"+p.Name+"/"+p.UID)
	}
	return strings.Join(out, " ")
}

func TestPods(t *testing.T) {
	e := engine(t)
	other := engine(t)
	sandbox := add(t, e, kube("ns", "web", "1", "POD"))
	inSandbox := func(l map[string]string) map[string]string {
		l["io.kubernetes.sandbox.id"] = sandbox
		return l
	}
	app := add(t, e, inSandbox(kube("ns", "web", "1", "app")), func(s *runtime.ContainerSpec) {
		s.Env = []string{"A=1"}
		s.Binds = []string{"/data:/data:ro"}
	})
	side := add(t, e, inSandbox(kube("ns", "web", "1", "log-sidecar")))
	add(t, e, map[string]string{"no": "pod"})
	s := start(t, pods.Config{HostFS: t.TempDir(), Self: runtime.LocalAgentMeta{NodeName: "n1", NodeIP: "10.0.0.1"}}, e, other)

	p, err := s.GetPod("ns", "web")
	if err != nil {
		t.Fatal(err)
	}
	if p.UID != "1" || !p.IsRunning() || p.NodeName != "n1" || p.HostIP() != "10.0.0.1" || len(p.All) != 3 || p.Sandbox.Id != sandbox ||
		p.MainBiz() == nil || p.MainBiz().Id != app || len(p.Sidecar) != 1 || p.Sidecar[0].Id != side {
		t.Errorf("pod: %+v", p)
	}
	c, err := s.GetContainerByCid(app)
	if err != nil || c.Pod != p || c.Env["A"] != "1" || c.Engine != "fake" || !c.IsRunning() || c.Mounts[0].RW || !strings.HasSuffix(c.Mounts[0].Source, "/data") {
		t.Errorf("container: %+v, %v", c, err)
	}
	if c, err := s.GetContainerByCid(side[:12]); err != nil || c.Id != side {
		t.Errorf("by the beginning of its id: %v, %v", c, err)
	}
	for id, class := range map[string]error{"": runtime.ErrNotFound, "zz": runtime.ErrNotFound, app + "0": runtime.ErrNotFound} {
		if _, err := s.GetContainerByCid(id); !errors.Is(err, class) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if p2, err := s.GetPodBySandboxId(sandbox); err != nil || p2 != p {
		t.Errorf("by sandbox: %v", err)
	}
	if _, err := s.GetPod("other", "web"); !errors.Is(err, runtime.ErrNotFound) || err.Error() != "no pod ns=[other] pod=[web]" {
		t.Errorf("an unknown pod: %v", err)
	}

	// The second engine's pod, of the same name in another namespace, and one that replaces it.
	first := add(t, other, kube("ns2", "web", "2", "app"))
	until(t, "the pod of the other engine is there", func() bool { _, err := s.GetPod("ns2", "web"); return err == nil })
	add(t, other, kube("ns2", "web", "3", "app"))
	until(t, "both pods of the name are there", func() bool { return names(s.GetAllPods()) == "ns/web/1 ns2/web/2 ns2/web/3" })
	if p, _ := s.GetPod("ns2", "web"); p.UID != "3" {
		t.Errorf("the older pod is found: %s", p.UID)
	}
	remove(t, other, first)
	until(t, "the older one is gone", func() bool { return names(s.GetAllPods()) == "ns/web/1 ns2/web/3" })

	// A restart in the pod: the ended container stays in All, the new one is the biz.
	none := time.Duration(0)
	if err := e.Stop(t.Context(), app, &none); err != nil {
		t.Fatal(err)
	}
	again := add(t, e, inSandbox(kube("ns", "web", "1", "app")))
	until(t, "the new container is the one", func() bool {
		p, _ := s.GetPod("ns", "web")
		c, err := p.GetContainer("app")
		return err == nil && c.Id == again && c.IsRunning() && p.MainBiz() != nil && p.MainBiz().Id == again && len(p.All) == 4
	})
	for _, id := range []string{again, app, side, sandbox} {
		remove(t, e, id)
	}
	until(t, "the pod is gone", func() bool { return names(s.GetAllPods()) == "ns2/web/3" })
	if _, err := s.GetContainerByCid(app); err == nil {
		t.Error("its container is still there")
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	e := engine(t)
	seen := map[byte]int{}
	for i := range 17 { // two of them begin alike
		seen[add(t, e, kube("ns", "p", "1", fmt.Sprint("c", i)))[0]]++
	}
	s := start(t, pods.Config{NoFacts: true}, e)
	for first, n := range seen {
		_, err := s.GetContainerByCid(string(first))
		if n > 1 && !errors.Is(err, runtime.ErrInvalid) || n == 1 && err != nil {
			t.Errorf("%d containers begin with %c: %v", n, first, err)
		}
	}
}

// changes is a listener that writes down what it heard.
type changes struct {
	mu    sync.Mutex
	lines []string
	each  func()
}

func (c *changes) OnAnyPodChanged() {}

func (c *changes) OnPodsChanged(ch pods.Change) {
	c.mu.Lock()
	c.lines = append(c.lines, fmt.Sprintf("+%s ~%s -%s", names(ch.Added), names(ch.Updated), names(ch.Removed)))
	c.mu.Unlock()
	if c.each != nil {
		c.each()
	}
}

func (c *changes) heard(line string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.lines, line)
}

// plain is a listener that only counts.
type plain struct {
	mu sync.Mutex
	n  int
}

func (p *plain) OnAnyPodChanged() { p.mu.Lock(); p.n++; p.mu.Unlock() }
func (p *plain) count() int       { p.mu.Lock(); defer p.mu.Unlock(); return p.n }

func TestListeners(t *testing.T) {
	e := engine(t)
	s := start(t, pods.Config{NoFacts: true}, e)
	simple, full := &plain{}, &changes{}
	full.each = func() { // re-entering is allowed
		s.GetAllPods()
		s.RemoveListener(simple)
		s.AddListener(simple)
	}
	s.AddListener(full)
	s.AddListener(simple)
	id := add(t, e, kube("ns", "a", "1", "app"))
	until(t, "the new pod is told", func() bool { return full.heard("+ns/a/1 ~ -") })
	until(t, "the other listener hears it", func() bool { return simple.count() > 0 })
	add(t, e, kube("ns", "a", "1", "second"))
	until(t, "the change is told", func() bool { return full.heard("+ ~ns/a/1 -") })
	add(t, e, kube("ns", "b", "2", "app"))
	remove(t, e, id)
	remove(t, e, s.GetAllPods()[0].All[len(s.GetAllPods()[0].All)-1].Id)
	until(t, "the removal is told", func() bool {
		full.mu.Lock()
		defer full.mu.Unlock()
		return slices.ContainsFunc(full.lines, func(l string) bool { return strings.HasSuffix(l, "-ns/a/1") })
	})
	s.RemoveListener(full)
	s.RemoveListener(simple)
	before := simple.count()
	add(t, e, kube("ns", "c", "3", "app"))
	until(t, "the third pod is there", func() bool { _, err := s.GetPod("ns", "c"); return err == nil })
	if n := simple.count(); n > before+1 { // one call may have been under way
		t.Errorf("a removed listener was called %d times", n-before)
	}
}

func TestEngineOutage(t *testing.T) {
	good, bad := engine(t), engine(t)
	add(t, good, kube("ns", "a", "1", "app"))
	id := add(t, bad, kube("ns", "b", "2", "app"))
	s := start(t, pods.Config{NoFacts: true, Ticker: 50 * time.Millisecond}, good, bad)
	bad.Down()
	until(t, "the outage is known", func() bool { return len(s.Health().Errors) > 0 })
	add(t, good, kube("ns", "c", "3", "app"))
	until(t, "the other engine's new pod is there", func() bool { return names(s.GetAllPods()) == "ns/a/1 ns/b/2 ns/c/3" })
	bad.Up()
	remove(t, bad, id)
	until(t, "the map has caught up", func() bool { return names(s.GetAllPods()) == "ns/a/1 ns/c/3" })
	until(t, "it is healthy again", func() bool { return len(s.Health().Errors) == 0 })
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	e := engine(t)
	s := start(t, pods.Config{Ticker: 5 * time.Millisecond}, e)
	var wait sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for range 4 {
		wait.Go(func() {
			l := &plain{}
			for ctx.Err() == nil {
				s.AddListener(l)
				for _, p := range s.GetAllPods() {
					for _, c := range p.All {
						_, _ = s.GetContainerByCid(c.Id)
						_ = pods.ViewOf(p)
					}
					_, _ = s.GetPod(p.Namespace, p.Name)
				}
				s.Refresh()
				s.RemoveListener(l)
				_ = s.Health()
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		id := add(t, e, kube("ns", fmt.Sprint("p", i%5), fmt.Sprint(i), "app"))
		if i%2 == 0 {
			remove(t, e, id)
		}
	}
	wait.Wait()
}

func TestStartStop(t *testing.T) {
	if _, err := pods.New(pods.Config{}); err == nil {
		t.Error("a store without an engine")
	}
	e := engine(t)
	e.Down()
	s, err := pods.New(pods.Config{Engines: []pods.Engine{runtime.NewModelEngine(e)}, HostFS: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start without an engine that answers: %v", err)
	}
	if err := s.Start(ctx); err == nil {
		t.Error("a second Start")
	}
	e.Up()
	select {
	case <-s.Ready(): // it went on
	case <-time.After(patience):
		t.Error("it is never ready")
	}
	s.Stop()
	s.Stop()
	ctx, cancel = context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	add(t, e, kube("ns", "a", "1", "app"))
	until(t, "it runs again", func() bool { return len(s.GetAllPods()) == 1 })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
