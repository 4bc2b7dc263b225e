package api

import (
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/server/store"
)

// serveWay answers Rancher's ways to the streams of hosts, on which a token of the server says who may.
func (h *Handler) serveWay(w *recorder, r *http.Request, t *target) error {
	if h.cfg.Access == nil {
		return notFound()
	}
	q := &request{h: h, w: w, r: r, target: t}
	if !q.sameOrigin() {
		return forbidden("a browser opened this from another site")
	}
	w.quiet = true
	return fromAccess(h.cfg.Access.ServeWay(w, r, lower(t.segments[0]), strings.TrimPrefix(pathFrom(r, t.segments[1:]), "/")))
}

// createHostAPIProxyToken gives the agent of a host what it connects its end of Rancher's host access with.
func createHostAPIProxyToken(q *request, fields map[string]any) (*resource, error) {
	if q.h.cfg.Access == nil {
		return nil, fail(http.StatusNotImplemented, "HostApiProxyDisabled", "this server gives no host access over Rancher's proxy")
	}
	uuid := text(fields["reportedUuid"])
	host, err := q.h.store.HostByUUID(uuid)
	if err != nil || host.AgentID != q.who.agent.ID {
		return nil, invalid("InvalidReference", "reportedUuid", "this agent has no such host yet")
	}
	token, err := q.h.cfg.Access.BackendToken(host.UUID, host.AgentID)
	if err != nil {
		return nil, err
	}
	return &resource{typ: "hostApiProxyToken", fields: map[string]any{
		"reportedUuid": uuid, "token": token, "url": q.socketURL(access.WayBackend),
	}}, nil
}

// socketURL is the address of a way, as a WebSocket's. Its version is always the first, as with Rancher.
func (q *request) socketURL(way string) string {
	return "ws" + strings.TrimPrefix(q.target.base, "http") + "/" + v1 + "/" + way
}

// grantAccess is the answer of an action that opens a way to a host.
func (q *request) grantAccess(typ string, host *store.Host, way, url string, claims map[string]any) (*resource, error) {
	if q.h.cfg.Access == nil {
		return nil, fail(http.StatusNotImplemented, "HostApiProxyDisabled", "this server gives no host access")
	}
	token, err := q.h.cfg.Access.ViewToken(host.UUID, way, claims)
	if err != nil {
		return nil, err
	}
	return &resource{typ: typ, fields: map[string]any{"url": url, "token": token}}, nil
}

// onHost returns a container with its host, if the host has it.
func (q *request) onHost(id string) (*store.Container, *store.Host, error) {
	c, err := q.h.store.Containers.Get(id)
	if err != nil {
		return nil, nil, fromCompute(err)
	}
	host, err := q.h.store.Hosts.Get(c.HostID)
	if err != nil || c.ExternalID == "" {
		return nil, nil, fail(http.StatusConflict, "InvalidState", "container %s is on no host: it is %s", c.Name, c.State)
	}
	return c, host, nil
}

func boolOr(fields map[string]any, name string, def bool) bool {
	if v, ok := fields[name].(bool); ok {
		return v
	}
	return def
}

func containerExec(q *request, id string, fields map[string]any) (*resource, error) {
	c, host, err := q.onHost(id)
	if err != nil {
		return nil, err
	}
	command, _ := fields["command"].([]any)
	if len(command) == 0 {
		return nil, invalid("MissingRequired", "command", "command is empty")
	}
	stdin, stdout, tty := boolOr(fields, "attachStdin", true), boolOr(fields, "attachStdout", true), boolOr(fields, "tty", true)
	return q.grantAccess("hostAccess", host, access.WayExec, q.socketURL(access.WayExec)+"/", map[string]any{"exec": map[string]any{
		"AttachStdin": stdin, "AttachStdout": stdout, "AttachStderr": stdout && !tty, "Tty": tty, "Cmd": command, "Container": c.ExternalID,
	}})
}

func containerLogs(q *request, id string, fields map[string]any) (*resource, error) {
	c, host, err := q.onHost(id)
	if err != nil {
		return nil, err
	}
	lines := int64(100)
	if n, ok := fields["lines"].(int64); ok {
		lines = n
	}
	return q.grantAccess("hostAccess", host, access.WayLogs, q.socketURL(access.WayLogs)+"/", map[string]any{"logs": map[string]any{
		"Container": c.ExternalID, "Lines": lines, "Follow": boolOr(fields, "follow", true), "Timestamps": boolOr(fields, "timestamps", true),
		"Since": text(fields["since"]),
	}})
}

