package runtime

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// fewDirty is how many changed containers are listed one by one; more are listed together.
	fewDirty = 8
	// trust is how long a notice is believed more than a list that contradicts it. dockerd tells that a container died
	// before it cleans up, and lists it as running until it did.
	trust = 10 * time.Second
)

// A session is one event stream of a Cache: it watches, lists, and merges the two, until the stream or a list fails.
type session struct {
	c     *Cache
	since time.Time // of the last notice; where the next session goes on
	last  map[string]struct{}
	dirty map[string]struct{}
	// listing is true while a list call is under way. Only run's goroutine uses it.
	listing bool
}

// run returns a non-nil error when the stream broke, a list failed or ctx ended. All its goroutines have ended then.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	first := s.since.IsZero()
	if first {
		// What happens between the opening of the stream and the first list is seen twice rather than never.
		s.since = time.Now().Add(-time.Second)
	}
	notices := make(chan Notice, 64)
	broken := make(chan error, 1)
	wg.Go(func() {
		for n, err := range s.c.cfg.Source.Watch(ctx, s.since) {
			if err != nil {
				broken <- watchError(err)
				return
			}
			select {
			case notices <- n:
			case <-ctx.Done():
				return
			}
		}
		broken <- watchError(ctx.Err())
	})

	lists := make(chan listed, 1)
	list := func(full bool) {
		s.listing = true
		ids := s.takeDirty()
		wg.Go(func() {
			doubtful, err := s.list(ctx, full, ids)
			lists <- listed{doubtful, err}
		})
	}
	// After a gap the engine replays what it still knows; only then the list shows what it forgot.
	resync := time.NewTimer(20 * s.c.cfg.Settle)
	defer resync.Stop()
	if first {
		resync.Reset(0)
	}
	touch := time.NewTimer(time.Hour)
	defer touch.Stop()
	touch.Stop()

	due := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-broken:
			for {
				select {
				case n := <-notices:
					s.take(n)
					continue
				default:
				}
				return err
			}
		case n := <-notices:
			if s.take(n) && !s.listing {
				touch.Reset(s.c.cfg.Settle)
			}
		case <-touch.C:
			if !s.listing && len(s.dirty) > 0 {
				list(len(s.dirty) > fewDirty)
			}
		case <-resync.C:
			if due = s.listing; !due {
				list(true)
			}
			resync.Reset(s.c.cfg.Resync)
		case l := <-lists:
			s.listing = false
			if l.err != nil {
				return l.err
			}
			wait := s.c.cfg.Settle
			if len(s.dirty) == 0 {
				wait *= 4 // nothing but doubts: the engine needs a moment
			}
			for _, id := range l.doubtful {
				s.dirty[id] = struct{}{}
			}
			switch {
			case due:
				due = false
				list(true)
			case len(s.dirty) > 0:
				touch.Reset(wait)
			}
		}
	}
}

// seen reports whether a notice was delivered before: a stream that is reopened at the time of the last notice
// repeats those of the same instant.
func (s *session) seen(n Notice) bool {
	key := n.ID + " " + n.Action
	switch {
	case n.Time.After(s.since):
		s.since, s.last = n.Time, map[string]struct{}{key: {}}
		return false
	case n.Time.Equal(s.since):
		if _, ok := s.last[key]; ok {
			return true
		}
		if s.last == nil {
			s.last = make(map[string]struct{})
		}
		s.last[key] = struct{}{}
	}
	return false
}

// take applies a notice unless it was delivered before, and reports whether its container has to be listed.
func (s *session) take(n Notice) bool { return !s.seen(n) && s.apply(n) }

