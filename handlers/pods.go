package handlers

import (
	"context"
	"encoding/json"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/pods"
)

// The events of a Kubernetes node. Only Drover servers send them. Their data is a flat object.
const (
	EventPodmapRefresh   = "podmap.refresh"   // answers with what the map holds; the refresh comes right after
	EventPodmapList      = "podmap.list"      // data: namespace; answers with {"pods": [...]}
	EventContainerFacts  = "container.facts"  // data: container; answers with {"facts": ...}
	EventContainerLimits = "container.limits" // data: container, limits; answers with {"container": id, "limits": ...}
)

// A PodMap knows the pods of the node; pods.Store is one.
type PodMap interface {
	GetAllPods() []*runtime.Pod
	GetContainerByCid(cid string) (*runtime.Container, error)
	Refresh()
	Health() pods.Health
}

// PodsOptions are what the events of a node need. What is nil is answered with [runtime.ErrUnsupported].
type PodsOptions struct {
	Map     PodMap // required
	Limiter runtime.Limiter
	// Find returns the id of a container by id, the beginning of one, or "namespace/pod[/container]"; required.
	Find  func(ctx context.Context, name string) (string, error)
	Facts func(ctx context.Context, c *runtime.Container) (any, error)
}

// RegisterPods wires the events of a Kubernetes node to r. It does no I/O.
func RegisterPods(r Router, opts PodsOptions) {
	r.Handle(EventPodmapRefresh, events.HandlerFunc(opts.refresh))
	r.Handle(EventPodmapList, events.HandlerFunc(opts.list))
	r.Handle(EventContainerFacts, events.HandlerFunc(opts.facts))
	r.Handle(EventContainerLimits, events.HandlerFunc(opts.limits))
}

func (o PodsOptions) refresh(context.Context, *wire.Event, events.Progress) (any, error) {
	o.Map.Refresh()
	h := o.Map.Health()
	return map[string]any{"podMap": map[string]any{
		"ready": h.Ready, "pods": h.Pods, "containers": h.Containers, "errors": h.Errors,
	}}, nil
}

func (o PodsOptions) list(_ context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req struct {
		Namespace string `json:"namespace"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	list := []pods.View{}
	for _, p := range o.Map.GetAllPods() {
		if req.Namespace == "" || req.Namespace == p.Namespace {
			list = append(list, pods.ViewOf(p))
		}
	}
	return map[string]any{"pods": list}, nil
}

// container reads which one an event is about.
func (o PodsOptions) container(ctx context.Context, ev *wire.Event) (string, error) {
	var req struct {
		Container string `json:"container"`
	}
	if err := decodeEvent(ev, &req); err != nil {
		return "", err
	}
	if req.Container == "" {
		return "", invalid("container", "missing")
	}
	return o.Find(ctx, req.Container)
}

func (o PodsOptions) facts(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	id, err := o.container(ctx, ev)
	if err != nil {
		return nil, err
	}
	c, err := o.Map.GetContainerByCid(id)
	if err != nil {
		return nil, err
	}
	if o.Facts == nil {
		return nil, &runtime.Error{Kind: runtime.ErrUnsupported, Message: "this host tells no facts of containers"}
	}
	facts, err := o.Facts(ctx, c)
	if err != nil {
		return nil, err
	}
	return map[string]any{"facts": facts}, nil
}

func (o PodsOptions) limits(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	id, err := o.container(ctx, ev)
	if err != nil {
		return nil, err
	}
	var req struct {
		Limits json.RawMessage `json:"limits"`
	}
	if err := json.Unmarshal(ev.Data, &req); err != nil || len(req.Limits) == 0 {
		return nil, invalid("limits", "missing")
	}
	limits, err := runtime.ParseLimits(req.Limits)
	if err != nil {
		return nil, err
	}
	if o.Limiter == nil {
		return nil, &runtime.Error{Kind: runtime.ErrUnsupported, Message: "the engine of this host does not change limits"}
	}
	if err := o.Limiter.UpdateLimits(ctx, id, limits); err != nil {
		return nil, err
	}
	return map[string]any{"container": id, "limits": limits}, nil
}
