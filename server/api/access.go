package api

import (
	"errors"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/server/access"
)

// isHostProxy tells whether the segments of a path are /hosts/{id}/proxy[/...].
func isHostProxy(segs []string) bool {
	return len(segs) >= 3 && (lower(segs[0]) == "hosts" || lower(segs[0]) == "host") && lower(segs[2]) == "proxy"
}

// serveHostProxy answers what is below /hosts/{id}/proxy: what the agent of that host serves.
func (q *request) serveHostProxy() error {
	switch {
	case q.h.cfg.Access == nil || q.who.kind != kindAdmin && q.who.kind != kindUser:
		return notFound()
	case q.who.kind != kindAdmin:
		return forbidden("the streams of a host are for keys of administrators")
	case !q.sameOrigin():
		return forbidden("a browser opened this socket from another site")
	}
	segs := q.target.segments
	if !isID(segs[1]) {
		return notFound()
	}
	host, err := q.h.store.Hosts.Get(segs[1])
	if err != nil {
		return fail(http.StatusNotFound, "Not Found", "there is no host %s", segs[1])
	}
	q.w.quiet = true // the host decides what is worth a line
	return fromAccess(q.h.cfg.Access.ServeHost(q.w, q.r, host, q.who.accountID, q.client, q.below(3)))
}

// below is the path from segment n on.
func (q *request) below(n int) string { return pathFrom(q.r, q.target.segments[n:]) }

func pathFrom(r *http.Request, segs []string) string {
	path := "/" + strings.Join(segs, "/")
	if strings.HasSuffix(r.URL.Path, "/") && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return path
}

// serveTunnel opens the tunnel of an agent.
func (q *request) serveTunnel() error {
	if q.h.cfg.Access == nil || q.who.kind != kindAgent {
		return notFound()
	}
	if !websocket.IsWebSocketUpgrade(q.r) {
		return fail(http.StatusUpgradeRequired, "Upgrade Required", "a tunnel is a WebSocket")
	}
	q.h.cfg.Access.ServeTunnel(q.w, q.r, q.who.agent.ID)
	return nil
}

// serveReplica answers another replica of the server, which shows a token of its own kind.
func (h *Handler) serveReplica(w *recorder, r *http.Request, t *target) error {
	if h.cfg.Access == nil || !isID(t.segments[1]) {
		return notFound()
	}
	w.quiet = true
	return fromAccess(h.cfg.Access.ServeReplica(w, r, t.segments[1], pathFrom(r, t.segments[2:])))
}

// fromAccess turns an error of package access into an answer.
func fromAccess(err error) error {
	var e *access.Error
	if !errors.As(err, &e) {
		return err
	}
	answer := fail(e.Status, e.Code, "%s", e.Text)
	answer.RetryAfter = e.RetryAfter
	return answer
}
