package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

// quick makes pings, and so reports, come often.
var quick = hub.Timings{Ping: 250 * time.Millisecond, Hold: 50 * time.Millisecond, DisconnectAfter: time.Second}

// fleet is the containers of a host, which a test changes while the agent reports them.
type fleet struct {
	mu   sync.Mutex
	list []map[string]any
}

func (f *fleet) set(list ...map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = list
}

func (f *fleet) get() []map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list
}

func hostOf(t *testing.T, s *store.Store, uuid string) *store.Host {
	t.Helper()
	var host *store.Host
	hubtest.WaitFor(t, "the host", func() bool {
		var err error
		host, err = s.HostByUUID(uuid)
		return err == nil && host.Hostname != "" && host.Connection == store.ConnectionOnline
	})
	return host
}

func containerStates(s *store.Store, hostID string) string {
	var out []string
	for _, c := range s.ContainersOfHost(hostID) {
		out = append(out, c.Name+"="+c.State)
	}
	return strings.Join(out, " ")
}

func waitStates(t *testing.T, s *store.Store, hostID, want string) {
	t.Helper()
	deadline := time.Now().Add(hubtest.Patience)
	for containerStates(s, hostID) != want {
		if time.Now().After(deadline) {
			t.Fatalf("containers %q, want %q", containerStates(s, hostID), want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestHostAppearsAtOnce(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s}) // with a ping only each five seconds
	id := srv.Register(t, "k")
	begin := time.Now()
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "h-1"})
	host := hostOf(t, s, "h-1")
	t.Logf("host after %v", time.Since(begin))
	want := store.Host{
		Meta: host.Meta, UUID: "h-1", Hostname: "node-h-1", AccountID: "1a1", AgentID: id, State: "active", AgentState: "active",
		Connection: "online", AgentVersion: "test", AgentIPAddress: "10.0.0.5", PhysicalHostUUID: "p-h-1", StoragePoolUUID: "h-1-pool",
		StoragePoolName: "pool", Engine: "docker 20.10.24", Memory: 8_000_000_000, MilliCPU: 4000, LocalStorageMB: 51200,
		Labels: map[string]string{"io.rancher.host.docker_version": "20.10", "zone": "a"}, LastSeen: host.LastSeen,
		Info: json.RawMessage(`{"osInfo":{"dockerVersion":"Docker version 20.10.24, build 297e128"}}`),
	}
	if a, b := fmt.Sprintf("%+v", *host), fmt.Sprintf("%+v", want); a != b {
		t.Errorf("host\n%s\nwant\n%s", a, b)
	}
}

func TestReportsOfAnOriginalAgent(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s})
	var f fleet
	f.set(hubtest.Instance("web", "d1", "running"))
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: srv.Register(t, "k"), Original: true, HostUUID: "h-1", Instances: f.get})
	host := hostOf(t, s, "h-1")
	waitStates(t, s, host.ID, "web=running")
}

func TestHostKeepsWhatPeopleSet(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s})
	id := srv.Register(t, "k")
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "h-1"})
	host := hostOf(t, s, "h-1")
	a.Stop()
	if _, err := s.Hosts.Update(t.Context(), host.ID, func(h *store.Host) error {
		h.Name, h.Memory = "my node", 1
		h.Labels["mine"], h.Labels["zone"] = "yes", "b"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	a = hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "h-1", Instances: func() []map[string]any {
		return []map[string]any{hubtest.Instance("late", "d9", "running")}
	}})
	waitStates(t, s, host.ID, "late=running") // so the report was taken in
	host, err := s.Hosts.Get(host.ID)
	if err != nil {
		t.Fatal(err)
	}
	if host.DisplayName() != "my node" || host.Memory != 1 || host.Labels["mine"] != "yes" || host.Labels["zone"] != "b" {
		t.Errorf("host %+v", host)
	}
	a.Stop()
}