// apply changes the cache at once by what the notice says, tells the subscribers, and reports whether the container
// has to be listed for the rest.
func (s *session) apply(n Notice) bool {
	if strings.HasPrefix(n.Action, "exec_") || n.Action == "top" {
		return false
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.succeededLocked()
	c.status.Notices++
	c.status.LastNotice = time.Now()
	for sub := range c.subs {
		sub.offerLocked(Change{Notice: n})
	}
	if n.Action == "destroy" {
		c.dropLocked(n.ID)
		if s.listing {
			c.graves[n.ID] = c.seq
		}
		delete(s.dirty, n.ID)
		return false
	}
	if e := c.entries[n.ID]; e != nil {
		sum := e.sum
		switch n.Action {
		case "start", "restart", "unpause":
			sum.State, sum.Status = "running", "Up Less than a second"
		case "pause":
			sum.State, sum.Status = "paused", "Up (Paused)"
		case "die":
			sum.State, sum.Status = "exited", "Exited"
		case "rename":
			if n.Name != "" {
				sum.Names = []string{n.Name}
			}
		}
		c.putLocked(sum, c.seq)
		if sum.State != e.sum.State {
			c.entries[n.ID].noted = time.Now()
		}
	} else if n.Action == "create" {
		sum := ContainerSummary{ID: n.ID, Image: n.Image, Created: n.Time, State: "created", Status: "Created", Labels: n.Labels}
		if n.Name != "" {
			sum.Names = []string{n.Name}
		}
		c.putLocked(sum, c.seq)
	}
	switch n.Action {
	case "create", "start", "restart", "die", "pause", "unpause", "rename", "update", "health_status":
		s.dirty[n.ID] = struct{}{}
		return true
	}
	return false // an attach, a copy, a signal: nothing that a list shows
}

func (s *session) takeDirty() []string {
	ids := make([]string, 0, len(s.dirty))
	for id := range s.dirty {
		ids = append(ids, id)
	}
	clear(s.dirty)
	return ids
}

// listed is the outcome of a list.
type listed struct {
	doubtful []string // ids that have to be listed again
	err      error
}

// list asks the engine for all containers or for those with the ids, and merges the answer. It returns the ids of those
// where the answer contradicts a recent notice.
func (s *session) list(ctx context.Context, full bool, ids []string) (doubtful []string, err error) {
	c := s.c
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ListTimeout)
	defer cancel()
	c.mu.Lock()
	start := c.seq
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		e := c.entries[id]
		if e == nil || len(e.sum.Names) == 0 {
			full = true // an unknown one cannot be asked for by name
			break
		}
		names = append(names, e.sum.Names[0])
	}
	c.status.Lists++
	c.mu.Unlock()

	for i := 0; i < len(names) && !full; i++ {
		rows, err := c.cfg.Source.List(ctx, ListOptions{Name: names[i]})
		if err != nil {
			return nil, fmt.Errorf("list container %q: %w", names[i], err)
		}
		doubtful = append(doubtful, c.merge(rows, start, false)...)
		// Gone, or called otherwise by now: only the whole list can say.
		full = !slices.ContainsFunc(rows, func(r ContainerSummary) bool { return r.ID == ids[i] })
	}
	if full {
		rows, err := c.cfg.Source.List(ctx, ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list containers: %w", err)
		}
		doubtful = c.merge(rows, start, true)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.graves)
	return doubtful, nil
}

// merge takes over rows that were listed when the sequence number was start. What a later notice touched stays: the
// list may be older. A complete list also removes what it does not hold; differences that no notice announced are
// told to the subscribers as simulated notices. A row that contradicts a recent notice is not believed; its id is
// returned.
func (c *Cache) merge(rows []ContainerSummary, start uint64, full bool) (doubtful []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.succeededLocked()
	present := make(map[string]struct{}, len(rows))
	for _, row := range rows {
		row.Raw = nil
		present[row.ID] = struct{}{}
		if c.graves[row.ID] > start {
			continue
		}
		old := c.entries[row.ID]
		if old != nil && old.seq > start {
			continue
		}
		if c.status.Ready {
			was, is := old != nil && running(old.sum.State), running(row.State)
			if old != nil && is != was && time.Since(old.noted) < trust {
				row.State, row.Status = old.sum.State, old.sum.Status
				doubtful, is = append(doubtful, row.ID), was
			}
			switch {
			case is && !was:
				c.simulateLocked(row, "start")
			case was && !is:
				c.simulateLocked(row, "die")
			}
		}
		c.putLocked(row, start)
	}
	if !full {
		return doubtful
	}
	for id, e := range c.entries {
		if _, ok := present[id]; !ok && e.seq <= start {
			c.simulateLocked(e.sum, "destroy")
			c.dropLocked(id)
		}
	}
	c.status.LastSync = time.Now()
	if !c.status.Ready {
		c.status.Ready = true
		close(c.ready)
	}
	return doubtful
}

func (c *Cache) simulateLocked(sum ContainerSummary, action string) {
	n := Notice{ID: sum.ID, Action: action, Image: sum.Image, Labels: sum.Labels, Time: time.Now()}
	if len(sum.Names) > 0 {
		n.Name = sum.Names[0]
	}
	for sub := range c.subs {
		sub.offerLocked(Change{Notice: n, Simulated: true})
	}
}

func running(state string) bool { return state == "running" || state == "paused" }
