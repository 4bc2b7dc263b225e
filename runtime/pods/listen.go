package pods

import (
	"context"
	"slices"

	"github.com/droverhq/drover/runtime"
)

// A Change is what became different between two states of the map. An updated pod is given as it is now.
type Change struct {
	Added, Updated, Removed []*runtime.Pod
}

// A ChangeListener hears what has changed. A listener that is one is not called by OnAnyPodChanged.
type ChangeListener interface {
	runtime.MetaListener
	OnPodsChanged(Change)
}

// AddListener makes l, a comparable value, hear of changes from now on.
func (s *Store) AddListener(l runtime.MetaListener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(slices.Clip(s.listeners), l)
}

// RemoveListener ends what AddListener began. A call that is under way goes on; it may be made by a listener.
func (s *Store) RemoveListener(l runtime.MetaListener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.listeners, l); i >= 0 {
		s.listeners = slices.Delete(slices.Clone(s.listeners), i, i+1)
	}
}

// notify tells the listeners of what is different from last, until ctx ends.
func (s *Store) notify(ctx context.Context, last *snapshot) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		now := s.state.Load()
		change := diff(last, now)
		last = now
		if len(change.Added)+len(change.Updated)+len(change.Removed) == 0 {
			continue
		}
		s.mu.Lock()
		listeners := s.listeners // replaced, never changed
		s.mu.Unlock()
		for _, l := range listeners {
			if cl, ok := l.(ChangeListener); ok {
				cl.OnPodsChanged(change)
			} else {
				l.OnAnyPodChanged()
			}
		}
	}
}

func keyOf(p *runtime.Pod) podKey { return podKey{p.Namespace, p.Name, p.UID} }

func diff(before, now *snapshot) Change {
	var c Change
	old := make(map[podKey]*runtime.Pod, len(before.pods))
	for _, p := range before.pods {
		old[keyOf(p)] = p
	}
	for _, p := range now.pods {
		k := keyOf(p)
		switch was := old[k]; {
		case was == nil:
			c.Added = append(c.Added, p)
		case was != p:
			c.Updated = append(c.Updated, p)
		}
		delete(old, k)
	}
	for _, p := range before.pods {
		if old[keyOf(p)] != nil {
			c.Removed = append(c.Removed, p)
		}
	}
	return c
}
