package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// defaultNodePort is the port of the log service where `drover node` is told none.
const defaultNodePort = 8080

func (a *app) nodeCommand() *cobra.Command {
	var configFile string
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Serve this node's doors, without a control server",
		Long: `Serves this machine's log files to people and programs: cat, tail, grep, sort and others over one WebSocket or REST,
without a shell, below the folders of app.logs.root and app.logs.roots alone. It needs no control server.

Callers show a token that is signed with the key of app.logs.token-key-file; 'drover node token' makes one. The file is
made by: openssl rand -hex 32 > FILE; chmod 600 FILE

SIGHUP reads the log level, the allowed commands and the limits again.`,
		Example: `  drover node --config /etc/drover/application.yaml
  drover node --logs-root /var/log --logs-token-key-file /etc/drover/token.key
  drover node --logs-auth none --logs-listen 127.0.0.1`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.SortFlags = false
	addConfigFlags(f, "logs-port", "logs-listen", "logs-root", "logs-auth", "logs-token-key-file", "rootfs", "hostname")
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

// runNode is the composition of a node: its doors, and nothing that dials out.
func (a *app) runNode(ctx context.Context, cfg *Config, log *logrus.Logger, notify *notifier, load func() (*Config, error)) error {
	if cfg.Logs.Port == 0 {
		cfg.Logs.Port = defaultNodePort
	}
	name := cfg.Agent.Hostname
	if name == "" {
		name, _ = os.Hostname()
	}
	if a.env.Getenv("GOGC") == "" {
		debug.SetGCPercent(agentGCPercent) // what waits costs more than what works
	}
	logs, err := newLogDoor(cfg, name, []string{name, cfg.Agent.IP}, nil, log)
	if err != nil {
		return withExit(ExitConfig, err)
	}
	doors := map[string]nodeDoor{"logs": logs}
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
	group.Go(func() error { notify.run(ctx, func() bool { return true }); return nil })
	group.Go(func() error {
		onHangup(ctx, func() {
			reloadLevel(log, load)
			if next, err := load(); err == nil {
				for door, d := range doors {
					if err := d.reload(next); err != nil {
						log.WithError(err).WithField("door", door).Warn("the configuration was not read again")
					}
				}
			}
		})
		return nil
	})
	err = group.Wait()
	notify.send("STOPPING=1")
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
