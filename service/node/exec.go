package node

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/token"
)

// A Target is the container that a request is for.
type Target struct {
	ID        string
	Namespace string // "" for a container that belongs to no pod
	Pod       string
	UID       string // of the pod
	Name      string // in the pod, or of the engine
	Pid       int
	IP        string
	HostNet   bool // it has the host's network
}

func targetOf(c *runtime.Container) Target {
	t := Target{ID: c.Id, Namespace: c.Namespace, Pod: c.PodName, UID: c.PodUID, Name: c.K8sContainerName, Pid: c.State.Pid}
	t.HostNet = c.NetworkMode == "host"
	if c.Pod != nil {
		t.IP = c.Pod.PodIP
		t.HostNet = t.HostNet || c.Pod.Sandbox != nil && c.Pod.Sandbox.NetworkMode == "host"
	}
	return t
}

// byName finds a container of a pod. Without a name it is the one that the pod is there for.
func (h *Handler) byName(c *caller, verb, namespace, pod, uid, name string) (Target, error) {
	if err := c.mayPod(verb, namespace, pod); err != nil {
		return Target{}, err
	}
	p, err := h.cfg.Pods.GetPod(namespace, pod)
	if err == nil && uid != "" && p.UID != uid {
		err = runtime.NoPodError(namespace, pod)
	}
	if err != nil {
		return Target{}, err
	}
	var found *runtime.Container
	if name == "" {
		found, err = p.MainBizE()
	} else {
		found, err = p.GetContainer(name)
	}
	if err != nil {
		return Target{}, err
	}
	t := targetOf(found)
	return t, c.mayContainer(verb, t)
}

// byID finds a container by its id, which may also be "namespace/pod[/container]". One that the pod map does not have is
// looked for at the engine: not every container belongs to a pod.
func (h *Handler) byID(r *http.Request, c *caller, verb, id string) (Target, error) {
	if parts := strings.Split(id, "/"); len(parts) > 1 {
		if len(parts) > 3 {
			return Target{}, invalid("a container is an id, or namespace/pod[/container]")
		}
		return h.byName(c, verb, parts[0], parts[1], "", strings.Join(parts[2:], ""))
	}
	if found, err := h.cfg.Pods.GetContainerByCid(id); err == nil {
		t := targetOf(found)
		return t, c.mayContainer(verb, t)
	}
	st, err := h.cfg.Containers.State(r.Context(), id)
	if err != nil {
		if c.Pod != "" || c.Container != "" && c.Container != id {
			return Target{}, c.refuse(verb, Target{ID: id}, "the token is for another container") // it learns of no others
		}
		return Target{}, err
	}
	t := Target{ID: st.ID, Name: st.Name, Pid: st.Pid, IP: st.IP}
	if found, err := h.cfg.Pods.GetContainerByCid(st.ID); err == nil {
		t = targetOf(found) // named by its engine's name
	}
	return t, c.mayContainer(verb, t)
}

// stream is the kubelet's exec and attach.
func (h *Handler) stream(verb string) func(http.ResponseWriter, *http.Request, *caller) error {
	return func(w http.ResponseWriter, r *http.Request, c *caller) error {
		t, err := h.byName(c, verb, r.PathValue("ns"), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"))
		if err != nil {
			return err
		}
		q, err := kubeQuery(r)
		if err != nil {
			return err
		}
		return h.pass(w, r, c, verb, t, q)
	}
}

// serverExec is the exec of the node agents before Drover.
func (h *Handler) serverExec(w http.ResponseWriter, r *http.Request, c *caller) error {
	q, err := kubeQuery(r)
	if err != nil {
		return err
	}
	id := q.Get("containerId")
	if id == "" {
		return invalid("missing required containerId")
	}
	t, err := h.byID(r, c, token.VerbExec, id)
	if err != nil {
		return err
	}
	return h.pass(w, r, c, token.VerbExec, t, q)
}

// passed are the parameters that reach the streams.
func passed() []string { return []string{"command", "env", "user"} }

// kubeQuery reads the parameters of a stream: a switch is on with "1" alone, as for a kubelet, or "true", as for the API
// server.
func kubeQuery(r *http.Request) (url.Values, error) {
	in, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query cannot be parsed")
	}
	on := func(names ...string) bool {
		for _, n := range names {
			if v := in.Get(n); v == "1" || v == "true" {
				return true
			}
		}
		return false
	}
	q := url.Values{"containerId": {in.Get("containerId")}}
	some := false
	for name, alias := range map[string]string{"input": "stdin", "output": "stdout", "error": "stderr"} {
		if on(name, alias) {
			q.Set(name, "1")
			some = true
		}
	}
	if !some {
		return nil, invalid("you must specify at least 1 of stdin, stdout, stderr")
	}
	for _, name := range []string{"tty", "privileged"} {
		if on(name) {
			q.Set(name, "1")
		}
	}
	for _, name := range passed() {
		if values := in[name]; len(values) > 0 && (len(values) > 1 || values[0] != "") {
			q[name] = values
		}
	}
	for _, name := range []string{"workDir", "workdir", "workingDir"} {
		if v := in.Get(name); v != "" && q.Get("workDir") == "" {
			q.Set("workDir", v)
		}
	}
	return q, nil
}

