package handlers

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// EventWorkCancel ends work that another event began: its data is {"work": NAME}, where the other's data had the same.
const EventWorkCancel = "work.cancel"

const (
	// maxWorkName bounds the name that a caller gives to its work.
	maxWorkName = 128
	// maxGivenUp is how many names are kept of work that was cancelled before it came.
	maxGivenUp = 64
)

// errCancelled is why work ends that its caller gave up.
var errCancelled = errors.New("cancelled by its caller")

// works are the events under way that can be cancelled, by the name that their caller gave them.
type works struct {
	mu      sync.Mutex
	cancels map[string]context.CancelCauseFunc // guarded by mu
	givenUp []string                           // guarded by mu; the oldest first
}

type workData struct {
	Work string `json:"work"`
}

// cancellable lets a caller end an event that it has named. What others share goes on for them.
func (w *works) cancellable(f events.HandlerFunc) events.HandlerFunc {
	return func(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
		var d workData
		if err := decodeEvent(ev, &d); err != nil {
			return nil, err
		}
		if d.Work == "" {
			return f(ctx, ev, p)
		}
		if len(d.Work) > maxWorkName {
			return nil, invalid("work", "is too long")
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		if !w.begin(d.Work, cancel) {
			return nil, invalid("work", "is the name of other work that is under way")
		}
		defer w.end(d.Work)
		if err := ctx.Err(); err != nil {
			return nil, cancelled(ev, err)
		}
		data, err := f(ctx, ev, p)
		if err != nil && errors.Is(context.Cause(ctx), errCancelled) {
			return nil, cancelled(ev, err)
		}
		return data, err
	}
}

func cancelled(ev *wire.Event, err error) error {
	return &runtime.Error{Op: ev.Name, Kind: runtime.ErrConflict, Message: errCancelled.Error(), Cause: err}
}

// begin reports false if the name is taken. Work that was given up before it came is cancelled at once.
func (w *works) begin(name string, cancel context.CancelCauseFunc) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, taken := w.cancels[name]; taken {
		return false
	}
	if i := slices.Index(w.givenUp, name); i >= 0 {
		w.givenUp = slices.Delete(w.givenUp, i, i+1)
		cancel(errCancelled)
	}
	w.cancels[name] = cancel
	return true
}

func (w *works) end(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cancels, name)
}

// cancel answers EventWorkCancel; it does not wait for the end of the work. Events overtake each other: work that is
// not under way may be on its way, and is refused when it comes.
func (w *works) cancel(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var d workData
	if err := decodeEvent(ev, &d); err != nil {
		return nil, err
	}
	switch {
	case d.Work == "":
		return nil, invalid("work", "missing")
	case len(d.Work) > maxWorkName:
		return nil, invalid("work", "is too long")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	cancel, found := w.cancels[d.Work]
	if found {
		cancel(errCancelled)
	} else {
		w.givenUp = append(w.givenUp, d.Work)
		w.givenUp = w.givenUp[max(0, len(w.givenUp)-maxGivenUp):]
	}
	return map[string]any{"cancelled": found}, nil
}
