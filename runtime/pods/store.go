package pods

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
)

// An Engine is one container engine of the node; [runtime.ModelEngine] is one.
type Engine interface {
	runtime.ContainerEngine
	runtime.Watcher
}

// Config configures a [Store]; zero values mean the defaults.
type Config struct {
	Engines []Engine // one at least
	Sources []Source // what tells of pods beside the labels of containers

	// HostFS is where the host's root is mounted for this process; "" is its own. Mounts, roots and logs of containers
	// are given below it, and /proc there must be the host's.
	HostFS string
	// Self is where this process runs.
	Self runtime.LocalAgentMeta
	// Sidecars are parts of the names of containers that only help others; default "sidecar".
	Sidecars []string
	// Ticker is how often everything is listed anew; default 30 s.
	Ticker time.Duration
	// Settle is how long a change may gather company before it is looked at; default 10 ms.
	Settle time.Duration
	// CallTimeout bounds one call of an engine; default 10 s.
	CallTimeout time.Duration
	// NoFacts leaves out what is read from the host: time zone, Alpine, name and zombies of the first process.
	NoFacts bool

	Log logrus.FieldLogger // nil: nothing is logged
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Ticker, 30*time.Second)
	def(&c.Settle, 10*time.Millisecond)
	def(&c.CallTimeout, 10*time.Second)
	c.HostFS = strings.TrimSuffix(c.HostFS, "/")
	if c.Sidecars == nil {
		c.Sidecars = []string{"sidecar"}
	}
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = silent
	}
	return c
}

// A Store is a [runtime.MetaStore]. Make it with [New].
type Store struct {
	cfg   Config
	state atomic.Pointer[snapshot]
	ready chan struct{} // closed with the first complete state

	refreshNow chan struct{}      // cap 1: something is in pending
	factsNow   chan struct{}      // cap 1: containers wait for their facts
	changed    chan struct{}      // cap 1: state has been replaced
	ticker     chan time.Duration // cap 1: a new Config.Ticker

	mu        sync.Mutex // guards what follows
	pending   pending
	told      map[string]told // by the name of the source
	facts     map[string]*facts
	listeners []runtime.MetaListener
	health    Health

	life struct { // of Start and Stop
		sync.Mutex
		cancel context.CancelFunc
		done   chan struct{}
	}

	engines []*engineState // belongs to the goroutine of refresh
	pods    map[podKey]*built
}

var _ runtime.MetaStore = (*Store)(nil)

// Health tells how far the map can be trusted.
type Health struct {
	Ready       bool          // a complete state was there
	Pods        int           // in the map
	Containers  int           // in the map, sandboxes too
	LastRefresh time.Time     // of the last one that all engines answered
	Lists       uint64        // how often all engines were listed, and answered
	Took        time.Duration // the last refresh
	Errors      map[string]string
}

// New returns a store that knows nothing yet.
func New(cfg Config) (*Store, error) {
	if len(cfg.Engines) == 0 {
		return nil, errors.New("pods: no container engine")
	}
	cfg = cfg.withDefaults()
	names := map[string]bool{sourceLabels: true}
	for _, src := range cfg.Sources {
		if names[src.Name()] {
			return nil, errors.New("pods: two sources are named " + src.Name())
		}
		names[src.Name()] = true
	}
	s := &Store{
		cfg: cfg, ready: make(chan struct{}),
		refreshNow: make(chan struct{}, 1), factsNow: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		ticker: make(chan time.Duration, 1),
		told:   map[string]told{}, facts: map[string]*facts{}, pods: map[podKey]*built{},
	}
	s.health.Errors = map[string]string{}
	s.state.Store(&snapshot{})
	for _, e := range cfg.Engines {
		s.engines = append(s.engines, &engineState{engine: e, entries: map[string]*entry{}})
	}
	return s, nil
}

// Run follows the engines and sources until ctx ends, and returns nil then. It runs once at a time.
func (s *Store) Run(ctx context.Context) error {
	s.life.Lock()
	if s.life.done != nil {
		s.life.Unlock()
		return errors.New("pods: the store runs already")
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	s.life.cancel, s.life.done = cancel, done
	s.life.Unlock()
	s.run(ctx)
	cancel()
	s.life.Lock()
	s.life.cancel, s.life.done = nil, nil
	s.life.Unlock()
	close(done)
	return nil
}

func (s *Store) run(ctx context.Context) {
	var wait sync.WaitGroup
	began := time.Now() // before the first list: what it does not have, the notices tell
	for i, e := range s.cfg.Engines {
		wait.Go(func() { s.watch(ctx, i, e, began) })
	}
	for _, src := range s.cfg.Sources {
		wait.Go(func() { s.follow(ctx, src) })
	}
	if !s.cfg.NoFacts {
		wait.Go(func() { s.gather(ctx) })
	}
	before := s.state.Load()
	wait.Go(func() { s.notify(ctx, before) })
	s.refreshing(ctx)
	wait.Wait()
}

// Start begins to follow the engines and sources and blocks until the first complete state is there. If ctx ends before
// it returns the error of ctx, and the store goes on until Stop.
func (s *Store) Start(ctx context.Context) error {
	s.life.Lock()
	if s.life.done != nil {
		s.life.Unlock()
		return errors.New("pods: the store runs already")
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	s.life.cancel, s.life.done = cancel, done
	s.life.Unlock()
	go func() {
		s.run(life)
		close(done)
	}()
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stop ends what Start or Run began and waits for it. The last state can still be read. It must not be called by a
// listener.
func (s *Store) Stop() {
	s.life.Lock()
	cancel, done := s.life.cancel, s.life.done
	s.life.Unlock()
	if done == nil {
		return
	}
	cancel()
	<-done
	s.life.Lock()
	if s.life.done == done {
		s.life.cancel, s.life.done = nil, nil
	}
	s.life.Unlock()
}

// Ready is closed when the first complete state is there: every engine and every source has answered.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Health tells how the store is.
func (s *Store) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.health
	h.Errors = make(map[string]string, len(s.health.Errors))
	for k, v := range s.health.Errors {
		h.Errors[k] = v
	}
	return h
}

// report keeps and logs the health of an engine or source, once for every change.
func (s *Store) report(who string, err error) {
	s.mu.Lock()
	before, failed := s.health.Errors[who]
	if err != nil {
		s.health.Errors[who] = err.Error()
	} else {
		delete(s.health.Errors, who)
	}
	s.mu.Unlock()
	switch {
	case err != nil && before != err.Error():
		s.cfg.Log.WithError(err).WithField("source", who).Warn("the pod map stays as it was")
	case err == nil && failed:
		s.cfg.Log.WithField("source", who).Info("it answers again")
	}
}

// Refresh lists everything anew soon. It does not wait for it.
func (s *Store) Refresh() {
	s.mu.Lock()
	s.pending.all = true
	s.mu.Unlock()
	poke(s.refreshNow)
}

// SetTicker changes how often everything is listed anew, from now on. It does not block.
func (s *Store) SetTicker(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-s.ticker: // one that was not taken yet
	default:
	}
	select {
	case s.ticker <- d:
	default: // somebody else's, a moment ago
	}
}

// poke wakes who waits for ch; one wake-up is enough for several pokes.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// LocalAgentMeta tells where this process runs.
func (s *Store) LocalAgentMeta() runtime.LocalAgentMeta { return s.cfg.Self }
