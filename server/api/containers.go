package api

import (
	"encoding/json"
	"net/http"

	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/server/store"
)

func (h *Handler) containerEndpoint() *endpoint {
	type act = func(q *request, id string, fields map[string]any) (*resource, error)
	answer := func(c *store.Container, err error) (*resource, error) {
		if err != nil {
			return nil, fromCompute(err)
		}
		return h.containerResource(c), nil
	}
	withTimeout := func(do func(q *request, id string, timeout *int) (*store.Container, error)) act {
		return func(q *request, id string, fields map[string]any) (*resource, error) {
			timeout, err := seconds(fields["timeout"])
			if err != nil {
				return nil, err
			}
			return answer(do(q, id, timeout))
		}
	}
	return &endpoint{
		list: func(q *request) ([]*resource, error) {
			return h.containerResources(q, h.store.Containers.List()), nil
		},
		get: func(q *request, id string) (*resource, error) { return answer(h.store.Containers.Get(id)) },
		create: func(q *request, fields map[string]any) (*resource, error) {
			raw, err := json.Marshal(fields)
			if err != nil {
				return nil, err
			}
			return answer(h.compute.Create(q.ctx(), AdminAccount, raw))
		},
		update: func(q *request, id string, fields map[string]any) (*resource, error) {
			return answer(h.compute.Rename(q.ctx(), id, given(fields, "name"), given(fields, "description")))
		},
		remove: func(q *request, id string) (*resource, error) {
			return answer(h.compute.Remove(q.ctx(), id, false, nil))
		},
		actions: map[string]act{
			"execute": containerExec, "logs": containerLogs, "proxy": containerProxy,
			"start": func(q *request, id string, _ map[string]any) (*resource, error) {
				return answer(h.compute.Start(q.ctx(), id))
			},
			"stop": withTimeout(func(q *request, id string, timeout *int) (*store.Container, error) {
				return h.compute.Stop(q.ctx(), id, timeout)
			}),
			"restart": withTimeout(func(q *request, id string, timeout *int) (*store.Container, error) {
				return h.compute.Restart(q.ctx(), id, timeout)
			}),
			"remove": func(q *request, id string, fields map[string]any) (*resource, error) {
				timeout, err := seconds(fields["timeout"])
				if err != nil {
					return nil, err
				}
				force, _ := fields["force"].(bool)
				return answer(h.compute.Remove(q.ctx(), id, force, timeout))
			},
		},
		links: map[string]func(*request, string) error{
			"stats": containerStatsLink(access.WayStats), "containerstats": containerStatsLink(access.WayContainerStats),
			"inspect": func(q *request, id string) error {
				raw, err := h.compute.Inspect(q.ctx(), id)
				if err != nil {
					return fromCompute(err)
				}
				q.w.Header().Set("Content-Type", "application/json; charset=utf-8")
				q.w.WriteHeader(http.StatusOK)
				_, _ = q.w.Write(raw)
				return nil
			},
		},
	}
}

func given(fields map[string]any, name string) *string {
	v, ok := fields[name].(string)
	if !ok {
		return nil
	}
	return &v
}

// containerResources leaves out what is removed, unless the query asks for it.
func (h *Handler) containerResources(q *request, all []*store.Container) []*resource {
	removed := q.wantsRemoved()
	out := make([]*resource, 0, len(all))
	for _, c := range all {
		if removed || c.State != store.ContainerRemoved {
			out = append(out, h.containerResource(c))
		}
	}
	return out
}

// wantsRemoved reports whether a list shall hold what is removed as well.
func (q *request) wantsRemoved() bool {
	query := q.r.URL.Query()
	return query.Get("all") == "true" || query.Has("removed_notnull") || query.Get("state") == store.StateRemoved
}

func (h *Handler) containerResource(c *store.Container) *resource {
	fields := map[string]any{}
	if len(c.Fields) > 0 {
		var given map[string]json.RawMessage
		if json.Unmarshal(c.Fields, &given) == nil {
			for name, v := range given {
				fields[name] = v
			}
		}
	}
	ports := c.Ports
	if c.Native && len(ports) == 0 {
		ports = c.DockerPorts
	}
	for name, v := range map[string]any{
		"name": orNil(c.Name), "description": orNil(c.Description), "uuid": c.UUID, "kind": "container", "state": c.State,
		"transitioning": orNo(c.Transitioning), "transitioningMessage": orNil(c.TransitioningMessage),
		"transitioningProgress": orNilInt(int64(c.TransitioningProgress)), "externalId": orNil(c.ExternalID),
		"imageUuid": orNil(c.ImageUUID), "hostId": orNil(c.HostID), "accountId": c.AccountID, "labels": orEmptyMap(c.Labels),
		"ports": orEmptyList(ports), "dockerPorts": orEmptyList(c.DockerPorts), "primaryIpAddress": orNil(c.PrimaryIPAddress),
		"native": c.Native, "nativeContainer": c.Native, "system": false, "created": c.Created,
		"externalCreated": c.ExternalCreated, "removed": c.Removed,
	} {
		fields[name] = v
	}
	return &resource{typ: "container", id: c.ID, fields: fields, links: []string{"inspect", "stats", "containerStats"}, actions: containerActionsIn(c.State)}
}

// containerActionsIn are the actions that a state allows.
func containerActionsIn(state string) []string {
	switch state {
	case store.ContainerRunning:
		return []string{"stop", "restart", "remove", "execute", "logs", "proxy"}
	case store.ContainerStopped:
		return []string{"start", "restart", "remove", "logs"}
	case store.ContainerError:
		return []string{"start", "stop", "restart", "remove"}
	case store.ContainerCreating, store.ContainerStarting:
		return []string{"stop", "remove"}
	case store.ContainerStopping:
		return []string{"remove"}
	}
	return nil
}

func orNo(transitioning string) string {
	if transitioning == "" {
		return "no"
	}
	return transitioning
}
