package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/server"
	"github.com/droverhq/drover/utils/atomicfile"
	"github.com/droverhq/drover/web"
)

// serverFlags are the flags of `drover server` that are no settings: they are for one start.
type serverFlags struct {
	configFile   string
	adminKeyFile string
	newAdminKey  bool
}

func (a *app) serverCommand() *cobra.Command {
	var o serverFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control server",
		Long: `Runs the control server: hosts register with it, it pushes events to their agents, and people and programs drive
containers through its REST API.

At the first start it makes an authority of its own for TLS, which the docker run line of 'drover token create' pins, and an
admin key, which is printed once and stored hashed. --new-admin-key replaces a lost one.`,
		Example: `  drover server --listen :8443 --host drover.example.org
  drover server --listen 127.0.0.1:8080 --tls off --server-url https://drover.example.org   # behind a proxy that speaks TLS
  drover server --nats nats://n1:4222,nats://n2:4222                                        # one of several replicas`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.SortFlags = false
	addConfigFlags(f, "listen", "data", "server-url", "host", "tls", "tls-cert", "tls-key", "tls-ca", "trusted-proxies", "nats", "nats-replicas",
		"replica-url", "image", "drain")
	f.StringVar(&o.configFile, "config", "", "configuration file (DROVER_CONFIG; default "+defaultConfigFile+" if it exists)")
	f.BoolVar(&o.newAdminKey, "new-admin-key", false, "make a new admin key and revoke the one before")
	f.StringVar(&o.adminKeyFile, "admin-key-file", "", "write a new admin key to this file instead of printing it")
	cmd.RunE = a.run(func(ctx context.Context, _ []string) error {
		cfg, err := LoadConfig(a.env.Getenv, o.configFile, changedConfigFlags(cmd.Flags()))
		if err != nil {
			return withExit(ExitConfig, err)
		}
		return a.runServer(ctx, cfg, &o)
	})
	return cmd
}

// agentImage is the image of this very version.
func agentImage() string { return "droverhq/drover:" + version }

// dataDir is where a server keeps what it knows.
func (a *app) dataDir(cfg *ServerConfig) (string, error) {
	switch {
	case cfg.Data != "":
		return filepath.Abs(cfg.Data)
	case os.Geteuid() == 0:
		return defaultStateDir, nil
	case filepath.IsAbs(a.env.Getenv("XDG_DATA_HOME")):
		return filepath.Join(a.env.Getenv("XDG_DATA_HOME"), "drover"), nil
	case a.env.Getenv("HOME") != "":
		return filepath.Join(a.env.Getenv("HOME"), ".local", "share", "drover"), nil
	}
	return "", withExit(ExitConfig, errors.New("HOME is not set: say where the data shall be with --data"))
}

// newServer makes a server that keeps its data in dir. onKey gets the admin key of a first start.
func newServer(cfg *Config, dir string, log logrus.FieldLogger, onKey func(string)) (*server.Server, error) {
	s := &cfg.Server
	sc := server.Config{
		DataDir: dir, Listen: s.Listen, Hosts: s.Hosts, URL: s.URL,
		TLS:  server.TLS{Mode: server.TLSMode(s.TLSMode), CertFile: s.CertFile, KeyFile: s.KeyFile, CAFile: s.CAFile},
		NATS: s.NATS, NATSReplicas: s.NATSReplicas, ReplicaURL: s.ReplicaURL, Image: firstOf(s.Image, agentImage()), Version: version, OnAdminKey: onKey, Log: log,
		Web: web.Files(),
	}
	var err error
	if sc.LogToken, err = logTokens(&cfg.Logs); err == nil {
		sc.LogLocate, err = logLocate(&cfg.Logs)
	}
	if err != nil {
		return nil, withExit(ExitConfig, err)
	}
	if !s.SealKey.IsZero() {
		sc.SealKey = []byte(s.SealKey.Reveal())
	}
	if !cfg.IsDefault("app.events.drain") {
		sc.Drain = cfg.Events.Drain
	}
	for _, p := range s.TrustedProxies {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return nil, withExit(ExitConfig, fmt.Errorf("trusted proxies: %w", err))
		}
		sc.TrustedProxies = append(sc.TrustedProxies, prefix)
	}
	srv, err := server.New(sc)
	return srv, withExit(ExitConfig, err)
}

func (a *app) runServer(ctx context.Context, cfg *Config, o *serverFlags) error {
	log, err := a.configLogger(cfg)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	dir, err := a.dataDir(&cfg.Server)
	if err != nil {
		return err
	}
	onKey := func(key string) { a.showAdminKey(key, o.adminKeyFile) }
	srv, err := newServer(cfg, filepath.Join(dir, "server"), log, onKey)
	if err != nil {
		return err
	}
	notify := newNotifier(a.env.Getenv)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	var beside sync.WaitGroup
	beside.Go(func() { notify.run(ctx, func() bool { return srv.URL() != "" }) })
	beside.Go(func() { keepLean(ctx, func() {}) })
	defer func() { cancel(); beside.Wait() }()

	select {
	case err := <-ended:
		return err
	case <-srv.Ready():
	}
	notify.send("READY=1\nSTATUS=serving at " + srv.URL())
	if o.newAdminKey {
		key, err := srv.RotateAdminKey(ctx)
		if err != nil {
			cancel()
			return errors.Join(err, <-ended)
		}
		onKey(key)
	}
	local, err := localURL(srv.URL(), cfg.Server.Listen)
	if err == nil {
		var remove func() error
		if remove, err = publishHealth(dir, local); err == nil {
			defer func() { _ = remove() }()
		}
	}
	if err != nil {
		log.WithError(err).Warn("'drover health' will not find this server")
	}
	a.note("Server   %s", srv.URL())
	a.note("Data     %s", dir)
	a.note("A host joins with the line that 'drover token create' prints.")
	err = <-ended
	notify.send("STOPPING=1")
	return err
}

// showAdminKey hands a new admin key to the operator, once.
func (a *app) showAdminKey(key, file string) {
	if file != "" {
		err := atomicfile.Write(file, []byte(key+"\n"), 0o600)
		if err == nil {
			a.note("The admin key is in %s.", file)
			return
		}
		a.note("The admin key could not be written (%v), so here it is.", err)
	}
	fmt.Fprintf(a.env.Stdout, "Admin key (shown once): %s\n", key)
}
