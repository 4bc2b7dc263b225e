package pods_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/cri"
	"github.com/droverhq/drover/runtime/cri/critest"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/runtime/pods"
)

func unique() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return "rt-pods-" + hex.EncodeToString(b)
}

// dockerEngine is the local daemon's.
func dockerEngine(t *testing.T) *docker.Engine {
	t.Helper()
	e, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Ping(t.Context()); err != nil {
		t.Fatal("a dockerd is needed:", err)
	}
	return e
}

// dockerPod starts a container of dockerd with the labels of a pod.
func dockerPod(t *testing.T, e *docker.Engine, pod, container string, change ...func(*runtime.ContainerSpec)) string {
	t.Helper()
	id := add(t, e, kube("ns", pod, pod+"-uid", container), append(change, func(s *runtime.ContainerSpec) { s.Name = unique() })...)
	t.Cleanup(func() {
		_ = e.Remove(context.Background(), id, runtime.RemoveOptions{Force: true}) // a test may have removed it
	})
	return id
}

func TestDocker(t *testing.T) {
	e := dockerEngine(t)
	pod := unique()
	zone := t.TempDir() + "/localtime"
	if err := os.WriteFile(zone, zoneFile(t), 0o600); err != nil {
		t.Fatal(err)
	}
	sandbox := dockerPod(t, e, pod, "POD")
	app := dockerPod(t, e, pod, "app", func(s *runtime.ContainerSpec) {
		s.Labels["io.kubernetes.sandbox.id"] = sandbox
		s.Env = []string{"MINE=1"}
		s.Binds = []string{zone + ":/etc/localtime:ro"}
	})
	s := start(t, pods.Config{HostFS: "/"}, e)
	p, err := s.GetPod("ns", pod)
	if err != nil {
		t.Fatal(err)
	}
	if p.Sandbox == nil || p.Sandbox.Id != sandbox || p.MainBiz() == nil || p.MainBiz().Id != app || !p.IsRunning() {
		t.Errorf("pod: %+v", p)
	}
	until(t, "the facts are known", func() bool {
		c, err := s.GetContainerByCid(app)
		return err == nil && c.Pid1Name == "sleep" && c.GetTzName() == "UNKNOWN" && c.Tz.Zone == "XYZ" && c.Alpine == runtime.AlpineStatusNo && c.ZombieCount == 0
	})
	c, _ := s.GetContainerByCid(app)
	where, err := runtime.TransferToHostPathForContainer(c, "/etc/passwd", true)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(where); err != nil || !strings.Contains(string(b), "nobody") {
		t.Errorf("%s: %q, %v", where, b, err)
	}
	// What was not there at the start, and what vanishes.
	second := dockerPod(t, e, pod, "second")
	until(t, "the second container is there", func() bool { c, err := s.GetContainerByCid(second[:12]); return err == nil && c.IsRunning() })
	remove(t, e, second)
	until(t, "it is gone", func() bool { _, err := s.GetContainerByCid(second); return err != nil })
	remove(t, e, app)
	remove(t, e, sandbox)
	until(t, "the pod is gone", func() bool { _, err := s.GetPod("ns", pod); return err != nil })
}

// zoneFile is a time zone of which there is no name.
func zoneFile(t *testing.T) []byte {
	t.Helper()
	one := "TZif2" + strings.Repeat("\x00", 34) + "\x01\x00\x00\x00\x04" + "\x00\x00\x0e\x10\x00\x00" + "XYZ\x00"
	return []byte(one + one + "\nXYZ-1\n")
}

func TestContainerd(t *testing.T) {
	ctd := critest.Start(t)
	e, err := cri.New(cri.Config{Socket: ctd.Socket, Poll: 50e6})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := dockerEngine(t)
	onDocker := unique()
	dockerPod(t, d, onDocker, "app")
	sleep := []string{"sleep", "1000"}
	sandbox, ids := ctd.Pod(t, "ns", "first", map[string][]string{"app": sleep, "log-sidecar": sleep})
	s := start(t, pods.Config{HostFS: "/"}, e, d)

	p, err := s.GetPod("ns", "first")
	if err != nil {
		t.Fatal(err)
	}
	if p.Sandbox == nil || p.Sandbox.Id != sandbox || p.Sandbox.NetworkMode != "host" || p.MainBiz() == nil || p.MainBiz().Id != ids["app"] || len(p.Sidecar) != 1 {
		t.Errorf("pod: %+v", p)
	}
	if c := p.MainBiz(); c.Engine != "containerd" || c.NetworkMode != "host" || c.Image != critest.Image || !strings.HasSuffix(c.LogPath, "/0.log") {
		t.Errorf("container: %+v", c)
	}
	if _, err := s.GetPod("ns", onDocker); err != nil {
		t.Errorf("the pod of the other engine: %v", err)
	}
	until(t, "the facts are known", func() bool {
		c, err := s.GetContainerByCid(ids["app"])
		return err == nil && c.Pid1Name == "sleep" && c.GetTzName() == "UTC" && c.Alpine == runtime.AlpineStatusNo
	})
	later, more := ctd.Pod(t, "ns", "second", map[string][]string{"app": sleep})
	until(t, "the second pod is there", func() bool {
		p, err := s.GetPodBySandboxId(later)
		return err == nil && p.Name == "second" && p.MainBiz() != nil && p.MainBiz().Id == more["app"] && p.MainBiz().IsRunning()
	})
	ctd.RemovePod(t, sandbox)
	ctd.RemovePod(t, later)
	until(t, "both are gone", func() bool {
		return !slices.ContainsFunc(s.GetAllPods(), func(p *runtime.Pod) bool { return p.Name == "first" || p.Name == "second" })
	})
}

// TestView holds the JSON of pods to docs/pods.md: the names of all fields.
func TestView(t *testing.T) {
	e := engine(t)
	add(t, e, kube("ns", "web", "1", "app"), func(s *runtime.ContainerSpec) {
		s.Env = []string{"PASSWORD=secret"}
		s.Binds = []string{"/a:/b"}
	})
	s := start(t, pods.Config{}, e)
	until(t, "the facts are known", func() bool { c := s.GetAllPods()[0].MainBiz(); return c != nil && c.GetTz() != nil })
	b, err := json.Marshal(pods.ViewOf(s.GetAllPods()[0]))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "secret") {
		t.Errorf("the environment is shown: %s", b)
	}
	doc, err := os.ReadFile("../../docs/pods.md")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var check func(v map[string]any)
	check = func(v map[string]any) {
		for name, value := range v {
			if !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("docs/pods.md lacks %s", name)
			}
			switch value := value.(type) {
			case map[string]any:
				if name != "labels" {
					check(value)
				}
			case []any:
				for _, x := range value {
					if m, ok := x.(map[string]any); ok {
						check(m)
					}
				}
			}
		}
	}
	check(v)
}
