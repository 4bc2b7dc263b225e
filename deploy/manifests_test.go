package deploy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write deploy/kubernetes from the chart")

// podMonitor is as much of that type as the chart uses.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector            metav1.LabelSelector `json:"selector"`
		PodMetricsEndpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

// functions are those of Helm that the chart uses; it uses no others, so that nothing else is needed to render it.
func functions(t *template.Template) template.FuncMap {
	indent := func(n int, s string) string { return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", n)) }
	return template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var b strings.Builder
			err := t.ExecuteTemplate(&b, name, data)
			return b.String(), err
		},
		"toYaml": func(v any) (string, error) {
			b, err := yaml.Marshal(v)
			return strings.TrimSuffix(string(b), "\n"), err
		},
		"toJson":     func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"nindent":    func(n int, s string) string { return "\n" + strings.Repeat(" ", n) + indent(n, s) },
		"quote":      func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
		"contains":   func(part, s string) bool { return strings.Contains(s, part) },
		"trunc":      func(n int, s string) string { return s[:min(n, len(s))] },
		"trimSuffix": func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
		"dir":        path.Dir,
		"empty":      func(v any) bool { ok, _ := template.IsTrue(v); return !ok },
		"hasPrefix":  func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
		"dict":       func(k string, v any) map[string]any { return map[string]any{k: v} },
		"fromYaml": func(s string) (map[string]any, error) {
			var m map[string]any
			err := yaml.Unmarshal([]byte(s), &m)
			return m, err
		},
		"mergeOverwrite": func(base, over map[string]any) map[string]any { merge(base, over); return base },
		"sha256sum":      func(s string) string { b := sha256.Sum256([]byte(s)); return hex.EncodeToString(b[:]) },
	}
}

// merge puts what people set over the chart's own values.
func merge(base, over map[string]any) {
	for k, v := range over {
		below, ok := base[k].(map[string]any)
		if m, isMap := v.(map[string]any); ok && isMap {
			merge(below, m)
		} else {
			base[k] = v
		}
	}
}

// render makes the documents of the chart.
func render(t *testing.T, given string) []string {
	t.Helper()
	read := func(text []byte) map[string]any {
		// Numbers stay what they are in the file: a port is no float.
		var m map[string]any
		if err := yaml.UnmarshalStrict(text, &m); err != nil {
			t.Fatal(err)
		}
		return whole(m).(map[string]any)
	}
	file := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("helm/drover-node", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	values := read(file("values.yaml"))
	if given != "" {
		merge(values, read([]byte(given)))
	}
	chart := read(file("Chart.yaml"))
	data := map[string]any{
		"Values":  values,
		"Chart":   map[string]any{"AppVersion": chart["appVersion"], "Name": chart["name"]},
		"Release": map[string]any{"Name": "drover-node", "Namespace": "drover", "Service": "Helm"},
	}
	all := template.New("").Option("missingkey=error")
	all.Funcs(functions(all))
	names, err := filepath.Glob("helm/drover-node/templates/*")
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if _, err := all.New(filepath.Base(name)).Parse(string(file("templates/" + filepath.Base(name)))); err != nil {
			t.Fatal(err)
		}
	}
	var docs []string
	for _, name := range names {
		var b bytes.Buffer
		if err := all.ExecuteTemplate(&b, filepath.Base(name), data); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".yaml") {
			docs = append(docs, split(b.String())...)
		}
	}
	return docs
}

// whole turns the floats that JSON makes of whole numbers back.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case float64:
		if v == float64(int64(v)) {
			return int64(v)
		}
	}
	return v
}

func split(text string) []string {
	var docs []string
	for d := range strings.SplitSeq("\n"+text, "\n---\n") {
		if d = strings.TrimSpace(d); d != "" {
			docs = append(docs, d+"\n")
		}
	}
	return docs
}

