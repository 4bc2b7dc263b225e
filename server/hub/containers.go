package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/droverhq/drover/server/store"
)

const (
	labelUUID = "io.rancher.container.uuid" // the server's uuid of a container, put on it when it was made
	envUUID   = "RANCHER_UUID="             // the same, in old agents

	imagePrefix = "docker:"
	maxSkipped  = 10_000 // containers of a host whose events came at a bad time
)

// takeInstances brings the records of a host's containers in step with what the host has. It reports whether something
// was left out, so that the same report must be looked at again.
func (h *Hub) takeInstances(ctx context.Context, a *agent, host *store.Host, instances []resource, asOf time.Time) (skipped bool, err error) {
	records := h.store.ContainersOfHost(host.ID)
	byUUID := make(map[string]*store.Container, len(records))
	byID := make(map[string]*store.Container, len(records))
	for _, c := range records {
		byUUID[c.UUID] = c
		if c.ExternalID != "" {
			byID[c.ExternalID] = c
		}
	}
	var errs []error
	here := make(map[string]bool, len(instances))
	for i := range instances {
		in := &instances[i]
		if in.DockerID == "" {
			continue
		}
		c := byID[in.DockerID]
		if labelled := byUUID[in.UUID]; c == nil && labelled != nil && !labelled.Native {
			c = labelled
		}
		if c == nil {
			errs = append(errs, h.found(ctx, host, in))
			continue
		}
		here[c.ID] = true
		if busy(c) || c.Updated.After(asOf) {
			skipped = true
			continue
		}
		if c.State == in.State && c.ExternalID == in.DockerID {
			continue
		}
		errs = append(errs, h.setState(ctx, c, in.State, func(c *store.Container) { c.ExternalID = in.DockerID }))
	}
	for _, c := range records {
		if here[c.ID] || c.ExternalID == "" || c.State == store.ContainerRemoved {
			continue
		}
		if busy(c) || c.Updated.After(asOf) {
			skipped = true
			continue
		}
		errs = append(errs, h.setState(ctx, c, store.ContainerRemoved, nil))
	}
	return skipped, errors.Join(errs...)
}

// found makes the record of a container that the server did not make.
func (h *Hub) found(ctx context.Context, host *store.Host, in *resource) error {
	c := store.Container{
		UUID: nativeUUID(host, in.DockerID), Name: nativeName(in), AccountID: host.AccountID, HostID: host.ID,
		ExternalID: in.DockerID, State: store.ContainerStopped, Native: true, Labels: texts(in.Labels),
	}
	if in.State == store.ContainerRunning {
		c.State = store.ContainerRunning
	}
	if in.Image != "" {
		c.ImageUUID = imagePrefix + in.Image
	}
	if sec, err := in.Created.Int64(); err == nil {
		c.ExternalCreated = time.Unix(sec, 0).UTC()
	}
	rec, err := h.store.Containers.Create(ctx, c)
	if errors.Is(err, store.ErrExists) {
		return nil // by an event that came through another door
	}
	if err != nil {
		return err
	}
	h.looks.add(rec.ID) // for its ports and address, which are not in the report
	return nil
}

// nativeUUID is the uuid of a container that the server did not make: the same on every replica, and another one on
// every host, also where hosts are copies of each other.
func nativeUUID(host *store.Host, externalID string) string { return host.UUID + "/" + externalID }

// nativeName reads the name of a container out of its uuid, which agents make of it where there is no better one.
func nativeName(in *resource) string {
	if in.Name != "" {
		return strings.TrimPrefix(in.Name, "/")
	}
	if _, ok := in.Labels[labelUUID]; ok || strings.HasPrefix(in.UUID, "no-uuid-") {
		return shortID(in.DockerID)
	}
	return strings.TrimPrefix(in.UUID, "/")
}

func shortID(id string) string { return id[:min(12, len(id))] }

