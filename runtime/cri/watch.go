package cri

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// Watch yields what happens to containers: from the runtime's event stream where it has one (containerd from 1.7 on,
// CRI-O), else from looking every Config.Poll. Neither keeps the past: of what was before, since brings the beginnings
// and ends of containers that are still there.
func (e *Engine) Watch(ctx context.Context, since time.Time) iter.Seq2[runtime.Notice, error] {
	if since.IsZero() {
		since = time.Now()
	}
	return func(yield func(runtime.Notice, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := e.rt.GetContainerEvents(ctx, &criv1.GetEventsRequest{}) // first, so that nothing falls between
		if err != nil {
			e.broken(ctx, err, yield)
			return
		}
		seen, err := e.snapshot(ctx)
		if err != nil {
			e.broken(ctx, err, yield)
			return
		}
		past := e.since(ctx, seen, since)
		if !tell(past, yield) {
			return
		}
		err = e.events(stream, seen, past, yield)
		switch {
		case errors.Is(err, errStopped):
		case status.Code(err) == codes.Unimplemented: // the answer of a stream comes with its first message
			e.poll(ctx, seen, yield)
		default:
			e.broken(ctx, err, yield)
		}
	}
}

// broken yields an error, unless it is only the end of ctx.
func (e *Engine) broken(ctx context.Context, err error, yield func(runtime.Notice, error) bool) {
	if ctx.Err() == nil {
		yield(runtime.Notice{}, e.fail(ctx, "watching containers", err))
	}
}

var errStopped = errors.New("the consumer has enough")

func tell(notices []runtime.Notice, yield func(runtime.Notice, error) bool) bool {
	for _, n := range notices {
		if !yield(n, nil) {
			return false
		}
	}
	return true
}

func (e *Engine) snapshot(ctx context.Context) (map[string]*criv1.Container, error) {
	resp, err := e.rt.ListContainers(ctx, &criv1.ListContainersRequest{})
	if err != nil {
		return nil, e.fail(ctx, "listing containers", err)
	}
	out := make(map[string]*criv1.Container, len(resp.GetContainers()))
	for _, c := range resp.GetContainers() {
		out[c.GetId()] = c
	}
	return out, nil
}

func notice(c *criv1.Container, action string, at time.Time) runtime.Notice {
	return runtime.Notice{
		ID: c.GetId(), Name: namesOf(c)[0], Action: action, Image: c.GetImage().GetImage(), Labels: labelsOf(c), Time: at,
	}
}

// since tells what happened from a time on to the containers that are there.
func (e *Engine) since(ctx context.Context, seen map[string]*criv1.Container, since time.Time) []runtime.Notice {
	var out []runtime.Notice
	for _, c := range seen {
		if t := moment(c.GetCreatedAt()); !t.Before(since) {
			out = append(out, notice(c, "create", t))
		}
		if c.GetState() == criv1.ContainerState_CONTAINER_CREATED {
			continue
		}
		started, finished := e.times(ctx, c.GetId())
		if !started.IsZero() && !started.Before(since) {
			out = append(out, notice(c, "start", started))
		}
		if !finished.IsZero() && !finished.Before(since) {
			out = append(out, notice(c, "die", finished))
		}
	}
	slices.SortStableFunc(out, func(a, b runtime.Notice) int { return a.Time.Compare(b.Time) })
	return out
}

// times tells when a container began and ended, as far as it is known.
func (e *Engine) times(ctx context.Context, id string) (started, finished time.Time) {
	resp, err := e.rt.ContainerStatus(ctx, &criv1.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return time.Time{}, time.Time{} // gone since
	}
	return moment(resp.GetStatus().GetStartedAt()), moment(resp.GetStatus().GetFinishedAt())
}

// events tells what the runtime does, but not again what past has told already.
func (e *Engine) events(stream criv1.RuntimeService_GetContainerEventsClient, seen map[string]*criv1.Container, past []runtime.Notice, yield func(runtime.Notice, error) bool) error {
	actions := map[criv1.ContainerEventType]string{
		criv1.ContainerEventType_CONTAINER_CREATED_EVENT: "create", criv1.ContainerEventType_CONTAINER_STARTED_EVENT: "start",
		criv1.ContainerEventType_CONTAINER_STOPPED_EVENT: "die", criv1.ContainerEventType_CONTAINER_DELETED_EVENT: "destroy",
	}
	type told struct{ id, action string }
	already := map[told]bool{}
	for _, n := range past {
		already[told{n.ID, n.Action}] = true
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		id, action := ev.GetContainerId(), actions[ev.GetContainerEventType()]
		if seen[id] == nil {
			now, err := e.snapshot(stream.Context())
			if err != nil {
				return err
			}
			if seen[id] = now[id]; seen[id] == nil {
				delete(seen, id)
				continue // a sandbox, or gone already
			}
		}
		if already[told{id, action}] { // a container is made, begins and ends once
			continue
		}
		if !yield(notice(seen[id], action, moment(ev.GetCreatedAt())), nil) {
			return errStopped
		}
		if action == "destroy" {
			delete(seen, id)
		}
	}
}

// poll compares two looks.
func (e *Engine) poll(ctx context.Context, seen map[string]*criv1.Container, yield func(runtime.Notice, error) bool) {
	tick := time.NewTicker(e.cfg.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := e.snapshot(ctx)
		if err != nil {
			if ctx.Err() == nil {
				yield(runtime.Notice{}, err)
			}
			return
		}
		if !tell(e.changes(ctx, seen, now, time.Now()), yield) {
			return
		}
		seen = now
	}
}

// changes compares two looks. What is not told of a time happened at the second one.
func (e *Engine) changes(ctx context.Context, before, now map[string]*criv1.Container, at time.Time) []runtime.Notice {
	const created, running, exited = criv1.ContainerState_CONTAINER_CREATED, criv1.ContainerState_CONTAINER_RUNNING, criv1.ContainerState_CONTAINER_EXITED
	var out []runtime.Notice
	for id, c := range before {
		if now[id] != nil {
			continue
		}
		if c.GetState() == running {
			out = append(out, notice(c, "die", at))
		}
		out = append(out, notice(c, "destroy", at))
	}
	for id, c := range now {
		was := created
		if old := before[id]; old != nil {
			was = old.GetState()
		} else {
			out = append(out, notice(c, "create", moment(c.GetCreatedAt())))
		}
		if c.GetState() == was {
			continue
		}
		started, finished := e.times(ctx, id)
		if was == created {
			out = append(out, notice(c, "start", known(started, at)))
		}
		if was != exited && c.GetState() == exited {
			out = append(out, notice(c, "die", known(finished, at)))
		}
	}
	slices.SortStableFunc(out, func(a, b runtime.Notice) int { return a.Time.Compare(b.Time) })
	return out
}

func known(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}
