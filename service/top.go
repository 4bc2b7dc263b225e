package service

import (
	"net/http"

	"github.com/droverhq/drover/runtime"
)

// serveTop lists the processes of a container; the parameter arg, once for each, is for ps.
func (s *Service) serveTop(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	engine := capability[runtime.Toper](s.cfg.Engine)
	if engine == nil {
		return unsupported("process lists")
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbTop, Container: st}); err != nil {
		return err
	}
	titles, processes, err := engine.Top(r.Context(), st.ID, q.Values["arg"])
	if err != nil {
		return err
	}
	if processes == nil {
		processes = [][]string{}
	}
	return writeJSON(w, map[string]any{"type": "top", "titles": titles, "processes": processes})
}
