package pods_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/droverhq/drover/runtime/pods"
)

// corePod is a pod as Kubernetes tells of it.
func corePod(namespace, name, uid string, change ...func(*corev1.Pod)) corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	p := corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(uid), Labels: map[string]string{"app": name}, ResourceVersion: "1",
			Annotations: map[string]string{"note": "x"},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", Containers: []corev1.Container{{Name: "app"}},
			InitContainers:      []corev1.Container{{Name: "setup"}, {Name: "mesh", RestartPolicy: &always}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.1.2.3", HostIP: "10.0.0.1", ContainerStatuses: []corev1.ContainerStatus{{Name: "app", RestartCount: 4}},
		},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

// answers is a server whose answer can be replaced.
type answers struct {
	*httptest.Server
	next atomic.Pointer[http.HandlerFunc]
	hits atomic.Int64
}

func newAnswers(t *testing.T, tls bool) *answers {
	a := &answers{}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer a.hits.Add(1)
		(*a.next.Load())(w, r)
	})
	if tls {
		a.Server = httptest.NewTLSServer(h)
	} else {
		a.Server = httptest.NewServer(h)
	}
	t.Cleanup(func() { a.CloseClientConnections(); a.Close() })
	return a
}

func (a *answers) say(h http.HandlerFunc) { a.next.Store(&h) }

// again waits until one more question was answered.
func (a *answers) again(t *testing.T) {
	t.Helper()
	n := a.hits.Load()
	until(t, "it is asked again", func() bool { return a.hits.Load() >= n+2 })
}

func jsonAnswer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

func text(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

// silent never answers.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// bad are answers that must not change the map.
var bad = map[string]http.HandlerFunc{
	"a page":         text(200, "text/html", "<html>login</html>"),
	"a bare page":    text(200, "application/json", "<html>login</html>"),
	"an error":       text(500, "application/json", `{"kind":"PodList","items":[],"code":0,"data":[]}`),
	"no right":       text(403, "text/plain", "Forbidden"),
	"another kind":   text(200, "application/json", `{"kind":"Status","items":[]}`),
	"nothing":        text(200, "application/json", ``),
	"an empty thing": text(200, "application/json", `{}`),
	"half":           text(200, "application/json", `{"kind":"PodList","items":[{"metadata":{"name":"x"`),
	"silence":        silent,
}

func podList(items ...corev1.Pod) corev1.PodList {
	return corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: items}
}

