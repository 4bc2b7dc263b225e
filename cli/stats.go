package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/utils/backoff"
)

// statsFlags are the flags of `drover stats`.
type statsFlags struct {
	host, sort      string
	hosts, noStream bool
	interval        time.Duration
}

// statsView is a sample as programs see it. Counters grow from the start of the container, or of the host.
type statsView struct {
	Type          string    `json:"type"` // host, container
	Host          string    `json:"host"`
	HostID        string    `json:"hostId"`
	ContainerID   string    `json:"containerId,omitempty"` // of the engine
	Name          string    `json:"name,omitempty"`
	Time          time.Time `json:"time"`
	CPUPercent    *float64  `json:"cpuPercent"`    // of one CPU: 200 is two CPUs; null in the first sample
	Memory        uint64    `json:"memory"`        // bytes
	MemoryLimit   uint64    `json:"memoryLimit"`   // bytes
	MemoryPercent *float64  `json:"memoryPercent"` // null without a limit
	NetReceived   uint64    `json:"netReceived"`   // bytes
	NetSent       uint64    `json:"netSent"`       // bytes
	BlockRead     uint64    `json:"blockRead"`     // bytes
	BlockWritten  uint64    `json:"blockWritten"`  // bytes
	Processes     uint64    `json:"processes"`
	Error         string    `json:"error,omitempty"` // why there are no figures

	seen time.Time // by the clock here
}

// key tells what a sample is of.
func (v *statsView) key() string { return v.HostID + "/" + v.ContainerID }

func viewSample(h *client.Host, s *service.Sample, known *callNames) statsView {
	v := statsView{
		Type: s.Type, Host: h.DisplayName(), HostID: h.ID, ContainerID: s.ID, Name: known.of(s), Time: s.Time, CPUPercent: s.CPU.Percent,
		Memory: s.Memory.Usage, MemoryLimit: s.Memory.Limit, BlockRead: s.ReadBytes, BlockWritten: s.WriteBytes, Processes: s.Pids,
		Error: s.Error,
	}
	for _, n := range s.Networks {
		if n.Name == "lo" {
			continue
		}
		v.NetReceived += n.RxBytes
		v.NetSent += n.TxBytes
	}
	if s.Memory.Limit > 0 {
		p := float64(s.Memory.Usage) / float64(s.Memory.Limit) * 100
		v.MemoryPercent = &p
	}
	return v
}

func (a *app) statsCommand() *cobra.Command {
	var o statsFlags
	cmd := &cobra.Command{
		Use:   "stats [CONTAINER...]",
		Short: "Show what containers and hosts use, live",
		Long: `Shows the use of processor, memory, network and disk by the running containers of all hosts, and draws it anew each second.
With --hosts it shows the hosts themselves. 100 % is one processor.

--output json prints a JSON object a line for each sample, and with --no-stream one list.

` + containerRefHelp,
		Example: `  drover stats
  drover stats web-1/db cache --interval 5s
  drover stats --hosts
  drover stats --no-stream --host web-1 --sort memory`,
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeRunning,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.host, "host", "", "of this host only")
	f.BoolVar(&o.hosts, "hosts", false, "the hosts instead of containers")
	f.BoolVar(&o.noStream, "no-stream", false, "once")
	f.DurationVar(&o.interval, "interval", time.Second, "between two samples")
	f.StringVar(&o.sort, "sort", "name", "name, cpu or memory")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"name", "cpu", "memory"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		switch {
		case !slices.Contains([]string{"name", "cpu", "memory"}, o.sort):
			return usagef("--sort %q is none of name, cpu, memory", o.sort)
		case o.interval < 100*time.Millisecond || o.interval > time.Hour:
			return usagef("--interval %v is not between 100ms and 1h", o.interval)
		case o.hosts && len(args) > 0:
			return usagef("--hosts takes no containers")
		}
		return a.stats(ctx, c, args, &o)
	})
	return cmd
}

