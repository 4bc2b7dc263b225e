package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// leaseTTL is how long a replica counts as alive after its last sign of life, and leaseEvery how often it gives one.
const (
	leaseTTL   = 9 * time.Second
	leaseEvery = 3 * time.Second
)

// Replicas says which server process holds which agent. What an agent's entry says counts only while the replica it
// names gives signs of life, so that ten thousand agents cost one refresh and not ten thousand.
//
// With the embedded JetStream there is one replica, nothing is stored, and Holder knows nobody.
type Replicas struct {
	s       *Store
	self    string
	watcher Watcher

	sessions jetstream.KeyValue
	leases   jetstream.KeyValue
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu      sync.Mutex // guards what follows
	holders map[string]holder
	seen    map[string]time.Time // replica -> last sign of life, by our own clock
}

type holder struct {
	replica  string
	revision uint64
}

// A Watcher is told what happens among the replicas, from one goroutine. Its functions must not block.
type Watcher struct {
	Moved func(agentID string) // the agent has another holder, or none
	Lost  func(replica string) // the replica is gone
}

// OpenReplicas announces this process as self and follows the others. Close ends it.
func (s *Store) OpenReplicas(ctx context.Context, self string, watcher Watcher) (*Replicas, error) {
	r := &Replicas{s: s, self: self, watcher: watcher, holders: make(map[string]holder), seen: make(map[string]time.Time)}
	if !s.Clustered() {
		return r, nil
	}
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("join the replicas: %w", err), r.Close())
	}
	return r, nil
}

