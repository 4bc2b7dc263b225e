package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/hostinfo"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service"
)

// A nodeService is what this host serves as byte streams, the same through each of its doors: the streams of package
// service, and what else is mounted beside them.
type nodeService struct {
	*service.Service
	mux *http.ServeMux
}

// newNodeService composes the service over an engine. observe may be nil. The caller closes it when its doors are shut.
func newNodeService(cfg *Config, engine service.Engine, observe func(verb, result string, took time.Duration), log logrus.FieldLogger) (*nodeService, error) {
	root := os.DirFS(firstOf(cfg.Agent.Rootfs, "/"))
	svc, err := service.New(service.Config{
		Engine: engine, Root: cfg.Agent.Rootfs, Observe: observe, Log: log, Policy: denyVerbs(cfg.Doors.Deny),
		Images: service.Images{Roots: cfg.Images.ImportRoots},
		HostStats: func(context.Context) (runtime.Stats, error) {
			c, err := hostinfo.ReadCounters(root)
			if err != nil {
				return runtime.Stats{}, fmt.Errorf("figures of the host: %w", err)
			}
			return hostStats(c), nil
		},
	})
	if err != nil {
		return nil, err
	}
	n := &nodeService{Service: svc, mux: http.NewServeMux()}
	n.mount("/", svc)
	return n, nil
}

// mount adds what answers below a pattern of [http.ServeMux]. It is called before the first door opens.
func (n *nodeService) mount(pattern string, h http.Handler) { n.mux.Handle(pattern, h) }

// ServeHTTP implements http.Handler.
func (n *nodeService) ServeHTTP(w http.ResponseWriter, r *http.Request) { n.mux.ServeHTTP(w, r) }

// denyVerbs is the policy of app.doors.deny; nil where everything is allowed.
func denyVerbs(deny []string) func(context.Context, service.Action) error {
	if len(deny) == 0 {
		return nil
	}
	return func(_ context.Context, a service.Action) error {
		if slices.Contains(deny, a.Verb) {
			return fmt.Errorf("%s is in app.doors.deny", a.Verb)
		}
		return nil
	}
}

// hostStats words the host's counters as those of a container.
func hostStats(c *hostinfo.Counters) runtime.Stats {
	st := runtime.Stats{
		Time: c.Time, CPUTotal: c.Total, CPUUser: c.User, CPUSystem: c.System, PerCPU: c.PerCPU,
		Memory: c.MemoryUsed, MemoryLimit: c.MemoryTotal, Pids: c.Tasks, ReadBytes: c.ReadBytes, WriteBytes: c.WriteBytes,
	}
	for _, i := range c.Interfaces {
		st.Networks = append(st.Networks, runtime.NetworkStats(i))
	}
	return st
}