func TestContainersFollowTheReports(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s, Timings: quick})
	var f fleet
	f.set(hubtest.Instance("web", "d1", "running"), hubtest.Instance("db", "d2", "stopped"))
	id := srv.Register(t, "k")
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "h-1", Instances: f.get})
	host := hostOf(t, s, "h-1")
	waitStates(t, s, host.ID, "web=running db=stopped")
	web, err := s.ContainerByExternalID(host.ID, "d1")
	if err != nil {
		t.Fatal(err)
	}
	if !web.Native || web.ImageUUID != "docker:busybox" || web.AccountID != "1a1" || web.ExternalCreated.Unix() != 1_700_000_000 {
		t.Errorf("found container %+v", web)
	}
	f.set(hubtest.Instance("web", "d1", "stopped"), hubtest.Instance("db", "d2", "running"), hubtest.Instance("new", "d3", "running"))
	waitStates(t, s, host.ID, "web=stopped db=running new=running")
	f.set(hubtest.Instance("web", "d1", "running"))
	waitStates(t, s, host.ID, "web=running db=removed new=removed")
	if db, _ := s.ContainerByExternalID(host.ID, "d2"); db.Removed.IsZero() {
		t.Error("it is not known when it was removed")
	}

	// What the server made is recognised by its label, and left alone while the server is at work on it.
	made, err := s.Containers.Create(ctx, store.Container{
		UUID: "made-by-us", Name: "made", HostID: host.ID, State: store.ContainerStarting, Transitioning: wire.TransitioningYes,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.set(hubtest.Instance("web", "d1", "running"), hubtest.Instance("made-by-us", "d4", "stopped"), hubtest.Instance("seen", "d5", "running"))
	waitStates(t, s, host.ID, "web=running db=removed new=removed made=starting seen=running")
	if _, err := s.Containers.Update(ctx, made.ID, func(c *store.Container) error {
		c.State, c.Transitioning, c.ExternalID = store.ContainerRunning, wire.TransitioningNo, "d4"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	waitStates(t, s, host.ID, "web=running db=removed new=removed made=stopped seen=running")
	if c, _ := s.Containers.Get(made.ID); c.Native || c.Name != "made" {
		t.Errorf("made container %+v", c)
	}
}

func TestFoundContainerIsLookedAt(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s})
	inspect := func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) {
		if want := `{"instanceInspect":{"id":"d1","kind":"docker"}}`; string(ev.Data) != want {
			t.Errorf("inspect data %s, want %s", ev.Data, want)
		}
		return json.RawMessage(`{"instanceInspect":{"Id":"d1","Name":"/web","Created":"2024-01-02T03:04:05.6Z",
			"Config":{"Image":"nginx:1","Labels":{"a":"b"}},"State":{"Running":true},
			"NetworkSettings":{"IPAddress":"","Networks":{"bridge":{"IPAddress":"172.17.0.2"}},
				"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"443/tcp":null}}}}`), nil
	}
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{
		ID: srv.Register(t, "k"), HostUUID: "h-1", Names: []string{"compute.instance.inspect"}, Handle: inspect,
		Instances: func() []map[string]any { return []map[string]any{hubtest.Instance("web", "d1", "running")} },
	})
	host := hostOf(t, s, "h-1")
	hubtest.WaitFor(t, "the container's address", func() bool {
		c, err := s.ContainerByExternalID(host.ID, "d1")
		return err == nil && c.PrimaryIPAddress == "172.17.0.2" && strings.Join(c.Ports, " ") == "0.0.0.0:8080:80/tcp 443/tcp" &&
			c.ImageUUID == "docker:nginx:1" && c.Labels["a"] == "b" && c.ExternalCreated.Year() == 2024
	})
}

