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

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

const (
	maxUUID = 255 // bytes of a reported uuid
	maxInfo = 1 << 20
	// seenEvery is how old a host's LastSeen may be in its record: reports with new figures come as often.
	seenEvery = 2 * time.Minute

	labelAgentImage    = "io.rancher.host.agent_image"
	labelDockerVersion = "io.rancher.host.docker_version"
)

// A resource is one element of a ping reply. One type has the fields of all kinds.
type resource struct {
	Type string `json:"type"`
	UUID string `json:"uuid"`
	Name string `json:"name"`

	// host
	Hostname         string                     `json:"hostname"`
	PhysicalHostUUID string                     `json:"physicalHostUuid"`
	Labels           map[string]json.RawMessage `json:"labels"`
	CreateLabels     map[string]json.RawMessage `json:"createLabels"`
	Info             json.RawMessage            `json:"info"`
	APIProxy         string                     `json:"apiProxy"`
	Memory           json.Number                `json:"memory"`
	MilliCPU         json.Number                `json:"milliCpu"`
	LocalStorageMB   json.Number                `json:"localStorageMb"`
	Engine           string                     `json:"engine"`

	// storagePool, ipAddress
	HostUUID string `json:"hostUuid"`

	// instance
	State    string      `json:"state"`
	DockerID string      `json:"dockerId"`
	Image    string      `json:"image"`
	Created  json.Number `json:"created"` // seconds
}

// A pingData is the data of a ping reply.
type pingData struct {
	Options struct {
		Instances bool `json:"instances"`
	} `json:"options"`
	Resources []json.RawMessage `json:"resources"`
}

// A snapshot is what a ping reply says.
type snapshot struct {
	host, pool *resource
	address    string
	hostUUID   string
	instances  []resource
	listed     bool // instances is the whole list of the host
}

// readReport decodes a ping reply's data. A resource that cannot be read is left out: the others are still true. An
// instance that cannot be read, however, makes the list incomplete, so that nothing is concluded from it.
func readReport(data []byte) (*snapshot, error) {
	var d pingData
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("ping reply: %w", err)
	}
	var s snapshot
	var errs []error
	whole := true
	for _, raw := range d.Resources {
		var r resource
		if err := json.Unmarshal(raw, &r); err != nil {
			errs = append(errs, fmt.Errorf("ping reply: %s resource: %w", r.Type, err))
			whole = whole && r.Type != "instance" && r.Type != ""
			continue
		}
		if r.UUID == "" || len(r.UUID) > maxUUID {
			whole = whole && r.Type != "instance"
			continue
		}
		switch r.Type {
		case "host":
			s.host = &r
		case "storagePool":
			s.pool = &r
		case "ipAddress":
			s.address = r.UUID
		case "hostUuid":
			s.hostUUID = r.UUID
		case "instance":
			s.instances = append(s.instances, r)
		}
	}
	s.listed = d.Options.Instances && s.hostUUID != "" && whole
	return &s, errors.Join(errs...)
}

// takeReports takes in what an agent reported.
func (h *Hub) takeReports(ctx context.Context, a *agent) {
	a.reports.Lock()
	defer a.reports.Unlock()
	for r := a.nextReport(); r != nil; r = a.nextReport() {
		if err := h.takeReport(ctx, a, r); err != nil && ctx.Err() == nil {
			h.log.WithField("agent", a.id).WithError(err).Warn("hub: a report of an agent is left out")
		}
	}
}

func (h *Hub) takeReport(ctx context.Context, a *agent, r *report) error {
	s, err := readReport(r.data)
	if s == nil {
		return err
	}
	if err != nil {
		h.log.WithField("agent", a.id).WithError(err).Warn("hub: part of a report cannot be read")
	}
	if s.host != nil {
		if err := h.takeHost(ctx, a, s); err != nil {
			return err
		}
	}
	if !s.listed {
		return nil
	}
	host, ok := a.host()
	if !ok || host.UUID != s.hostUUID {
		return nil // quarantined, or not known yet
	}
	skipped, err := h.takeInstances(ctx, a, host, s.instances, r.sent)
	if err != nil {
		return err
	}
	if !skipped {
		a.mu.Lock()
		a.taken = r.hash
		a.mu.Unlock()
	}
	return nil
}

// takeHost makes or updates the record of the host that an agent reports.
func (h *Hub) takeHost(ctx context.Context, a *agent, s *snapshot) error {
	owner, err := h.store.Agents.Get(a.id)
	if err != nil {
		return err
	}
	host, err := h.store.HostByUUID(s.host.UUID)
	if errors.Is(err, store.ErrNotFound) {
		host, err = h.store.Hosts.Create(ctx, store.Host{
			UUID: s.host.UUID, AccountID: owner.AccountID, AgentID: a.id, State: store.StateActive,
			Labels: texts(s.host.CreateLabels),
		})
		if errors.Is(err, store.ErrExists) {
			return fmt.Errorf("host %s: another agent was first: %w", s.host.UUID, err)
		}
		if err == nil {
			h.log.WithField("agent", a.id).WithField("host", host.ID).WithField("hostname", s.host.Hostname).Info("hub: new host")
		}
	}
	if err != nil {
		return err
	}
	if host.AgentID != a.id {
		if other, live := h.liveOwner(host); live {
			return h.quarantine(ctx, a, host, other)
		}
		h.log.WithField("agent", a.id).WithField("host", host.ID).WithField("from", host.AgentID).
			Warn("hub: a host moves to a new agent, because its old one is gone")
	}
	a.mu.Lock()
	a.hostUUID = host.UUID
	a.mu.Unlock()
	if _, err := h.store.Hosts.Update(ctx, host.ID, func(host *store.Host) error {
		host.AgentID, host.AccountID = a.id, owner.AccountID
		host.State = store.StateActive
		a.mu.Lock()
		defer a.mu.Unlock()
		s.describe(host, a)
		return nil
	}); err != nil {
		return err
	}
	for _, other := range h.store.HostsOfAgent(a.id) {
		if other.ID != host.ID {
			h.states.add(a) // it is not reported any more
		}
	}
	return h.release(ctx, owner)
}

