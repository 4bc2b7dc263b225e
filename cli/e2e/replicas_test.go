package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	v2 "github.com/rancher/go-rancher/v2"

	"github.com/droverhq/drover/server/store/storetest"
)

// A balancer is one address for several servers: it forwards each connection to the first that takes it.
type balancer struct {
	net.Listener
	targets []string

	mu   sync.Mutex
	last string // where the last connection went
}

func newBalancer(t *testing.T, targets ...string) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{Listener: l, targets: targets}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = l.Close() })
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go b.forward(in)
		}
	})
	return b
}

// at returns where the last connection went.
func (b *balancer) at() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *balancer) forward(in net.Conn) {
	defer in.Close()
	for _, target := range b.targets {
		out, err := net.Dial("tcp", target)
		if err != nil {
			continue
		}
		b.mu.Lock()
		b.last = target
		b.mu.Unlock()
		go func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		}()
		_, _ = io.Copy(in, out)
		_ = out.Close()
		return
	}
}

// TestTwoServersOneNATS runs two servers on one external NATS, and one agent with the real engine: what is given to
// either server reaches the agent on the other, and when the agent's server dies, the other one serves it.
func TestTwoServersOneNATS(t *testing.T) {
	u, name, nats := newUser(t), prefix(t), storetest.NATS(t)
	one, two := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	front := newBalancer(t, one, two)
	url, key := "http://"+front.Addr().String(), filepath.Join(u.dir, "admin.key")
	serve := func(listen, data string) *process {
		p := u.start("server", "--listen", listen, "--tls", "off", "--server-url", url, "--nats", nats,
			"--data", filepath.Join(u.dir, data), "--admin-key-file", key+"."+data)
		eventually(t, "the server at "+listen, func() bool {
			return u.run("health", "--state-dir", filepath.Join(u.dir, data)).code == 0
		})
		return p
	}
	first := serve(one, "one")
	u.must("context", "add", "one", "--server", "http://"+one, "--key-file", key+".one")
	second := serve(two, "two")
	u.must("context", "add", "two", "--server", "http://"+two, "--key-file", key+".one") // the replicas share the key
	via := func(replica string, args ...string) string {
		return u.must(append([]string{"--context", replica}, args...)...)
	}

	var token struct{ RegistrationURL string }
	u.json(&token, "--context", "two", "token", "create")
	agent := u.start("agent", token.RegistrationURL, "--state-dir", filepath.Join(u.dir, "agent"))
	for _, replica := range []string{"one", "two"} {
		eventually(t, "the host at replica "+replica, func() bool {
			return strings.Contains(via(replica, "hosts"), "online")
		})
	}
	if front.at() != one {
		t.Fatalf("the agent is at %s, and not where the test wants it", front.at())
	}
	for _, replica := range []string{"one", "two"} {
		via(replica, "run", "--name", name+"-"+replica, image, "sleep", "600")
	}

	if err := first.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.ended
	via("two", "stop", "-t", "1", name+"-one") // waits for the agent to come back
	if front.at() != two {
		t.Errorf("the agent is at %s", front.at())
	}
	if out := via("two", "ps", "--all"); !strings.Contains(out, name+"-one") || !strings.Contains(out, name+"-two") {
		t.Errorf("the other replica does not know what the first one made:\n%s", out)
	}
	via("two", "rm", "-f", name+"-one", name+"-two")
	if left := dockerNames(t, name); len(left) > 0 {
		t.Errorf("left on the engine: %v", left)
	}
	agent.stop(syscall.SIGTERM)
	second.stop(syscall.SIGTERM)
}

// TestGoRancherOnTheRealEngine lets an unmodified client of Rancher 1.6 drive a container through server, agent and dockerd.
func TestGoRancherOnTheRealEngine(t *testing.T) {
	u, name := newUser(t), prefix(t)
	listen, key := fmt.Sprintf("127.0.0.1:%d", freePort(t)), filepath.Join(u.dir, "admin.key")
	u.start("server", "--listen", listen, "--tls", "off", "--data", filepath.Join(u.dir, "server"), "--admin-key-file", key)
	eventually(t, "the server", func() bool { return u.run("health", "--state-dir", filepath.Join(u.dir, "server")).code == 0 })
	u.must("context", "add", "prod", "--server", "http://"+listen, "--key-file", key)
	var token struct{ RegistrationURL string }
	u.json(&token, "token", "create")
	u.start("agent", token.RegistrationURL, "--state-dir", filepath.Join(u.dir, "agent"))
	host := u.online(1)[0]

	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	access, secret, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
	c, err := v2.NewRancherClient(&v2.ClientOpts{Url: "http://" + listen + "/v2-beta", AccessKey: access, SecretKey: secret, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := c.Host.List(&v2.ListOpts{Filters: map[string]any{"state": "active"}})
	if err != nil || len(hosts.Data) != 1 || hosts.Data[0].Id != host.ID || hosts.Data[0].Hostname == "" {
		t.Fatalf("hosts: %v %+v", err, hosts)
	}
	made, err := c.Container.Create(&v2.Container{
		Name: name, ImageUuid: "docker:" + image, Command: []string{"sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"}, RequestedHostId: host.ID, StartOnCreate: true,
		Environment: map[string]any{"A": "b"}, Memory: 64 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	wait := func(state string) *v2.Container {
		t.Helper()
		var got *v2.Container
		eventually(t, "state "+state, func() bool {
			var err error
			if got, err = c.Container.ById(made.Id); err != nil {
				t.Fatal(err)
			}
			return got.State == state && got.Transitioning == "no"
		})
		return got
	}
	running := func(got *v2.Container) string {
		t.Helper()
		return inspectField(t, got.ExternalId, "{{.State.Running}} {{.State.StartedAt}} {{.HostConfig.Memory}} {{json .Config.Env}}")
	}
	got := wait("running")
	before := running(got)
	if !strings.HasPrefix(before, "true ") || !strings.Contains(before, " 67108864 ") || !strings.Contains(before, `"A=b"`) {
		t.Errorf("on the engine: %s", before)
	}
	if _, err := c.Container.ActionStop(got, &v2.InstanceStop{Timeout: 1}); err != nil {
		t.Fatal(err)
	}
	if got = wait("stopped"); !strings.HasPrefix(running(got), "false ") {
		t.Errorf("stopped, and on the engine: %s", running(got))
	}
	if _, err := c.Container.ActionStart(got); err != nil {
		t.Fatal(err)
	}
	got = wait("running")
	started := running(got)
	if _, err := c.Container.ActionRestart(got); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the restart on the engine", func() bool {
		now := running(got)
		return strings.HasPrefix(now, "true ") && now != started
	})
	got = wait("running")
	if err := c.Container.Delete(got); err != nil {
		t.Fatal(err)
	}
	wait("removed")
	if left := dockerNames(t, name); len(left) > 0 {
		t.Errorf("left on the engine: %v", left)
	}
	list, err := c.Container.List(&v2.ListOpts{Filters: map[string]any{"hostId": host.ID}})
	if err != nil || slices.ContainsFunc(list.Data, func(c v2.Container) bool { return c.Id == made.Id }) {
		t.Errorf("a removed container is listed: %v", err)
	}
}
