package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/pods"
	"github.com/droverhq/drover/service/token"
)

// sees tells whether a token shows a pod.
func (c *caller) sees(p *runtime.Pod) bool { return c.Pod == "" || c.Pod == p.Namespace+"/"+p.Name }

// A Collection is a list as JSON.
type Collection struct {
	Type         string      `json:"type"`         // "collection"
	ResourceType string      `json:"resourceType"` // "pod"
	Data         []pods.View `json:"data"`
}

// A Change is one line of the watch stream.
type Change struct {
	Type string     `json:"type"` // added, modified, removed; synced after the first list; alive when nothing happened
	Pod  *pods.View `json:"pod,omitempty"`
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request, c *caller) error {
	q := r.URL.Query()
	namespace := q.Get("namespace")
	shown := func(p *runtime.Pod) bool { return c.sees(p) && (namespace == "" || namespace == p.Namespace) }
	switch v := q.Get("watch"); v {
	case "1", "true":
		return h.watch(w, r, shown)
	case "", "0", "false":
	default:
		return invalid(fmt.Sprintf("parameter watch=%.20q: want true or false", v))
	}
	list := Collection{Type: "collection", ResourceType: "pod", Data: []pods.View{}}
	for _, p := range h.cfg.Pods.GetAllPods() {
		if shown(p) {
			list.Data = append(list.Data, pods.ViewOf(p))
		}
	}
	return writeJSON(w, list)
}

func (h *Handler) pod(w http.ResponseWriter, r *http.Request, c *caller) error {
	namespace, name := r.PathValue("ns"), r.PathValue("pod")
	if err := c.mayPod(token.VerbPods, namespace, name); err != nil {
		return err
	}
	p, err := h.cfg.Pods.GetPod(namespace, name)
	if err != nil {
		return err
	}
	return writeJSON(w, pods.ViewOf(p))
}

// mapped finds a container of the pod map by id.
func (h *Handler) mapped(r *http.Request, c *caller, verb string) (*runtime.Container, error) {
	var found *runtime.Container
	var err error
	if id := r.PathValue("id"); id != "" {
		if found, err = h.cfg.Pods.GetContainerByCid(id); err != nil {
			if c.Pod != "" || c.Container != "" {
				return nil, c.refuse(verb, Target{ID: id}, "the token is for another container")
			}
			return nil, &runtime.Error{Kind: codeKind(err), Message: fmt.Sprintf("container %.64s: %v", id, err)}
		}
	} else {
		if err := c.mayPod(verb, r.PathValue("ns"), r.PathValue("pod")); err != nil {
			return nil, err
		}
		p, err := h.cfg.Pods.GetPod(r.PathValue("ns"), r.PathValue("pod"))
		if err != nil {
			return nil, err
		}
		if found, err = p.GetContainer(r.PathValue("container")); err != nil {
			return nil, err
		}
	}
	return found, c.mayContainer(verb, targetOf(found))
}

func codeKind(err error) error {
	if errors.Is(err, runtime.ErrInvalid) {
		return runtime.ErrInvalid
	}
	return runtime.ErrNotFound
}

func (h *Handler) container(w http.ResponseWriter, r *http.Request, c *caller) error {
	found, err := h.mapped(r, c, token.VerbPods)
	if err != nil {
		return err
	}
	return writeJSON(w, pods.ContainerViewOf(found))
}

func (h *Handler) facts(w http.ResponseWriter, r *http.Request, c *caller) error {
	found, err := h.mapped(r, c, token.VerbPods)
	if err != nil {
		return err
	}
	if h.cfg.Facts == nil {
		return &runtime.Error{Kind: runtime.ErrUnsupported, Message: "this node tells no facts: app.qos.path is empty"}
	}
	facts, err := h.cfg.Facts(r.Context(), found)
	if err != nil {
		return err
	}
	return writeJSON(w, facts)
}

