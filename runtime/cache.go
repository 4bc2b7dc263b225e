package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A CacheSource is what a [Cache] needs of an engine.
type CacheSource interface {
	List(ctx context.Context, opts ListOptions) ([]ContainerSummary, error)
	Watcher
}

// CacheConfig configures a [Cache]; zero values mean the defaults.
type CacheConfig struct {
	Source CacheSource // required

	// Index names the labels that ByLabel finds without a scan.
	Index []string
	// Resync is how often the whole list is compared, as a net under the event stream; default 5 minutes.
	Resync time.Duration
	// Settle is how long a change may gather company before it is listed, and how long a reopened stream may replay
	// before the list is compared; defaults 50 ms and 20 times that.
	Settle time.Duration
	// ListTimeout bounds one list call; default 30 s.
	ListTimeout time.Duration
	// BackoffMin and BackoffMax bound the delay after the engine failed; defaults 500 ms and 5 s. It
	// starts anew after a stream that lasted twice the maximum.
	BackoffMin, BackoffMax time.Duration
}

func (c CacheConfig) withDefaults() CacheConfig {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Resync, 5*time.Minute)
	def(&c.Settle, 50*time.Millisecond)
	def(&c.ListTimeout, 30*time.Second)
	def(&c.BackoffMin, 500*time.Millisecond)
	def(&c.BackoffMax, 5*time.Second)
	return c
}

// CacheStatus tells how far a [Cache] can be trusted.
type CacheStatus struct {
	Ready      bool      // a list succeeded at least once
	Healthy    bool      // the last contact with the engine succeeded
	Since      time.Time // of the present health
	LastSync   time.Time // of the last complete list
	LastNotice time.Time // arrival of the last notice
	LastError  string    // why it is not healthy
	Containers int
	Lists      uint64 // list calls so far
	Notices    uint64 // notices so far
	Gaps       uint64 // streams that broke so far
}

// A Cache is the list of an engine's containers, kept by the engine's events. It lists once at the start, after every
// gap of the event stream and every Resync; there is at most one list call at a time, and with a broken engine the
// calls back off. What it holds is as fresh as the event stream; whoever acts on it verifies first.
//
// The zero value is not usable; see [NewCache]. All methods are safe for concurrent use and, but for Run, do not block.
type Cache struct {
	cfg   CacheConfig
	ready chan struct{}
	snap  atomic.Pointer[snapshot]

	// mu guards what follows.
	mu      sync.RWMutex
	entries map[string]*entry
	graves  map[string]uint64 // destroyed while a list was under way, by the sequence number of the notice
	names   map[string]string // name -> id
	index   map[string]map[string]map[string]struct{}
	seq     uint64 // of the last change
	status  CacheStatus
	subs    map[*Subscription]struct{}
}

// An entry is one container. Summaries are never written to once they are in an entry: readers share them.
type entry struct {
	sum   ContainerSummary
	seq   uint64    // of the last notice about it
	noted time.Time // when a notice last told whether it runs
}

type snapshot struct {
	seq  uint64
	list []ContainerSummary
}

// NewCache returns a cache that is empty until Run ran.
func NewCache(cfg CacheConfig) *Cache {
	c := &Cache{
		cfg:     cfg.withDefaults(),
		ready:   make(chan struct{}),
		entries: make(map[string]*entry),
		graves:  make(map[string]uint64),
		names:   make(map[string]string),
		index:   make(map[string]map[string]map[string]struct{}),
		subs:    make(map[*Subscription]struct{}),
	}
	for _, label := range cfg.Index {
		c.index[label] = make(map[string]map[string]struct{})
	}
	c.snap.Store(&snapshot{})
	return c
}

// Ready is closed when the first list succeeded.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Healthy reports whether the list is complete: one succeeded, and the last contact with the engine did.
func (c *Cache) Healthy() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.status.Ready && c.status.Healthy
}

// Status returns the state of the cache.
func (c *Cache) Status() CacheStatus {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.status
	s.Containers = len(c.entries)
	return s
}