// A source is a stream of samples: of all of a host, or of one container.
type source struct {
	target    *target
	container string // "" is all of the host
}

// sources finds what to watch.
func (a *app) sources(ctx context.Context, c *client.Client, refs []string, o *statsFlags) ([]source, error) {
	var all []source
	for _, ref := range refs {
		t, err := a.container(ctx, c, ref, o.host)
		if err != nil {
			return all, err
		}
		all = append(all, source{t, t.Ref})
	}
	if len(refs) > 0 {
		return all, nil
	}
	var hosts []client.Host
	if o.host != "" {
		h, err := c.Host(ctx, o.host)
		if err != nil {
			return nil, err
		}
		hosts = []client.Host{*h}
	} else {
		found, err := c.Hosts(ctx)
		if err != nil {
			return nil, err
		}
		hosts = slices.DeleteFunc(found, func(h client.Host) bool { return h.Connection == "disconnected" })
		if len(hosts) == 0 {
			return nil, fmt.Errorf("no host is online")
		}
	}
	for i := range hosts {
		streams, err := c.Streams(hosts[i].ID)
		if err != nil {
			return all, err
		}
		all = append(all, source{&target{Place: &client.Place{Host: &hosts[i]}, streams: streams, server: c}, ""})
	}
	return all, nil
}

func (a *app) stats(ctx context.Context, c *client.Client, refs []string, o *statsFlags) error {
	sources, err := a.sources(ctx, c, refs, o)
	for _, s := range sources {
		defer s.target.streams.Close()
	}
	if err != nil {
		return err
	}
	known := &callNames{c: c}
	known.learn(ctx)
	if o.noStream {
		return a.statsOnce(ctx, sources, o, known)
	}
	return a.statsLive(ctx, sources, o, known)
}

// statsOnce prints one sample of everything. Use of the processor is between two, so it takes that long.
func (a *app) statsOnce(ctx context.Context, sources []source, o *statsFlags, known *callNames) error {
	p := a.progress()
	p.Set("sampling")
	views := make([][]statsView, len(sources))
	errs := make([]error, len(sources))
	var sampling sync.WaitGroup
	for i, s := range sources {
		sampling.Go(func() { views[i], errs[i] = s.once(ctx, o, known) })
	}
	sampling.Wait()
	p.Stop()
	all := slices.Concat(views...)
	if all == nil {
		all = []statsView{}
	}
	sortStats(all, o.sort)
	failed := errors.Join(errs...)
	if failed != nil && len(all) == 0 {
		return failed
	}
	return errors.Join(a.out.Print(all, func() error { return a.out.Table(statsTable(all, o.hosts)) }), failed)
}

// once samples twice.
func (s *source) once(ctx context.Context, o *statsFlags, known *callNames) ([]statsView, error) {
	before, err := s.target.streams.Stats(ctx, s.container)
	if err == nil {
		err = backoff.Sleep(ctx, o.interval)
	}
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	now, err := s.target.streams.Stats(ctx, s.container)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	var views []statsView
	for i := range now {
		for _, old := range before {
			took := now[i].Time.Sub(old.Time)
			if old.ID == now[i].ID && took > 0 && now[i].CPU.Total >= old.CPU.Total {
				percent := float64(now[i].CPU.Total-old.CPU.Total) / float64(took) * 100
				now[i].CPU.Percent = &percent
			}
		}
		if (now[i].Type == "host") == o.hosts {
			views = append(views, viewSample(s.target.Host, &now[i], known))
		}
	}
	return views, nil
}

// failed says of what there are no figures.
func (s *source) failed(ctx context.Context, err error) error {
	err = s.target.failed(ctx, err)
	if s.container == "" && ctx.Err() == nil {
		return fmt.Errorf("host %s: %w", ui.Clean(s.target.Host.DisplayName()), err)
	}
	return err
}
