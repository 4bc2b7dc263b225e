// Package critest runs a private containerd with CRI for tests: its own state, socket and images, beside whatever the
// machine runs. It needs root, Debian's containerd, and a dockerd that holds the test image.
package critest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Image is the image that is there.
const Image = "docker.io/drover-test/busybox:1"

const patience = time.Minute

// A Containerd is one running containerd.
type Containerd struct {
	Socket string // path of the unix socket
	Dir    string // of its state and root
	// CgroupParent is where its sandboxes go; it is removed with them.
	CgroupParent string

	cmd *exec.Cmd
}

const config = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/drover-test/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/cni/bin"
    conf_dir = "%[1]s/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "%[1]s/certs.d"
`

// Start runs a containerd until the test ends. Its pods are removed with it.
func Start(t testing.TB) *Containerd {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctd") // short: a unix socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	c := &Containerd{Socket: dir + "/c.sock", Dir: dir, CgroupParent: "/drover-test-" + filepath.Base(dir)}
	t.Cleanup(func() { c.stop(t) })
	text := fmt.Sprintf(config, dir)
	if err := os.WriteFile(dir+"/config.toml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command("containerd", "-c", dir+"/config.toml")
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal("containerd is needed (scripts/setup test):", err)
	}
	_ = log.Close() // the child has it
	deadline := time.Now().Add(patience)
	for {
		out, err := exec.Command("ctr", "-a", c.Socket, "version").CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(dir + "/log")
			t.Fatalf("containerd does not answer: %s\n%s", out, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.load(t)
	return c
}

// load brings the test image over from dockerd, and makes the image of sandboxes out of it.
func (c *Containerd) load(t testing.TB) {
	t.Helper()
	c.run(t, `set -e
docker image inspect drover-test/busybox:1 >/dev/null
if ! docker image inspect drover-test/pause:1 >/dev/null 2>&1; then
	id=$(docker create drover-test/busybox:1 true)
	docker export $id | docker import -c 'ENTRYPOINT ["/bin/sleep","2147483647"]' - drover-test/pause:1 >/dev/null
	docker rm $id >/dev/null
fi
docker save drover-test/busybox:1 drover-test/pause:1 | ctr -a "$1" -n k8s.io images import - >/dev/null`, c.Socket)
}

func (c *Containerd) run(t testing.TB, script string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
}

// Client returns a CRI client, for what an engine does not do: making pods.
func (c *Containerd) Client(t testing.TB) criv1.RuntimeServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return criv1.NewRuntimeServiceClient(conn)
}

// Kill ends containerd at once, as a crash does; its pods go on. Restart brings it back.
func (c *Containerd) Kill(t testing.TB) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait() // it was killed
}

// Restart starts containerd again after Kill, with the same state.
func (c *Containerd) Restart(t testing.TB) {
	t.Helper()
	c.cmd = exec.Command("containerd", "-c", c.Dir+"/config.toml")
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// stop removes the pods first: shims outlive containerd.
func (c *Containerd) stop(t testing.TB) {
	if c.cmd == nil || c.cmd.Process == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if conn, err := grpc.NewClient("unix://"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
		rt := criv1.NewRuntimeServiceClient(conn)
		list, err := rt.ListPodSandbox(ctx, &criv1.ListPodSandboxRequest{})
		if err != nil {
			t.Error(err)
		}
		for _, sb := range list.GetItems() {
			_, _ = rt.StopPodSandbox(ctx, &criv1.StopPodSandboxRequest{PodSandboxId: sb.GetId()})
			if _, err := rt.RemovePodSandbox(ctx, &criv1.RemovePodSandboxRequest{PodSandboxId: sb.GetId()}); err != nil {
				t.Error(err)
			}
		}
		_ = conn.Close()
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	_ = c.cmd.Wait() // it was told to end
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + c.CgroupParent)
	for _, g := range append(groups, "/sys/fs/cgroup"+c.CgroupParent) {
		_ = os.Remove(g) // those that exist are empty now
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], c.Dir) {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Error(err)
	}
}

// Pod makes a pod of the host's network with containers that run the given commands, by name, and returns the ids of
// the sandbox and of each container.
func (c *Containerd) Pod(t testing.TB, namespace, name string, containers map[string][]string) (sandbox string, ids map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rt := c.Client(t)
	uid := name + "-uid"
	labels := func(container string) map[string]string {
		l := map[string]string{"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.uid": uid}
		if container != "" {
			l["io.kubernetes.container.name"] = container
		}
		return l
	}
	host := &criv1.NamespaceOption{Network: criv1.NamespaceMode_NODE, Pid: criv1.NamespaceMode_CONTAINER}
	cfg := &criv1.PodSandboxConfig{
		Metadata: &criv1.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: uid}, Labels: labels(""),
		LogDirectory: filepath.Join(c.Dir, "logs", namespace+"_"+name+"_"+uid),
		Linux: &criv1.LinuxPodSandboxConfig{
			CgroupParent: c.CgroupParent, SecurityContext: &criv1.LinuxSandboxSecurityContext{NamespaceOptions: host},
		},
	}
	sb, err := rt.RunPodSandbox(ctx, &criv1.RunPodSandboxRequest{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	ids = map[string]string{}
	for container, cmd := range containers {
		made, err := rt.CreateContainer(ctx, &criv1.CreateContainerRequest{PodSandboxId: sb.GetPodSandboxId(), SandboxConfig: cfg, Config: &criv1.ContainerConfig{
			Metadata: &criv1.ContainerMetadata{Name: container}, Image: &criv1.ImageSpec{Image: Image}, Command: cmd, Labels: labels(container),
			LogPath: container + "/0.log", Linux: &criv1.LinuxContainerConfig{SecurityContext: &criv1.LinuxContainerSecurityContext{NamespaceOptions: host}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rt.StartContainer(ctx, &criv1.StartContainerRequest{ContainerId: made.GetContainerId()}); err != nil {
			t.Fatal(err)
		}
		ids[container] = made.GetContainerId()
	}
	return sb.GetPodSandboxId(), ids
}

// RemovePod stops and removes a sandbox with its containers.
func (c *Containerd) RemovePod(t testing.TB, sandbox string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rt := c.Client(t)
	if _, err := rt.StopPodSandbox(ctx, &criv1.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.RemovePodSandbox(ctx, &criv1.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Fatal(err)
	}
}