// objects decodes documents into their API types, by kind; an unknown or doubled field is an error.
func objects(t *testing.T, docs []string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, doc := range docs {
		var kind struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		into, ok := map[string]any{
			"v1/Namespace": &corev1.Namespace{}, "v1/ServiceAccount": &corev1.ServiceAccount{}, "v1/ConfigMap": &corev1.ConfigMap{},
			"rbac.authorization.k8s.io/v1/ClusterRole":        &rbacv1.ClusterRole{},
			"rbac.authorization.k8s.io/v1/ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
			"apps/v1/DaemonSet":                               &appsv1.DaemonSet{},
			"monitoring.coreos.com/v1/PodMonitor":             &podMonitor{},
		}[kind.APIVersion+"/"+kind.Kind]
		if !ok || all[kind.Kind] != nil {
			t.Fatalf("unexpected %s %s", kind.APIVersion, kind.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			t.Fatalf("%s: %v in\n%s", kind.Kind, err, doc)
		}
		all[kind.Kind] = into
	}
	return all
}

func TestChart(t *testing.T) {
	for name, values := range map[string]string{
		"default":           "",
		"cri-o":             "engine: {criSocket: /run/crio/crio.sock}\npodMonitor: {create: true, labels: {release: prom}}",
		"dockerd":           "engine: {kind: docker, criSocket: \"\", dockerSocket: /run/docker.sock}\npods: {apiserver: false}",
		"both":              "engine: {kind: auto, dockerSocket: /run/docker.sock}\nportForwardLoopback: true",
		"files":             "tls: {mode: files, secret: node-tls}\nserver: {secret: drover-server}\nlogs: {stdinRoots: [/data/logs/stdin]}",
		"kubelet":           "pods: {apiserver: false, kubelet: \"https://127.0.0.1:10250/pods\"}\nports: {logs: 0, debug: 10102}\nprestopDir: \"\"",
		"odds":              "config: {container: {ticker: 10}, log: {level: debug}, pods: {kubelet-insecure: true}}\nextraVolumes: [{name: x, emptyDir: {}}]\nextraVolumeMounts: [{name: x, mountPath: /x}]\npodAnnotations: {a: b}\npodLabels: {c: d}\nimagePullSecrets: [{name: p}]",
		"read-only kubelet": "pods: {apiserver: false, kubelet: \"http://127.0.0.1:10255/pods\"}",
		"own account":       "serviceAccount: {create: false, name: mine}\nrbac: {create: false}",
	} {
		t.Run(name, func(t *testing.T) { checkChart(t, name, objects(t, render(t, values))) })
	}
}

func checkChart(t *testing.T, name string, all map[string]any) {
	ds := all["DaemonSet"].(*appsv1.DaemonSet)
	spec := &ds.Spec.Template.Spec
	c := &spec.Containers[0]
	sc := c.SecurityContext
	if *sc.Privileged || *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem || !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("security: %+v", sc)
	}
	want := []corev1.Capability{"DAC_READ_SEARCH", "KILL", "SYS_PTRACE"}
	if name == "both" {
		want = append(want, "SYS_ADMIN")
	}
	if !slices.Equal(sc.Capabilities.Add, want) || spec.HostIPC || !spec.HostPID || !spec.HostNetwork {
		t.Errorf("capabilities %v, or the host's namespaces", sc.Capabilities.Add)
	}
	if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Error("probes are missing")
	}
	volumes, mounts := map[string]int{}, map[string]string{}
	for _, v := range spec.Volumes {
		volumes[v.Name]++
	}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	if !slices.Equal(slices.Sorted(maps.Keys(volumes)), slices.Sorted(maps.Keys(mounts))) || len(volumes) != len(spec.Volumes) {
		t.Errorf("volumes %v, mounts %v", volumes, mounts)
	}
	for k, v := range ds.Spec.Selector.MatchLabels {
		if ds.Spec.Template.Labels[k] != v {
			t.Errorf("the selector %s=%s does not select", k, v)
		}
	}
	text := all["ConfigMap"].(*corev1.ConfigMap).Data["application.yaml"]
	var config struct{ App map[string]any }
	if err := yaml.UnmarshalStrict([]byte(text), &config); err != nil || config.App["engine"] == nil {
		t.Errorf("application.yaml: %v in\n%s", err, text)
	}
	role, _ := all["ClusterRole"].(*rbacv1.ClusterRole)
	switch name {
	case "cri-o":
		if !strings.Contains(text, "unix:///run/crio/crio.sock") || mounts["cri"] != "/run/crio" || all["PodMonitor"] == nil {
			t.Errorf("the socket of CRI-O: %s", text)
		}
	case "dockerd":
		if mounts["cri"] != "" || mounts["docker"] != "/run/docker.sock" || role != nil || *spec.AutomountServiceAccountToken {
			t.Error("dockerd alone needs no CRI socket and no rights")
		}
	case "odds":
		p, _ := config.App["pods"].(map[string]any)
		if p["kubelet-insecure"] != true || p["map"] != "on" || !strings.Contains(text, "level: debug") || !strings.Contains(text, "format: json") {
			t.Errorf("what config has does not go over the rest: %s", text)
		}
	case "kubelet", "read-only kubelet":
		if strings.Contains(text, "kubelet-token-file") != (name == "kubelet") {
			t.Errorf("a token for https, and for nothing else: %s", text)
		}
	case "own account":
		if all["ServiceAccount"] != nil || role != nil || spec.ServiceAccountName != "mine" {
			t.Error("an account of one's own is not used")
		}
	case "default":
		if !reflect.DeepEqual(role.Rules, []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}}}) {
			t.Errorf("more than list and watch of pods: %+v", role.Rules)
		}
	}
}

// TestManifest keeps the plain manifests what the chart makes of its defaults: go test ./deploy -update writes them.
func TestManifest(t *testing.T) {
	header := "# What the chart of deploy/helm/drover-node makes of its defaults; docs/kubernetes.md says what it needs.\n"
	plain := func(d string) string {
		return strings.ReplaceAll(d, "app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: manifest")
	}
	docs := []string{"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: drover\n  labels:\n    pod-security.kubernetes.io/enforce: privileged # for the host's namespaces and folders\n"}
	for _, d := range render(t, "") {
		docs = append(docs, plain(d))
	}
	var monitor []string
	for _, d := range render(t, "podMonitor: {create: true}") {
		if strings.Contains(d, "kind: PodMonitor") {
			monitor = append(monitor, plain(d))
		}
	}
	for file, docs := range map[string][]string{"kubernetes/daemonset.yaml": docs, "kubernetes/podmonitor.yaml": monitor} {
		want := header + strings.Join(docs, "---\n")
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what the chart makes: go test ./deploy -update", file)
		}
		objects(t, split(string(got)))
	}
}

// TestStrict shows that the check checks.
func TestStrict(t *testing.T) {
	for _, doc := range []string{"apiVersion: v1\nkind: ConfigMap\ndatas: {}\n", "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\ndata: {}\n"} {
		if err := yaml.UnmarshalStrict([]byte(doc), &corev1.ConfigMap{}); err == nil {
			t.Errorf("%q was taken", doc)
		}
	}
}
