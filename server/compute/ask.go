package compute

import (
	"context"
	"encoding/json"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// Inspect returns what the engine of a container's host says about it, in the engine's own JSON. It waits for the
// host. Its errors are *Error.
func (e *Engine) Inspect(ctx context.Context, id string) (json.RawMessage, error) {
	c, err := e.store.Containers.Get(id)
	if err != nil {
		return nil, &Error{Code: wire.CodeNotFound, Text: "there is no container " + id}
	}
	if c.ExternalID == "" {
		return nil, conflict("container %s is not on its host yet", id)
	}
	ev := &wire.Event{
		Name: "compute.instance.inspect", ResourceType: "instanceInspect", TimeoutMillis: inspectTimeout.Milliseconds(),
		Data: marshal(object{"instanceInspect": object{"kind": "docker", "id": c.ExternalID}}),
	}
	r, err := e.Ask(ctx, c.HostID, ev, nil)
	if err != nil {
		return nil, err
	}
	if f := failure(r); f != nil {
		return nil, f
	}
	var data struct {
		InstanceInspect json.RawMessage `json:"instanceInspect"`
	}
	var found struct {
		ID string `json:"Id"`
	}
	if json.Unmarshal(r.Data, &data) != nil || json.Unmarshal(data.InstanceInspect, &found) != nil || found.ID == "" {
		return nil, &Error{Code: wire.CodeNotFound, Text: "the host has no such container"}
	}
	return data.InstanceInspect, nil
}

// Ask sends an event to the agent of a host and waits for the final reply, which may report a failure. progress, which
// may be nil, gets the replies before it, in order. Errors are *Error, but for the end of ctx.
func (e *Engine) Ask(ctx context.Context, hostID string, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error) {
	host, err := e.store.Hosts.Get(hostID)
	if err != nil || host.State == store.StateRemoved {
		return nil, &Error{Code: wire.CodeNotFound, Text: "there is no host " + hostID}
	}
	r, err := e.hub.Call(ctx, host.AgentID, ev, progress)
	if err == nil {
		return r, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, explain(err, hostName(host))
}
