package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/runtime"
)

// defaultNodePort is the port of the log service where `drover node` is told none.
const defaultNodePort = 8080

func (a *app) nodeCommand() *cobra.Command {
	var configFile string
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Serve the doors of this node, with or without a control server",
		Long: `Serves this machine to people and programs through two ports. It needs no control server; with a registration URL, or the
keys of a server, the same process is also an agent.

app.logs.port serves log files: cat, tail, grep, sort and others over one WebSocket or REST, without a shell, below the
folders of app.logs.root and app.logs.roots alone, and the logs of pods by name.

app.http.port serves exec, attach and port-forward by pod name as a kubelet does, the pod map, and the facts and limits
of containers. It opens where app.http.token-key-file or app.http.client-ca-file says who may come. Pods are known from
every container engine that is found: dockerd, and CRI runtimes such as containerd and CRI-O.

Callers show a token that is signed with the key of the port; 'drover node token' makes one. A key is made by:
openssl rand -hex 32 > FILE; chmod 600 FILE

SIGHUP reads the log level, the allowed commands, the limits and app.container.ticker again.`,
		Example: `  drover node --config /etc/drover/application.yaml
  drover node --logs-root /var/log --logs-token-key-file /etc/drover/token.key
  drover node --logs-auth none --logs-listen 127.0.0.1
  drover node --engine cri --http-token-key-file /etc/drover/token.key`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.SortFlags = false
	addConfigFlags(f, "logs-port", "logs-listen", "logs-root", "logs-auth", "logs-token-key-file", "logs-tls", "logs-cert", "logs-key", "http-port", "http-listen", "http-tls",
		"http-token-key-file", "http-client-ca", "engine", "docker-sock", "cri-sock", "pods", "rootfs", "hostname", "state-dir", "health-listen",
		"url", "ca-checksum")
	f.StringVar(&configFile, "config", "", "configuration file (DROVER_CONFIG; default "+defaultConfigFile+" if it exists)")
	cmd.RunE = a.run(func(ctx context.Context, _ []string) error {
		given := changedConfigFlags(cmd.Flags())
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
		return a.runNode(ctx, cfg, log, newNotifier(a.env.Getenv), load)
	})
	cmd.AddCommand(a.nodeTokenCommand(&configFile))
	return cmd
}

// A nodeDoor is one listener of a node.
type nodeDoor interface {
	// listen takes the address; run serves it until ctx ends and everything that came through has ended.
	listen(ctx context.Context) (net.Addr, error)
	run(ctx context.Context) error
	// reload takes what of a new configuration can be changed at run time.
	reload(cfg *Config) error
}

// runNode is the composition of a node: its doors, and, with a registration URL or keys of a server, an agent.
func (a *app) runNode(ctx context.Context, cfg *Config, log *logrus.Logger, notify *notifier, load func() (*Config, error)) error {
	// Who names a key for the other door alone wants that one; who writes 0 wants none.
	if cfg.IsDefault("app.logs.port") && !(cfg.portConfigured() && cfg.Logs.Auth == "token" && cfg.Logs.KeyFile == "") {
		cfg.Logs.Port = defaultNodePort
	}
	if a.env.Getenv("GOGC") == "" {
		debug.SetGCPercent(agentGCPercent) // what waits costs more than what works
	}
	var host *nodeHost
	if cfg.Pods.Map != "off" {
		engines, err := newProbe(cfg, log).find(ctx)
		if err != nil {
			return withExit(ExitConfig, err)
		}
		if host, err = newNodeHost(cfg, engines, a.env.Getenv, log); err != nil {
			return withExit(ExitConfig, errors.Join(err, closeEngines(engines)))
		}
		defer func() { _ = host.close() }() // an agent may have closed some
	}
	debugDoor, err := newDebugDoor(cfg)
	if err != nil {
		return withExit(ExitConfig, err)
	}
	if cfg.Agent.RegistrationURL.Reveal() != "" || cfg.Agent.APIURL != "" {
		return a.runNodeAgent(ctx, cfg, host, debugDoor, agentOptions{log: log, notify: notify, lean: true, load: load, host: host})
	}
	doors, streams, err := newNodeDoors(cfg, host, log)
	if err != nil {
		return withExit(ExitConfig, err)
	}
	if streams != nil {
		defer streams.Close()
	}
	if debugDoor != nil {
		doors["debug"] = debugDoor
	}
	if cfg.Agent.HealthListen != "" && host != nil {
		doors["health"] = newHealthDoor(cfg, host, log)
	}
	for door, d := range doors {
		addr, err := d.listen(ctx)
		if err != nil {
			return fmt.Errorf("%s door: %w", door, err)
		}
		log.WithFields(logrus.Fields{"door": door, "address": addr.String()}).Info("the node is ready")
	}
	notify.send("READY=1\nSTATUS=serving")
	group, ctx := errgroup.WithContext(ctx)
	for door, d := range doors {
		group.Go(func() error {
			if err := d.run(ctx); err != nil {
				return fmt.Errorf("%s door: %w", door, err)
			}
			return nil
		})
	}
	if host != nil {
		group.Go(func() error { return host.run(ctx) })
	}
	group.Go(func() error { notify.run(ctx, func() bool { return true }); return nil })
	group.Go(func() error {
		onHangup(ctx, func() { reloadNode(log, load, host, doors) })
		return nil
	})
	err = group.Wait()
	notify.send("STOPPING=1")
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// reloadNode takes what of the configuration can be changed at run time: the level of the log, what concerns the doors,
// and how often the pod map is made anew.
func reloadNode(log *logrus.Logger, load func() (*Config, error), host *nodeHost, doors map[string]nodeDoor) {
	next, err := load()
	if err != nil {
		log.WithError(err).Warn("the configuration was not read again")
		return
	}
	if err := setLevel(log, next.Log.Level); err == nil {
		log.WithField("logLevel", next.Log.Level).Warn("the configuration was read again")
	}
	if host != nil {
		host.reload(next)
	}
	for door, d := range doors {
		if err := d.reload(next); err != nil {
			log.WithError(err).WithField("door", door).Warn("the configuration was not read again")
		}
	}
}

// runNodeAgent is a node that is also an agent: the agent serves the doors, once it is registered.
func (a *app) runNodeAgent(ctx context.Context, cfg *Config, host *nodeHost, debugDoor nodeDoor, o agentOptions) error {
	group, ctx := errgroup.WithContext(ctx)
	running, end := context.WithCancel(ctx)
	if debugDoor != nil {
		if _, err := debugDoor.listen(ctx); err != nil {
			end()
			return fmt.Errorf("debug door: %w", err)
		}
		group.Go(func() error { return debugDoor.run(running) })
	}
	group.Go(func() error {
		onHangup(running, func() { reloadNode(o.log, o.load, host, nil) })
		return nil
	})
	group.Go(func() error {
		defer end()
		return a.runAgent(ctx, cfg, o)
	})
	return group.Wait()
}

func closeEngines(engines []runtime.Engine) error {
	var errs []error
	for _, e := range engines {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}
