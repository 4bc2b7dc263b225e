package ping

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/hostinfo"
	"github.com/droverhq/drover/runtime"
)

// Event is the name of the event that a [Reporter] handles.
const Event = "ping"

// A Lister is the container cache; [runtime.Cache] is one.
type Lister interface {
	// Snapshot returns all containers; the same slice until something changed.
	Snapshot() []runtime.ContainerSummary
	// Healthy reports whether Snapshot is complete. If not, no instances are reported: a server takes a missing
	// container for a removed one.
	Healthy() bool
}

// A Sampler has the host's last sample; [hostinfo.Collector] is one.
type Sampler interface {
	Sample() *hostinfo.Sample
	First() <-chan struct{}
}

// Config configures a [Reporter].
type Config struct {
	HostUUID         string // required; "reportedUuid", .docker_uuid
	PhysicalHostUUID string // required
	Hostname         string
	HostIP           string // address, or a name that is looked up in the background
	APIProxy         string // CATTLE_HOST_API_PROXY
	AgentImage       string // RANCHER_AGENT_IMAGE

	HostLabels          map[string]string // CATTLE_HOST_LABELS, as createLabels
	SchedulerIPs        string            // CATTLE_SCHEDULER_IPS
	SchedulerRequireAny string            // CATTLE_SCHEDULER_REQUIRE_ANY

	// Overrides of what is measured; 0 is none.
	MemoryOverride         int64 // bytes
	MilliCPUOverride       int64
	LocalStorageMBOverride int64

	// Disabled answers without any resources (CATTLE_DOCKER_ENABLED=false).
	Disabled bool

	Containers Lister         // nil: no instances are reported
	Engine     runtime.Infoer // nil: nothing of the engine is reported
	Host       Sampler        // nil: nothing of the host is measured
	// Refresh is the time between two looks at the engine's facts; default 1 minute, a tenth of it after a failure.
	Refresh time.Duration
	// Lookup finds the address of HostIP if that is a name; default the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Log gets failures to refresh, once until they change; nil discards.
	Log logrus.FieldLogger
}

// A Reporter is the [events.Handler] of the ping event. Run keeps what it reports fresh; without Run it answers with
// what it was configured with.
type Reporter struct {
	cfg    Config
	facts  atomic.Pointer[facts]
	loaded chan struct{} // closed when the engine was asked once
	hosts  atomic.Pointer[hostPart]
	insts  atomic.Pointer[instancePart]
	grace  sync.Once
}

// facts are what Run found out. They are never written to once they are stored.
type facts struct {
	engine  runtime.Info
	address string
}

var _ events.Handler = (*Reporter)(nil)

// New returns a reporter. It does no I/O.
func New(cfg Config) *Reporter {
	if cfg.Refresh <= 0 {
		cfg.Refresh = time.Minute
	}
	if cfg.Lookup == nil {
		cfg.Lookup = net.DefaultResolver.LookupHost
	}
	r := &Reporter{cfg: cfg, loaded: make(chan struct{})}
	f := &facts{}
	if net.ParseIP(cfg.HostIP) != nil {
		f.address = cfg.HostIP
	}
	r.facts.Store(f)
	if cfg.Engine == nil {
		close(r.loaded)
	}
	return r
}

// Run refreshes the engine's facts and the host's address until ctx ends, and returns ctx's error. It is called once.
func (r *Reporter) Run(ctx context.Context) error {
	first, last := true, ""
	for {
		err := r.refresh(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if first && r.cfg.Engine != nil {
			close(r.loaded)
		}
		first = false
		wait, text := r.cfg.Refresh, ""
		if err != nil {
			wait, text = r.cfg.Refresh/10, err.Error()
			if text != last && r.cfg.Log != nil {
				r.cfg.Log.WithError(err).Warn("ping reports old or no facts")
			}
		}
		last = text
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// refresh asks the engine and the resolver; what fails keeps its last value.
func (r *Reporter) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	next := *r.facts.Load()
	var failed error
	if r.cfg.Engine != nil {
		info, err := r.cfg.Engine.Info(ctx)
		if err == nil {
			next.engine = info
		} else {
			failed = fmt.Errorf("ask the engine: %w", err)
		}
	}
	if host := r.cfg.HostIP; host != "" && net.ParseIP(host) == nil {
		addrs, err := r.cfg.Lookup(ctx, host)
		switch {
		case err != nil:
			failed = fmt.Errorf("look up the host's address: %w", err)
		case len(addrs) > 0:
			next.address = addrs[0]
		}
	}
	r.facts.Store(&next)
	return failed
}

// EngineRoot returns the engine's root directory, "" until the engine was asked. It suits hostinfo's configuration.
func (r *Reporter) EngineRoot() string { return r.facts.Load().engine.RootDir }
