package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/droverhq/drover/cli/observe"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/hostinfo/cgroup"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/multi"
	"github.com/droverhq/drover/runtime/pods"
	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/node"
	"github.com/droverhq/drover/service/token"
)

// A nodeHost is what this machine knows of its containers: its engines as one, and the pods.
type nodeHost struct {
	cfg    *Config
	engine *multi.Engine
	first  runtime.Engine // the one that an agent drives
	store  *pods.Store
	oom    *oomFeed
	log    logrus.FieldLogger

	tree fs.FS // cgroups
	proc fs.FS
}

// newNodeHost composes the engines, which it owns from then on.
func newNodeHost(cfg *Config, engines []runtime.Engine, getenv func(string) string, log logrus.FieldLogger) (*nodeHost, error) {
	h := &nodeHost{cfg: cfg, first: engines[0], log: log, tree: os.DirFS(cfg.Node.QoSPath), proc: os.DirFS(hostPath(cfg, "/proc"))}
	sources, err := podSources(cfg)
	if err != nil {
		return nil, err
	}
	models := make([]pods.Engine, len(engines))
	for i, e := range engines {
		source, ok := e.(runtime.ModelSource)
		if !ok {
			return nil, fmt.Errorf("the engine %s tells nothing of pods", e.Type())
		}
		models[i] = runtime.NewModelEngine(source)
	}
	h.store, err = pods.New(pods.Config{
		Engines: models, Sources: sources, HostFS: h.hostFS(), Sidecars: cfg.Pods.Sidecars,
		Ticker: cfg.Node.ContainerTicker, Log: log,
		Self: runtime.LocalAgentMeta{
			Namespace: getenv("POD_NAMESPACE"), PodName: getenv("POD_NAME"), PodIP: getenv("POD_IP"),
			NodeName: nodeName(cfg), NodeIP: cfg.Pods.NodeIP,
		},
	})
	if err != nil {
		return nil, err
	}
	h.oom = newOOMFeed(cfg.Pods.KmsgPath, h.store, log)
	h.engine, err = multi.New(multi.Config{
		Resolve: func(name string) (string, error) { return node.Lookup(h.store, name) }, Watch: []runtime.Watcher{h.oom},
	}, engines...)
	return h, err
}

// nodeName is the name of this node in Kubernetes.
func nodeName(cfg *Config) string {
	if name := firstOf(cfg.Pods.NodeName, cfg.Agent.Hostname); name != "" {
		return name
	}
	name, _ := os.Hostname()
	return name
}

// podSources are the sources that are configured.
func podSources(cfg *Config) ([]pods.Source, error) {
	var sources []pods.Source
	p := &cfg.Pods
	if p.Kubelet != "" {
		s, err := pods.NewKubelet(pods.KubeletConfig{
			URL: p.Kubelet, TokenFile: p.KubeletTokenFile, CAFile: p.KubeletCAFile, SkipVerify: p.KubeletInsecure,
		})
		if err != nil {
			return nil, fmt.Errorf("app.pods.kubelet: %w", err)
		}
		sources = append(sources, s)
	}
	if p.APIServer {
		conf, err := apiServerConfig(p)
		if err != nil {
			return nil, fmt.Errorf("app.pods.apiserver: %w", err)
		}
		s, err := pods.NewAPIServer(pods.APIServerConfig{Config: conf, NodeName: nodeName(cfg)})
		if err != nil {
			return nil, fmt.Errorf("app.pods.apiserver: %w", err)
		}
		sources = append(sources, s)
	}
	if cfg.Node.RMAPI != "" {
		s, err := pods.NewResourceManager(pods.ResourceManagerConfig{URL: cfg.Node.RMAPI, HostIP: firstOf(p.NodeIP, machineIP())})
		if err != nil {
			return nil, fmt.Errorf("app.rm.api: %w (app.node.ip)", err)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// apiServerConfig is how the API server is reached: as the configuration says, or as every pod does.
func apiServerConfig(p *PodsConfig) (*rest.Config, error) {
	if p.APIServerURL == "" {
		if p.APIServerTokenFile != "" || p.APIServerCAFile != "" {
			return nil, errors.New("a token or an authority, but no app.pods.apiserver-url")
		}
		conf, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("%w; outside of a pod, app.pods.apiserver-url is needed", err)
		}
		return conf, nil
	}
	if p.APIServerTokenFile != "" && !strings.HasPrefix(strings.ToLower(p.APIServerURL), "https:") {
		return nil, errors.New("the token would be sent in clear: app.pods.apiserver-url is not https")
	}
	return &rest.Config{
		Host: p.APIServerURL, BearerTokenFile: p.APIServerTokenFile, TLSClientConfig: rest.TLSClientConfig{CAFile: p.APIServerCAFile},
	}, nil
}

// machineIP is the first address of this machine that others reach; "" if there is none.
func machineIP() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

// run follows the engines, the sources and the kernel's log until ctx ends.
func (h *nodeHost) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.store.Run(ctx) })
	group.Go(func() error { h.oom.run(ctx); return nil })
	return group.Wait()
}