// Snapshot returns all containers, newest first. The slice and all it holds are shared: do not write to them. The same
// slice is returned until something changed.
func (c *Cache) Snapshot() []ContainerSummary {
	c.mu.RLock()
	seq := c.seq
	c.mu.RUnlock()
	if s := c.snap.Load(); s.seq == seq {
		return s.list
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.snap.Load(); s.seq == c.seq {
		return s.list
	}
	list := make([]ContainerSummary, 0, len(c.entries))
	for _, e := range c.entries {
		list = append(list, e.sum)
	}
	slices.SortFunc(list, func(a, b ContainerSummary) int {
		if d := b.Created.Compare(a.Created); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	c.snap.Store(&snapshot{seq: c.seq, list: list})
	return list
}

// Get returns the container with the full id.
func (c *Cache) Get(id string) (ContainerSummary, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.entries[id]; e != nil {
		return e.sum, true
	}
	return ContainerSummary{}, false
}

// ByName returns the container with the name, given without "/".
func (c *Cache) ByName(name string) (ContainerSummary, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.entries[c.names[name]]; e != nil {
		return e.sum, true
	}
	return ContainerSummary{}, false
}

// ByLabel returns the containers whose label has the value, newest first. A label of CacheConfig.Index costs a map
// access, any other a scan.
func (c *Cache) ByLabel(label, value string) []ContainerSummary {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var found []ContainerSummary
	if byValue, ok := c.index[label]; ok {
		for id := range byValue[value] {
			found = append(found, c.entries[id].sum)
		}
	} else {
		for _, e := range c.entries {
			if v, ok := e.sum.Labels[label]; ok && v == value {
				found = append(found, e.sum)
			}
		}
	}
	slices.SortFunc(found, func(a, b ContainerSummary) int { return b.Created.Compare(a.Created) })
	return found
}

// Run keeps the cache until ctx ends, and returns ctx's error. It is called once.
func (c *Cache) Run(ctx context.Context) error {
	delay := c.cfg.BackoffMin
	s := &session{c: c, dirty: make(map[string]struct{})}
	for {
		begun := time.Now()
		s = &session{c: c, since: s.since, last: s.last, dirty: s.dirty}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.fail(err)
		if time.Since(begun) > 2*c.cfg.BackoffMax {
			delay = c.cfg.BackoffMin
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
		delay = min(2*delay, c.cfg.BackoffMax)
	}
}

// fail records a broken contact, and tells subscribers that notices may be missing from here on.
func (c *Cache) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Healthy || c.status.Since.IsZero() {
		c.status.Since = time.Now()
	}
	c.status.Healthy = false
	c.status.LastError = err.Error()
	c.status.Gaps++
	for s := range c.subs {
		s.offerLocked(Change{Gap: true})
	}
}

func (c *Cache) succeededLocked() {
	if !c.status.Healthy {
		c.status.Since = time.Now()
	}
	c.status.Healthy, c.status.LastError = true, ""
}

// putLocked replaces or adds a container.
func (c *Cache) putLocked(sum ContainerSummary, seq uint64) {
	next := &entry{sum: sum, seq: seq}
	if old := c.entries[sum.ID]; old != nil {
		c.unlinkLocked(old.sum)
		next.noted = old.noted
	}
	c.entries[sum.ID] = next
	for _, name := range sum.Names {
		c.names[name] = sum.ID
	}
	for label, byValue := range c.index {
		value, ok := sum.Labels[label]
		if !ok {
			continue
		}
		if byValue[value] == nil {
			byValue[value] = make(map[string]struct{}, 1)
		}
		byValue[value][sum.ID] = struct{}{}
	}
}

func (c *Cache) dropLocked(id string) {
	if e := c.entries[id]; e != nil {
		c.unlinkLocked(e.sum)
		delete(c.entries, id)
	}
}

func (c *Cache) unlinkLocked(sum ContainerSummary) {
	for _, name := range sum.Names {
		if c.names[name] == sum.ID {
			delete(c.names, name)
		}
	}
	for label, byValue := range c.index {
		if value, ok := sum.Labels[label]; ok {
			delete(byValue[value], sum.ID)
			if len(byValue[value]) == 0 {
				delete(byValue, value)
			}
		}
	}
}

// errStreamEnded is the error of a stream that ended without one.
var errStreamEnded = errors.New("event stream ended")

func watchError(err error) error {
	if err == nil {
		err = errStreamEnded
	}
	return fmt.Errorf("watch containers: %w", err)
}