func containerProxy(q *request, id string, fields map[string]any) (*resource, error) {
	c, host, err := q.onHost(id)
	if err != nil {
		return nil, err
	}
	port, scheme := int64(80), "http"
	if n, ok := fields["port"].(int64); ok {
		port = n
	}
	if s := text(fields["scheme"]); s != "" {
		scheme = s
	}
	switch {
	case port < 1 || port > 65535:
		return nil, invalid("InvalidOption", "port", "port is %d: want 1 to 65535", port)
	case scheme != "http" && scheme != "https":
		return nil, invalid("InvalidOption", "scheme", "scheme is %.20q: want http or https", scheme)
	case net.ParseIP(c.PrimaryIPAddress) == nil:
		return nil, fail(http.StatusConflict, "InvalidState", "container %s has no address of its own", c.Name)
	}
	return q.grantAccess("hostAccess", host, access.WayProxy, q.target.base+"/"+v1+"/"+access.WayProxy+"/", map[string]any{"proxy": map[string]any{
		"Container": c.ExternalID, "scheme": scheme, "address": net.JoinHostPort(c.PrimaryIPAddress, strconv.FormatInt(port, 10)),
	}})
}

// hostSocket gives the engine's own socket.
func hostSocket(q *request, id string, _ map[string]any) (*resource, error) {
	host, err := q.h.store.Hosts.Get(id)
	if err != nil {
		return nil, fromCompute(err)
	}
	return q.grantAccess("hostAccess", host, access.WaySocket, q.socketURL(access.WaySocket)+"/", nil)
}

// hostStatsLink answers a link of a host to figures: of the host, or of all its containers.
func hostStatsLink(way string) func(*request, string) error {
	return func(q *request, id string) error {
		host, err := q.h.store.Hosts.Get(id)
		if err != nil {
			return fromCompute(err)
		}
		claims := map[string]any{}
		switch way {
		case access.WayHostStats:
			claims["resourceId"] = host.ID
		case access.WayContainerStats:
			ids := map[string]any{}
			for _, c := range q.h.store.ContainersOfHost(id) {
				if c.ExternalID != "" && c.State != store.ContainerRemoved {
					ids[c.ExternalID] = c.ID
				}
			}
			claims["containerIds"] = ids
		}
		return q.writeStats(host, way, q.socketURL(way), claims)
	}
}

// projectStats answers the link of a project to the figures of all hosts that are connected, in one socket.
func projectStats(q *request) error {
	if q.h.cfg.Access == nil {
		return fail(http.StatusNotImplemented, "HostApiProxyDisabled", "this server gives no host access")
	}
	var parts []access.Part
	for _, host := range q.h.store.Hosts.List() {
		if host.Connection == store.ConnectionDisconnected {
			continue
		}
		parts = append(parts, access.Part{Host: host.UUID})
	}
	switch {
	case len(parts) == 0:
		return fail(http.StatusServiceUnavailable, access.CodeNotConnected, "no host is connected")
	case len(parts) > access.MaxMerged:
		return fail(http.StatusConflict, "InvalidState", "%d hosts are too many for one socket, which takes %d: ask for the figures of each", len(parts), access.MaxMerged)
	}
	token, err := q.h.cfg.Access.MergedToken(access.WayHostStats, "project", parts)
	if err != nil {
		return err
	}
	return q.writeResource(http.StatusOK, &resource{typ: "statsAccess", fields: map[string]any{
		"url": q.socketURL(access.WayHostStats) + "/project/", "token": token,
	}})
}

// containerStatsLink answers a link of a container to its figures.
func containerStatsLink(way string) func(*request, string) error {
	return func(q *request, id string) error {
		c, host, err := q.onHost(id)
		if err != nil {
			return err
		}
		claims := map[string]any{}
		if way == access.WayContainerStats {
			claims["containerIds"] = map[string]any{c.ExternalID: c.ID}
		}
		return q.writeStats(host, way, q.socketURL(way)+"/"+c.ExternalID, claims)
	}
}

func (q *request) writeStats(host *store.Host, way, url string, claims map[string]any) error {
	if host.Connection == store.ConnectionDisconnected {
		return fail(http.StatusServiceUnavailable, access.CodeNotConnected, "host %s is not connected: it is %s", host.DisplayName(), host.Connection)
	}
	res, err := q.grantAccess("statsAccess", host, way, url, claims)
	if err != nil {
		return err
	}
	return q.writeResource(http.StatusOK, res)
}