// hostFS is where the host's root is seen; "" is this process's own.
func (h *nodeHost) hostFS() string { return strings.TrimSuffix(h.cfg.Agent.Rootfs, "/") }

// close closes the engines.
func (h *nodeHost) close() error { return h.engine.Close() }

// reload takes what of a new configuration can be changed at run time.
func (h *nodeHost) reload(cfg *Config) { h.store.SetTicker(cfg.Node.ContainerTicker) }

// handler serves the doors of the node over streams.
func (h *nodeHost) handler(streams http.Handler, authenticate func(*http.Request) (*token.Claims, error)) (*node.Handler, error) {
	proc := hostPath(h.cfg, "/proc")
	return node.New(node.Config{
		Streams: streams, Containers: h.engine, Pods: h.store, Refresh: h.store.Refresh, Authenticate: authenticate, Facts: h.facts,
		Update: h.engine.UpdateLimits, Dial: (&node.Dialer{Proc: proc}).Dial, PrestopDir: h.cfg.Pods.PrestopDir, Log: h.log,
	})
}

// facts reads the control groups of a container.
func (h *nodeHost) facts(_ context.Context, c *runtime.Container) (any, error) {
	if c.State.Pid <= 0 {
		return nil, &runtime.Error{Kind: runtime.ErrConflict, Message: "container " + c.ShortID() + " does not run"}
	}
	facts, err := cgroup.Read(h.tree, h.proc, c.State.Pid, c.Id)
	if errors.Is(err, cgroup.ErrGone) {
		return nil, &runtime.Error{
			Kind: runtime.ErrNotFound, Message: fmt.Sprintf("container %s has no control group below %s (app.qos.path)", c.ShortID(), h.cfg.Node.QoSPath), Cause: err,
		}
	}
	if err != nil {
		return nil, err
	}
	return struct {
		Type      string `json:"type"`
		Container string `json:"container"`
		Namespace string `json:"namespace"`
		Pod       string `json:"pod"`
		Name      string `json:"name"`
		cgroup.Facts
	}{"facts", c.Id, c.Namespace, c.PodName, c.K8sContainerName, facts}, nil
}

// agentEngine returns the engine that an agent drives, and sets o.host where the pods are wanted. The caller closes the
// engine, and with it the others of a host that was given.
func (a *app) agentEngine(ctx context.Context, cfg *Config, o *agentOptions) (runtime.Engine, error) {
	if o.host != nil {
		return o.host.first, nil
	}
	engine, err := newEngine(ctx, cfg, o.log)
	if err != nil {
		return nil, err
	}
	if cfg.Pods.Map == "on" || cfg.Pods.Map == "auto" && engine.Type() != engineDocker {
		if o.host, err = newNodeHost(cfg, []runtime.Engine{engine}, a.env.Getenv, o.log); err != nil {
			return nil, errors.Join(err, engine.Close())
		}
	}
	return engine, nil
}

// streams is what the streams of a host are served from: all of its engines, and pods by name.
func (h *nodeHost) streams(engine service.Engine) service.Engine {
	if h == nil {
		return engine
	}
	return h.engine
}

// join adds the pods to what the server reaches: paths of the tunnel, and events. The server has asked who its caller is.
func (h *nodeHost) join(to *nodeService, router handlers.Router) error {
	if h == nil {
		return nil
	}
	doors, err := h.handler(to.Service, func(r *http.Request) (*token.Claims, error) {
		return node.Everything(r.Header.Get(access.HeaderUser)), nil
	})
	if err != nil {
		return err
	}
	for _, path := range node.Paths() {
		to.mount(path, doors)
	}
	handlers.RegisterPods(router, handlers.PodsOptions{
		Map: h.store, Limiter: h.engine, Facts: h.facts,
		Find: func(ctx context.Context, name string) (string, error) {
			st, err := h.engine.State(ctx, name)
			return st.ID, err
		},
	})
	return nil
}

// source is the pod map for the health listener; nil where there is none.
func (h *nodeHost) source() func() observe.Pods {
	if h == nil {
		return nil
	}
	return h.health
}

// health is what the health listener tells of the pod map.
func (h *nodeHost) health() observe.Pods {
	s := h.store.Health()
	// The engines decide: a source that does not answer leaves its facts out, and is among the errors.
	return observe.Pods{Ready: !s.LastRefresh.IsZero(), Pods: s.Pods, Containers: s.Containers, Refresh: s.Took, Lists: s.Lists, Errors: s.Errors}
}
