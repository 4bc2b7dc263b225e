package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/token"
)

// Pods is the pod map; [runtime.MetaStore] is one.
type Pods interface {
	GetAllPods() []*runtime.Pod
	GetPod(namespace, name string) (*runtime.Pod, error)
	GetContainerByCid(cid string) (*runtime.Container, error)
	AddListener(l runtime.MetaListener)
	RemoveListener(l runtime.MetaListener)
}

// Containers finds a container by its id, the beginning of it, or its name.
type Containers interface {
	State(ctx context.Context, id string) (runtime.ContainerStatus, error)
}

// Config is what a [Handler] needs.
type Config struct {
	// Streams serves /v1/...: package service. Its policy is asked after that of the token.
	Streams http.Handler
	// Containers and Pods say which container is meant.
	Containers Containers
	Pods       Pods
	// Authenticate returns what the caller may do, or an error; see [TokenAuth]. nil allows everybody everything.
	Authenticate func(*http.Request) (*token.Claims, error)
	// Facts tells the cgroup facts of a container as JSON; nil refuses.
	Facts func(ctx context.Context, c *runtime.Container) (any, error)
	// Update changes the limits of a container; nil refuses.
	Update func(ctx context.Context, id string, limits runtime.LimitsUpdate) error
	// Refresh makes the pod map list everything anew, soon; may be nil.
	Refresh func()
	// Dial connects to a TCP port of a container; nil is [Dialer.Dial] of the host's own.
	Dial func(ctx context.Context, c Target, port int) (net.Conn, error)
	// PrestopDir takes what pods leave to be run before they end; "" refuses.
	PrestopDir string
	// Origins are web origins whose pages may connect, beside the node's own; "*" is any.
	Origins []string
	Log     logrus.FieldLogger
}

// A Handler serves the doors.
type Handler struct {
	cfg     Config
	mux     *http.ServeMux
	prestop prestop

	active sync.WaitGroup
}

// New returns a handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Streams == nil || cfg.Containers == nil || cfg.Pods == nil || cfg.Log == nil {
		return nil, errors.New("node: streams, containers, pods and a logger are needed")
	}
	if cfg.Authenticate == nil {
		cfg.Authenticate = func(*http.Request) (*token.Claims, error) { return Everything(""), nil }
	}
	if cfg.Dial == nil {
		cfg.Dial = (&Dialer{}).Dial
	}
	h := &Handler{cfg: cfg, mux: http.NewServeMux(), prestop: prestop{dir: cfg.PrestopDir, pods: cfg.Pods}}
	for _, verb := range []string{token.VerbExec, token.VerbAttach} {
		for _, pattern := range []string{"/{ns}/{pod}", "/{ns}/{pod}/{container}", "/{ns}/{pod}/{uid}/{container}"} {
			h.kube("/"+verb+pattern, verb, h.stream(verb))
		}
	}
	h.kube("/portforward/{ns}/{pod}", token.VerbForward, h.forward)
	h.kube("/portforward/{ns}/{pod}/{uid}", token.VerbForward, h.forward)
	h.kube("/dockin/opagent/exec/serverexec", token.VerbExec, h.serverExec)
	h.mux.HandleFunc("POST /dockin/opagent/prestop", h.servePrestop)

	h.get("/pods", h.list)
	h.get("/pods/{ns}/{pod}", h.pod)
	h.get("/containers/{id}", h.container)
	h.get("/containers/{id}/facts", h.facts)
	h.get("/pods/{ns}/{pod}/{container}/facts", h.facts)
	h.rest("PUT /containers/{id}/limits", token.VerbLimits, h.limits)
	h.rest("POST /pods/refresh", token.VerbPods, h.refresh)
	h.mux.HandleFunc("/v1/", h.streams)
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeStatus(w, &runtime.Error{Kind: runtime.ErrNotFound, Message: "no such path: " + r.URL.Path})
	})
	return h, nil
}

// kube registers a streaming path, which a kubelet takes by GET and POST.
func (h *Handler) kube(path, verb string, f func(http.ResponseWriter, *http.Request, *caller) error) {
	h.rest("GET "+path, verb, f)
	h.rest("POST "+path, verb, f)
}

func (h *Handler) get(path string, f func(http.ResponseWriter, *http.Request, *caller) error) {
	h.rest("GET "+path, token.VerbPods, f)
}

// rest registers a path whose callers need a verb.
func (h *Handler) rest(pattern, verb string, f func(http.ResponseWriter, *http.Request, *caller) error) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c, err := h.admit(r, verb)
		if err == nil {
			err = f(w, r, c)
		}
		if err != nil {
			writeStatus(w, err)
		}
	})
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.active.Add(1)
	defer h.active.Done()
	h.mux.ServeHTTP(w, r)
}

// Close waits until all requests have ended. Their server ends them.
func (h *Handler) Close() { h.active.Wait() }

// Paths are the patterns of this package's own paths, without the streams below /v1/.
func Paths() []string {
	return []string{"/exec/", "/attach/", "/portforward/", "/dockin/", "/pods", "/pods/", "/containers/"}
}
