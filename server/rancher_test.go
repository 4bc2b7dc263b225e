package server_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/droverhq/drover/server"
	v1 "github.com/rancher/go-rancher/client"
	v2 "github.com/rancher/go-rancher/v2"
)

func rancher(t *testing.T, s *site, path, as string) *v2.RancherClient {
	t.Helper()
	user, secret, _ := strings.Cut(as, ":")
	c, err := v2.NewRancherClient(&v2.ClientOpts{Url: s.url + path, AccessKey: user, SecretKey: secret, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func waitState(t *testing.T, c *v2.RancherClient, id, state string) *v2.Container {
	t.Helper()
	var got *v2.Container
	eventually(t, "container "+id+" becomes "+state, func() bool {
		var err error
		if got, err = c.Container.ById(id); err != nil {
			t.Fatal(err)
		}
		return got.State == state && got.Transitioning == "no"
	})
	return got
}

// An unmodified client of Rancher 1.6 lists hosts and drives a container through its actions.
func TestGoRancherDrivesAContainer(t *testing.T) {
	s := start(t, server.Config{})
	agent, hostID := withHost(t, s)
	for _, path := range []string{"", "/v1", "/v2-beta", "/v2-beta/projects/1a1/"} {
		t.Run(path, func(t *testing.T) {
			c := rancher(t, s, path, s.key)
			hosts, err := c.Host.List(&v2.ListOpts{Filters: map[string]any{"state": "active"}})
			if err != nil {
				t.Fatal(err)
			}
			if len(hosts.Data) != 1 || hosts.Data[0].Hostname != "node-host-uuid-1" || hosts.Data[0].AgentState != "active" ||
				hosts.Data[0].Labels["zone"] != "a" || hosts.Data[0].MilliCpu != 4000 || hosts.Data[0].AgentIpAddress != "10.0.0.5" {
				t.Errorf("hosts %+v", hosts.Data)
			}
			made, err := c.Container.Create(&v2.Container{
				Name: "web" + strings.Trim(strings.ReplaceAll(path, "/", "-"), "-"), ImageUuid: "docker:nginx", Command: []string{"sleep", "60"},
				Environment: map[string]any{"A": "b"}, Labels: map[string]any{"app": "x"}, Ports: []string{"8080:80/tcp"},
				RequestedHostId: hostID, StartOnCreate: true, Memory: 1 << 29, RestartPolicy: &v2.RestartPolicy{Name: "always"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if made.Id == "" || made.Type != "container" || made.HostId != hostID {
				t.Errorf("created %+v", made)
			}
			got := waitState(t, c, made.Id, "running")
			if got.ExternalId == "" || got.PrimaryIpAddress != "172.17.0.2" || got.ImageUuid != "docker:nginx" || got.Memory != 1<<29 ||
				!slices.Equal(got.Command, []string{"sleep", "60"}) || got.RestartPolicy.Name != "always" || got.Created == "" {
				t.Errorf("running %+v", got)
			}
			if _, ok := got.Actions["start"]; ok {
				t.Error("a running container offers start")
			}
			if _, err := c.Container.ActionStop(got, &v2.InstanceStop{Timeout: 3}); err != nil {
				t.Fatal(err)
			}
			got = waitState(t, c, made.Id, "stopped")
			if _, err := c.Container.ActionStart(got); err != nil {
				t.Fatal(err)
			}
			got = waitState(t, c, made.Id, "running")
			if _, err := c.Container.ActionRestart(got); err != nil {
				t.Fatal(err)
			}
			got = waitState(t, c, made.Id, "running")
			list, err := c.Container.List(&v2.ListOpts{Filters: map[string]any{"hostId": hostID, "state": "running"}})
			if err != nil || len(list.Data) != 1 {
				t.Errorf("list: %v %+v", err, list)
			}
			if err := c.Container.Delete(got); err != nil {
				t.Fatal(err)
			}
			waitState(t, c, made.Id, "removed")
			if list, err = c.Container.List(nil); err != nil || len(list.Data) != 0 {
				t.Errorf("removed containers are listed: %v %d", err, len(list.Data))
			}
		})
	}
	if got := agent.names(); !slices.Contains(got, "compute.instance.remove") || !slices.Contains(got, "storage.image.activate") {
		t.Errorf("events %v", got)
	}
}

func TestGoRancherV1(t *testing.T) {
	s := start(t, server.Config{})
	_, hostID := withHost(t, s)
	user, secret, _ := strings.Cut(s.key, ":")
	c, err := v1.NewRancherClient(&v1.ClientOpts{Url: s.url + "/v1", AccessKey: user, SecretKey: secret, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := c.Host.List(nil)
	if err != nil || len(hosts.Data) != 1 || hosts.Data[0].Id != hostID {
		t.Errorf("hosts: %v %+v", err, hosts)
	}
	made, err := c.Container.Create(&v1.Container{ImageUuid: "docker:nginx", StartOnCreate: true})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container runs", func() bool {
		got, err := c.Container.ById(made.Id)
		return err == nil && got.State == "running"
	})
}

// The calls of an original agent: registration with the v2 client, publish, containerEvent and hostApiProxyToken.
func TestGoRancherAsAgent(t *testing.T) {
	s := start(t, server.Config{})
	token := s.token()
	reg := rancher(t, s, "/v1", "registrationToken:"+token)
	key := strings.Repeat("cd", 64)
	if _, err := reg.Register.Create(&v2.Register{Key: key}); err != nil {
		t.Fatal(err)
	}
	list, err := reg.Register.List(&v2.ListOpts{Filters: map[string]any{"key": key}})
	if err != nil || len(list.Data) != 1 || list.Data[0].AccessKey == "" || list.Data[0].SecretKey == "" {
		t.Fatalf("register: %v %+v", err, list)
	}
	as := list.Data[0].AccessKey + ":" + list.Data[0].SecretKey
	c := rancher(t, s, "/v1", as)
	if _, err := c.Publish.Create(&v2.Publish{Name: "reply.123", PreviousIds: []string{"unknown"}}); err != nil {
		t.Errorf("publish: %v", err)
	}
	if _, err := c.Publish.Create(&v2.Publish{Name: "host.delete"}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("an agent publishes what is no reply: %v", err)
	}
	user, secret, _ := strings.Cut(as, ":")
	old, err := v1.NewRancherClient(&v1.ClientOpts{Url: s.url + "/v1", AccessKey: user, SecretKey: secret, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	_, err = old.HostApiProxyToken.Create(&v1.HostApiProxyToken{ReportedUuid: "x"})
	if e, ok := err.(*v1.ApiError); !ok || e.StatusCode != 422 || !strings.Contains(e.Body, "code=InvalidReference") || !strings.Contains(e.Body, "fieldName=reportedUuid") {
		t.Errorf("host access to a host that is not known: %v", err)
	}
	_, err = old.ContainerEvent.Create(&v1.ContainerEvent{ExternalId: "x", ExternalStatus: "start", ReportedHostUuid: "not mine"})
	if e, ok := err.(*v1.ApiError); !ok || e.StatusCode != 422 || !strings.Contains(e.Body, "fieldName=hostId") {
		t.Errorf("an event of a foreign host: %v", err)
	}
	s.connect(as, "host-uuid-2", nil)
	eventually(t, "host access to the own host", func() bool {
		got, err := old.HostApiProxyToken.Create(&v1.HostApiProxyToken{ReportedUuid: "host-uuid-2"})
		return err == nil && got.Url == "ws"+strings.TrimPrefix(s.url, "http")+"/v1/connectbackend" && strings.Count(got.Token, ".") == 2
	})
	eventually(t, "the event of the own host is taken", func() bool {
		_, err = old.ContainerEvent.Create(&v1.ContainerEvent{
			ExternalId: "feed0000feed0000", ExternalStatus: "start", ExternalFrom: "nginx:latest", ExternalTimestamp: 1700000000, ReportedHostUuid: "host-uuid-2",
			DockerInspect: map[string]any{"Id": "feed0000feed0000", "Name": "/found", "Config": map[string]any{"Labels": map[string]any{"a": "b"}}},
		})
		return err == nil
	})
	eventually(t, "the native container is listed", func() bool {
		got := s.must("GET", "/v2-beta/containers?native=true", s.key, nil).data()
		return len(got) == 1 && got[0]["name"] == "found" && got[0]["state"] == "running" && got[0]["externalId"] == "feed0000feed0000"
	})
}