func TestContainerEvents(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s})
	id := srv.Register(t, "k")
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "h-1"})
	host := hostOf(t, s, "h-1")
	event := func(status, externalID string, inspect string) error {
		return srv.ContainerEvent(ctx, id, hub.ContainerEvent{
			ExternalID: externalID, ExternalStatus: status, ExternalFrom: "busybox", ReportedHostUUID: "h-1", DockerInspect: json.RawMessage(inspect),
		})
	}
	step := func(status, externalID, inspect, want string) {
		t.Helper()
		if err := event(status, externalID, inspect); err != nil {
			t.Errorf("%s %s: %v", status, externalID, err)
		}
		if got := containerStates(s, host.ID); got != want {
			t.Errorf("after %s %s: %q, want %q", status, externalID, got, want)
		}
	}
	step("die", "0123456789abcdef", `{"Name":"/job","Config":{"Image":"busybox"}}`, "job=stopped")
	step("start", "0123456789abcdef", `{"Name":"/job","Config":{"Image":"busybox"}}`, "job=running")
	step("kill", "0123456789abcdef", ``, "job=running")
	step("stop", "0123456789abcdef", ``, "job=stopped")
	step("rename", "0123456789abcdef", ``, "job=stopped")
	step("destroy", "0123456789abcdef", ``, "job=removed")
	step("destroy", "never-seen", ``, "job=removed")
	step("start", "fedcba9876543210", ``, "job=removed fedcba987654=running")

	made, err := s.Containers.Create(ctx, store.Container{UUID: "u-made", Name: "made", HostID: host.ID, State: store.ContainerRunning})
	if err != nil {
		t.Fatal(err)
	}
	step("die", "dmade", `{"Name":"/r-made","Config":{"Labels":{"io.rancher.container.uuid":"u-made"}}}`, "job=removed fedcba987654=running made=stopped")
	if c, _ := s.Containers.Get(made.ID); c.ExternalID != "dmade" {
		t.Errorf("external id %q", c.ExternalID)
	}
	step("start", "dmade", `{"Config":{"Env":["A=b","RANCHER_UUID=u-made"]}}`, "job=removed fedcba987654=running made=running")

	if err := srv.ContainerEvent(ctx, id, hub.ContainerEvent{ExternalID: "x", ExternalStatus: "start", ReportedHostUUID: "h-2"}); !errors.Is(err, hub.ErrReference) {
		t.Errorf("a host of nobody: %v, want ErrReference", err)
	}
	other := srv.Register(t, "other")
	if err := srv.ContainerEvent(ctx, other, hub.ContainerEvent{ExternalID: "x", ExternalStatus: "start", ReportedHostUUID: "h-1"}); !errors.Is(err, hub.ErrReference) {
		t.Errorf("another agent's host: %v, want ErrReference", err)
	}
	if err := srv.ContainerEvent(ctx, "1a99", hub.ContainerEvent{ReportedHostUUID: "h-1"}); !errors.Is(err, hub.ErrUnknownAgent) {
		t.Errorf("unknown agent: %v, want ErrUnknownAgent", err)
	}
	if err := srv.ContainerEvent(ctx, id, hub.ContainerEvent{ExternalStatus: "start", ReportedHostUUID: "h-1"}); !errors.Is(err, hub.ErrInvalid) {
		t.Errorf("no container: %v, want ErrInvalid", err)
	}
}

// A container that exits while the server still starts it is found out when the server is done, and not only later.
func TestEventDuringWorkIsNotForgotten(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s}) // the next report is due after 15 s
	var f fleet
	id := srv.Register(t, "k")
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "h-1", Instances: f.get})
	host := hostOf(t, s, "h-1")
	c, err := s.Containers.Create(ctx, store.Container{
		UUID: "u", Name: "job", HostID: host.ID, ExternalID: "d1", State: store.ContainerStarting, Transitioning: wire.TransitioningYes,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.set(hubtest.Instance("u", "d1", "stopped"))
	begin := time.Now()
	if err := srv.ContainerEvent(ctx, id, hub.ContainerEvent{ExternalID: "d1", ExternalStatus: "die", ReportedHostUUID: "h-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Containers.Update(ctx, c.ID, func(c *store.Container) error {
		c.State, c.Transitioning = store.ContainerRunning, ""
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	waitStates(t, s, host.ID, "job=stopped")
	t.Logf("found out after %v", time.Since(begin))
}

func TestClonedMachineIsQuarantined(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s, Timings: quick})
	first, second := srv.Register(t, "a"), srv.Register(t, "b")
	var ours, theirs fleet
	ours.set(hubtest.Instance("ours", "d1", "running"))
	theirs.set(hubtest.Instance("theirs", "d2", "running"))
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: first, HostUUID: "same", Instances: ours.get})
	host := hostOf(t, s, "same")
	waitStates(t, s, host.ID, "ours=running")
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: second, HostUUID: "same", Instances: theirs.get})
	hubtest.WaitFor(t, "the quarantine", func() bool { rec, err := s.Agents.Get(second); return err == nil && rec.Quarantine != "" })
	hubtest.WaitFor(t, "two refused reports", func() bool { return srv.Stats().Quarantined >= 2 })
	if h, _ := s.Hosts.Get(host.ID); h.AgentID != first {
		t.Error("the host was stolen")
	}
	if got := containerStates(s, host.ID); got != "ours=running" {
		t.Errorf("containers %q: the copy's must not show", got)
	}
	if n := s.Hosts.Len(); n != 1 {
		t.Errorf("%d hosts", n)
	}
	// When the first machine is really gone, the second one is the host.
	a.Stop()
	hubtest.WaitFor(t, "the host to move", func() bool {
		h, err := s.Hosts.Get(host.ID)
		rec, _ := s.Agents.Get(second)
		return err == nil && h.AgentID == second && h.Connection == store.ConnectionOnline && rec.Quarantine == ""
	})
	waitStates(t, s, host.ID, "ours=removed theirs=running")
}