func TestKubelet(t *testing.T) {
	e := engine(t)
	sandbox := add(t, e, kube("ns", "web", "1", "POD"))
	ids := map[string]string{}
	for _, name := range []string{"app", "setup", "mesh", "debug"} {
		l := kube("ns", "web", "1", name)
		l["io.kubernetes.sandbox.id"] = sandbox
		ids[name] = add(t, e, l)
	}
	add(t, e, kube("ns", "done", "4", "app"))
	server := newAnswers(t, true)
	dir := t.TempDir()
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(token, []byte("secret-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	all := podList(corePod("ns", "web", "1"), corePod("ns", "waiting", "2", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }),
		corePod("ns", "done", "4", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		corePod("ns", "static", "5", func(p *corev1.Pod) { p.Annotations["kubernetes.io/config.mirror"] = "hash" }))
	good := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret-1" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		jsonAnswer(all)(w, r)
	}
	server.say(good)
	src, err := pods.NewKubelet(pods.KubeletConfig{URL: server.URL + "/pods", TokenFile: token, CAFile: ca, Interval: 20 * time.Millisecond, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, pods.Config{NoFacts: true, Sources: []pods.Source{src}}, e)
	const want = "ns/static/hash ns/waiting/2 ns/web/1"
	if got := names(s.GetAllPods()); got != want {
		t.Errorf("pods: %s", got)
	}
	p, err := s.GetPod("ns", "web")
	if err != nil {
		t.Fatal(err)
	}
	if p.IP() != "10.1.2.3" || p.HostIP() != "10.0.0.1" || p.Labels["app"] != "web" || p.Annotations["note"] != "x" || strings.Join(p.Sources, ",") != "labels,kubelet" {
		t.Errorf("pod: %+v", p)
	}
	if biz := p.MainBiz(); biz == nil || biz.Id != ids["app"] || biz.RestartCount != 4 || len(p.Sidecar) != 1 || p.Sidecar[0].Id != ids["mesh"] || len(p.All) != 5 {
		t.Errorf("roles: biz %v, sidecars %v", p.Biz, p.Sidecar)
	}
	kinds := map[string]string{}
	for _, c := range pods.ViewOf(p).Containers {
		kinds[c.Name] = c.Kind
	}
	if fmt.Sprint(kinds) != "map[POD:sandbox app:container debug:ephemeral mesh:container setup:init]" {
		t.Errorf("kinds: %v", kinds)
	}

	for name, answer := range bad {
		server.say(answer)
		until(t, "the fault is known: "+name, func() bool { return s.Health().Errors["kubelet"] != "" })
		if got := names(s.GetAllPods()); got != want {
			t.Errorf("%s: pods %s", name, got)
		}
		if strings.Contains(s.Health().Errors["kubelet"], "secret-1") {
			t.Errorf("%s: the error shows the token", name)
		}
		server.say(good)
		until(t, "it answers again: "+name, func() bool { return s.Health().Errors["kubelet"] == "" })
	}
	// The token is replaced, and an empty list is one.
	server.say(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer secret-2" {
			jsonAnswer(podList())(w, r)
		} else {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		}
	})
	if err := os.WriteFile(token, []byte("secret-2"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "what only the kubelet knew is gone", func() bool { return names(s.GetAllPods()) == "ns/done/4 ns/web/1" })
}

func TestKubeletTrust(t *testing.T) {
	server := newAnswers(t, true)
	server.Config.ErrorLog = nil
	server.say(jsonAnswer(podList()))
	ask := func(cfg pods.KubeletConfig) error {
		t.Helper()
		cfg.URL, cfg.Interval = server.URL, time.Hour
		src, err := pods.NewKubelet(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var said error
		src.Follow(ctx, func([]*pods.PodInfo) { cancel() }, func(err error) { said = err; cancel() })
		return said
	}
	if err := ask(pods.KubeletConfig{}); err == nil || !strings.Contains(err.Error(), x509.UnknownAuthorityError{}.Error()) {
		t.Errorf("a certificate that nobody knows: %v", err)
	}
	if err := ask(pods.KubeletConfig{SkipVerify: true}); err != nil {
		t.Errorf("any certificate: %v", err)
	}
	for _, cfg := range []pods.KubeletConfig{{URL: "ftp://x"}, {URL: "::"}, {URL: "http://127.0.0.1:10255/pods", TokenFile: "/token"}, {URL: server.URL, CAFile: "/no/such"}, {URL: server.URL, CAFile: "/etc/hostname"}} {
		if _, err := pods.NewKubelet(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestResourceManager(t *testing.T) {
	e := engine(t)
	add(t, e, kube("dockin", "demo-0", "1", "app"))
	server := newAnswers(t, false)
	good := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/rmController/getPodInfoByHostIp" || r.URL.Query().Get("hostIp") != "10.0.0.9" {
			http.NotFound(w, r)
			return
		}
		text(200, "application/json", `{"code":0,"message":null,"reqId":null,"data":[
			{"podName":"demo-0","podIp":"10.1.2.3","hostIp":"10.0.0.9","namespace":"dockin","status":"ALLOCATED","cpu":"2.0","port":8080},
			{"podName":"demo-1","podIp":"10.1.2.4","hostIp":"10.0.0.9","namespace":"dockin","status":"ALLOCATED"}]}`)(w, r)
	}
	server.say(good)
	src, err := pods.NewResourceManager(pods.ResourceManagerConfig{
		URL: server.URL + "/rmController/", HostIP: "10.0.0.9", Interval: 20 * time.Millisecond, Timeout: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, pods.Config{NoFacts: true, Sources: []pods.Source{src}}, e)
	const want = "dockin/demo-0/1 dockin/demo-1/"
	if got := names(s.GetAllPods()); got != want {
		t.Errorf("pods: %s", got)
	}
	p, _ := s.GetPod("dockin", "demo-0")
	if p.IP() != "10.1.2.3" || p.HostIP() != "10.0.0.9" || !p.IsRunning() || strings.Join(p.Sources, ",") != "labels,rm" {
		t.Errorf("pod: %+v", p)
	}
	if p, _ := s.GetPod("dockin", "demo-1"); p.Phase != "Unknown" || len(p.All) != 0 {
		t.Errorf("a pod that the manager alone knows: %+v", p)
	}
	all := map[string]http.HandlerFunc{
		"a code":      text(200, "application/json", `{"code":-1,"message":"pod info not found","data":null}`),
		"no data":     text(200, "application/json", `{"code":0,"data":null}`),
		"a page":      bad["a page"],
		"a bare page": bad["a bare page"],
		"an error":    bad["an error"],
		"{}":          bad["an empty thing"],
		"silence":     silent,
	}
	for name, answer := range all {
		server.say(answer)
		until(t, "the fault is known: "+name, func() bool { return s.Health().Errors["rm"] != "" })
		if got := names(s.GetAllPods()); got != want {
			t.Errorf("%s: pods %s", name, got)
		}
		server.say(good)
		until(t, "it answers again: "+name, func() bool { return s.Health().Errors["rm"] == "" })
	}
	server.say(text(200, "application/json", `{"code":0,"data":[]}`))
	until(t, "its pod is gone", func() bool { return names(s.GetAllPods()) == "dockin/demo-0/1" })
	server.again(t)
	for _, cfg := range []pods.ResourceManagerConfig{{URL: "x", HostIP: "1"}, {URL: server.URL}} {
		if _, err := pods.NewResourceManager(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

// api is an API server that has pods and can be watched.
type api struct {
	mu    sync.Mutex
	items map[string]corev1.Pod
	rv    int
	watch map[chan metav1.WatchEvent]bool
	down  atomic.Bool
	t     *testing.T
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case a.down.Load():
		text(500, "text/html", "<html>down</html>")(w, r)
		return
	case r.URL.Path != "/api/v1/pods" || q.Get("fieldSelector") != "spec.nodeName=n1" || r.Header.Get("Authorization") != "Bearer secret-1":
		a.t.Errorf("asked for %s as %q", r.URL, r.Header.Get("Authorization"))
		http.NotFound(w, r)
		return
	case q.Get("watch") == "":
		a.mu.Lock()
		list := podList()
		list.ResourceVersion = fmt.Sprint(a.rv)
		for _, p := range a.items {
			list.Items = append(list.Items, p)
		}
		a.mu.Unlock()
		jsonAnswer(list)(w, r)
		return
	case q.Get("sendInitialEvents") != "": // as an older one does
		text(422, "application/json", `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)(w, r)
		return
	}
	events := make(chan metav1.WatchEvent, 10)
	a.mu.Lock()
	a.watch[events] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.watch, events)
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	enc := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case ev, ok := <-events:
			if !ok {
				return
			}
			_ = enc.Encode(ev)
			_ = flush.Flush()
		}
	}
}

func (a *api) put(kind string, p corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rv++
	p.ResourceVersion = fmt.Sprint(a.rv)
	if kind == "DELETED" {
		delete(a.items, p.Name)
	} else {
		a.items[p.Name] = p
	}
	for w := range a.watch {
		ev := metav1.WatchEvent{Type: kind}
		ev.Object.Raw, _ = json.Marshal(p)
		w <- ev
	}
}

// cut ends all watches.
func (a *api) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watch {
		close(w)
		delete(a.watch, w)
	}
}

func TestAPIServer(t *testing.T) {
	e := engine(t)
	add(t, e, kube("ns", "web", "1", "app"))
	a := &api{items: map[string]corev1.Pod{}, rv: 1, watch: map[chan metav1.WatchEvent]bool{}, t: t}
	a.put("ADDED", corePod("ns", "web", "1"))
	server := httptest.NewServer(a)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	if _, err := pods.NewAPIServer(pods.APIServerConfig{}); err == nil {
		t.Error("a source without a configuration")
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	src, err := pods.NewAPIServer(pods.APIServerConfig{Config: &rest.Config{Host: server.URL, BearerToken: "secret-1", Transport: transport}, NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, pods.Config{NoFacts: true, Sources: []pods.Source{src}}, e)
	if p, err := s.GetPod("ns", "web"); err != nil || p.IP() != "10.1.2.3" || strings.Join(p.Sources, ",") != "labels,apiserver" {
		t.Errorf("pod: %+v, %v", p, err)
	}
	until(t, "it is watched", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.watch) > 0 })
	a.put("ADDED", corePod("ns", "new", "2", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }))
	until(t, "the new pod is there", func() bool { p, err := s.GetPod("ns", "new"); return err == nil && p.Phase == "Pending" })
	a.put("MODIFIED", corePod("ns", "new", "2"))
	until(t, "it runs", func() bool { p, err := s.GetPod("ns", "new"); return err == nil && p.IsRunning() })

	a.down.Store(true)
	a.cut()
	until(t, "the outage is known", func() bool { return s.Health().Errors["apiserver"] != "" })
	if got := names(s.GetAllPods()); got != "ns/new/2 ns/web/1" {
		t.Errorf("pods while it is down: %s", got)
	}
	a.put("DELETED", corePod("ns", "new", "2"))
	a.down.Store(false)
	until(t, "what happened meanwhile is known", func() bool { return names(s.GetAllPods()) == "ns/web/1" })
}
