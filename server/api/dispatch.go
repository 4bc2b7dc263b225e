package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/droverhq/drover/events/wire"
)

// An endpoint is what a type can do. A nil function means: not this.
type endpoint struct {
	list   func(q *request) ([]*resource, error)
	get    func(q *request, id string) (*resource, error)
	create func(q *request, fields map[string]any) (*resource, error)
	update func(q *request, id string, fields map[string]any) (*resource, error)
	remove func(q *request, id string) (*resource, error)
	// actions by name; the fields are those of the action's input type.
	actions map[string]func(q *request, id string, fields map[string]any) (*resource, error)
	// links by name; they answer themselves.
	links map[string]func(q *request, id string) error
	// raw answers every request to the collection itself, in place of list and create.
	raw func(q *request) error
}

func (h *Handler) newEndpoints() map[string]*endpoint {
	containers := h.containerEndpoint()
	return map[string]*endpoint{
		"account":           h.accountEndpoint("account"),
		"project":           h.accountEndpoint("project"),
		"register":          h.registerEndpoint(),
		"registrationToken": h.registrationTokenEndpoint(),
		"apiKey":            h.apiKeyEndpoint(),
		"agent":             h.agentEndpoint(),
		"host":              h.hostEndpoint(),
		"container":         containers,
		"instance":          containers,
		"containerEvent":    {raw: serveContainerEvent},
		"hostApiProxyToken": {create: createHostAPIProxyToken},
		"pullTask":          h.pullTaskEndpoint(),
		"setting":           h.settingEndpoint(),
		"publish":           {raw: servePublish},
		"subscribe":         {raw: serveSubscribe},
	}
}

// dispatch answers an authenticated request.
func (h *Handler) dispatch(q *request) error {
	segs := q.target.segments
	switch {
	case len(segs) == 0:
		return q.serveVersion()
	case lower(segs[0]) == "schemas" || lower(segs[0]) == "schema":
		return q.serveSchemas(segs[1:])
	case isHostImages(segs):
		return q.serveHostImages()
	case isLogs(segs):
		return q.serveHostLogs()
	case isHostProxy(segs):
		return q.serveHostProxy()
	case isConfigContent(segs):
		return q.serveConfigContent(segs[1])
	case len(segs) == 1 && lower(segs[0]) == "tunnel":
		return q.serveTunnel()
	case len(segs) > 3:
		return notFound()
	}
	typ, ok := h.names[lower(segs[0])]
	if !ok {
		return notFound()
	}
	s, ok := q.schema(typ)
	ep := h.endpoints[typ]
	if !ok || ep == nil {
		return notFound()
	}
	if len(segs) == 1 {
		return q.serveCollection(&s, ep)
	}
	id := segs[1]
	if !isID(id) {
		return notFound()
	}
	if len(segs) == 3 {
		link := ep.links[lower(segs[2])]
		if link == nil || !slices.Contains(s.ResourceMethods, http.MethodGet) {
			return notFound()
		}
		if !isGet(q.r) {
			return methodNotAllowed(q.r.Method)
		}
		return link(q, id)
	}
	return q.serveResource(&s, ep, id)
}

