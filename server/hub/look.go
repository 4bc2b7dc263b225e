package hub

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// lookTimeout is short: what it finds out is nice to know, and comes with the container's next event too.
const lookTimeout = 30 * time.Second

const (
	inspectEvent = "compute.instance.inspect"
	inspectType  = "instanceInspect"
)

// look asks a host about a container that it reported, and writes down what a report does not say.
func (h *Hub) look(ctx context.Context, containerID string) {
	c, err := h.store.Containers.Get(containerID)
	if err != nil || !c.Native || c.State == store.ContainerRemoved {
		return
	}
	host, err := h.store.Hosts.Get(c.HostID)
	if err != nil {
		return
	}
	if a := h.known(host.AgentID); a == nil || a.session() == nil {
		return // not worth waiting for
	}
	log := h.log.WithField("container", containerID)
	ask := map[string]any{inspectType: map[string]string{"kind": "docker", "id": c.ExternalID}}
	data, err := json.Marshal(ask)
	if err != nil {
		log.WithError(err).Error("hub: an inspect event cannot be encoded")
		return
	}
	r, err := h.Call(ctx, host.AgentID, &wire.Event{
		Name: inspectEvent, ResourceType: inspectType, Data: data, TimeoutMillis: lookTimeout.Milliseconds(),
	}, nil)
	if err != nil || r.Transitioning == wire.TransitioningError {
		log.WithError(err).Debug("hub: a container that was found cannot be inspected")
		return
	}
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(r.Data, &answer); err != nil {
		return
	}
	seen := readInspect(answer[inspectType])
	if seen == nil {
		return // it is gone again
	}
	_, err = h.store.Containers.Update(ctx, containerID, func(c *store.Container) error {
		if busy(c) {
			return store.ErrUnchanged
		}
		seen.describe(c, c.State)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		log.WithError(err).Debug("hub: what is known of a container that was found cannot be written down")
	}
}

type portBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string `json:"HostPort"`
}

// portList writes port bindings as Rancher does: "0.0.0.0:8080:80/tcp", or "80/tcp" for a port that is not published.
func portList(ports map[string][]portBinding) []string {
	var out []string
	for port, bindings := range ports {
		if len(bindings) == 0 {
			out = append(out, port)
		}
		for _, b := range bindings {
			out = append(out, b.HostIP+":"+b.HostPort+":"+port)
		}
	}
	slices.Sort(out)
	return out
}
