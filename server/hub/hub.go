package hub

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/sirupsen/logrus"
)

const (
	goAwayMillis = 1000 // agents come back after at least this
	shutdownWait = 5 * time.Second

	stateWorkers  = 2
	reportWorkers = 4
	lookWorkers   = 4
)

// Config is what a hub needs. Only Store is required; the zero value of everything else means its default.
type Config struct {
	Store   *store.Store
	Version string // told to Drover agents in the answer to their upgrade
	Log     logrus.FieldLogger
	Timings Timings
}

// Timings are the hub's times and counts. Zero values mean Rancher's, as noted.
type Timings struct {
	Ping            time.Duration // between keep-alives and pings: 5 s
	PingTimeout     time.Duration // 15 s
	FailedPings     int           // until reconnecting: 6
	DisconnectAfter time.Duration // from reconnecting to disconnected: 180 s
	Hold            time.Duration // a socket lost for less than this changes no state: 2 s
	CallTimeout     time.Duration // for events that do not say: 45 s
	StoreAfter      time.Duration // an event that a connected agent answers sooner is not stored: 25 ms; negative: all are
	Probe           time.Duration // for an agent's old socket to answer when a second one comes: 2 s
	Write           time.Duration // for a socket to take what is sent to it: 10 s
}

func (t Timings) withDefaults() Timings {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&t.Ping, 5 * time.Second},
		{&t.PingTimeout, 15 * time.Second},
		{&t.DisconnectAfter, 180 * time.Second},
		{&t.Hold, 2 * time.Second},
		{&t.CallTimeout, 45 * time.Second},
		{&t.Probe, 2 * time.Second},
		{&t.Write, 10 * time.Second},
	} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if t.StoreAfter == 0 {
		t.StoreAfter = 25 * time.Millisecond
	}
	if t.FailedPings <= 0 {
		t.FailedPings = 6
	}
	return t
}

// A Hub is the agents' side of one server replica. All methods are safe for concurrent use.
type Hub struct {
	cfg     Config
	t       Timings
	store   *store.Store
	log     logrus.FieldLogger
	replica uint32 // random, not 0
	seed    maphash.Seed

	started  chan struct{}   // closed when base and replicas are set
	base     context.Context // of everything that goes on in the background
	replicas *store.Replicas
	closing  chan struct{} // closed when the hub shuts down

	mu       sync.RWMutex // guards what follows
	agents   map[string]*agent
	nameSets map[string]map[string]struct{}

	wheel      wheel
	states     *workQueue[*agent] // whose state is to be written down
	reports    *workQueue[*agent] // who has a report to be taken in
	looks      *workQueue[string] // containers to be looked at closely
	settler    *settler
	recent     recent
	claims     claims
	sockets    sync.WaitGroup // writers, each started while its session's reader runs
	background group
	callers    group
	forwards   forwardings

	buffers, writeBuffers, corkBuffers sync.Pool

	calls, replies, duplicates, late, timeouts atomic.Int64
	redelivered, slowClosed, staleClosed       atomic.Int64
	refused, malformed, waiting, quarantined   atomic.Int64
	resting                                    atomic.Int64 // sessions that wait for a sign of life
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Hub, error) {
	if cfg.Store == nil {
		return nil, errors.New("hub: no store is given")
	}
	if cfg.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		cfg.Log = quiet
	}
	buffer := func() any { b := make([]byte, 0, 4<<10); return &b }
	return &Hub{
		cfg: cfg, t: cfg.Timings.withDefaults(), store: cfg.Store, log: cfg.Log,
		replica: 1 + rand.Uint32N(1<<31-2), seed: maphash.MakeSeed(), //nolint:gosec // a name, not a secret
		started: make(chan struct{}), closing: make(chan struct{}), agents: make(map[string]*agent), nameSets: make(map[string]map[string]struct{}),
		states: newWorkQueue[*agent](), reports: newWorkQueue[*agent](), looks: newWorkQueue[string](), settler: newSettler(),
		buffers: sync.Pool{New: buffer}, corkBuffers: sync.Pool{New: buffer},
	}, nil
}