func TestAgentWithANewIdentityLeavesItsOldHost(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s, Timings: quick})
	id := srv.Register(t, "k")
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "old"})
	old := hostOf(t, s, "old")
	a.Stop()
	hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, HostUUID: "new"})
	hostOf(t, s, "new")
	hubtest.WaitFor(t, "the old host to be disconnected", func() bool {
		h, err := s.Hosts.Get(old.ID)
		return err == nil && h.Connection == store.ConnectionDisconnected
	})
}

func TestBadReportsDoNoHarm(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s})
	c := dial(t, srv, srv.Register(t, "k"), true)
	reports := []string{
		`{"options":{},"resources":7}`,
		`{"options":7,"resources":[]}`,
		`{"options":{"instances":true},"resources":[7,null,"x",{}]}`,
		`{"options":{"instances":true},"resources":[{"type":"hostUuid","uuid":"h-1"},{"type":"instance","uuid":"u","dockerId":"d9"}]}`,
		`{"options":{},"resources":[{"type":"host","uuid":"` + strings.Repeat("x", 300) + `"}]}`,
		`{"options":{},"resources":[{"type":"host","uuid":"h-0","labels":"no"}]}`,
		`{"options":{},"resources":[{"type":"host","uuid":"h-1","hostname":"node","memory":"lots","info":[1]}]}`,
		`{"options":{},"resources":[{"type":"host","uuid":"h-1","hostname":"node","labels":{"n":7,"b":true,"t":"x"},"info":{"a":1},"memory":2.5e3}]}`,
	}
	next := 0
	for next < len(reports) {
		ev, err := wire.DecodeEvent(c.read())
		if err != nil {
			t.Fatal(err)
		}
		if ev.ReplyTo == "" {
			continue
		}
		c.reply(ev, []byte(reports[next]))
		next++
		if next < len(reports) {
			go srv.Ask(t.Context(), "1a1")
		}
	}
	host := hostOf(t, s, "h-1")
	if l := host.Labels; l["n"] != "7" || l["b"] != "true" || l["t"] != "x" || host.Memory != 2500 || string(host.Info) != `{"a":1}` {
		t.Errorf("host %+v", host)
	}
	if s.Hosts.Len() != 1 || s.Containers.Len() != 0 {
		t.Errorf("%d hosts, %d containers", s.Hosts.Len(), s.Containers.Len())
	}
}

// An agent whose engine hung when it came is asked for it with every ping, not a minute later; and no longer than that.
func TestEngineIsAskedForUntilItIsKnown(t *testing.T) {
	s := storetest.Open(t)
	srv := hubtest.Start(t, hub.Config{Store: s, Timings: hub.Timings{Ping: time.Hour}})
	id := srv.Register(t, "k")
	c := dial(t, srv, id, true)
	ping := func(asks bool, engine string) {
		t.Helper()
		for {
			ev, err := wire.DecodeEvent(c.read())
			if err != nil {
				t.Fatal(err)
			}
			if ev.Name == wire.NamePing && ev.ReplyTo != "" {
				if got := bytes.Contains(ev.Data, []byte(`"resources":true`)); got != asks {
					t.Errorf("asks for resources: %t, want %t", got, asks)
				}
				c.reply(ev, []byte(`{"options":{},"resources":[{"type":"host","uuid":"h-1","kind":"docker","hostname":"n"`+engine+`}]}`))
				return
			}
		}
	}
	ping(true, "")
	hostOf(t, s, "h-1")
	srv.Beat(id)
	ping(true, `,"engine":"docker 28.1"`)
	for end := time.Now().Add(hubtest.Patience); hostOf(t, s, "h-1").Engine != "docker 28.1"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the engine is not written down")
		}
	}
	srv.Beat(id)
	ping(false, `,"engine":"docker 28.1"`)
}