// pass hands a request on to the streams of package service, which know the protocols.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, c *caller, verb string, t Target, q url.Values) error {
	if verb == token.VerbExec {
		if len(q["command"]) == 0 || q["command"][0] == "" {
			return invalid("you must specify a command")
		}
		if err := c.mayRun(t, q); err != nil {
			return err
		}
		c.log(verb, t).WithField("command", q["command"][0]).Info("allowed")
	} else {
		c.log(verb, t).Info("allowed")
	}
	q.Del("containerId")
	next := r.Clone(r.Context())
	next.URL = &url.URL{Path: "/v1/" + verb + "/" + t.ID, RawQuery: q.Encode()}
	next.RequestURI = next.URL.RequestURI()
	next.Header.Del("Authorization") // nobody behind this door needs it
	next.Header.Del(headerToken)
	out := &kubeErrors{ResponseWriter: w}
	h.cfg.Streams.ServeHTTP(out, next)
	out.flush()
	return nil
}

// streams guards /v1/, the streams that package service serves. The container in the path may be "namespace%2Fpod" too.
func (h *Handler) streams(w http.ResponseWriter, r *http.Request) {
	if err := h.passStreams(w, r); err != nil {
		writeStatus(w, err)
	}
}

func (h *Handler) passStreams(w http.ResponseWriter, r *http.Request) error {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.EscapedPath(), "/v1/"), "/", 3)
	verb := token.VerbStreams
	switch parts[0] {
	case token.VerbExec, token.VerbAttach, token.VerbForward:
		verb = parts[0]
	}
	c, err := h.admit(r, verb)
	if err != nil {
		return err
	}
	next := r.Clone(r.Context())
	next.Header.Del("Authorization") // nobody behind this door needs it
	next.Header.Del(headerToken)
	t := Target{}
	if len(parts) > 1 && parts[1] != "" {
		id, err := url.PathUnescape(parts[1])
		if err != nil {
			return invalid("the path cannot be parsed")
		}
		if t, err = h.byID(r, c, verb, id); err != nil {
			return err
		}
		parts[1] = t.ID
		raw := "/v1/" + strings.Join(parts, "/")
		path, err := url.PathUnescape(raw)
		if err != nil {
			return invalid("the path cannot be parsed")
		}
		next.URL = &url.URL{Path: path, RawPath: raw, RawQuery: r.URL.RawQuery}
		next.RequestURI = next.URL.RequestURI()
	} else if c.Pod != "" || c.Container != "" {
		return c.refuse(verb, t, "the token is for one container")
	}
	switch verb {
	case token.VerbExec:
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return invalid("the query cannot be parsed")
		}
		if err := c.mayRun(t, q); err != nil {
			return err
		}
		c.log(verb, t).WithField("command", q.Get("command")).Info("allowed")
	case token.VerbStreams:
		c.log(verb, t).WithField("path", parts[0]).Debug("allowed")
	default:
		c.log(verb, t).Info("allowed")
	}
	h.cfg.Streams.ServeHTTP(w, next)
	return nil
}
