package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/cli/observe"
	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/hostinfo"
	"github.com/droverhq/drover/ping"
	"github.com/droverhq/drover/register"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/server/access"
	serverlogs "github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/utils/backoff"
)

// collectAfter is how long the first sample of the host waits for the first attempt to connect.
const collectAfter = 250 * time.Millisecond

func (a *app) agentCommand() *cobra.Command {
	var configFile string
	var profile bool
	cmd := &cobra.Command{
		Use:   "agent [URL]",
		Short: "Run the agent of this host",
		Long: `Runs the agent of this host: it registers with the control server at the registration URL, keeps one connection open to
it, and drives this machine's container engine. Registration happens once; identity and credentials are kept in the state
directory, and a later start needs no URL.

'drover URL', without the word agent, means the same, and so does the environment of an original Rancher 1.6 agent:
CATTLE_URL, CATTLE_ACCESS_KEY and CATTLE_SECRET_KEY, or CATTLE_REGISTRATION_URL. 'drover config' lists every setting.

SIGTERM ends the agent once the work in progress is done (--drain); containers run on. SIGHUP reads the log level again.`,
		Example: `  drover agent https://drover.example.org:8443/v1/scripts/TOKEN --ca-checksum 3b1f...
  drover agent                       # registered before
  CATTLE_REGISTRATION_URL=... drover agent --state-dir /srv/drover --labels rack=4&ssd=yes`,
		Args: usage(func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("agent takes one URL, and got %d words", len(args))
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	addConfigFlags(f, agentFlags()...)
	f.StringVar(&configFile, "config", "", "configuration file (DROVER_CONFIG; default "+defaultConfigFile+" if it exists)")
	f.BoolVar(&profile, "pprof", false, "serve /debug/pprof beside /metrics")
	cmd.RunE = a.run(func(ctx context.Context, args []string) error {
		given := changedConfigFlags(cmd.Flags())
		if len(args) == 1 {
			if given["url"] != "" {
				return usagef("the URL is given twice")
			}
			given["url"] = args[0]
		}
		load := func() (*Config, error) { return LoadConfig(a.env.Getenv, configFile, given) }
		cfg, err := load()
		if err != nil {
			return withExit(ExitConfig, err)
		}
		log, err := a.configLogger(cfg)
		if err != nil {
			return err
		}
		for _, w := range cfg.Warnings {
			log.Warn(w)
		}
		hang, stop := context.WithCancel(ctx)
		hung := make(chan struct{})
		go func() {
			defer close(hung)
			onHangup(hang, func() { reloadLevel(log, load) })
		}()
		defer func() { stop(); <-hung }()
		return a.runAgent(ctx, cfg, agentOptions{log: log, notify: newNotifier(a.env.Getenv), profile: profile, lean: true, load: load})
	})
	return cmd
}

// agentFlags are the settings that `drover agent` has as flags.
func agentFlags() []string {
	return []string{
		"url", "ca-checksum", "ca-file", "insecure", "proxy", "state-dir", "agent-ip", "hostname", "labels",
		"engine", "docker-sock", "cri-sock", "rootfs", "workers", "drain", "deny", "http-port", "health-listen",
	}
}

func reloadLevel(log *logrus.Logger, load func() (*Config, error)) {
	cfg, err := load()
	if err != nil {
		log.WithError(err).Warn("the configuration was not read again")
		return
	}
	if err := setLevel(log, cfg.Log.Level); err == nil {
		log.WithField("level", cfg.Log.Level).Warn("log level read again")
	}
}

// agentOptions are what `drover agent` and `drover dev` do differently.
type agentOptions struct {
	log     *logrus.Logger
	logs    *logDoor  // set by runAgent; nil: no log service
	host    *nodeHost // what knows the pods; `drover node` gives it, else runAgent makes it where it is wanted
	notify  *notifier
	profile bool
	lean    bool // the process is an agent alone: keep it small
	// healthDir gets the address of the health listener; "" is the state directory.
	healthDir string
	// load reads the configuration again after SIGHUP; may be nil.
	load func() (*Config, error)
	// joined is told the host's uuid once the agent is registered; may be nil.
	joined func(hostUUID string)
}

// runAgent is the composition of an agent. It blocks until ctx ends and the work in progress is done, or until the
// server refuses the host for good.
func (a *app) runAgent(ctx context.Context, cfg *Config, o agentOptions) error {
	adjust := func() {}
	if o.lean {
		adjust = tuneMemory(a.env.Getenv)
	}
	engine, err := a.agentEngine(ctx, cfg, &o)
	if err != nil {
		return withExit(ExitConfig, err)
	}
	defer engine.Close()
	if err := os.MkdirAll(cfg.Agent.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}

	// What lives as long as the agent, beside the sessions: it outlives ctx until the work in progress is done.
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, bg := errgroup.WithContext(bg)
	defer func() { stop(); _ = group.Wait() }()

	var state atomic.Pointer[observe.Sources]
	state.Store(&observe.Sources{Phase: func() string { return "registering" }})
	health := observe.New(observe.Config{
		Version: version, Commit: commit, GoVersion: goruntime.Version(), Profile: o.profile,
		Sources: func() observe.Sources { return *state.Load() },
	})
	if cfg.Agent.HealthListen != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Agent.HealthListen)
		if err != nil {
			return fmt.Errorf("health listener: %w", err)
		}
		remove, err := publishHealth(firstOf(o.healthDir, cfg.Agent.StateDir), l.Addr().String())
		if err != nil {
			return errors.Join(err, l.Close())
		}
		defer func() { _ = remove() }()
		group.Go(func() error { return health.Run(bg, l) })
	}
	if o.host != nil {
		group.Go(func() error { return o.host.run(bg) })
	}
	o.notify.send("READY=1\nSTATUS=registering")
	group.Go(func() error { o.notify.run(bg, func() bool { return true }); return nil })
	if o.lean {
		group.Go(func() error { keepLean(bg, adjust); return nil })
	}

	rc := cfg.Register(o.log)
	rc.UserAgent = "drover/" + version
	rc.Identity.EngineID = func(ctx context.Context) (string, error) {
		info, err := engine.Info(ctx)
		return info.ID, err
	}
	var rejoined time.Time
	for {
		joined, err := register.Join(ctx, rc)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return joinExit(err)
		}
		if o.joined != nil {
			o.joined(joined.HostUUID)
		}
		if rejoined.IsZero() {
			if o.logs, err = startLogDoor(bg, group, cfg, joined.HostUUID, o); err != nil {
				return err
			}
		}
		err = a.session(ctx, cfg, joined, engine, health, &state, o)
		if !errors.Is(err, events.ErrUnauthorized) {
			return err
		}
		if time.Since(rejoined) < time.Minute {
			return withExit(ExitAuth, fmt.Errorf("%w, also right after a new registration", err))
		}
		o.log.WithError(err).Warn("registering again")
		rejoined, rc.Rejoin = time.Now(), true
	}
}

