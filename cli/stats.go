package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/terminal"
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

// callNames are the names that the server has for containers: engines know them by names that the server made.
type callNames struct {
	c *client.Client

	mu    sync.Mutex
	names map[string]string // by the engine's id
}

// learn asks the server. What it does not tell is called as its engine does.
func (n *callNames) learn(ctx context.Context) {
	list, err := n.c.Containers(ctx, nil)
	if err != nil {
		return
	}
	names := make(map[string]string, len(list))
	for i := range list {
		if list[i].ExternalID != "" {
			names[list[i].ExternalID] = list[i].Name
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names = names
}

func (n *callNames) of(s *service.Sample) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cmp.Or(n.names[s.ID], s.Name)
}

// keep learns again from time to time, until ctx ends.
func (n *callNames) keep(ctx context.Context) {
	for backoff.Sleep(ctx, learnEvery) == nil {
		n.learn(ctx)
	}
}

// learnEvery is how soon a new container is called by its name.
const learnEvery = 5 * time.Second

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

// A watch collects the samples of several sources.
type watch struct {
	hosts   bool // the hosts instead of containers
	every   time.Duration
	known   *callNames
	samples chan statsView

	mu     sync.Mutex
	absent map[string]string // hosts that cannot be asked just now, and why
	errs   []error
}

// statsLive prints samples until the user has seen enough, or the containers have ended.
func (a *app) statsLive(ctx context.Context, sources []source, o *statsFlags, known *callNames) error {
	w := &watch{hosts: o.hosts, every: o.interval, known: known, samples: make(chan statsView), absent: map[string]string{}}
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	for _, s := range sources {
		watching.Go(func() { w.follow(ctx, &s) })
	}
	ended := make(chan struct{})
	go func() {
		watching.Wait()
		close(ended)
	}()
	var learning sync.WaitGroup
	learning.Go(func() { known.keep(ctx) })
	defer func() {
		stop()
		<-ended
		learning.Wait()
	}()
	onTerminal := isTerminal(a.env.Stdout) && a.env.Getenv("TERM") != "dumb"
	live := ui.NewLive(a.out, onTerminal, func() int { return int(terminal.SizeOf(a.env.Stdout).Height) })
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	now := map[string]statsView{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-w.samples:
			if !a.out.Structured() {
				now[v.key()] = v
				continue
			}
			if err := a.out.Stream(v, nil); err != nil {
				return err
			}
		case <-tick.C:
			if a.out.Structured() {
				continue
			}
			// What has not been heard of for a while has ended.
			maps.DeleteFunc(now, func(_ string, v statsView) bool { return time.Since(v.seen) > 3*o.interval+time.Second })
			views := slices.Collect(maps.Values(now))
			sortStats(views, o.sort)
			if err := live.Draw(statsTable(views, o.hosts), w.notes(len(views))...); err != nil {
				return err
			}
		case <-ended:
			return errors.Join(w.errs...)
		}
	}
}

// follow passes on the samples of a source until ctx ends, or the container. A host that is away for a moment is asked
// again and again.
func (w *watch) follow(ctx context.Context, s *source) {
	delays := backoff.Policy{First: 500 * time.Millisecond, Max: 10 * time.Second}.Start()
	host := ui.Clean(s.target.Host.DisplayName())
	for begun := false; ; {
		var err error
		for sample, broken := range s.target.streams.StatsStream(ctx, s.container, w.every) {
			if err = broken; err != nil {
				break
			}
			begun = true
			delays.Reset()
			w.note(host, "")
			if (sample.Type == "host") != w.hosts {
				continue
			}
			v := viewSample(s.target.Host, &sample, w.known)
			v.seen = time.Now()
			select {
			case w.samples <- v:
			case <-ctx.Done():
				return
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && s.container != "":
			return // it has ended
		case err == nil:
			err = io.ErrUnexpectedEOF // a host does not end
		}
		if !lost(err) || s.container != "" && !begun {
			w.mu.Lock()
			w.errs = append(w.errs, s.failed(ctx, err))
			w.mu.Unlock()
			return
		}
		w.note(host, s.target.failed(ctx, err).Error())
		if backoff.Sleep(ctx, delays.Next()) != nil {
			return
		}
	}
}

// note keeps why a host cannot be asked; "" says that it can.
func (w *watch) note(host, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.absent, host); why != "" {
		w.absent[host] = why
	}
}

// notes are what is to be said below the table.
func (w *watch) notes(rows int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var notes []string
	for host, why := range w.absent {
		notes = append(notes, host+": "+why)
	}
	slices.Sort(notes)
	if rows == 0 && len(notes) == 0 {
		notes = append(notes, "no container runs")
		if w.hosts {
			notes[0] = "no figures yet"
		}
	}
	return notes
}

// sortStats sorts by what the user asked for, the largest first, and then by name.
func sortStats(views []statsView, by string) {
	slices.SortFunc(views, func(a, b statsView) int {
		order := 0
		switch by {
		case "cpu":
			order = cmp.Compare(number(b.CPUPercent), number(a.CPUPercent))
		case "memory":
			order = cmp.Compare(b.Memory, a.Memory)
		}
		return cmp.Or(order, strings.Compare(a.Name, b.Name), strings.Compare(a.Host, b.Host), strings.Compare(a.key(), b.key()))
	})
}

func number(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}

// statsTable is for people.
func statsTable(views []statsView, hosts bool) *ui.Table {
	t := &ui.Table{
		Header: []string{"CONTAINER", "HOST", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"},
		Shrink: []int{0, 1}, Drop: []int{6, 7, 5, 1},
	}
	if hosts {
		t.Header = []string{"HOST", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O"}
		t.Shrink, t.Drop = []int{0}, []int{5, 4}
	}
	percent := func(p *float64) ui.Cell {
		switch {
		case p == nil:
			return ui.Cell{Text: "--", Style: ui.Faint}
		case *p >= 90:
			return ui.Cell{Text: fmt.Sprintf("%.1f", *p), Style: ui.Bad}
		case *p >= 50:
			return ui.Cell{Text: fmt.Sprintf("%.1f", *p), Style: ui.Busy}
		}
		return ui.Text(fmt.Sprintf("%.1f", *p))
	}
	pair := func(a, b uint64) ui.Cell { return ui.Text(bytesText(int64(a)) + " / " + bytesText(int64(b))) }
	for _, v := range views {
		name := cmp.Or(v.Name, ui.Short(v.ContainerID))
		if v.Error != "" {
			t.Row(ui.Cell{Text: name, Style: ui.Strong}, ui.Text(v.Host), ui.Cell{Text: "--", Style: ui.Faint},
				ui.Cell{Text: shorten(v.Error, 40), Style: ui.Bad}, ui.Text(""), ui.Text(""), ui.Text(""), ui.Text(""))
			continue
		}
		memory := ui.Text(bytesText(int64(v.Memory)))
		if v.MemoryLimit > 0 {
			memory = pair(v.Memory, v.MemoryLimit)
		}
		net, block := pair(v.NetReceived, v.NetSent), pair(v.BlockRead, v.BlockWritten)
		if hosts {
			t.Row(ui.Cell{Text: v.Host, Style: ui.Strong}, percent(v.CPUPercent), memory, percent(v.MemoryPercent), net, block)
			continue
		}
		t.Row(ui.Cell{Text: name, Style: ui.Strong}, ui.Text(v.Host), percent(v.CPUPercent), memory, percent(v.MemoryPercent), net, block,
			ui.Text(strconv.FormatUint(v.Processes, 10)))
	}
	return t
}
