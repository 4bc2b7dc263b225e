package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/events/wire"
)

// imageTimeout is how long a host may be silent about an image; each progress reply starts it anew.
const imageTimeout = 30 * time.Minute

// The actions of images and of registries as a host reaches them: each is the event of that name, and takes its data.
func imageActions() []string {
	return []string{"pull", "build", "tag", "push", "commit", "import", "save", "load", "remove", "prune", "history", "inspect"}
}

func registryActions() []string {
	return []string{"catalog", "tags", "manifest", "delete", "copy", "check", "gc"}
}

// isHostImages tells whether the segments of a path are /hosts/{id}/images[/REF...] or /hosts/{id}/registries.
func isHostImages(segs []string) bool {
	if len(segs) < 3 || lower(segs[0]) != "hosts" && lower(segs[0]) != "host" {
		return false
	}
	return lower(segs[2]) == "images" || lower(segs[2]) == "registries" && len(segs) == 3
}

// serveHostImages answers what is below /hosts/{id}/images and /hosts/{id}/registries: the images of one host as
// resources, asked of its agent each time.
func (q *request) serveHostImages() error {
	segs := q.target.segments
	s, ok := q.schema("host")
	if !ok || !isID(segs[1]) {
		return notFound()
	}
	if _, may := s.ResourceActions["event"]; !may {
		return forbidden("the images of a host are for keys of administrators")
	}
	kind, known := "image", imageActions()
	if lower(segs[2]) == "registries" {
		kind, known = "registry", registryActions()
	}
	ref := strings.Join(segs[3:], "/")
	switch method := q.r.Method; {
	case method == http.MethodPost && ref == "":
		action := lower(q.r.URL.Query().Get("action"))
		if !slices.Contains(known, action) {
			return fail(http.StatusUnprocessableEntity, "InvalidAction", "%q is no action of a host's %s: there are %s", action, lower(segs[2]), strings.Join(known, ", "))
		}
		data, err := readInput(q.w, q.r)
		if err != nil {
			return err
		}
		return q.hostWork(segs[1], kind+"."+action, data)
	case kind == "registry" || method == http.MethodPost:
		return methodNotAllowed(method)
	case isGet(q.r) && ref == "":
		return q.listHostImages(segs[1])
	case isGet(q.r):
		return q.hostWork(segs[1], "image.inspect", map[string]any{"image": ref})
	case method == http.MethodDelete && ref != "":
		return q.hostWork(segs[1], "image.remove", map[string]any{"image": ref, "force": q.r.URL.Query().Get("force") == "true"})
	}
	return methodNotAllowed(q.r.Method)
}

// hostWork sends an event to a host and answers with its reply; a bad one is an error with a status that fits, unless
// the caller takes progress as lines, of which it is the last then.
func (q *request) hostWork(host, name string, data map[string]any) error {
	if q.r.Header.Get("Accept") == "application/x-ndjson" {
		_, err := serveHostEvent(q, host, map[string]any{"name": name, "data": data, "timeoutMillis": imageTimeout.Milliseconds()})
		return err
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	reply, err := q.h.compute.Ask(q.ctx(), host, &wire.Event{Name: name, Data: raw, TimeoutMillis: imageTimeout.Milliseconds()}, nil)
	if err != nil {
		return fromCompute(err)
	}
	if reply.Transitioning == wire.TransitioningError {
		return workError(reply.Code, "", reply.TransitioningMessage)
	}
	writeJSON(q.w, http.StatusOK, eventReply(reply))
	return nil
}

// listHostImages answers with the images of a host as a collection.
func (q *request) listHostImages(host string) error {
	reply, err := q.h.compute.Ask(q.ctx(), host, &wire.Event{Name: "image.list", TimeoutMillis: time.Minute.Milliseconds()}, nil)
	if err != nil {
		return fromCompute(err)
	}
	var listed struct {
		Images []map[string]any `json:"images"`
	}
	if reply.Transitioning == wire.TransitioningError {
		return workError(reply.Code, "", reply.TransitioningMessage)
	}
	if err := json.Unmarshal(reply.Data, &listed); err != nil {
		return fail(http.StatusBadGateway, "HostError", "the host answered with something that is no list of images")
	}
	self := q.target.prefix() + "/hosts/" + host + "/images"
	for _, image := range listed.Images {
		id, _ := image["id"].(string)
		image["type"] = "image"
		image["links"] = map[string]string{"self": self + "/" + url.PathEscape(id)}
	}
	actions := map[string]string{}
	for _, a := range imageActions() {
		actions[a] = self + "?action=" + a
	}
	if listed.Images == nil {
		listed.Images = []map[string]any{}
	}
	writeJSON(q.w, http.StatusOK, map[string]any{
		"type": "collection", "resourceType": "image", "links": map[string]string{"self": self}, "actions": actions, "data": listed.Images,
		"createTypes": map[string]string{}, "pagination": nil, "sort": nil, "sortLinks": map[string]string{}, "filters": map[string]any{},
	})
	return nil
}