func (r *Replicas) open(ctx context.Context) error {
	n := max(r.s.cfg.Replicas, 1)
	var err error
	r.sessions, err = r.s.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: bucketSessions, Description: "which replica holds which agent", History: 1, Replicas: n, LimitMarkerTTL: markerTTL,
	})
	if err != nil {
		return err
	}
	r.leases, err = r.s.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: bucketReplicas, Description: "replicas that are alive", History: 1, Replicas: n, TTL: leaseTTL, Storage: jetstream.MemoryStorage,
	})
	if err != nil {
		return err
	}
	if _, err := r.leases.Put(ctx, r.self, nil); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	leases, err := r.leases.WatchAll(run)
	if err != nil {
		return err
	}
	sessions, err := r.sessions.WatchAll(run)
	if err != nil {
		return errors.Join(err, leases.Stop())
	}
	loaded := make(chan struct{})
	r.wg.Go(func() {
		<-run.Done()
		_ = errors.Join(leases.Stop(), sessions.Stop()) // they end with the connection as well
	})
	r.wg.Go(func() { r.follow(run, leases, sessions, loaded) })
	select {
	case <-loaded:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow takes in what the two watches bring, gives signs of life and looks for replicas that give none.
func (r *Replicas) follow(run context.Context, leases, sessions jetstream.KeyWatcher, loaded chan<- struct{}) {
	beat := time.NewTicker(leaseEvery)
	defer beat.Stop()
	check := time.NewTicker(leaseEvery / 6)
	defer check.Stop()
	missing := 2 // watches that still load
	for {
		var e jetstream.KeyValueEntry
		ok := true
		select {
		case <-run.Done():
			return
		case <-beat.C:
			r.beat(run)
			continue
		case <-check.C:
			r.expire()
			continue
		case e, ok = <-leases.Updates():
			if ok && e != nil {
				r.lease(e)
			}
		case e, ok = <-sessions.Updates():
			if ok && e != nil {
				r.session(e)
			}
		}
		if !ok {
			if run.Err() == nil {
				r.s.log.Error("store: the watch of the replicas ended; agents of other replicas are out of sight")
			}
			return
		}
		if e == nil {
			if missing--; missing == 0 {
				close(loaded)
			}
		}
	}
}

func (r *Replicas) beat(run context.Context) {
	ctx, cancel := context.WithTimeout(run, leaseEvery)
	defer cancel()
	if _, err := r.leases.Put(ctx, r.self, nil); err != nil && run.Err() == nil {
		r.s.log.WithError(err).Warn("store: the other replicas get no sign of life from us")
	}
}

func (r *Replicas) lease(e jetstream.KeyValueEntry) {
	if e.Operation() != jetstream.KeyValuePut {
		r.lose(e.Key())
		return
	}
	r.mu.Lock()
	_, known := r.seen[e.Key()]
	r.seen[e.Key()] = time.Now()
	r.mu.Unlock()
	if !known {
		r.changed(e.Key()) // it may have been cut off for a while
	}
}

// changed reports all agents whose entry names the replica.
func (r *Replicas) changed(replica string) {
	var agents []string
	r.mu.Lock()
	for agent, h := range r.holders {
		if h.replica == replica {
			agents = append(agents, agent)
		}
	}
	r.mu.Unlock()
	for _, agent := range agents {
		r.watcher.Moved(agent)
	}
}

// expire forgets the replicas that gave no sign of life for a while.
func (r *Replicas) expire() {
	var dead []string
	r.mu.Lock()
	for replica, at := range r.seen {
		if replica != r.self && time.Since(at) > leaseTTL {
			dead = append(dead, replica)
		}
	}
	r.mu.Unlock()
	for _, replica := range dead {
		r.s.log.WithField("replica", replica).Warn("store: a replica gives no sign of life")
		r.lose(replica)
	}
}

// lose reports that the agents of a replica have no holder now. Their entries stay: the replica may only have been
// cut off from NATS, and the next holder writes over them.
func (r *Replicas) lose(replica string) {
	r.mu.Lock()
	delete(r.seen, replica)
	r.mu.Unlock()
	r.changed(replica)
	r.watcher.Lost(replica)
}

func (r *Replicas) session(e jetstream.KeyValueEntry) {
	agent := e.Key()
	r.mu.Lock()
	if old := r.holders[agent]; old.revision >= e.Revision() {
		r.mu.Unlock()
		return
	}
	if e.Operation() == jetstream.KeyValuePut {
		r.holders[agent] = holder{string(e.Value()), e.Revision()}
	} else {
		delete(r.holders, agent)
	}
	r.mu.Unlock()
	r.watcher.Moved(agent)
}

// Hold says that this replica holds the agent now.
func (r *Replicas) Hold(ctx context.Context, agentID string) error {
	if r.sessions == nil {
		return nil
	}
	rev, err := r.sessions.Put(ctx, agentID, []byte(r.self))
	if err != nil {
		return fmt.Errorf("hold agent %s: %w", agentID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holders[agentID].revision < rev {
		r.holders[agentID] = holder{r.self, rev}
	}
	return nil
}

// Release takes Hold back, unless another replica holds the agent by now.
func (r *Replicas) Release(ctx context.Context, agentID string) error {
	if r.sessions == nil {
		return nil
	}
	r.mu.Lock()
	h := r.holders[agentID]
	if h.replica != r.self {
		r.mu.Unlock()
		return nil
	}
	delete(r.holders, agentID)
	r.mu.Unlock()
	err := r.sessions.Purge(ctx, agentID, jetstream.LastRevision(h.revision), jetstream.PurgeTTL(markerTTL))
	if err != nil && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return fmt.Errorf("release agent %s: %w", agentID, err)
	}
	return nil
}

// Holder returns the replica that holds the agent, if one that is alive does.
func (r *Replicas) Holder(agentID string) (replica string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.holders[agentID]
	if !ok {
		return "", false
	}
	if _, alive := r.seen[h.replica]; !alive && h.replica != r.self {
		return "", false
	}
	return h.replica, true
}

// Alive reports whether a replica gave a sign of life lately.
func (r *Replicas) Alive(replica string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, alive := r.seen[replica]
	return alive || replica == r.self
}

// Close tells the others that this replica holds nobody any more, and waits for its goroutines.
func (r *Replicas) Close() error {
	if r.cancel == nil {
		return nil
	}
	r.cancel()
	r.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leaseEvery)
	defer cancel()
	if err := r.leases.Delete(ctx, r.self); err != nil {
		return fmt.Errorf("leave the replicas: %w", err)
	}
	return nil
}
