package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/server"
)

// devContext is the name of the context that `drover dev` keeps.
const devContext = "dev"

// screenAfter is how long after the start the screen waits for the host to be online and its engine to be known.
const screenAfter = 2500 * time.Millisecond

// screenLook is the most time between two looks at the host, while the user waits for the screen.
const screenLook = 100 * time.Millisecond

func (a *app) devCommand() *cobra.Command {
	var configFile string
	var newKey bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run server and agent on this machine: everything in one command",
		Long: `Runs a control server and an agent for this machine's container engine in one process. The agent goes through the same
door as any other: it downloads the registration script and the authority from the server, registers and subscribes.

The context file gets a context "dev" that becomes the current one, so that in a second terminal 'drover hosts', 'drover run'
and the others work without flags. State is kept under --data: a second start finds the same host. Ctrl-C ends both;
containers run on.`,
		Example: "  drover dev\n  drover dev --listen 127.0.0.1:8443 --data ./drover-data",
		Args:    takes(),
	}
	f := cmd.Flags()
	f.SortFlags = false
	addConfigFlags(f, "listen", "data", "server-url", "host", "tls", "image", "docker-sock", "hostname", "labels", "drain", "health-listen")
	f.StringVar(&configFile, "config", "", "configuration file (DROVER_CONFIG; default "+defaultConfigFile+" if it exists)")
	f.BoolVar(&newKey, "new-admin-key", false, "make a new admin key and revoke the one before")
	cmd.RunE = a.run(func(ctx context.Context, _ []string) error {
		cfg, err := LoadConfig(a.env.Getenv, configFile, changedConfigFlags(cmd.Flags()))
		if err != nil {
			return withExit(ExitConfig, err)
		}
		if cfg.IsDefault("app.log.level") {
			cfg.Log.Level = "warn" // the screen says what matters
		}
		return a.runDev(ctx, cfg, newKey)
	})
	return cmd
}

// dev is one run of server and agent together.
type dev struct {
	app  *app
	cfg  *Config
	log  *logrus.Logger
	srv  *server.Server
	dir  string
	from time.Time              // start of the command
	key  string                 // a new admin key; "" where there is none
	host atomic.Pointer[string] // uuid, once the agent is registered
}

func (a *app) runDev(ctx context.Context, cfg *Config, newKey bool) error {
	began := time.Now()
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
	d := &dev{app: a, cfg: cfg, log: log, dir: dir, from: began}
	if d.srv, err = newServer(cfg, filepath.Join(dir, "server"), log, func(key string) { d.key = key }); err != nil {
		return err
	}
	// The server outlives the agent, so that the agent's last replies arrive.
	serving, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	ended := make(chan error, 1)
	go func() { ended <- d.srv.Run(serving) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		stopServer()
		return <-ended
	case <-d.srv.Ready():
	}
	err = d.run(ctx, ended, newKey)
	stopServer()
	return errors.Join(err, <-ended)
}

// run is the part between the server's start and its end. It puts back what it took from ended.
func (d *dev) run(ctx context.Context, ended chan error, newKey bool) error {
	target, err := d.context(ctx, newKey)
	if err != nil {
		return err
	}
	cl, err := newClient(target)
	if err != nil {
		return err
	}
	defer cl.Close()
	agent, err := d.agentConfig(ctx, target)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return d.app.runAgent(gctx, agent, agentOptions{
			log: d.log, notify: &notifier{}, healthDir: d.dir, joined: func(uuid string) { d.host.Store(&uuid) },
		})
	})
	group.Go(func() error { return d.screen(gctx, cl, target) })
	group.Go(func() error {
		select {
		case <-gctx.Done():
			return nil
		case err := <-ended:
			ended <- nil
			if err == nil {
				err = errors.New("the server ended")
			}
			return err
		}
	})
	err = group.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// context finds the key of the admin and makes the context "dev" the current one. A key that was lost, because the
