package handlers

import (
	"context"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

func (h *handlers) activate(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) deactivate(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) forceStop(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) inspect(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) pull(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) remove(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) imageActivate(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) volumeActivate(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) volumeRemove(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}

func (h *handlers) configUpdate(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	return nil, runtime.ErrUnsupported
}