func isGet(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

func (q *request) serveCollection(s *schema, ep *endpoint) error {
	method := q.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if !slices.Contains(s.CollectionMethods, method) {
		return methodNotAllowed(method)
	}
	if ep.raw != nil {
		return ep.raw(q)
	}
	if method == http.MethodGet {
		all, err := ep.list(q)
		if err != nil {
			return err
		}
		return q.writeCollection(s, all)
	}
	fields, err := q.readFields(q.h.types[s.ID], false)
	if err != nil {
		return err
	}
	res, err := ep.create(q, fields)
	if err != nil {
		return err
	}
	status := http.StatusCreated
	if res.typ == "pullTask" {
		status = http.StatusAccepted
	}
	return q.writeResource(status, res)
}

func (q *request) serveResource(s *schema, ep *endpoint, id string) error {
	method := q.r.Method
	switch method {
	case http.MethodHead:
		method = http.MethodGet
	case http.MethodPost:
		return q.serveAction(s, ep, id)
	}
	if !slices.Contains(s.ResourceMethods, method) {
		return methodNotAllowed(method)
	}
	var res *resource
	var err error
	switch method {
	case http.MethodGet:
		res, err = ep.get(q, id)
	case http.MethodPut:
		var fields map[string]any
		if fields, err = q.readFields(q.h.types[s.ID], true); err == nil {
			res, err = ep.update(q, id, fields)
		}
	case http.MethodDelete:
		res, err = ep.remove(q, id)
	}
	if err != nil {
		return err
	}
	return q.writeResource(http.StatusOK, res)
}

func (q *request) serveAction(s *schema, ep *endpoint, id string) error {
	name := lower(q.r.URL.Query().Get("action"))
	if name == "" {
		return methodNotAllowed(q.r.Method)
	}
	a, known := s.ResourceActions[name]
	run := ep.actions[name]
	if !known || run == nil {
		return fail(http.StatusUnprocessableEntity, "InvalidAction", "%q is no action of a %s", name, s.ID)
	}
	fields := map[string]any{}
	if d := q.h.types[a.Input]; d != nil {
		var err error
		if fields, err = q.readFields(d, false); err != nil {
			return err
		}
	}
	res, err := run(q, id, fields)
	if err != nil || res == nil {
		return err
	}
	return q.writeResource(http.StatusAccepted, res)
}

func (q *request) readFields(d *typeDef, update bool) (map[string]any, error) {
	in, err := readInput(q.w, q.r)
	if err != nil {
		return nil, err
	}
	return q.h.accept(d, in, update)
}

func (q *request) writeResource(status int, res *resource) error {
	writeJSON(q.w, status, q.render(res))
	return nil
}

// serveVersion answers /v1 and /v2-beta: links to everything the account may see.
func (q *request) serveVersion() error {
	if !isGet(q.r) {
		return methodNotAllowed(q.r.Method)
	}
	prefix := q.target.prefix()
	links := map[string]string{"self": prefix, "schemas": prefix + "/schemas"}
	for id, d := range q.h.types {
		if s, ok := q.schema(id); ok && s.Links["collection"] != "" && id != "schema" {
			links[d.plural] = s.Links["collection"]
		}
	}
	writeJSON(q.w, http.StatusOK, map[string]any{
		"id": q.target.version, "type": "apiVersion", "links": links, "actions": map[string]string{},
	})
	return nil
}

// serveSchemas answers what types there are.
func (q *request) serveSchemas(segs []string) error {
	if !isGet(q.r) {
		return methodNotAllowed(q.r.Method)
	}
	prefix := q.target.prefix()
	if len(segs) == 1 {
		typ, ok := q.h.names[lower(segs[0])]
		if !ok {
			return notFound()
		}
		s, ok := q.schema(typ)
		if !ok {
			return notFound()
		}
		writeJSON(q.w, http.StatusOK, s)
		return nil
	}
	if len(segs) > 1 {
		return notFound()
	}
	ids := make([]string, 0, len(q.h.types))
	for id := range q.h.types {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	data := []schema{}
	for _, id := range ids {
		if s, ok := q.schema(id); ok {
			data = append(data, s)
		}
	}
	writeJSON(q.w, http.StatusOK, map[string]any{
		"type": "collection", "resourceType": "schema", "links": map[string]string{"self": prefix + "/schemas"},
		"createTypes": map[string]string{}, "actions": map[string]string{}, "data": data, "sortLinks": map[string]string{},
		"pagination": nil, "sort": nil, "filters": map[string]any{}, "createDefaults": map[string]any{},
	})
	return nil
}

// workError is the answer to a failure that a wire code describes.
func workError(code, field, text string) *apiError {
	e := &apiError{Status: http.StatusBadGateway, Code: "HostError", Message: text, Field: field}
	switch code {
	case wire.CodeInvalid:
		e.Status, e.Code = http.StatusUnprocessableEntity, "InvalidFormat"
		if strings.HasPrefix(text, "there is no ") {
			e.Code = "InvalidReference"
		}
	case wire.CodeNotFound:
		e.Status, e.Code = http.StatusNotFound, "Not Found"
	case wire.CodeConflict:
		e.Status, e.Code = http.StatusConflict, "InvalidState"
		if field == "name" {
			e.Status, e.Code = http.StatusUnprocessableEntity, "NotUnique"
		}
	case wire.CodeUnsupported:
		e.Status, e.Code = http.StatusNotImplemented, "Not Implemented"
	case wire.CodeUnavailable, wire.CodeBusy:
		e.Status, e.Code, e.RetryAfter = http.StatusServiceUnavailable, "Service Unavailable", retryBusy
	case wire.CodeDenied:
		e.Status, e.Code = http.StatusForbidden, "Forbidden"
	case wire.CodeTimeout:
		e.Status, e.Code = http.StatusGatewayTimeout, "Gateway Timeout"
	}
	return e
}
