package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/server/store"
)

// isLogs tells whether the segments of a path are /hosts/{id}/logs[/...].
func isLogs(segs []string) bool {
	return len(segs) >= 3 && (lower(segs[0]) == "hosts" || lower(segs[0]) == "host") && lower(segs[2]) == "logs"
}

// serveHostLogs answers what is below /hosts/{id}/logs: the log service of that host, and POST /token.
func (q *request) serveHostLogs() error {
	segs := q.target.segments
	if len(segs) == 4 && lower(segs[3]) == "token" {
		return q.logToken(segs[1])
	}
	return q.serveLogs(url.Values{"host": {segs[1]}}, "/"+strings.Join(segs[3:], "/"))
}

// serveLogs relays a request to the log service of the host that a query names.
func (q *request) serveLogs(query url.Values, path string) error {
	if q.h.cfg.Logs == nil || q.who.kind != kindAdmin && q.who.kind != kindUser {
		return notFound()
	}
	if strings.HasSuffix(q.r.URL.Path, "/") && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	if !q.sameOrigin() {
		return forbidden("a browser sent this request from another site")
	}
	return q.relayLogs(query, path)
}

func (q *request) relayLogs(query url.Values, path string) error {
	q.r.Header.Del("Origin") // it was looked at, with the proxies in mind
	host, err := q.h.cfg.Logs.Find(q.ctx(), query)
	if err == nil {
		q.w.quiet = true // the host keeps a line a command
		err = q.h.cfg.Logs.Serve(q.w, q.r, host, q.who.accountID, q.client, path)
	}
	var e *logs.Error
	if errors.As(err, &e) {
		return fail(e.Status, http.StatusText(e.Status), "%s", e.Text)
	}
	return fromAccess(err)
}

// logToken makes a token with which a page in a browser opens a WebSocket to /logs?host=ID.
func (q *request) logToken(hostID string) error {
	if q.h.cfg.Logs == nil || q.who.kind != kindAdmin && q.who.kind != kindUser {
		return notFound()
	}
	if q.r.Method != http.MethodPost {
		q.w.Header().Set("Allow", http.MethodPost)
		return fail(http.StatusMethodNotAllowed, "MethodNotAllowed", "a token is made by POST")
	}
	host, err := q.h.cfg.Logs.Find(q.ctx(), url.Values{"host": {hostID}})
	var e *logs.Error
	if errors.As(err, &e) {
		return fail(e.Status, http.StatusText(e.Status), "%s", e.Text)
	}
	if err != nil {
		return err
	}
	token, expires, err := q.h.cfg.Logs.SocketToken(host, q.who.accountID)
	if err != nil {
		return err
	}
	q.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	return json.NewEncoder(q.w).Encode(map[string]any{
		"type": "logToken", "hostId": host.ID, "protocol": logs.TokenPrefix + token, "url": "/logs?host=" + host.ID, "expires": expires.UTC(),
	})
}

// serveLogsByToken is serveLogs for a page in a browser, whatever site it is from: it was given the token, which is for
// one host.
func (h *Handler) serveLogsByToken(w *recorder, r *http.Request, t *target, token string) error {
	if h.cfg.Logs == nil {
		return notFound()
	}
	if !websocket.IsWebSocketUpgrade(r) {
		return fail(http.StatusUpgradeRequired, "Upgrade Required", "the token opens a WebSocket")
	}
	accountID, hostID, err := h.cfg.Logs.CheckSocketToken(token)
	if err != nil {
		return fail(http.StatusUnauthorized, "Unauthorized", "%v", err)
	}
	account, err := h.store.Accounts.Get(accountID)
	if err != nil || account.State != store.StateActive || account.Kind != kindAdmin && account.Kind != kindUser {
		return fail(http.StatusUnauthorized, "Unauthorized", "%v", logs.ErrToken)
	}
	host, err := h.cfg.Logs.Find(r.Context(), r.URL.Query())
	var e *logs.Error
	if errors.As(err, &e) {
		return fail(e.Status, http.StatusText(e.Status), "%s", e.Text)
	}
	if err != nil {
		return err
	}
	if host.ID != hostID {
		return forbidden("the token is for another host")
	}
	w.who = accountID
	q := &request{h: h, w: w, r: r, target: t, who: &identity{kind: account.Kind, accountID: accountID}, client: h.proxies.client(r)}
	return q.relayLogs(url.Values{"host": {hostID}}, "/")
}

// Agent returns the record of an agent.
func (r registered) Agent(id string) (*store.Agent, error) { return r.store.Agents.Get(id) }

// Hosts returns the records of all hosts.
func (r registered) Hosts() []*store.Host { return r.store.Hosts.List() }

type registered struct{ store *store.Store }

// Registered returns the hosts of a store as the log proxy sees them.
func Registered(s *store.Store) logs.Hosts { return registered{s} }
