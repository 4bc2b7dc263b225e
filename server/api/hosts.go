package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/server/compute"
	"github.com/droverhq/drover/server/store"
)

// retryBusy is what clients are told to wait where a host is busy or down.
const retryBusy = 2 * time.Second

func (h *Handler) hostEndpoint() *endpoint {
	return &endpoint{
		list: func(q *request) ([]*resource, error) {
			var out []*resource
			for _, host := range h.store.Hosts.List() {
				out = append(out, h.hostResource(host))
			}
			return out, nil
		},
		get: func(q *request, id string) (*resource, error) {
			host, err := h.store.Hosts.Get(id)
			if err != nil {
				return nil, fromCompute(err)
			}
			return h.hostResource(host), nil
		},
		update: h.updateHost,
		remove: func(q *request, id string) (*resource, error) {
			host, err := h.store.Hosts.Get(id)
			if err != nil {
				return nil, fromCompute(err)
			}
			res := h.hostResource(host)
			if err := h.removeAgent(q, host.AgentID); err != nil {
				return nil, err
			}
			res.fields["state"], res.actions = store.StateRemoved, nil
			return res, nil
		},
		actions: map[string]func(*request, string, map[string]any) (*resource, error){
			"event":        serveHostEvent,
			"dockersocket": hostSocket,
			"remove": func(q *request, id string, _ map[string]any) (*resource, error) {
				return h.endpoints["host"].remove(q, id)
			},
		},
		links: map[string]func(*request, string) error{
			"instances":  h.containersOfHost,
			"containers": h.containersOfHost,
			"stats":      hostStatsLink(access.WayStats), "hoststats": hostStatsLink(access.WayHostStats), "containerstats": hostStatsLink(access.WayContainerStats),
		},
	}
}

func (h *Handler) hostResource(host *store.Host) *resource {
	seen := host.LastSeen
	if t := h.hub.LastSeen(host.AgentID); t.After(seen) {
		seen = t
	}
	fields := map[string]any{
		"name": orNil(host.Name), "description": orNil(host.Description), "hostname": host.Hostname, "uuid": host.UUID, "kind": "docker",
		"state": host.State, "agentState": host.AgentState, "connection": host.Connection, "agentId": host.AgentID,
		"agentVersion": orNil(host.AgentVersion), "agentIpAddress": orNil(host.AgentIPAddress), "engine": orNil(host.Engine),
		"labels": orEmptyMap(host.Labels), "info": orNilJSON(host.Info), "physicalHostUuid": orNil(host.PhysicalHostUUID),
		"apiProxy": orNil(host.APIProxy), "memory": orNilInt(host.Memory), "milliCpu": orNilInt(host.MilliCPU),
		"localStorageMb": orNilInt(host.LocalStorageMB), "accountId": host.AccountID, "created": host.Created,
		"lastSeen": seen, "removed": time.Time{}, "transitioning": wire.TransitioningNo, "transitioningMessage": nil, "transitioningProgress": nil,
	}
	return &resource{typ: "host", id: host.ID, fields: fields, links: []string{"instances", "containers", "stats", "hostStats", "containerStats"}, actions: []string{"event", "remove", "dockersocket"}}
}

func (h *Handler) updateHost(q *request, id string, fields map[string]any) (*resource, error) {
	host, err := h.store.Hosts.Update(q.ctx(), id, func(host *store.Host) error {
		if v, ok := fields["name"]; ok {
			host.Name, _ = v.(string)
		}
		if v, ok := fields["description"]; ok {
			host.Description, _ = v.(string)
		}
		if v, ok := fields["labels"]; ok {
			host.Labels = textMap(v)
		}
		return nil
	})
	if err != nil {
		return nil, fromCompute(err)
	}
	return h.hostResource(host), nil
}

func (h *Handler) containersOfHost(q *request, id string) error {
	if _, err := h.store.Hosts.Get(id); err != nil {
		return fromCompute(err)
	}
	s, _ := q.schema("container")
	return q.writeCollection(&s, h.containerResources(q, h.store.ContainersOfHost(id)))
}

// removeAgent removes an agent with everything it reported, and cuts its socket.
func (h *Handler) removeAgent(q *request, agentID string) error {
	if err := h.store.RemoveAgent(q.ctx(), agentID); err != nil {
		return fromCompute(err)
	}
	if err := h.hub.Disconnect(q.ctx(), agentID); err != nil {
		h.log.WithError(err).WithField("agent", agentID).Warn("cannot cut the socket of a removed agent")
	}
	return nil
}

// serveHostEvent sends one event to a host's agent and answers with its final reply; with
// "Accept: application/x-ndjson" the progress replies come before it, one JSON object a line.
func serveHostEvent(q *request, id string, fields map[string]any) (*resource, error) {
	ev := &wire.Event{Name: text(fields["name"]), ResourceType: text(fields["resourceType"]), ResourceID: text(fields["resourceId"])}
	if millis, _ := fields["timeoutMillis"].(int64); millis > 0 {
		ev.TimeoutMillis = min(millis, int64(time.Hour/time.Millisecond))
	}
	if data, ok := fields["data"]; ok {
		if _, isObject := data.(map[string]any); !isObject {
			return nil, wrongType("data", "an object", data)
		}
		ev.Data, _ = json.Marshal(data) // it came as JSON
	}
	lines := q.r.Header.Get("Accept") == "application/x-ndjson"
	var progress func(*wire.Reply)
	if lines {
		progress = func(r *wire.Reply) { q.writeLine(eventReply(r)) }
	}
	r, err := q.h.compute.Ask(q.ctx(), id, ev, progress)
	if err != nil {
		if !lines || q.w.status == 0 {
			return nil, fromCompute(err)
		}
		// The answer has begun: the failure is its last line.
		var e *compute.Error
		if !errors.As(err, &e) {
			e = &compute.Error{Code: wire.CodeInternal, Text: "the request was cut off"}
		}
		q.writeLine(map[string]any{"name": ev.Name, "transitioning": wire.TransitioningError, "transitioningMessage": e.Text, "code": e.Code})
		return nil, nil
	}
	if lines {
		q.writeLine(eventReply(r))
		return nil, nil
	}
	writeJSON(q.w, http.StatusOK, eventReply(r))
	return nil, nil
}

func eventReply(r *wire.Reply) map[string]any {
	out := map[string]any{"name": r.Name, "data": orNilJSON(r.Data), "transitioning": r.Transitioning}
	if r.Transitioning == "" {
		out["transitioning"] = wire.TransitioningNo
	}
	if r.TransitioningMessage != "" {
		out["transitioningMessage"] = r.TransitioningMessage
	}
	if r.TransitioningProgress != 0 {
		out["transitioningProgress"] = r.TransitioningProgress
	}
	if r.Code != "" {
		out["code"] = r.Code
	}
	return out
}

// writeLine writes one JSON object and a line feed, at once.
func (q *request) writeLine(v any) {
	if q.w.status == 0 {
		q.w.Header().Set("Content-Type", "application/x-ndjson")
		q.w.WriteHeader(http.StatusOK)
	}
	line, err := json.Marshal(v)
	if err != nil {
		return // it was made of JSON
	}
	_, _ = q.w.Write(append(line, '\n'))
	q.w.Flush()
}
