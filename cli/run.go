package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
)

// runFlags are the flags of `drover run`.
type runFlags struct {
	name, host, restart, network, pull, user, workdir, entrypoint, hostname, memory, cpus string

	env, envFiles, labels, ports, volumes, dns, addHosts, capAdd, capDrop, devices []string

	detach, privileged, readOnly, tty, stdin, init, noStart, publishAll bool
}

// containerInput is the body that creates a container: Rancher's names.
type containerInput struct {
	Name          string            `json:"name,omitempty"`
	ImageUUID     string            `json:"imageUuid"`
	Command       []string          `json:"command,omitempty"`
	EntryPoint    []string          `json:"entryPoint,omitempty"`
	Environment   map[string]string `json:"environment,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	Ports         []string          `json:"ports,omitempty"`
	PublishAll    bool              `json:"publishAllPorts,omitempty"`
	DataVolumes   []string          `json:"dataVolumes,omitempty"`
	Host          string            `json:"requestedHostId,omitempty"`
	StartOnCreate bool              `json:"startOnCreate"`
	TTY           bool              `json:"tty,omitempty"`
	StdinOpen     bool              `json:"stdinOpen,omitempty"`
	Privileged    bool              `json:"privileged,omitempty"`
	ReadOnly      bool              `json:"readOnly,omitempty"`
	NetworkMode   string            `json:"networkMode,omitempty"`
	RestartPolicy *restartInput     `json:"restartPolicy,omitempty"`
	Hostname      string            `json:"hostname,omitempty"`
	User          string            `json:"user,omitempty"`
	WorkingDir    string            `json:"workingDir,omitempty"`
	DNS           []string          `json:"dns,omitempty"`
	ExtraHosts    []string          `json:"extraHosts,omitempty"`
	CapAdd        []string          `json:"capAdd,omitempty"`
	CapDrop       []string          `json:"capDrop,omitempty"`
	Devices       []string          `json:"devices,omitempty"`
	Memory        int64             `json:"memory,omitempty"` // bytes
	CPUPeriod     int64             `json:"cpuPeriod,omitempty"`
	CPUQuota      int64             `json:"cpuQuota,omitempty"`
	RunInit       bool              `json:"runInit,omitempty"`
	Pull          string            `json:"pull,omitempty"`
}

type restartInput struct {
	Name              string `json:"name"`
	MaximumRetryCount int    `json:"maximumRetryCount,omitempty"`
}

func (a *app) runCommand() *cobra.Command {
	var o runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Create and start a container on a host",
		Long: `Creates a container, starts it and prints its id. The image is pulled first if the host does not have it. The container
runs in the background, as with docker run -d.

Without --host the server chooses one. Flags stand before IMAGE; what follows it belongs to the container.`,
		Example: `  drover run --name web -p 8080:80 nginx
  drover run --host db-1 -v /srv/pg:/var/lib/postgresql/data -e POSTGRES_PASSWORD postgres:17
  drover run --restart unless-stopped --label app=shop --memory 256m shop/api:1.4 serve --port 80`,
		Args: takes("IMAGE..."),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			return a.runContainer(ctx, c, &o, args)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false)
	f.StringVar(&o.name, "name", "", "name of the container")
	f.StringVar(&o.host, "host", "", "on this host")
	f.BoolVarP(&o.detach, "detach", "d", true, "run in the background; always so")
	f.StringArrayVarP(&o.env, "env", "e", nil, "K=V, or K for the value it has here")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "file of K=V lines")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "K=V")
	f.StringArrayVarP(&o.ports, "publish", "p", nil, "[IP:][HOSTPORT:]PORT[/udp]")
	f.BoolVarP(&o.publishAll, "publish-all", "P", false, "publish all exposed ports at free ones")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "SOURCE:PATH[:ro], or PATH for an anonymous one")
	f.StringVar(&o.network, "net", "", "bridge, host, none, container:ID or a network's name")
	f.StringVar(&o.restart, "restart", "", "no, always, unless-stopped or on-failure[:N]")
	f.StringVar(&o.pull, "pull", "missing", "missing, always or never")
	f.StringVar(&o.entrypoint, "entrypoint", "", "instead of the image's")
	f.StringVarP(&o.user, "user", "u", "", "NAME|UID[:GROUP|GID]")
	f.StringVarP(&o.workdir, "workdir", "w", "", "working folder")
	f.StringVarP(&o.hostname, "hostname", "h", "", "hostname inside")
	f.StringVarP(&o.memory, "memory", "m", "", "limit, as 256m")
	f.StringVar(&o.cpus, "cpus", "", "limit, as 1.5")
	f.StringArrayVar(&o.dns, "dns", nil, "DNS server")
	f.StringArrayVar(&o.addHosts, "add-host", nil, "NAME:IP")
	f.StringArrayVar(&o.capAdd, "cap-add", nil, "add a capability")
	f.StringArrayVar(&o.capDrop, "cap-drop", nil, "drop a capability")
	f.StringArrayVar(&o.devices, "device", nil, "HOST[:INSIDE[:rwm]]")
	f.BoolVar(&o.privileged, "privileged", false, "all rights on the host")
	f.BoolVar(&o.readOnly, "read-only", false, "root filesystem read only")
	f.BoolVar(&o.init, "init", false, "reap processes with a small init")
	f.BoolVarP(&o.tty, "tty", "t", false, "give it a terminal")
	f.BoolVarP(&o.stdin, "interactive", "i", false, "keep standard input open")
	f.BoolVar(&o.noStart, "no-start", false, "create only")
	// -h is the hostname, as with docker; help is --help.
	cmd.Flags().Bool("help", false, "help for run")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	_ = cmd.RegisterFlagCompletionFunc("pull", cobra.FixedCompletions([]string{"missing", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"no", "always", "unless-stopped", "on-failure"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// input makes the request out of flags and arguments.
func (o *runFlags) input(args []string, getenv func(string) string) (*containerInput, error) {
	in := &containerInput{
		Name: o.name, ImageUUID: "docker:" + strings.TrimPrefix(args[0], "docker:"), Command: args[1:], Ports: o.ports, PublishAll: o.publishAll,
		DataVolumes: o.volumes, StartOnCreate: !o.noStart, TTY: o.tty, StdinOpen: o.stdin, Privileged: o.privileged,
		ReadOnly: o.readOnly, NetworkMode: o.network, Hostname: o.hostname, User: o.user, WorkingDir: o.workdir, DNS: o.dns,
		ExtraHosts: o.addHosts, CapAdd: o.capAdd, CapDrop: o.capDrop, Devices: o.devices, RunInit: o.init, Pull: o.pull,
	}
	if args[0] == "" {
		return nil, usagef("an empty name is no image")
	}
	if !slices.Contains([]string{"missing", "always", "never"}, o.pull) {
		return nil, usagef("--pull %q is none of missing, always, never", o.pull)
	}
	if o.entrypoint != "" {
		in.EntryPoint = []string{o.entrypoint}
	}
	var err error
	if in.Environment, err = readEnvironment(o.envFiles, o.env, getenv); err != nil {
		return nil, err
	}
	for _, l := range o.labels {
		k, v, _ := strings.Cut(l, "=")
		if k == "" {
			return nil, usagef("--label %q has no name", l)
		}
		if in.Labels == nil {
			in.Labels = map[string]string{}
		}
		in.Labels[k] = v
	}
	if o.restart != "" {
		name, count, counted := strings.Cut(o.restart, ":")
		in.RestartPolicy = &restartInput{Name: name}
		if !slices.Contains([]string{"no", "always", "unless-stopped", "on-failure"}, name) || counted && name != "on-failure" {
			return nil, usagef("--restart %q is none of no, always, unless-stopped, on-failure[:N]", o.restart)
		}
		if counted {
			if in.RestartPolicy.MaximumRetryCount, err = strconv.Atoi(count); err != nil || in.RestartPolicy.MaximumRetryCount < 0 {
				return nil, usagef("--restart %q: %q is no number of tries", o.restart, count)
			}
		}
	}
	if o.memory != "" {
		if in.Memory, err = units.RAMInBytes(o.memory); err != nil || in.Memory <= 0 {
			return nil, usagef("--memory %q is no size like 256m", o.memory)
		}
	}
	if o.cpus != "" {
		n, err := strconv.ParseFloat(o.cpus, 64)
		if err != nil || !(n > 0 && n <= 1e6) { // NaN is neither
			return nil, usagef("--cpus %q is no number like 1.5", o.cpus)
		}
		in.CPUPeriod, in.CPUQuota = 100_000, int64(n*100_000)
	}
	return in, nil
}

// readEnvironment merges files and K=V or K from the command line, which win.
func readEnvironment(files, vars []string, getenv func(string) string) (map[string]string, error) {
	env := map[string]string{}
	put := func(line string) error {
		k, v, valued := strings.Cut(line, "=")
		if k == "" {
			return usagef("environment %q has no name", line)
		}
		if !valued {
			v = getenv(k)
		}
		env[k] = v
		return nil
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("--env-file: %v", err)
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			line := strings.TrimRight(lines.Text(), "\r")
			if trimmed := strings.TrimSpace(line); trimmed == "" || strings.HasPrefix(trimmed, "#") {
				continue
			}
			if err := put(line); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	for _, e := range vars {
		if err := put(e); err != nil {
			return nil, err
		}
	}
	if len(env) == 0 {
		return nil, nil
	}
	return env, nil
}

func (a *app) runContainer(ctx context.Context, c *client.Client, o *runFlags, args []string) error {
	in, err := o.input(args, a.env.Getenv)
	if err != nil {
		return err
	}
	if o.host != "" {
		h, err := c.Host(ctx, o.host)
		if err != nil {
			return err
		}
		in.Host = h.ID
	}
	p := a.progress()
	p.Set("creating a container of %s", args[0])
	var made client.Container
	err = c.Do(ctx, http.MethodPost, "containers", in, &made)
	done := &made
	if err == nil {
		done, err = settle(ctx, c, made.ID, p)
	}
	p.Stop()
	switch {
	case errors.Is(err, context.Canceled):
		if made.ID != "" {
			a.note("%s goes on being created", made.ID)
		}
		return err
	case err != nil && (errors.Is(err, client.ErrUnauthorized) || errors.Is(err, client.ErrUnreachable)):
		return err
	case err != nil:
		return withExit(ExitRun, fmt.Errorf("%s: %w", args[0], err))
	}
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return err
	}
	v := viewContainer(done, hostNames(hosts))
	return a.out.Print(v, func() error {
		id := v.ContainerID
		if id == "" {
			id = v.ID
		}
		_, err := fmt.Fprintln(a.out.Out, id)
		return err
	})
}
