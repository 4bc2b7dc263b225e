package compute

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
)

const (
	// lease is how long an operation stays with its replica without a sign of life, where there are several.
	lease = 30 * time.Second
	// sweepEvery is how often leases are renewed, orphans taken up and old records purged.
	sweepEvery = 10 * time.Second
	// Removed containers and finished pull tasks can be looked at for this long.
	keepRemoved = time.Hour
	keepTasks   = 24 * time.Hour
	// maxOperations bounds what is in progress at one time in this process.
	maxOperations = 20000
)

// Caller sends an event to an agent and waits for its final reply. *hub.Hub is one.
type Caller interface {
	Call(ctx context.Context, agentID string, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error)
}

// Config is what an engine needs. Only Store is required.
type Config struct {
	Store *store.Store
	Log   logrus.FieldLogger // nil: nothing is logged
	Now   func() time.Time   // nil: the machine's clock
}

// An Engine carries out operations on containers and images. Its methods are safe for concurrent use.
type Engine struct {
	store *store.Store
	log   logrus.FieldLogger
	now   func() time.Time
	owner string // of the leases of this process
	hub   Caller // set before Run

	creating sync.Mutex     // held while a name is checked and taken
	work     sync.WaitGroup // of the goroutines of operations

	mu      sync.Mutex      // guards the following fields
	ctx     context.Context // of operations; nil before Run and after it
	running map[string]*runner
}

// A runner is one operation in progress in this process.
type runner struct {
	workID string
	cancel context.CancelFunc
	done   chan struct{}
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Engine, error) {
	if cfg.Store == nil {
		return nil, errors.New("compute: no store is given")
	}
	if cfg.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		cfg.Log = l
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Engine{store: cfg.Store, log: cfg.Log, now: cfg.Now, owner: uuid.NewString(), running: map[string]*runner{}}, nil
}

// Use gives the engine what carries its events. It must be called once, before Run.
func (e *Engine) Use(c Caller) { e.hub = c }

// Run takes up what an earlier process left, and then serves until ctx ends; what is in progress then stays recorded.
// It returns nil after that.
func (e *Engine) Run(ctx context.Context) error {
	if e.hub == nil {
		return errors.New("compute: Run before Use")
	}
	// Operations end after it is noted which there were: their leases are to be released.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	e.mu.Lock()
	e.ctx = work
	e.mu.Unlock()
	e.resume(work)

	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			if e.store.Clustered() {
				e.renew(work)
			}
			e.resume(work)
			e.purge(work)
		}
	}
	e.mu.Lock()
	e.ctx = nil // nothing new is launched from here on
	left := e.inProgress()
	e.mu.Unlock()
	cancel()
	e.work.Wait()
	if e.store.Clustered() {
		e.release(context.WithoutCancel(ctx), left)
	}
	return nil
}

// inProgress returns the operations of this process: work ids by container or task. e.mu must be held.
func (e *Engine) inProgress() map[string]string {
	out := make(map[string]string, len(e.running))
	for id, r := range e.running {
		out[id] = r.workID
	}
	return out
}

// launch starts the goroutine of an operation that is recorded under id. An operation that runs for the same id is
// cancelled, and waited for, first. Before and after Run it does nothing: the next Run takes the operation up.
func (e *Engine) launch(id, workID string, drive func(ctx context.Context, id, workID string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil {
		return
	}
	old := e.running[id]
	if old != nil {
		if old.workID == workID {
			return
		}
		old.cancel()
	}
	ctx, cancel := context.WithCancel(e.ctx)
	r := &runner{workID: workID, cancel: cancel, done: make(chan struct{})}
	e.running[id] = r
	e.work.Go(func() {
		defer close(r.done)
		defer cancel()
		if old != nil {
			<-old.done
		}
		drive(ctx, id, workID)
		e.mu.Lock()
		if e.running[id] == r {
			delete(e.running, id)
		}
		e.mu.Unlock()
	})
}

// full reports whether no more operations may begin.
func (e *Engine) full() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running) >= maxOperations
}