// joinExit gives an error of the first contact its exit code.
func joinExit(err error) error {
	var script *register.ScriptError
	switch {
	case errors.As(err, &script), errors.Is(err, register.ErrNotRegistered):
		return withExit(ExitConfig, err)
	case errors.Is(err, register.ErrRefused):
		return withExit(ExitAuth, err)
	}
	return err
}

// session is the agent with one set of credentials. It ends when ctx does or the server refuses them.
func (a *app) session(ctx context.Context, cfg *Config, joined *register.Result, engine runtime.Engine, health *observe.Server,
	state *atomic.Pointer[observe.Sources], o agentOptions,
) error {
	log, host := o.log, &cfg.Agent
	tap := &infoTap{Infoer: engine}
	cache := runtime.NewCache(runtime.CacheConfig{Source: engine, Index: []string{handlers.LabelUUID}})
	self := selfContainer(os.DirFS("/"))
	hostIP := firstOf(host.HostIP, joined.AgentIP)

	var reporter *ping.Reporter
	var metadata http.RoundTripper
	if host.DetectCloudProvider {
		metadata = hostinfo.MetadataTransport()
	}
	collector := hostinfo.New(hostinfo.Config{
		Root: firstOf(host.Rootfs, "/"), StateDir: host.StateDir, Log: log, Metadata: metadata,
		EngineRoot: func() string { return reporter.EngineRoot() },
	})
	reporter = ping.New(ping.Config{
		HostUUID: joined.HostUUID, PhysicalHostUUID: joined.PhysicalHostUUID,
		Hostname: hostname(ctx, host.Hostname, self, engine), HostIP: hostIP, APIProxy: host.HostAPIProxy, AgentImage: host.AgentImage,
		HostLabels: host.Labels, SchedulerIPs: host.SchedulerIPs, SchedulerRequireAny: host.SchedulerRequireAny,
		MemoryOverride: host.MemoryOverride, MilliCPUOverride: host.MilliCPUOverride, LocalStorageMBOverride: host.LocalStorageMBOverride,
		Disabled: !host.DockerEnabled, Containers: cache, Engine: tap, Host: &announced{Sampler: collector, labels: o.logs.labels}, Log: log,
	})
	router := events.NewRouter(events.RouterConfig{
		Log: log, Timeout: cfg.Events.Timeout, Classify: handlers.Classify, Observe: health.Observe,
	})
	handlers.Register(router, engine, handlers.Options{
		Log: log, Containers: cache, Self: self, HostIP: hostIP,
		ConfigURL: firstOf(host.ConfigURL, joined.APIURL), ProxyEnv: proxyEnv(a.env.Getenv), Proc: filepath.Join("/", host.Rootfs, "proc"),
		ResolvConf: filepath.Join("/", host.Rootfs, "etc/resolv.conf"),
		ImageRoots: cfg.Images.ImportRoots, ExportRoots: cfg.Images.ExportRoots, TempDir: cfg.Images.TempDir, RegistryProxy: joined.Proxy,
		Config: handlers.ConfigScript{
			Path: host.ConfigScript, Home: host.Home, AccessKey: joined.AccessKey, SecretKey: joined.SecretKey.Reveal(),
			Env: scriptEnv(a.env.Getenv, host, joined), SkipItems: skipItems(host),
		},
	})
	if host.PingEnabled {
		router.Handle(ping.Event, reporter)
	}
	node, err := newNodeService(cfg, o.host.streams(engine), health.ObserveStream, log)
	if err != nil {
		return withExit(ExitConfig, err)
	}
	defer node.Close()
	handlers.RegisterPrograms(router, engine, node)
	if err := o.host.join(node, router); err != nil {
		return withExit(ExitConfig, err)
	}
	attempted := make(chan struct{}) // closed once the first attempt to connect is over
	firstAttempt := sync.OnceFunc(func() { close(attempted) })
	var channel *events.Client
	proxy := &hostProxy{cfg: cfg, joined: joined, node: node, log: log, channel: func() creator { return channel }}
	node.mount(access.BackendPath, proxy)
	doors, err := newAgentDoors(joined, node, proxy, log)
	if err != nil {
		return withExit(ExitConfig, err)
	}
	port, err := newAgentPort(cfg, joined.HostUUID, engine, node, o.host, log)
	if err != nil {
		return withExit(ExitConfig, err)
	}
	channel, err = events.New(events.Config{
		URL: joined.APIURL, AccessKey: joined.AccessKey, SecretKey: joined.SecretKey.Reveal(), Router: router,
		Journal: filepath.Join(host.StateDir, "journal.db"), Log: log, Version: version,
		TLS: joined.TLS, Proxy: joined.Proxy, Workers: cfg.Events.Workers, QueueEvents: cfg.Events.Queue, Drain: cfg.Events.Drain,
		Serialize: func() bool { return tap.storageDriver() == "devicemapper" },
		OnState: func(s events.Status) {
			if s.State != events.StateConnecting {
				firstAttempt()
			}
			announce(o.notify, joined.APIURL, s)
			doors.connected(s)
		},
	})
	if err != nil {
		return withExit(ExitConfig, err)
	}
	posts := handlers.NewContainerEvents(handlers.ContainerEventsConfig{
		Source: cache, Engine: engine, Poster: channel, HostUUID: joined.HostUUID, Log: log,
	})
	state.Store(&observe.Sources{Channel: channel.Status, Engine: cache.Status, Posts: posts.Stats, Tunnel: doors.status, Pods: o.host.source()})

	if port != nil {
		addr, err := port.listen(ctx)
		if err != nil {
			return fmt.Errorf("node port: %w", err)
		}
		log.WithField("address", addr.String()).Info("the node port is open")
	}

	// Handlers need the engine and the cache until the channel has drained, so these do not end with ctx.
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, bg := errgroup.WithContext(bg)
	collect := func(ctx context.Context) error {
		// A host shall be there before it counts its processors; but also be known when no server answers.
		select {
		case <-attempted:
		case <-time.After(collectAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
		return collector.Run(ctx)
	}
	for name, run := range map[string]func(context.Context) error{
		"container cache": cache.Run, "host information": collect, "ping": reporter.Run, "container events": posts.Run,
	} {
		group.Go(func() error {
			if err := run(bg); bg.Err() == nil {
				return fmt.Errorf("%s ended: %w", name, err)
			}
			return nil
		})
	}
	if joined.Source == register.SourceStored {
		group.Go(func() error { refresh(bg, joined, log); return nil })
	}
	if left, ok := engine.(interface {
		Sweep(ctx context.Context) error
	}); ok {
		group.Go(func() error {
			if err := left.Sweep(bg); err != nil && bg.Err() == nil {
				log.WithError(err).Warn("processes that an earlier run left behind were not all ended")
			}
			return nil
		})
	}
	running, end := context.WithCancel(ctx)
	defer end()
	if o.logs != nil {
		node.mount(serverlogs.TunnelPath+"/", http.StripPrefix(serverlogs.TunnelPath, o.logs.throughTunnel(running)))
	}
	defer context.AfterFunc(bg, end)() // a part that ended takes the channel with it
	// The doors close with the channel, and before what they lead to.
	entrances, open := errgroup.WithContext(running)
	entrances.Go(func() error { return doors.Run(open) })
	if port != nil {
		entrances.Go(func() error { return port.run(open) })
	}
	defer context.AfterFunc(open, end)() // one that broke takes the channel with it
	err = channel.Run(running)
	end()
	err = errors.Join(err, entrances.Wait(), node.Close())
	stop()
	return errors.Join(err, group.Wait())
}

// refresh brings what a registration long ago left behind up to date, once the agent has had a moment to connect.
func refresh(ctx context.Context, joined *register.Result, log logrus.FieldLogger) {
	if backoff.Sleep(ctx, time.Minute) != nil {
		return
	}
	ip, err := joined.Refresh(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.WithError(err).Debug("what the server told at registration was not renewed")
	case ip != "" && ip != joined.AgentIP:
		log.WithFields(logrus.Fields{"was": joined.AgentIP, "is": ip}).Info("the server sees this host under another address")
	}
}

// announce tells systemd what became of the connection; the log has it from the channel itself.
func announce(n *notifier, server string, s events.Status) {
	switch s.State {
	case events.StateConnected:
		n.send("STATUS=connected to " + server)
	case events.StateBackingOff:
		n.send("STATUS=not connected: " + s.LastError)
	case events.StateDraining:
		n.send("STOPPING=1")
	}
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