// context file is another one than at the first start, is replaced.
func (d *dev) context(ctx context.Context, newKey bool) (*serverContext, error) {
	file, err := d.app.loadContexts()
	if err != nil {
		return nil, err
	}
	c := serverContext{Name: devContext}
	if old := file.find(devContext); old != nil {
		c = *old
	}
	c.Server, err = localURL(d.srv.URL(), d.cfg.Server.Listen)
	if err != nil {
		return nil, err
	}
	c.CAFile, c.CAData, c.Insecure = "", string(d.srv.CAPEM()), false
	if d.key == "" && (newKey || !d.works(ctx, &c)) {
		if d.key, err = d.srv.RotateAdminKey(ctx); err != nil {
			return nil, err
		}
	}
	if d.key != "" {
		c.AccessKey, c.SecretKey, _ = strings.Cut(d.key, ":")
	}
	before, err := d.app.useServer(c)
	if err != nil {
		return nil, fmt.Errorf("context file: %w", err)
	}
	if before != "" && before != devContext {
		d.app.note("The context %s is current now instead of %s; 'drover context use %s' goes back.", devContext, before, before)
	}
	return &c, nil
}

// works reports whether the server takes the key of c.
func (d *dev) works(ctx context.Context, c *serverContext) bool {
	cl, err := newClient(c)
	if err != nil || c.SecretKey == "" {
		return false
	}
	defer cl.Close()
	_, err = cl.Hosts(ctx)
	return !errors.Is(err, client.ErrUnauthorized)
}

// localURL is how this machine reaches the server: over loopback, if it listens there.
func localURL(public, listen string) (string, error) {
	u, err := url.Parse(public)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(firstOf(listen, server.DefaultListen))
	if err != nil {
		return "", err
	}
	ip := net.ParseIP(host)
	switch {
	case host == "" || ip != nil && ip.IsUnspecified():
		u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	case ip != nil:
		u.Host = net.JoinHostPort(host, u.Port())
	}
	return u.String(), nil
}

// agentConfig is the agent's side: its state beside the server's, and the server's registration URL.
func (d *dev) agentConfig(ctx context.Context, target *serverContext) (*Config, error) {
	line, err := d.srv.OneLiner(ctx)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(line)
	joinURL, err := url.Parse(words[len(words)-1])
	if err != nil {
		return nil, fmt.Errorf("registration URL: %w", err)
	}
	local, err := url.Parse(target.Server)
	if err != nil {
		return nil, err
	}
	joinURL.Host = local.Host
	given := map[string]string{
		"url": joinURL.String(), "state-dir": filepath.Join(d.dir, "agent"), "docker-sock": d.cfg.Engine.DockerHost,
		"hostname": d.cfg.Agent.Hostname, "drain": d.cfg.Events.Drain.String(), "health-listen": firstOf(d.cfg.Agent.HealthListen, "-"),
	}
	if sum := d.srv.CAChecksum(); sum != "" {
		given["ca-checksum"] = sum
	}
	// The agent of this process is this server's: what the environment says of another one does not hold.
	cfg, err := LoadConfig(func(name string) string {
		if strings.HasPrefix(name, "CATTLE_") || strings.HasPrefix(name, "DROVER_CA") || name == "DROVER_INSECURE" {
			return ""
		}
		return d.app.env.Getenv(name)
	}, "", given)
	if err != nil {
		return nil, withExit(ExitConfig, err)
	}
	cfg.Agent.Labels, cfg.Agent.LegacyStateDir, cfg.Proxy.NoProxy = d.cfg.Agent.Labels, "-", "*"
	return cfg, nil
}

// screen waits a moment for the host and says what the user needs to know. What was missing then is told when it comes.
func (d *dev) screen(ctx context.Context, cl *client.Client, target *serverContext) error {
	waiting, cancel := context.WithDeadline(ctx, d.from.Add(screenAfter))
	host, err := d.online(waiting, cl, screenLook)
	cancel()
	if ctx.Err() != nil {
		return nil
	}
	late := errors.Is(err, context.DeadlineExceeded)
	if err != nil && !late {
		return err
	}
	line, err := d.srv.OneLiner(ctx)
	if err != nil {
		return err
	}
	if err := d.print(host, line, target); err != nil || !late {
		return err
	}
	if host, err = d.online(ctx, cl, time.Second); err != nil {
		return err
	}
	d.app.note("  The host %s is online, with %s.", host.DisplayName(), engineText(host))
	return nil
}