// setState writes down the state of a container that its host reports, unless the server began to work on it.
func (h *Hub) setState(ctx context.Context, c *store.Container, state string, also func(*store.Container)) error {
	switch state {
	case store.ContainerRunning, store.ContainerRemoved:
	default:
		state = store.ContainerStopped
	}
	switch {
	case c.State == state && also == nil:
		return nil
	case c.State == store.ContainerError && state == store.ContainerStopped:
		return nil // it says why
	}
	_, err := h.store.Containers.Update(ctx, c.ID, func(c *store.Container) error {
		if busy(c) {
			return store.ErrUnchanged
		}
		if also != nil {
			also(c)
		}
		if c.State == state {
			return nil
		}
		if state != store.ContainerRemoved {
			c.Removed = time.Time{}
		} else if c.Removed.IsZero() {
			c.Removed = time.Now().UTC()
		}
		c.State, c.Transitioning, c.TransitioningMessage, c.TransitioningProgress = state, "", "", 0
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil // purged meanwhile
	}
	return err
}

// A ContainerEvent is what an agent posts about a container that changed.
type ContainerEvent struct {
	ExternalID        string          `json:"externalId"`
	ExternalFrom      string          `json:"externalFrom"`
	ExternalStatus    string          `json:"externalStatus"` // start, stop, die, kill, destroy
	ExternalTimestamp int64           `json:"externalTimestamp"`
	ReportedHostUUID  string          `json:"reportedHostUuid"`
	Data              json.RawMessage `json:"data,omitempty"`
	DockerInspect     json.RawMessage `json:"dockerInspect,omitempty"`
}

// ContainerEvent brings the container's record up to date. ErrUnknownAgent if there is no such agent, ErrReference if
// the host is not one of the agent's, ErrInvalid if the event names no container. Statuses that say nothing about the
// container's state are taken and ignored.
func (h *Hub) ContainerEvent(ctx context.Context, agentID string, ev ContainerEvent) error {
	a, err := h.open(ctx, agentID)
	if err != nil {
		return err
	}
	host, err := h.store.HostByUUID(ev.ReportedHostUUID)
	if err != nil || host.AgentID != agentID {
		return ErrReference
	}
	if ev.ExternalID == "" {
		return fmt.Errorf("%w: externalId is empty", ErrInvalid)
	}
	var state string
	switch ev.ExternalStatus {
	case "start":
		state = store.ContainerRunning
	case "stop", "die":
		state = store.ContainerStopped
	case "destroy":
		state = store.ContainerRemoved
	default:
		return nil
	}
	seen := readInspect(ev.DockerInspect)
	c := h.containerOf(host, ev.ExternalID, seen)
	if c == nil {
		return h.foundByEvent(ctx, host, ev, state, seen)
	}
	if busy(c) {
		a.skip(c.ID)
		return nil
	}
	return h.setState(ctx, c, state, func(c *store.Container) {
		c.ExternalID = ev.ExternalID
		seen.describe(c, state)
	})
}

// containerOf returns the record of a container, or nil.
func (h *Hub) containerOf(host *store.Host, externalID string, seen *inspected) *store.Container {
	if id := seen.uuid(); id != "" {
		if c, err := h.store.ContainerByUUID(id); err == nil && c.HostID == host.ID && !c.Native {
			return c
		}
	}
	if c, err := h.store.ContainerByExternalID(host.ID, externalID); err == nil {
		return c
	}
	return nil
}

func (h *Hub) foundByEvent(ctx context.Context, host *store.Host, ev ContainerEvent, state string, seen *inspected) error {
	if state == store.ContainerRemoved {
		return nil
	}
	c := store.Container{
		UUID: nativeUUID(host, ev.ExternalID), Name: shortID(ev.ExternalID), AccountID: host.AccountID, HostID: host.ID,
		ExternalID: ev.ExternalID, State: state, Native: true,
	}
	if ev.ExternalFrom != "" {
		c.ImageUUID = imagePrefix + ev.ExternalFrom
	}
	seen.describe(&c, state)
	rec, err := h.store.Containers.Create(ctx, c)
	if errors.Is(err, store.ErrExists) {
		return nil // a report was faster
	}
	if err == nil && seen == nil {
		h.looks.add(rec.ID)
	}
	return err
}

// skip remembers that a container changed while the server was at work on it.
func (a *agent) skip(containerID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.skipped == nil {
		a.skipped = make(map[string]struct{})
	}
	if len(a.skipped) < maxSkipped {
		a.skipped[containerID] = struct{}{}
	}
}

// inspected is the part of an engine's inspect answer that a record shows.
type inspected struct {
	Name    string `json:"Name"`
	Created string `json:"Created"`
	Config  *struct {
		Image  string            `json:"Image"`
		Labels map[string]string `json:"Labels"`
		Env    []string          `json:"Env"`
	} `json:"Config"`
	State *struct {
		Running bool `json:"Running"`
	} `json:"State"`
	NetworkSettings *struct {
		IPAddress string                     `json:"IPAddress"`
		Ports     map[string][]portBinding   `json:"Ports"`
		Networks  map[string]networkEndpoint `json:"Networks"`
	} `json:"NetworkSettings"`
}

type networkEndpoint struct {
	IPAddress string `json:"IPAddress"`
}

// readInspect decodes an inspect answer; nil if there is none or it is none.
func readInspect(raw json.RawMessage) *inspected {
	var in inspected
	if len(raw) == 0 || json.Unmarshal(raw, &in) != nil || in.Config == nil {
		return nil
	}
	return &in
}

// uuid returns the server's uuid of a container that the server made.
func (in *inspected) uuid() string {
	if in == nil {
		return ""
	}
	if id := in.Config.Labels[labelUUID]; id != "" {
		return id
	}
	for _, env := range in.Config.Env {
		if id, ok := strings.CutPrefix(env, envUUID); ok {
			return id
		}
	}
	return ""
}

// describe brings a record in step with what was seen. Of a container that the server made, name, image and labels are
// what was asked for, and stay.
func (in *inspected) describe(c *store.Container, state string) {
	if in == nil {
		return
	}
	if c.Native {
		c.Name = cmp.Or(strings.TrimPrefix(in.Name, "/"), c.Name)
		c.Labels = maps.Clone(in.Config.Labels)
		if in.Config.Image != "" {
			c.ImageUUID = imagePrefix + in.Config.Image
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, in.Created); err == nil {
		c.ExternalCreated = at.UTC()
	}
	if in.NetworkSettings == nil || state != store.ContainerRunning {
		return
	}
	c.PrimaryIPAddress = in.NetworkSettings.IPAddress
	for _, network := range in.NetworkSettings.Networks {
		c.PrimaryIPAddress = cmp.Or(c.PrimaryIPAddress, network.IPAddress)
	}
	c.DockerPorts = portList(in.NetworkSettings.Ports)
	if c.Native {
		c.Ports = c.DockerPorts
	}
}
