package ping

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/hostinfo"
	"github.com/droverhq/drover/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden replies anew")

// engine is an Infoer.
type engine struct {
	mu   sync.Mutex
	info runtime.Info
	err  error
	wait chan struct{} // Info blocks on it, if it is set
	asks atomic.Int32
}

func (e *engine) Ping(context.Context) error { return nil }

func (e *engine) Info(ctx context.Context) (runtime.Info, error) {
	e.asks.Add(1)
	if e.wait != nil {
		select {
		case <-e.wait:
		case <-ctx.Done():
			return runtime.Info{}, ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.info, e.err
}

// list is a Lister.
type list struct {
	containers []runtime.ContainerSummary
	healthy    bool
}

func (l *list) Snapshot() []runtime.ContainerSummary { return l.containers }
func (l *list) Healthy() bool                        { return l.healthy }

// host is a Sampler.
type host struct {
	sample atomic.Pointer[hostinfo.Sample]
	first  chan struct{}
}

func (h *host) Sample() *hostinfo.Sample { return h.sample.Load() }
func (h *host) First() <-chan struct{}   { return h.first }

func mem(mib int64) *int64 {
	b := mib<<20 + 12345 // what is no whole MiB is cut off
	return &b
}

func sampled() *host {
	h := &host{first: make(chan struct{})}
	close(h.first)
	h.sample.Store(&hostinfo.Sample{
		CPU:  &hostinfo.CPU{Count: 4, ModelName: "Intel(R) Xeon(R)", MHz: 2300.184, Percentages: []float64{1.4, 0.7, 0.9, 1}},
		Load: []string{"0.00", "0.10", "0.20"},
		Memory: &hostinfo.Memory{
			Total: 3110400 << 10, Free: mem(1113), Available: mem(2380), Buffers: mem(162), Cached: mem(1266), Active: mem(777),
			Inactive: mem(797), SwapTotal: mem(1690), SwapFree: mem(1593), SwapCached: mem(2),
		},
		Disk: &hostinfo.Disk{
			Devices: map[string]hostinfo.Usage{"/dev/sda1": {Total: 40000 << 20, Used: 16400 << 20, Free: 23600 << 20}},
			Storage: &hostinfo.Usage{Total: 60e9, Free: 51200e6},
		},
		OS:      hostinfo.OS{Name: "Debian GNU/Linux 12 (bookworm)", Kernel: "5.10.0-28-amd64"},
		Labels:  map[string]string{"io.rancher.host.provider": "aws"},
		HostKey: "-----BEGIN RSA PUBLIC KEY-----\n",
		KVM:     true,
	})
	return h
}

func dockerInfo() *engine {
	return &engine{info: runtime.Info{
		Version: "20.10.24+dfsg1", BuildID: "5d6db84", StorageDriver: "overlay2", OperatingSystem: "Debian GNU/Linux 12 (bookworm)",
		KernelVersion: "5.10.0-28-amd64", RootDir: "/var/lib/docker",
	}}
}

func someContainers() *list {
	at := time.Unix(1700000000, 0)
	return &list{healthy: true, containers: []runtime.ContainerSummary{
		{
			ID: "aaaa", Names: []string{"r-web-1"}, Image: "nginx", State: "running", Created: at,
			Labels: map[string]string{"io.rancher.container.uuid": "c861f990"},
		},
		{ID: "bbbb", Names: []string{"native"}, Image: "redis:7", State: "exited", Created: at},
		{ID: "cccc", Image: "x", State: "paused", Created: at},
		{ID: "dddd", Names: []string{"new"}, Image: "x", State: "created", Created: at},
		{ID: "eeee", Names: []string{"looping"}, Image: "x", State: "restarting", Created: at},
	}}
}

func config() Config {
	return Config{
		HostUUID: "77218982", PhysicalHostUUID: "11111111", Hostname: "node1", HostIP: "10.0.0.5",
		AgentImage: "rancher/agent:v1.2.11", HostLabels: map[string]string{"zone": "a"},
		Containers: someContainers(), Engine: dockerInfo(), Host: sampled(),
	}
}

// start runs the reporter until it has asked the engine.
func start(t testing.TB, cfg Config) *Reporter {
	r := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	<-r.loaded
	return r
}

func request(options string) *wire.Event {
	return &wire.Event{
		ID: "1", Name: "ping", ReplyTo: "reply.1", ResourceID: "1a2", ResourceType: "agent",
		Data: json.RawMessage(`{"options":` + options + `,"resources":[]}`),
	}
}

func ask(t testing.TB, r *Reporter, options string) []byte {
	t.Helper()
	data, err := r.Handle(t.Context(), request(options), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, ok := data.(json.RawMessage)
	if !ok || !json.Valid(raw) {
		t.Fatalf("answer is no JSON: %T %s", data, data)
	}
	return raw
}

func TestGoldenAnswers(t *testing.T) {
	all := `{"resources":true,"stats":true,"instances":true}`
	for _, c := range []struct {
		name, options string
		change        func(*Config)
	}{
		{"empty", `{}`, nil},
		{"instances", `{"instances":true}`, nil},
		{"resources", `{"resources":true}`, nil},
		{"stats-alone", `{"stats":true}`, nil},
		{"full", all, nil},
		{"overrides", all, func(c *Config) {
			c.MemoryOverride, c.MilliCPUOverride, c.LocalStorageMBOverride = 8e9, 1500, 10
			c.SchedulerIPs, c.SchedulerRequireAny, c.APIProxy = "10.0.0.6", "a=b", "10.0.0.7:8080"
		}},
		{"unknown", all, func(c *Config) { // nothing could be measured, the engine was never reached
			c.Host, c.Engine, c.Containers, c.HostIP, c.HostLabels = nil, nil, &list{}, "", nil
		}},
		{"disabled", all, func(c *Config) { c.Disabled = true }},
		{"no-containers", `{"instances":true}`, func(c *Config) { c.Containers = &list{healthy: true} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config()
			if c.change != nil {
				c.change(&cfg)
			}
			raw := ask(t, start(t, cfg), c.options)
			var b bytes.Buffer
			if err := json.Indent(&b, raw, "", " "); err != nil {
				t.Fatal(err)
			}
			b.WriteByte('\n')
			name := filepath.Join("testdata", c.name+".json")
			if *update {
				if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("answer is\n%s\nwant\n%s", b.Bytes(), want)
			}
		})
	}
}

// resources returns the types of an answer's resources in their order.
func types(t *testing.T, raw []byte) []string {
	t.Helper()
	var a struct{ Resources []struct{ Type string } }
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range a.Resources {
		list = append(list, r.Type)
	}
	return list
}

func TestOrderOfResources(t *testing.T) {
	got := fmt.Sprint(types(t, ask(t, start(t, config()), `{"resources":true,"instances":true}`)))
	want := "[physicalHost host storagePool ipAddress hostUuid instance instance instance instance]"
	if got != want {
		t.Errorf("resources are %s, want %s", got, want)
	}
}

// A server removes what it does not see: while the list is not complete, there must be none.
func TestIncompleteListIsNotReported(t *testing.T) {
	cfg := config()
	cfg.Containers.(*list).healthy = false
	if raw := ask(t, start(t, cfg), `{"instances":true}`); string(raw) != `{"options":{}}` {
		t.Errorf("answer is %s", raw)
	}
}

func TestOddRequests(t *testing.T) {
	r := start(t, config())
	for _, data := range []string{"", "null", "[]", "5", `{"options":null}`, `{"options":5}`, `{"options":{"resources":5,"instances":null}}`, `{`} {
		got, err := r.Handle(t.Context(), &wire.Event{Data: json.RawMessage(data)}, nil)
		if err != nil || string(got.(json.RawMessage)) != `{"options":{}}` {
			t.Errorf("data %q: %s, %v", data, got, err)
		}
	}
	if raw := ask(t, r, `{"Instances":"true"}`); len(types(t, raw)) != 5 {
		t.Errorf("a string for a boolean: %s", raw)
	}
}

// The answer changes with what it is made of, and only then is it made anew.
func TestAnswersFollowTheirSources(t *testing.T) {
	cfg := config()
	h, l := cfg.Host.(*host), cfg.Containers.(*list)
	r := start(t, cfg)
	all := `{"resources":true,"stats":true,"instances":true}`
	first := ask(t, r, all)
	if second := ask(t, r, all); !bytes.Equal(first, second) {
		t.Error("two answers differ")
	}
	part := r.hosts.Load()
	ask(t, r, all)
	if r.hosts.Load() != part {
		t.Error("the host was rendered again without need")
	}
	s := *h.Sample()
	s.Load = []string{"9.99", "0", "0"}
	h.sample.Store(&s)
	if third := ask(t, r, all); !bytes.Contains(third, []byte("9.99")) {
		t.Error("a new sample is not in the answer")
	}
	changed := append([]runtime.ContainerSummary(nil), l.containers[:1]...)
	l.containers = changed
	if fourth := ask(t, r, all); bytes.Contains(fourth, []byte("bbbb")) || !bytes.Contains(fourth, []byte("aaaa")) {
		t.Error("a removed container is in the answer")
	}
}

// An engine and a resolver that hang cost the first answer 50 ms, and no other anything.
func TestNothingBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		e := dockerInfo()
		e.wait = make(chan struct{})
		cfg.Engine, cfg.HostIP = e, "node1.example"
		cfg.Lookup = func(ctx context.Context, _ string) ([]string, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		h := cfg.Host.(*host)
		h.first = make(chan struct{})
		r := New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()

		begun := time.Now()
		raw := ask(t, r, `{"resources":true,"stats":true}`)
		if took := time.Since(begun); took != firstWait {
			t.Errorf("the first answer took %v", took)
		}
		if bytes.Contains(raw, []byte("dockerVersion")) || bytes.Contains(raw, []byte("ipAddress")) {
			t.Errorf("answer tells what nobody knows: %s", raw)
		}
		begun = time.Now()
		ask(t, r, `{"resources":true,"stats":true}`)
		if took := time.Since(begun); took != 0 {
			t.Errorf("the second answer took %v", took)
		}

		// The engine comes back, the name can be looked up.
		close(e.wait)
		time.Sleep(time.Minute)
		synctest.Wait()
		if raw := ask(t, r, `{"resources":true,"stats":true}`); !bytes.Contains(raw, []byte("Docker version 20.10.24+dfsg1, build 5d6db84")) {
			t.Errorf("answer has no engine: %s", raw)
		}
		cancel()
		<-done
	})
}

func TestAddressOfAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.HostIP = "node1.example"
		var fails atomic.Bool
		cfg.Lookup = func(context.Context, string) ([]string, error) {
			if fails.Load() {
				return nil, errors.New("no such host")
			}
			return []string{"192.0.2.7", "192.0.2.8"}, nil
		}
		r := New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		want := []byte(`{"addresss":"192.0.2.7","hostUuid":"77218982","systemContainer":"","type":"ipAddress","uuid":"192.0.2.7"}`)
		if raw := ask(t, r, `{"resources":true}`); !bytes.Contains(raw, want) {
			t.Errorf("answer is %s", raw)
		}
		fails.Store(true)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if raw := ask(t, r, `{"resources":true}`); !bytes.Contains(raw, want) {
			t.Error("a resolver that fails took the address away")
		}
		cancel()
		<-done
	})
}

func FuzzOptions(f *testing.F) {
	f.Add(`{"options":{"resources":true,"stats":true,"instances":true},"resources":[]}`)
	f.Add(`{"options":[]}`)
	r := New(config())
	f.Fuzz(func(t *testing.T, data string) {
		got, err := r.Handle(t.Context(), &wire.Event{Data: json.RawMessage(data)}, nil)
		if err != nil || !json.Valid(got.(json.RawMessage)) {
			t.Errorf("%q: %s, %v", data, got, err)
		}
	})
}

// BenchmarkPingFull answers pings for everything, with 50 containers.
func BenchmarkPingFull(b *testing.B) {
	cfg := config()
	l := &list{healthy: true}
	for i := range 50 {
		l.containers = append(l.containers, runtime.ContainerSummary{
			ID: fmt.Sprintf("%064d", i), Names: []string{fmt.Sprint("c", i)}, Image: "nginx:latest", State: "running",
			Labels: map[string]string{"io.rancher.container.uuid": fmt.Sprint(i)},
		})
	}
	cfg.Containers = l
	r := start(b, cfg)
	ev := request(`{"resources":true,"stats":true,"instances":true}`)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Handle(context.Background(), ev, nil); err != nil {
				b.Error(err)
			}
		}
	})
}