// online polls until this process's host is online and known with its engine. When ctx ends before, it returns the host
// as far as it is known, or nil.
func (d *dev) online(ctx context.Context, cl *client.Client, most time.Duration) (*client.Host, error) {
	var seen *client.Host
	return pollWithin(ctx, most, func() (*client.Host, bool, error) {
		uuid := d.host.Load()
		if uuid == nil {
			return nil, false, nil
		}
		hosts, err := cl.Hosts(ctx)
		if err != nil {
			return seen, false, err
		}
		i := slices.IndexFunc(hosts, func(h client.Host) bool { return h.UUID == *uuid })
		if i < 0 {
			return seen, false, nil
		}
		seen = &hosts[i]
		// An agent is there before it knows what its engine is.
		return seen, seen.Connection == "online" && (seen.Engine != "" || !d.engineAnswers()), nil
	})
}

func engineText(h *client.Host) string {
	if h.Engine == "" {
		return "an engine that has not answered yet"
	}
	return h.Engine
}

// print writes the screen.
func (d *dev) print(host *client.Host, line string, target *serverContext) error {
	a := d.app
	if a.out.Structured() {
		view := map[string]any{"server": d.srv.URL(), "data": d.dir, "join": line, "context": devContext}
		if d.key != "" {
			view["adminKey"] = d.key
		}
		if host != nil {
			view["host"] = viewHost(host)
		}
		return a.out.Print(view, nil)
	}
	strong := func(s string) string { return a.out.Paint(ui.Strong, s) }
	faint := func(s string) string { return a.out.Paint(ui.Faint, s) }
	var b strings.Builder
	row := func(k, v string) { fmt.Fprintf(&b, "  %-10s %s\n", k, v) }
	fmt.Fprintf(&b, "\n  %s %s\n\n", strong("Drover"), version)
	row("Server", strong(d.srv.URL()))
	if d.key != "" {
		row("Admin key", strong(d.key))
		row("", faint("shown once; a new one: drover dev --new-admin-key"))
	} else {
		row("Admin key", faint("in the context file; a new one: drover dev --new-admin-key"))
	}
	switch {
	case host == nil:
		row("Host", a.out.Paint(ui.Busy, "not there yet: ")+d.why())
	default:
		row("Host", fmt.Sprintf("%s  %s  %s", strong(ui.Clean(host.DisplayName())), a.out.Paint(stateStyle(host.Connection), host.Connection), d.engineLine(host)))
	}
	row("Data", d.dir)
	fmt.Fprintf(&b, "\n  %s\n\n    %s\n", faint("The next host joins with"), line)
	if strings.HasPrefix(target.Server, "https://127.") && strings.Contains(line, "//127.") {
		fmt.Fprintf(&b, "    %s\n", faint("(this server listens on loopback alone; others reach it with --listen :8443)"))
	}
	fmt.Fprintf(&b, "\n  %s\n\n    drover hosts\n    drover run --name hello -p 8080:80 IMAGE\n    drover ps\n", faint("In a second terminal"))
	fmt.Fprintf(&b, "\n  %s\n\n", faint("Ctrl-C ends server and agent; containers run on."))
	_, err := io.WriteString(a.out.Out, b.String())
	return err
}

// engineLine is the engine, or what to do where there is none.
func (d *dev) engineLine(h *client.Host) string {
	if d.engineAnswers() {
		return engineText(h)
	}
	return d.app.out.Paint(ui.Bad, "dockerd does not answer at "+d.cfg.Engine.DockerHost) + "; the agent waits for it"
}

// why says what is missing while the host is not there.
func (d *dev) why() string {
	if d.engineAnswers() {
		return "it is still registering"
	}
	return "dockerd does not answer at " + d.cfg.Engine.DockerHost + "; the agent waits for it"
}

// engineAnswers looks at the engine's socket.
func (d *dev) engineAnswers() bool {
	path, ok := strings.CutPrefix(d.cfg.Engine.DockerHost, "unix://")
	if !ok {
		return true
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
