package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// cleanupTime bounds the removal of a container that could not be started, after the event's own time was up too.
const cleanupTime = 20 * time.Second

// activate makes the instance's container if there is none, and starts it if it does not run.
func (h *handlers) activate(ctx context.Context, ev *wire.Event, p events.Progress) (any, error) {
	var req instanceRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	in, err := req.check()
	if err != nil {
		return nil, err
	}
	noop := req.ProcessData.NoOp || in.ProcessData.NoOp
	st, err := h.find(ctx, in)
	found := err == nil
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return nil, err
	}
	if !noop && !(found && st.Running) {
		if st, err = h.bringUp(ctx, in, st, p); err != nil {
			return nil, err
		}
	} else if !found {
		return notFoundReply(ev, in, h.opts.HostIP), nil
	}
	return h.instanceReply(ctx, ev, in, st, replyIP{lookup: true, mayFail: noop})
}

// bringUp makes the container unless st is one already, and starts it. One that it made and could not start is removed.
func (h *handlers) bringUp(ctx context.Context, in *instance, st runtime.ContainerStatus, p events.Progress) (runtime.ContainerStatus, error) {
	id, created := st.ID, false
	if id == "" {
		if in.UUID == "" {
			return st, invalid("instance.uuid", "missing")
		}
		var err error
		if id, created, err = h.create(ctx, in, p); err != nil {
			return st, err
		}
	}
	release, err := events.Exclusive(ctx)
	if err == nil {
		err = h.engine.Start(ctx, id)
		release()
	}
	if err != nil {
		if created {
			h.discard(ctx, id)
		}
		return st, fmt.Errorf("start container of instance %s: %w", in.UUID, err)
	}
	return h.state(ctx, id)
}

// discard removes a container that is of no use.
func (h *handlers) discard(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	err := h.engine.Remove(ctx, id, runtime.RemoveOptions{Force: true, Volumes: true})
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		h.log.WithField("container", id).WithError(err).Warn("container that could not be started is left behind")
	}
}

// create makes the container. created is false if it turned out to be there already.
func (h *handlers) create(ctx context.Context, in *instance, p events.Progress) (id string, created bool, err error) {
	ref := imageName(in.Data.Fields.ImageUUID)
	if ref == "" {
		return "", false, invalid("instance.data.fields.imageUuid", "missing: a container needs an image")
	}
	if in.label("io.rancher.container.pull_image") == "always" {
		if err := h.fetch(ctx, ref, in.Image, p); err != nil {
			return "", false, err
		}
	}
	mayPull := in.Data.Fields.Pull != "never"
	spec, err := h.containerSpec(ctx, in)
	if errors.Is(err, errNeedsImage) && mayPull {
		if err = h.fetch(ctx, ref, in.Image, p); err == nil {
			spec, err = h.containerSpec(ctx, in)
		}
	}
	if err != nil {
		return "", false, err
	}
	id, err = h.createOnce(ctx, in, spec)
	if errors.Is(err, runtime.ErrNotFound) && mayPull {
		// Something is missing; only if it is the image can a pull help.
		if _, ierr := h.engine.ImageConfig(ctx, spec.Image); !errors.Is(ierr, runtime.ErrNotFound) {
			return "", false, err
		}
		if err := h.fetch(ctx, ref, in.Image, p); err != nil {
			return "", false, err
		}
		id, err = h.createOnce(ctx, in, spec)
	}
	if errors.Is(err, runtime.ErrConflict) {
		// The name is taken: by this instance's container, if an earlier event made it unseen.
		if st, ferr := h.find(ctx, in); ferr == nil {
			return st.ID, false, nil
		}
	}
	return id, err == nil, err
}

func (h *handlers) createOnce(ctx context.Context, in *instance, spec *runtime.ContainerSpec) (string, error) {
	release, err := events.Exclusive(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	id, warnings, err := h.engine.Create(ctx, spec)
	for _, w := range warnings {
		h.log.WithField("instance", in.UUID).WithField("container", spec.Name).Warn(w)
	}
	if err != nil {
		return "", fmt.Errorf("create container of instance %s: %w", in.UUID, err)
	}
	return id, nil
}

// label returns the value that a label of the instance will have, the user's first.
func (in *instance) label(name string) string {
	if v, ok := in.Data.Fields.Labels[name]; ok {
		return v
	}
	return in.Labels[name]
}
