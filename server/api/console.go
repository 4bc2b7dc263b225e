package api

import (
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// consolePolicy lets the console use its own files and this server's API, and nothing else.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// serveConsole answers everything outside the API: the console's files, and its page for /.
func (h *Handler) serveConsole(w *recorder, r *http.Request, segs []string) {
	if !isGet(r) {
		writeError(w, methodNotAllowed(r.Method))
		return
	}
	if h.cfg.Web == nil {
		if len(segs) == 0 {
			h.serveVersions(w, r)
			return
		}
		writeError(w, notFound())
		return
	}
	if len(segs) == 0 && wantsJSON(r) {
		h.serveVersions(w, r)
		return
	}
	name := "index.html"
	if len(segs) > 0 {
		name = path.Join(segs...)
	}
	body, err := fs.ReadFile(h.cfg.Web, name)
	if err != nil || strings.HasPrefix(path.Base(name), ".") {
		writeError(w, notFound())
		return
	}
	w.Header().Set("Content-Security-Policy", consolePolicy)
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, name, time.Time{}, strings.NewReader(string(body)))
}

func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

// serveVersions lists the versions of the API.
func (h *Handler) serveVersions(w *recorder, r *http.Request) {
	base, ok := h.proxies.base(r)
	if !ok {
		writeError(w, fail(http.StatusBadRequest, "InvalidFormat", "the Host header is no host"))
		return
	}
	data := []map[string]any{}
	for _, v := range []string{v1, v2} {
		data = append(data, map[string]any{
			"id": v, "type": "apiVersion", "links": map[string]string{"self": base + "/" + v}, "actions": map[string]string{},
		})
	}
	w.Header().Set("X-API-Schemas", base+"/"+latest+"/schemas")
	writeJSON(w, http.StatusOK, map[string]any{
		"type": "collection", "resourceType": "apiVersion", "actions": map[string]string{}, "data": data,
		"links": map[string]string{"self": base + "/", "latest": base + "/" + latest},
	})
}

// serveHealth answers the doors of health checks. It reports whether the path is one.
func (h *Handler) serveHealth(w *recorder, r *http.Request, segs []string) bool {
	if len(segs) != 1 {
		return false
	}
	switch segs[0] {
	case "ping":
		writeText(w, "text/plain; charset=utf-8", []byte("pong"))
	case "healthz", "livez":
		writeJSON(w, http.StatusOK, map[string]any{"status": "ok", "version": h.cfg.Version})
	case "readyz":
		if err := h.store.Ready(); err != nil {
			h.log.WithError(err).Warn("the store does not work")
			w.Header().Set("Retry-After", "5")
			writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "unavailable", "store": "down"})
			return true
		}
		select {
		case <-h.closing:
			writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "shutting down"})
		default:
			writeJSON(w, http.StatusOK, map[string]any{"status": "ok", "store": "ok"})
		}
	default:
		return false
	}
	return true
}
