package pods

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

const (
	maxPending  = 64          // of single containers; with more of them, all are listed
	inspections = 8           // at once
	afterwards  = time.Second // until all are listed after something was removed: sandboxes go later than containers
	retryMin    = 500 * time.Millisecond
	retryMax    = 5 * time.Second
)

// pending is what the next refresh has to look at.
type pending struct {
	all bool
	ids map[engineID]bool
}

type engineID struct {
	engine int
	id     string
}

// An engineState is what one engine has told.
type engineState struct {
	engine  Engine
	entries map[string]*entry // by id
	listed  bool              // once at least
}

// An entry is one container as the engine tells of it. It never changes.
type entry struct {
	detail  *runtime.EngineDetailContainer
	engine  string
	running bool   // as a list would say
	stale   bool   // it changed and could not be inspected
	merged  string // MergedDir below HostFS, "" if this process does not see it
}

// watch turns the notices of an engine since a time into work, and begins again when its stream breaks.
func (s *Store) watch(ctx context.Context, i int, e Engine, since time.Time) {
	for wait := retryMin; ctx.Err() == nil; {
		began := time.Now()
		for n, err := range e.Watch(ctx, since) {
			if err != nil {
				s.report(e.Type()+" events", err)
				break
			}
			s.report(e.Type()+" events", nil)
			since = n.Time
			switch n.Action {
			case "create", "start", "die", "stop", "destroy", "pause", "unpause", "rename", "restart":
				s.look(engineID{i, n.ID})
			}
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > 2*retryMax {
			wait = retryMin
		}
		if sleep(ctx, wait) != nil {
			return
		}
		wait = min(2*wait, retryMax)
		since = time.Now() // what was before, the list tells
		s.Refresh()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// look makes one container be looked at.
func (s *Store) look(id engineID) {
	s.mu.Lock()
	if s.pending.ids == nil {
		s.pending.ids = map[engineID]bool{}
	}
	if len(s.pending.ids) < maxPending {
		s.pending.ids[id] = true
	} else {
		s.pending.all = true
	}
	s.mu.Unlock()
	poke(s.refreshNow)
}

// refreshing does all the work of the map, in one goroutine.
func (s *Store) refreshing(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Ticker)
	defer tick.Stop()
	later := time.NewTimer(0) // the first list
	defer later.Stop()
	failed := retryMin
	for {
		work := pending{}
		select {
		case <-ctx.Done():
			return
		case d := <-s.ticker:
			tick.Reset(d)
			continue
		case <-tick.C:
			work.all = true
			poke(s.factsNow)
		case <-later.C:
			work.all = true
		case <-s.refreshNow:
			if sleep(ctx, s.cfg.Settle) != nil {
				return
			}
		}
		s.mu.Lock()
		work.all = work.all || s.pending.all
		work.ids = s.pending.ids
		s.pending = pending{}
		s.mu.Unlock()

		began := time.Now()
		removed, err := s.update(ctx, work)
		s.publish(began, work.all && err == nil)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			later.Reset(failed)
			failed = min(2*failed, retryMax)
		case removed && !work.all:
			later.Reset(afterwards)
		}
		if err == nil {
			failed = retryMin
		}
	}
}

// update asks the engines. removed tells that one of the containers is gone.
func (s *Store) update(ctx context.Context, work pending) (removed bool, err error) {
	var errs []error
	for i, st := range s.engines {
		if work.all || !st.listed {
			errs = append(errs, s.list(ctx, st))
			continue
		}
		var ids []string
		for id := range work.ids {
			if id.engine == i {
				ids = append(ids, id.id)
			}
		}
		gone, err := s.inspect(ctx, st, ids)
		removed = removed || gone
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// list compares everything with what the engine lists, and inspects what is new or began or ended since.
func (s *Store) list(ctx context.Context, st *engineState) error {
	call, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	err := st.engine.Init(call)
	var rows []*runtime.EngineSimpleContainer
	if err == nil {
		rows, err = st.engine.ListAllContainers(call)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.report(st.engine.Type(), err)
	if err == nil { // a stream that is quiet does not say that it is well
		s.report(st.engine.Type()+" events", nil)
	}
	if err != nil {
		return fmt.Errorf("listing the containers of %s: %w", st.engine.Type(), err)
	}
	there := make(map[string]bool, len(rows))
	var ids []string
	for _, r := range rows {
		if r.Labels[labelUID] == "" && r.Labels[labelPod] == "" {
			continue
		}
		there[r.ID] = true
		if e := st.entries[r.ID]; e == nil || e.stale || e.running != r.Running {
			ids = append(ids, r.ID)
		}
	}
	for id := range st.entries {
		if !there[id] {
			delete(st.entries, id)
		}
	}
	if _, err := s.inspect(ctx, st, ids); err != nil {
		return err
	}
	st.listed = true
	return nil
}

// inspect asks for the details of containers, and of sandboxes that are not known yet.
func (s *Store) inspect(ctx context.Context, st *engineState, ids []string) (removed bool, err error) {
	for len(ids) > 0 {
		details := make([]*runtime.EngineDetailContainer, len(ids))
		errs := make([]error, len(ids))
		s.each(len(ids), func(i int) {
			call, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
			defer cancel()
			details[i], errs[i] = st.engine.GetContainerDetail(call, ids[i])
		})
		more := map[string]bool{}
		for i, id := range ids {
			switch {
			case errors.Is(errs[i], runtime.ErrNotFound):
				_, was := st.entries[id]
				removed = removed || was
				if e := st.entries[id]; e != nil && e.detail.SandboxID != "" && e.detail.SandboxID != id {
					more[e.detail.SandboxID] = st.entries[e.detail.SandboxID] != nil
				}
				delete(st.entries, id)
			case errs[i] != nil:
				if e := st.entries[id]; e != nil {
					again := *e
					again.stale = true
					st.entries[id] = &again
				}
				err = fmt.Errorf("inspecting container %s of %s: %w", runtime.ShortContainerId(id), st.engine.Type(), errs[i])
			case details[i].Labels[labelUID] != "" || details[i].Labels[labelPod] != "":
				st.entries[id] = s.newEntry(st.engine.Type(), details[i])
				if sb := details[i].SandboxID; sb != "" && sb != id && st.entries[sb] == nil {
					more[sb] = true
				}
			}
		}
		ids = ids[:0:0]
		for id, wanted := range more {
			if wanted {
				ids = append(ids, id)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		s.report(st.engine.Type(), err)
	}
	return removed, err
}

// each calls fn for 0 to n-1, a few at once, and waits.
func (s *Store) each(n int, fn func(i int)) {
	if n == 1 {
		fn(0)
		return
	}
	var wait sync.WaitGroup
	next := make(chan int)
	for range min(n, inspections) {
		wait.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wait.Wait()
}

// publish makes a state of what is known and replaces the present one by it, if anything is different.
func (s *Store) publish(began time.Time, complete bool) {
	s.mu.Lock()
	infos := s.infos()
	found := s.facts
	allTold := len(s.told) == len(s.cfg.Sources)
	s.mu.Unlock()
	state, changed := s.build(infos, found)
	if changed {
		s.state.Store(state)
		poke(s.changed)
		poke(s.factsNow)
	} else {
		state = s.state.Load()
	}
	listed := true
	for _, st := range s.engines {
		listed = listed && st.listed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.Took = time.Since(began)
	s.health.Pods, s.health.Containers = len(state.pods), len(state.containers)
	if complete {
		s.health.LastRefresh = time.Now()
		s.health.Lists++
	}
	if listed && allTold && !s.health.Ready {
		s.health.Ready = true
		close(s.ready)
	}
}
