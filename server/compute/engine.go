package compute

import (
	"context"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/sirupsen/logrus"
)

// Caller sends an event to an agent and waits for its final reply. *hub.Hub is one.
type Caller interface {
	Call(ctx context.Context, agentID string, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error)
}

// Config is what an engine needs. Only Store is required.
type Config struct {
	Store *store.Store
	Log   logrus.FieldLogger
	Now   func() time.Time
}

// An Engine carries out what people want done with containers.
type Engine struct{ cfg Config }

// New checks cfg. It does no I/O.
func New(cfg Config) (*Engine, error) { return &Engine{cfg: cfg}, nil }

// Use gives the engine the hub. It must be called before Run.
func (e *Engine) Use(c Caller) {}

// Run resumes what an earlier process left, and carries out work until ctx ends.
func (e *Engine) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Unclaimed takes a reply whose caller is gone.
func (e *Engine) Unclaimed(ctx context.Context, agentID string, ev *wire.Event, r *wire.Reply) error {
	return nil
}