// liveOwner returns the agent that a host belongs to, if it is connected or was a moment ago.
func (h *Hub) liveOwner(host *store.Host) (*store.Agent, bool) {
	other, err := h.store.Agents.Get(host.AgentID)
	if err != nil || other.State == store.StateRemoved || other.Connection == store.ConnectionDisconnected {
		return nil, false
	}
	return other, true
}

// quarantine refuses a host that another agent, which is alive, reports too: one of the two machines is a copy.
func (h *Hub) quarantine(ctx context.Context, a *agent, host *store.Host, other *store.Agent) error {
	h.quarantined.Add(1)
	why := fmt.Sprintf("host %s (%s) is reported by agent %s at %s too: one of the machines is a copy; reset its identity",
		host.UUID, host.DisplayName(), other.ID, other.RemoteAddr)
	_, err := h.store.Agents.Update(ctx, a.id, func(rec *store.Agent) error {
		if rec.Quarantine == why {
			return store.ErrUnchanged
		}
		rec.Quarantine = why
		h.log.WithField("agent", a.id).Warn("hub: quarantined: " + why)
		return nil
	})
	return err
}

// release ends the quarantine of an agent.
func (h *Hub) release(ctx context.Context, owner *store.Agent) error {
	if owner.Quarantine == "" {
		return nil
	}
	_, err := h.store.Agents.Update(ctx, owner.ID, func(rec *store.Agent) error {
		rec.Quarantine = ""
		return nil
	})
	return err
}

// describe brings a host's record in step with a snapshot. The caller holds the agent's mu.
func (s *snapshot) describe(host *store.Host, a *agent) {
	r := s.host
	a.stateOf(host)
	if a.lastSeen.Sub(host.LastSeen) >= seenEvery {
		host.LastSeen = a.lastSeen
	}
	host.Hostname, host.APIProxy = r.Hostname, r.APIProxy
	if r.PhysicalHostUUID != "" {
		host.PhysicalHostUUID = r.PhysicalHostUUID
	}
	if host.Labels == nil {
		host.Labels = make(map[string]string)
	}
	maps.Copy(host.Labels, texts(r.Labels))
	if s.pool != nil && s.pool.HostUUID == host.UUID {
		host.StoragePoolUUID, host.StoragePoolName = s.pool.UUID, s.pool.Name
	}
	if s.address != "" {
		host.AgentIPAddress = s.address
	}
	// As Rancher does: what a person may have corrected is not overwritten.
	setOnce(&host.Memory, r.Memory)
	setOnce(&host.MilliCPU, r.MilliCPU)
	setOnce(&host.LocalStorageMB, r.LocalStorageMB)
	host.Info = mergeInfo(host.Info, r.Info)
	if engine := engineOf(r, host); engine != "" {
		host.Engine = engine
	}
	a.engineless = host.Engine == ""
	host.AgentVersion = cmp.Or(a.version, host.Labels[labelAgentImage])
}

func setOnce(dst *int64, n json.Number) {
	if *dst != 0 || n == "" {
		return
	}
	if v, err := n.Int64(); err == nil {
		*dst = v
	} else if f, err := n.Float64(); err == nil {
		*dst = int64(f)
	}
}

// texts returns the labels that are texts, or can be read as such.
func texts(labels map[string]json.RawMessage) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(labels))
	for k, raw := range labels {
		var v string
		if json.Unmarshal(raw, &v) != nil {
			v = strings.TrimSpace(string(raw)) // a number or a boolean; as it is written
		}
		out[k] = v
	}
	return out
}

// mergeInfo returns old with the keys of reported in place of its own.
func mergeInfo(old, reported json.RawMessage) json.RawMessage {
	if len(reported) == 0 || len(reported) > maxInfo {
		return old
	}
	var into, from map[string]json.RawMessage
	if json.Unmarshal(reported, &from) != nil || len(from) == 0 {
		return old
	}
	if json.Unmarshal(old, &into) != nil || into == nil {
		into = make(map[string]json.RawMessage)
	}
	maps.Copy(into, from)
	merged, err := json.Marshal(into)
	if err != nil {
		return old
	}
	return merged
}

// engineOf returns the name and version of the host's engine: "docker 20.10.24".
func engineOf(r *resource, host *store.Host) string {
	if r.Engine != "" {
		return r.Engine
	}
	var info struct {
		OSInfo struct {
			DockerVersion string `json:"dockerVersion"` // "Docker version 20.10.24, build 297e128"
		} `json:"osInfo"`
	}
	if json.Unmarshal(host.Info, &info) == nil && info.OSInfo.DockerVersion != "" {
		v, _, _ := strings.Cut(info.OSInfo.DockerVersion, ",")
		return strings.Replace(strings.TrimSpace(v), "Docker version ", "docker ", 1)
	}
	if v := host.Labels[labelDockerVersion]; v != "" {
		return "docker " + v
	}
	return ""
}

// busy reports whether the server is at work on a container, which its record must not be changed under.
func busy(c *store.Container) bool { return c.Transitioning == wire.TransitioningYes }