func (h *Handler) limits(w http.ResponseWriter, r *http.Request, c *caller) error {
	if h.cfg.Update == nil {
		return &runtime.Error{Kind: runtime.ErrUnsupported, Message: "limits are not changed on this node"}
	}
	t, err := h.byID(r, c, token.VerbLimits, r.PathValue("id"))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return invalid("the body broke off")
	}
	limits, err := runtime.ParseLimits(body)
	if err != nil {
		return err
	}
	if err := h.cfg.Update(r.Context(), t.ID, limits); err != nil {
		return err
	}
	c.log(token.VerbLimits, t).WithField("limits", limits.String()).Info("changed")
	return writeJSON(w, map[string]any{"type": "limits", "container": t.ID, "limits": limits})
}

func (h *Handler) refresh(w http.ResponseWriter, _ *http.Request, _ *caller) error {
	if h.cfg.Refresh != nil {
		h.cfg.Refresh()
	}
	w.WriteHeader(http.StatusAccepted)
	return writeJSON(w, map[string]string{"type": "podmap", "state": "refreshing"})
}

// poker is a listener that wakes one watcher.
type poker chan struct{}

// OnAnyPodChanged implements runtime.MetaListener.
func (p poker) OnAnyPodChanged() {
	select {
	case p <- struct{}{}:
	default: // it has not looked since
	}
}

// watchAlive is the time between lines to a watcher that nothing happens for.
const watchAlive = 20 * time.Second

// watch writes the pods and then what becomes of them, a JSON object a line. A watcher that is slow misses states in
// between and no end state: it is told the difference between what it has seen and what is.
func (h *Handler) watch(w http.ResponseWriter, r *http.Request, shown func(*runtime.Pod) bool) error {
	rc := http.NewResponseController(w)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("X-Accel-Buffering", "no")
	enc := json.NewEncoder(w)
	news := make(poker, 1)
	h.cfg.Pods.AddListener(news)
	defer h.cfg.Pods.RemoveListener(news)
	seen := map[[3]string]*runtime.Pod{}
	alive := time.NewTicker(watchAlive)
	defer alive.Stop()
	for first := true; ; first = false {
		now := map[[3]string]*runtime.Pod{}
		for _, p := range h.cfg.Pods.GetAllPods() {
			if shown(p) {
				now[[3]string{p.Namespace, p.Name, p.UID}] = p
			}
		}
		if err := tell(enc, seen, now); err != nil {
			return dropped(r.Context(), err)
		}
		seen = now
		if first {
			if err := enc.Encode(Change{Type: "synced"}); err != nil {
				return dropped(r.Context(), err)
			}
		}
		if err := rc.Flush(); err != nil {
			return dropped(r.Context(), err)
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-news:
		case <-alive.C:
			if err := enc.Encode(Change{Type: "alive"}); err != nil {
				return dropped(r.Context(), err)
			}
		}
	}
}

// dropped ends an answer that has begun: nobody must take it for whole.
func dropped(ctx context.Context, err error) error {
	if ctx.Err() != nil || err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func tell(enc *json.Encoder, seen, now map[[3]string]*runtime.Pod) error {
	for key, p := range seen {
		if now[key] == nil {
			v := pods.ViewOf(p)
			if err := enc.Encode(Change{Type: "removed", Pod: &v}); err != nil {
				return err
			}
		}
	}
	for key, p := range now {
		kind := "added"
		switch was := seen[key]; {
		case was == p:
			continue
		case was != nil:
			kind = "modified"
		}
		v := pods.ViewOf(p)
		if err := enc.Encode(Change{Type: kind, Pod: &v}); err != nil {
			return err
		}
	}
	return nil
}

// Lookup finds the id of a container by "namespace/pod[/container]".
func Lookup(p Pods, name string) (string, error) {
	parts := strings.Split(name, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return "", invalid("a container is an id, or namespace/pod[/container]")
	}
	pod, err := p.GetPod(parts[0], parts[1])
	if err != nil {
		return "", err
	}
	var c *runtime.Container
	if len(parts) == 3 {
		c, err = pod.GetContainer(parts[2])
	} else {
		c, err = pod.MainBizE()
	}
	if err != nil {
		return "", err
	}
	return c.Id, nil
}
