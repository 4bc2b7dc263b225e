package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/droverhq/drover/runtime/cri/critest"
	"github.com/droverhq/drover/runtime/pods"
	"github.com/droverhq/drover/service/node"
	"github.com/droverhq/drover/service/token"
)

// kubePod is a pod as Kubernetes tells of it.
func kubePod(namespace, name string, phase corev1.PodPhase, ip string) corev1.Pod {
	return corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name + "-uid"), ResourceVersion: "1"},
		Spec:       corev1.PodSpec{NodeName: "n1", InitContainers: []corev1.Container{{Name: "setup"}}, Containers: []corev1.Container{{Name: "app"}}},
		Status:     corev1.PodStatus{Phase: phase, PodIP: ip, HostIP: "10.0.0.9"},
	}
}

// guarded answers only who has the token.
func guarded(token string, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		h(w, r)
	})
}

// kubelet answers as that of a node.
func kubelet(items ...corev1.Pod) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/pods" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: items})
	}
}

// An apiServer has the pods of the node n1: lists of them, and watches that begin with what is there.
type apiServer struct {
	mu    sync.Mutex
	rv    int
	items map[string]corev1.Pod
	watch map[chan metav1.WatchEvent]bool
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.Method != http.MethodGet || r.URL.Path != "/api/v1/pods" || q.Get("fieldSelector") != "spec.nodeName=n1" {
		http.Error(w, "nobody else's pods are told", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc, flush := json.NewEncoder(w), http.NewResponseController(w).Flush
	a.mu.Lock()
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(a.rv)}}
	for _, p := range a.items {
		list.Items = append(list.Items, p)
	}
	events := make(chan metav1.WatchEvent, 16)
	if q.Get("watch") != "" {
		a.watch[events] = true
	}
	a.mu.Unlock()
	if q.Get("watch") == "" {
		_ = enc.Encode(list)
		return
	}
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watch, events)
	}()
	if q.Get("sendInitialEvents") == "true" {
		for _, p := range list.Items {
			_ = enc.Encode(watchEvent("ADDED", p))
		}
		mark := corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}}
		mark.ResourceVersion, mark.Annotations = list.ResourceVersion, map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		_ = enc.Encode(watchEvent("BOOKMARK", mark))
	}
	for _ = flush(); ; _ = flush() {
		select {
		case <-r.Context().Done():
			return
		case ev := <-events:
			_ = enc.Encode(ev)
		}
	}
}

func watchEvent(kind string, p corev1.Pod) metav1.WatchEvent {
	ev := metav1.WatchEvent{Type: kind}
	ev.Object.Raw, _ = json.Marshal(p)
	return ev
}

// put changes a pod and tells who watches.
func (a *apiServer) put(kind string, p corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rv++
	p.ResourceVersion = strconv.Itoa(a.rv)
	if kind == "DELETED" {
		delete(a.items, p.Name)
	} else {
		a.items[p.Name] = p
	}
	for w := range a.watch {
		w <- watchEvent(kind, p)
	}
}

// write makes a file of the user.
func (u *user) write(name, text string) string {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
	return path
}

