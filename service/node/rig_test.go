package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/cri"
	"github.com/droverhq/drover/runtime/cri/critest"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/runtime/multi"
	"github.com/droverhq/drover/runtime/pods"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/node"
	"github.com/droverhq/drover/service/token"
)

// TestMain looks for goroutines that were left; the heartbeat of client-go notices only after a while that it is not needed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("k8s.io/client-go/tools/remotecommand.(*heartbeat).start"))
}

const patience = 2 * time.Minute

// A rig is a node with a dockerd and a containerd, each with a pod.
type rig struct {
	t       testing.TB
	docker  *docker.Engine
	cri     *cri.Engine
	ctd     *critest.Containerd
	store   *pods.Store
	key     *token.Key
	url     string
	log     *lockedBuffer
	prestop string

	ns  string
	ids map[string]string // of the containers "app" of the pods "docker" and "containerd"
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func unique() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func closing(t testing.TB, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// newRig starts the engines; withCRI is false where dockerd is enough.
func newRig(t testing.TB, withCRI bool) *rig {
	t.Helper()
	r := &rig{t: t, log: &lockedBuffer{}, prestop: t.TempDir() + "/made/prestop", ns: "ns-" + unique(), ids: map[string]string{}}
	var err error
	if r.docker, err = docker.New(docker.Config{}); err != nil {
		t.Fatal(err)
	}
	closing(t, r.docker)
	if err := r.docker.Ping(t.Context()); err != nil {
		t.Fatal("a dockerd is needed:", err)
	}
	r.ids["docker"] = r.container("docker", "app")
	engines := []runtime.Engine{r.docker}
	models := []pods.Engine{runtime.NewModelEngine(r.docker)}
	if withCRI {
		c := critest.Start(t)
		if r.cri, err = cri.New(cri.Config{Socket: c.Socket, Poll: 100 * time.Millisecond, CgroupParent: c.CgroupParent}); err != nil {
			t.Fatal(err)
		}
		closing(t, r.cri)
		r.ctd = c
		_, ids := c.Pod(t, r.ns, "containerd", map[string][]string{"app": {"sleep", "100000"}})
		r.ids["containerd"] = ids["app"]
		engines, models = append(engines, r.cri), append(models, runtime.NewModelEngine(r.cri))
	}
	log := logrus.New()
	log.SetOutput(r.log)
	log.SetLevel(logrus.DebugLevel)
	if r.store, err = pods.New(pods.Config{Engines: models, NoFacts: true}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.store.Stop)
	engine, err := multi.New(multi.Config{Resolve: func(name string) (string, error) { return node.Lookup(r.store, name) }}, engines...)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := service.New(service.Config{Engine: engine, Log: log, Grace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if r.key, err = token.NewKey(bytes.Repeat([]byte{7}, 32), nil); err != nil {
		t.Fatal(err)
	}
	h, err := node.New(node.Config{
		Streams: streams, Containers: engine, Pods: r.store, Refresh: r.store.Refresh, Authenticate: node.TokenAuth(r.key, "n1"),
		PrestopDir: r.prestop, Update: engine.UpdateLimits, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	r.url = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		h.Close()
		if err := streams.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return r
}

// container starts a container of dockerd with the labels of a pod.
func (r *rig) container(pod, name string, change ...func(*runtime.ContainerSpec)) string {
	r.t.Helper()
	spec := &runtime.ContainerSpec{
		Name: "node-" + unique(), Image: "drover-test/busybox:1", Cmd: []string{"sleep", "100000"}, NetworkMode: "none",
		Labels: map[string]string{
			"io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": r.ns, "io.kubernetes.pod.uid": pod + "-uid",
			"io.kubernetes.container.name": name,
		},
	}
	for _, f := range change {
		f(spec)
	}
	id, _, err := r.docker.Create(r.t.Context(), spec)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := r.docker.Remove(context.Background(), id, runtime.RemoveOptions{Force: true}); err != nil {
			r.t.Error(err)
		}
	})
	if err := r.docker.Start(r.t.Context(), id); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// sign makes a token; its host and a user are set.
func (r *rig) sign(c token.Claims) string {
	r.t.Helper()
	c.Host, c.User = "n1", "ada"
	text, err := r.key.Sign(c, 10*time.Minute)
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// all is a token that allows what it can.
func (r *rig) all() string {
	c := node.Everything("ada")
	return r.sign(*c)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (r *rig) executor(kind, path, bearer string) remotecommand.Executor {
	r.t.Helper()
	return r.observed(kind, path, bearer, func(*http.Response) {})
}

// observed is executor that shows the answer to the upgrade.
func (r *rig) observed(kind, path, bearer string, upgraded func(*http.Response)) remotecommand.Executor {
	r.t.Helper()
	u, err := url.Parse(r.url + path)
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := &rest.Config{Host: r.url, BearerToken: bearer}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err == nil {
				upgraded(resp)
			}
			return resp, err
		})
	})
	var e remotecommand.Executor
	if kind == "spdy" {
		e, err = remotecommand.NewSPDYExecutor(cfg, http.MethodPost, u)
	} else {
		e, err = remotecommand.NewWebSocketExecutor(cfg, http.MethodGet, u.String())
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// path is a kubelet's, for the container "app" of a pod.
func (r *rig) path(pod, params string, cmd ...string) string {
	return "/exec/" + r.ns + "/" + pod + "/app?" + url.Values{"command": cmd}.Encode() + "&" + params
}

// everyWay runs a test over both protocols on both engines.
func (r *rig) everyWay(test func(t *testing.T, pod, kind string)) {
	t := r.t.(*testing.T)
	for _, pod := range []string{"docker", "containerd"} {
		for _, kind := range []string{"spdy", "websocket"} {
			t.Run(pod+" "+kind, func(t *testing.T) { test(t, pod, kind) })
		}
	}
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processes counts those of a container whose command line has mark, from inside.
func (r *rig) processes(t testing.TB, pod, mark string) int {
	t.Helper()
	var out bytes.Buffer
	err := r.executor("spdy", r.path(pod, "output=1", "ps", "-o", "args"), r.all()).
		StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(out.String(), mark)
}