// Run serves until ctx ends: then agents are told to go away, sockets are closed and everything is waited for. It is
// called once. Calls and sockets that come before it wait for it.
func (h *Hub) Run(ctx context.Context) (err error) {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	h.base = base
	h.replicas, err = h.store.OpenReplicas(ctx, replicaName(h.replica), store.Watcher{Moved: h.moved, Lost: h.lost})
	if err != nil {
		close(h.closing)
		close(h.started)
		return fmt.Errorf("hub: %w", err)
	}
	stop := func() {}
	if h.store.Clustered() {
		if stop, err = h.store.Handle(subjects(h.replica), h.handleStarted); err != nil {
			close(h.closing)
			close(h.started)
			return errors.Join(fmt.Errorf("hub: %w", err), h.replicas.Close())
		}
	}
	changes := h.store.Subscribe(base, store.TypeAgent, store.TypeContainer)
	close(h.started)

	var workers sync.WaitGroup
	workers.Go(func() { h.wheel.run(base, h.t.Ping) })
	workers.Go(func() { h.housekeep(base) })
	workers.Go(func() { h.follow(changes) })
	for range stateWorkers {
		workers.Go(func() { each(base, h.states, h.writeState) })
	}
	for range reportWorkers {
		workers.Go(func() { each(base, h.reports, h.takeReports) })
	}
	for range lookWorkers {
		workers.Go(func() { each(base, h.looks, h.look) })
	}
	settled := make(chan struct{})
	stopSettling := make(chan struct{})
	go func() {
		defer close(settled)
		h.settler.run(base, stopSettling, h)
	}()
	h.watchOverAll()

	<-ctx.Done()
	h.shutdown()
	callersGone := make(chan struct{})
	go func() {
		defer close(callersGone)
		h.callers.close()
	}()
	select {
	case <-callersGone: // they store what was not stored yet
	case <-time.After(shutdownWait):
		h.log.Warn("hub: a caller does not return; it holds up the end of the hub no longer")
	}
	close(stopSettling)
	select {
	case <-settled:
	case <-time.After(shutdownWait):
	}
	h.settler.end()
	stop()
	cancel()
	<-settled
	workers.Wait()
	h.background.close()
	h.forwards.fail()
	return h.replicas.Close()
}

// each calls work for every item of q until ctx ends.
func each[T comparable](ctx context.Context, q *workQueue[T], work func(context.Context, T)) {
	for {
		item, ok := q.next(ctx)
		if !ok {
			return
		}
		work(ctx, item)
	}
}

// handleStarted holds messages back until the hub is complete.
func (h *Hub) handleStarted(m store.Message) {
	<-h.started
	h.handle(m)
}

// watchOverAll follows the state of the agents that were connected when the server, or its predecessor, stopped.
func (h *Hub) watchOverAll() {
	for _, rec := range h.store.Agents.List() {
		if _, held := h.holder(rec.ID); !held {
			h.watchOver(rec.ID)
		}
	}
}

// running reports whether base and replicas are set.
func (h *Hub) running() bool {
	select {
	case <-h.started:
		return true
	default:
		return false
	}
}

// closed reports whether the hub shuts down.
func (h *Hub) closed() bool {
	select {
	case <-h.closing:
		return true
	default:
		return false
	}
}

// shutdown fails the callers that wait, and ends the sessions.
func (h *Hub) shutdown() {
	close(h.closing)
	sessions := h.wheel.all()
	for _, s := range sessions {
		s.goAway()
	}
	deadline := time.After(shutdownWait)
	for _, s := range sessions {
		select {
		case <-s.done:
		case <-deadline:
			s.kill("the server shuts down")
			deadline = time.After(0)
			<-s.done
		}
	}
	// One that attached meanwhile has seen closing, and goes away by itself.
	for _, s := range h.wheel.all() {
		s.kill("the server shuts down")
		<-s.done
	}
	h.sockets.Wait()
}

// all returns the agents that this replica has to do with.
func (h *Hub) all() []*agent {
	h.mu.RLock()
	defer h.mu.RUnlock()
	out := make([]*agent, 0, len(h.agents))
	for _, a := range h.agents {
		out = append(out, a)
	}
	return out
}

// housekeep does once a second what only time asks for.
func (h *Hub) housekeep(ctx context.Context) {
	ticker := time.NewTicker(min(time.Second, h.t.Ping/5))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		h.claims.expire(now)
		h.forwardAgain(now)
		for _, a := range h.all() {
			a.tick(now)
			h.sweep(a, now)
		}
	}
}

// sweep ends the events whose deadline passed and that nobody here waits for, and passes those again that another
// replica did not confirm.
func (h *Hub) sweep(a *agent, now time.Time) {
	var expired []*pending
	again := false
	a.mu.Lock()
	for _, p := range a.q.events {
		switch {
		case p.w == nil && p.ready && now.After(p.deadline) && !p.gone:
			if p.parked != "" {
				a.q.remove(p) // it is the other replica's to end
				continue
			}
			expired = append(expired, p)
		case !p.passed.IsZero() && !p.taken && now.Sub(p.passed) > passAgain:
			again = true
		}
	}
	if again && a.sess == nil {
		a.repass()
	}
	a.mu.Unlock()
	for _, p := range expired {
		h.expire(a, p)
	}
}

// Subscribe returns a feed of the changes of records: see store.Store.Subscribe.
func (h *Hub) Subscribe(ctx context.Context, types ...string) <-chan store.Change {
	return h.store.Subscribe(ctx, types...)
}

// LastSeen returns when the agent last made a round trip, as far as this replica knows.
func (h *Hub) LastSeen(agentID string) time.Time {
	if a := h.known(agentID); a != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.lastSeen
	}
	if rec, err := h.store.Agents.Get(agentID); err == nil {
		return rec.LastSeen
	}
	return time.Time{}
}