// tlsServer serves h, and returns the PEM of its certificate as a file.
func tlsServer(t *testing.T, u *user, name string, h http.Handler) (url, ca string) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL, u.write(name, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// TestNodeSources is `drover node` with all that tells of pods: the engine, the kubelet, the API server, and a resource
// manager. It also sees that SIGHUP changes how often everything is listed anew.
func TestNodeSources(t *testing.T) {
	u := newUser(t)
	ctd := critest.Start(t)
	ns := strings.ReplaceAll(prefix(t), "drover-", "ns-")
	_, ids := ctd.Pod(t, ns, "web-0", map[string][]string{"setup": {"sleep", "100000"}, "app": {"sleep", "100000"}})

	web := kubePod(ns, "web-0", corev1.PodRunning, "10.1.0.1")
	kubeletURL, kubeletCA := tlsServer(t, u, "kubelet.pem", guarded("for-kubelet", kubelet(web, kubePod(ns, "waits", corev1.PodPending, ""))))
	api := &apiServer{items: map[string]corev1.Pod{}, watch: map[chan metav1.WatchEvent]bool{}}
	labelled := web
	labelled.Labels = map[string]string{"tier": "front"}
	api.put("ADDED", labelled)
	apiURL, apiCA := tlsServer(t, u, "api.pem", guarded("for-api", api.ServeHTTP))
	manager := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/rmController/getPodInfoByHostIp" || r.URL.Query().Get("hostIp") != "10.0.0.9" {
			_, _ = io.WriteString(w, `{"code":-1,"message":"pod info not found","data":null,"reqId":null}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"code":0,"message":null,"reqId":null,"data":[{"podName":"managed","podSetId":"s","subSystem":"demo","subSystemId":"5036",
			"dcn":"1C1","podIp":"10.1.0.7","gateway":"g","subnetMask":"m","hostIp":"10.0.0.9","cpu":"2.0","mem":"4.0","disk":"d","type":"t","port":8080,
			"jmxPort":null,"tag":"x","namespace":%q,"status":"ALLOCATED","clusterId":"ft"}]}`, ns)
	}))
	t.Cleanup(func() { manager.CloseClientConnections(); manager.Close() })

	port, health, state := freePort(t), freePort(t), filepath.Join(u.dir, "state")
	key := u.write("token.key", strings.Repeat("ab", 32))
	config := func(ticker, apiToken string) string {
		return u.write("application.yaml", fmt.Sprintf(`app:
  agent: {state-dir: %s, hostname: n1, health-listen: "127.0.0.1:%d"}
  engine: cri
  cri: {sock: %s}
  http: {listen: 127.0.0.1, port: %d, token-key-file: %s}
  logs: {port: 0, auth: none}
  debug: {port: 0}
  log: {format: json}
  node: {ip: 10.0.0.9}
  rm: {api: "%s/rmController"}
  container: {ticker: %s}
  pods:
    kubelet: %s/pods
    kubelet-token-file: %s
    kubelet-ca-file: %s
    apiserver: true
    apiserver-url: %s
    apiserver-token-file: %s
    apiserver-ca-file: %s
`, state, health, ctd.Socket, port, key, manager.URL, ticker, kubeletURL, u.write("kubelet.token", "for-kubelet\n"), kubeletCA, apiURL, apiToken, apiCA))
	}
	p := u.start("node", "--config", config("3600", u.write("api.token", "for-api")))
	eventually(t, "the node", func() bool {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", health))
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	ca, err := os.ReadFile(filepath.Join(state, "port/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	signer, err := token.NewKey(bytes.Repeat([]byte{0xab}, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	bearer, err := signer.Sign(token.Claims{Host: "n1", User: "ada", Verbs: []string{token.VerbPods}}, token.MaxLife)
	if err != nil {
		t.Fatal(err)
	}
	get := func(url string) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s %v", url, resp.Status, b, err)
		}
		return b
	}
	// All pods of the namespace, as "name phase ip sources"; and them by name.
	list := func() (string, map[string]pods.View) {
		t.Helper()
		var c node.Collection
		if err := json.Unmarshal(get(fmt.Sprintf("https://127.0.0.1:%d/pods?namespace=%s", port, ns)), &c); err != nil {
			t.Fatal(err)
		}
		var lines []string
		byName := map[string]pods.View{}
		for _, v := range c.Data {
			lines, byName[v.Name] = append(lines, strings.Join([]string{v.Name, v.Phase, v.IP, strings.Join(v.Sources, ",")}, " ")), v
		}
		return strings.Join(lines, "; "), byName
	}
	const managed, waits, running = "managed Unknown 10.1.0.7 rm", "; waits Pending  kubelet", "; web-0 Running 10.1.0.1 labels,kubelet,apiserver"
	is := func(want string) func() bool { return func() bool { got, _ := list(); return got == want } }
	eventually(t, "what every source tells", is(managed+waits+running))
	_, byName := list()
	kinds := map[string]string{}
	for _, c := range byName["web-0"].Containers {
		kinds[c.Name] = c.Kind
		if c.Name == "app" && c.ID != ids["app"] {
			t.Errorf("the container: %+v", c)
		}
	}
	if fmt.Sprint(kinds) != "map[POD:sandbox app:container setup:init]" || byName["web-0"].Labels["tier"] != "front" || byName["web-0"].HostIP != "10.0.0.9" {
		t.Errorf("%+v", byName["web-0"])
	}
	// What the API server tells is there without a question.
	api.put("ADDED", kubePod(ns, "new", corev1.PodPending, ""))
	eventually(t, "the new pod", is(managed+"; new Pending  apiserver"+waits+running))
	api.put("MODIFIED", kubePod(ns, "new", corev1.PodRunning, "10.1.0.2"))
	eventually(t, "it runs", is(managed+"; new Running 10.1.0.2 apiserver"+waits+running))
	api.put("DELETED", kubePod(ns, "new", corev1.PodRunning, "10.1.0.2"))
	eventually(t, "it is gone", is(managed+waits+running))
	if b := get(fmt.Sprintf("http://127.0.0.1:%d/readyz?verbose", health)); strings.Contains(string(b), "errors") {
		t.Errorf("health: %s", b)
	}

	metric := regexp.MustCompile(`(?m)^\w*pod_map_lists_total (\d+)$`)
	lists := func() int {
		found := metric.FindSubmatch(get(fmt.Sprintf("http://127.0.0.1:%d/metrics", health)))
		if found == nil {
			t.Fatal("no metric of the lists")
		}
		n, _ := strconv.Atoi(string(found[1]))
		return n
	}
	before := lists()
	if before < 1 || before > 10 {
		t.Errorf("%d lists with a ticker of an hour", before)
	}
	config("1", filepath.Join(u.dir, "api.token"))
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is listed every second", func() bool { return lists() >= before+2 })
	p.stop(syscall.SIGTERM)
	if strings.Contains(p.log.String(), `"door":"logs"`) {
		t.Error("app.logs.port is 0, and log files are served")
	}
	for _, secret := range []string{"for-kubelet", "for-api"} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("the log shows the token %s", secret)
		}
	}
}
