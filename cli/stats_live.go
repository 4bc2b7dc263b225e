package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/utils/backoff"
)

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
