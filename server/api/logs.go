package api

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/server/store"
)

// isLogs tells whether the segments of a path are /hosts/{id}/logs[/...].
func isLogs(segs []string) bool {
	return len(segs) >= 3 && (lower(segs[0]) == "hosts" || lower(segs[0]) == "host") && lower(segs[2]) == "logs"
}

// serveHostLogs answers what is below /hosts/{id}/logs: the log service of that host.
func (q *request) serveHostLogs() error {
	segs := q.target.segments
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

// Agent returns the record of an agent.
func (r registered) Agent(id string) (*store.Agent, error) { return r.store.Agents.Get(id) }

// Hosts returns the records of all hosts.
func (r registered) Hosts() []*store.Host { return r.store.Hosts.List() }

type registered struct{ store *store.Store }

// Registered returns the hosts of a store as the log proxy sees them.
func Registered(s *store.Store) logs.Hosts { return registered{s} }
