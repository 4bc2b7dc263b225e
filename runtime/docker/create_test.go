package docker_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

func ptr[T any](v T) *T { return &v }

// look follows a path "HostConfig.Ulimits.0.Name" through decoded JSON.
func look(v any, path string) any {
	for _, key := range strings.Split(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[strings.ReplaceAll(key, "\x00", ".")]
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(node) {
				return nil
			}
			v = node[i]
		default:
			return nil
		}
	}
	return v
}

// inspectOf creates a container of spec and returns what the daemon says of it.
func inspectOf(t *testing.T, e *docker.Engine, spec *runtime.ContainerSpec) (any, []string) {
	t.Helper()
	spec.Name, spec.Image = randomName(), image
	id, warnings, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNow(t, id) })
	raw, err := e.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var decoded any
	if err := json.Unmarshal(raw, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded, warnings
}

// Every field of the spec arrives at the daemon.
func TestCreateEveryField(t *testing.T) {
	e := engine(t, docker.Config{})
	other := sleeper(t)
	spec := &runtime.ContainerSpec{
		Cmd: []string{"sleep", "5"}, Entrypoint: []string{"env"}, Env: []string{"A=1", "B=x=y"}, Labels: map[string]string{"a": "b"},
		Hostname: "host1", Domainname: "example.test", User: "nobody", WorkingDir: "/tmp", MacAddress: "02:42:ac:11:65:43",
		TTY: true, OpenStdin: true, StdinOnce: true, StopSignal: "SIGUSR1", StopTimeout: ptr(33), NetworkDisabled: true,
		Healthcheck:  &runtime.Healthcheck{Test: []string{"CMD", "true"}, Interval: 5 * time.Second, Timeout: 2 * time.Second, Retries: 4},
		ExposedPorts: []runtime.Port{{PrivatePort: 53, Protocol: "udp"}},
		PortBindings: []runtime.Port{{IP: "127.0.0.1", PrivatePort: 80, PublicPort: 18081, Protocol: "tcp"}, {PrivatePort: 81}},
		PublishAll:   true, NetworkMode: "bridge",
		Binds: []string{"/tmp:/mnt:ro"}, Volumes: map[string]struct{}{"/data": {}}, VolumesFrom: []string{other}, Tmpfs: map[string]string{"/run": "size=1m"},
		Links:      []string{other + ":friend"},
		Privileged: true, ReadOnlyRootFS: true, CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"CHOWN"}, SecurityOpt: []string{"no-new-privileges"},
		GroupAdd: []string{"100"}, Devices: []runtime.Device{{Host: "/dev/null", Container: "/dev/nil", Permissions: "r"}, {Host: "/dev/zero"}},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1"},
		DNS:     []string{"127.0.0.9"}, DNSSearch: []string{"search.test"}, DNSOptions: []string{"ndots:2"}, ExtraHosts: []string{"a.test:127.0.0.8"},
		PidMode: "host", IpcMode: "shareable", UsernsMode: "host", CgroupParent: "/drover-test", Runtime: "runc", Init: ptr(true),
		LogDriver: "json-file", LogOptions: map[string]string{"max-size": "1m"}, RestartPolicy: runtime.RestartPolicy{Name: "on-failure", MaxRetries: 3},
		Resources: runtime.Resources{
			CPUShares: 512, CPUPeriod: 50000, CPUQuota: 25000, CpusetCpus: "0", CpusetMems: "0", Memory: 64 << 20, MemoryReservation: 32 << 20,
			MemorySwap: -1, MemorySwappiness: ptr(int64(10)), ShmSize: 32 << 20, PidsLimit: ptr(int64(77)), OomKillDisable: ptr(true), OomScoreAdj: 100,
			Ulimits: []runtime.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}, DiskQuota: 1 << 30,
		},
	}
	got, warnings := inspectOf(t, e, spec)
	if !strings.Contains(strings.Join(warnings, "\n"), "disk quota") {
		t.Errorf("no warning of the disk quota: %q", warnings)
	}
	list := func(v ...any) []any { return v }
	for path, want := range map[string]any{
		"Config.Image": image, "Config.Cmd": list("sleep", "5"), "Config.Entrypoint": list("env"), "Config.Env.0": "A=1", "Config.Env.1": "B=x=y",
		"Config.Labels.a": "b", "Config.Hostname": "host1", "Config.Domainname": "example.test", "Config.User": "nobody", "Config.WorkingDir": "/tmp",
		"Config.MacAddress": "02:42:ac:11:65:43", "Config.Tty": true, "Config.OpenStdin": true, "Config.StdinOnce": true, "Config.StopSignal": "SIGUSR1",
		"Config.StopTimeout": 33.0, "Config.NetworkDisabled": true, "Config.Healthcheck.Test": list("CMD", "true"), "Config.Healthcheck.Interval": 5e9,
		"Config.Healthcheck.Timeout": 2e9, "Config.Healthcheck.Retries": 4.0, "Config.ExposedPorts.53/udp": map[string]any{},
		"Config.ExposedPorts.80/tcp": map[string]any{}, "Config.ExposedPorts.81/tcp": map[string]any{}, "Config.Volumes./data": map[string]any{},
		"HostConfig.PortBindings.80/tcp.0.HostIp": "127.0.0.1", "HostConfig.PortBindings.80/tcp.0.HostPort": "18081",
		"HostConfig.PortBindings.81/tcp.0.HostPort": "", "HostConfig.PublishAllPorts": true, "HostConfig.NetworkMode": "bridge",
		"HostConfig.Binds": list("/tmp:/mnt:ro"), "HostConfig.VolumesFrom": list(other), "HostConfig.Tmpfs./run": "size=1m", "HostConfig.Privileged": true,
		"HostConfig.Links":          list("/" + nameOf(t, e, other) + ":/" + spec.Name + "/friend"),
		"HostConfig.ReadonlyRootfs": true, "HostConfig.CapAdd": list("CAP_NET_ADMIN"), "HostConfig.CapDrop": list("CAP_CHOWN"), "HostConfig.GroupAdd": list("100"),
		"HostConfig.Devices.0": map[string]any{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "r"},
		"HostConfig.Devices.1": map[string]any{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rwm"},
		"HostConfig.Sysctls":   map[string]any{"net.ipv4.ip_forward": "1"}, "HostConfig.Dns": list("127.0.0.9"), "HostConfig.DnsSearch": list("search.test"),
		"HostConfig.DnsOptions": list("ndots:2"), "HostConfig.ExtraHosts": list("a.test:127.0.0.8"), "HostConfig.PidMode": "host",
		"HostConfig.IpcMode": "shareable", "HostConfig.UsernsMode": "host", "HostConfig.CgroupParent": "/drover-test", "HostConfig.Runtime": "runc",
		"HostConfig.Init": true, "HostConfig.LogConfig.Type": "json-file", "HostConfig.LogConfig.Config.max-size": "1m",
		"HostConfig.RestartPolicy.Name": "on-failure", "HostConfig.RestartPolicy.MaximumRetryCount": 3.0, "HostConfig.CpuShares": 512.0,
		"HostConfig.CpuPeriod": 50000.0, "HostConfig.CpuQuota": 25000.0, "HostConfig.CpusetCpus": "0", "HostConfig.CpusetMems": "0",
		"HostConfig.Memory": 67108864.0, "HostConfig.MemoryReservation": 33554432.0, "HostConfig.ShmSize": 33554432.0, "HostConfig.OomScoreAdj": 100.0,
		"HostConfig.Ulimits.0": map[string]any{"Name": "nofile", "Soft": 100.0, "Hard": 200.0},
	} {
		if v := look(got, path); !reflect.DeepEqual(v, want) {
			t.Errorf("%s: got %#v, want %#v", path, v, want)
		}
	}
	// The kernel may not have these; the daemon drops them with a warning then.
	for path, want := range map[string]any{
		"HostConfig.MemorySwap": -1.0, "HostConfig.MemorySwappiness": 10.0, "HostConfig.PidsLimit": 77.0, "HostConfig.OomKillDisable": true,
	} {
		if v := look(got, path); !reflect.DeepEqual(v, want) && len(warnings) < 2 {
			t.Errorf("%s: got %#v, want %#v, and no warning", path, v, want)
		}
	}
	if opts, _ := look(got, "HostConfig.SecurityOpt").([]any); len(opts) == 0 || opts[0] != "no-new-privileges" {
		t.Errorf("SecurityOpt: %v", opts)
	}
}

// What cannot be in one container with the above.
func TestCreateOtherFields(t *testing.T) {
	e := engine(t, docker.Config{})
	other := sleeper(t)
	got, _ := inspectOf(t, e, &runtime.ContainerSpec{
		UTSMode: "host", AutoRemove: true, NetworkMode: "container:" + other,
		Resources: runtime.Resources{NanoCPUs: 5e8, BlkioWeight: 300},
	})
	for path, want := range map[string]any{
		"HostConfig.UTSMode": "host", "HostConfig.AutoRemove": true, "HostConfig.NetworkMode": "container:" + other, "HostConfig.NanoCpus": 5e8,
	} {
		if v := look(got, path); !reflect.DeepEqual(v, want) {
			t.Errorf("%s: got %#v, want %#v", path, v, want)
		}
	}
}

// What is unset is the daemon's choice: the container is the one that an empty request makes.
func TestCreateUnset(t *testing.T) {
	e := engine(t, docker.Config{})
	got, warnings := inspectOf(t, e, &runtime.ContainerSpec{})
	if len(warnings) != 0 {
		t.Errorf("warnings: %q", warnings)
	}
	for path, want := range map[string]any{
		"HostConfig.CpuShares": 0.0, "HostConfig.Memory": 0.0, "HostConfig.MemorySwap": 0.0, "HostConfig.MemorySwappiness": nil, "HostConfig.PidsLimit": nil,
		"HostConfig.NetworkMode": "default", "HostConfig.ShmSize": 67108864.0, "HostConfig.IpcMode": "private", "HostConfig.LogConfig.Type": "json-file",
		"HostConfig.Init": nil, "HostConfig.CapAdd": nil, "HostConfig.Binds": nil, "HostConfig.Privileged": false, "Config.Healthcheck": nil,
		"Config.StopTimeout": nil, "Config.Cmd": []any{"/bin/sh"}, "Config.Entrypoint": nil, "Config.User": "", "Config.Tty": false,
		"Config.ExposedPorts": nil, "Config.Volumes": nil, "Config.NetworkDisabled": nil,
	} {
		if v := look(got, path); !reflect.DeepEqual(v, want) {
			t.Errorf("%s: got %#v, want %#v", path, v, want)
		}
	}
	// Zero that is meant is not unset.
	got, _ = inspectOf(t, e, &runtime.ContainerSpec{StopTimeout: ptr(0), Init: ptr(false), Resources: runtime.Resources{MemorySwappiness: ptr(int64(0)), OomKillDisable: ptr(false)}})
	for path, want := range map[string]any{"Config.StopTimeout": 0.0, "HostConfig.Init": false, "HostConfig.MemorySwappiness": 0.0} {
		if v := look(got, path); !reflect.DeepEqual(v, want) {
			t.Errorf("%s: got %#v, want %#v", path, v, want)
		}
	}
}

// What this host's kernel refuses is looked at on its way, and so is what other API versions want otherwise.
func TestCreateBody(t *testing.T) {
	spec := &runtime.ContainerSpec{
		Name: "x", Image: "x", Cgroup: "container:y", MacAddress: "02:42:ac:11:65:43", StorageOpt: map[string]string{"size": "1G"},
		Resources: runtime.Resources{
			CPURealtimePeriod: 1000, CPURealtimeRuntime: 500, KernelMemory: 8 << 20, BlkioWeight: 300,
			BlkioDevices: []runtime.BlkioDevice{{Path: "/dev/a", Weight: 5, ReadIOps: 1, WriteIOps: 2, ReadBps: 3, WriteBps: 4}, {Path: "/dev/b", ReadBps: 9}},
		},
	}
	for version, wants := range map[string]map[string]any{
		"1.41": {"MacAddress": "02:42:ac:11:65:43", "NetworkingConfig": nil, "HostConfig.KernelMemory": 8388608.0, "warnings": 0},
		"1.43": {"MacAddress": "02:42:ac:11:65:43", "NetworkingConfig": nil, "HostConfig.KernelMemory": nil, "warnings": 1},
		"1.47": {"MacAddress": nil, "NetworkingConfig.EndpointsConfig.default.MacAddress": "02:42:ac:11:65:43", "HostConfig.KernelMemory": nil, "warnings": 1},
	} {
		var body any
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Api-Version", version)
			if strings.HasSuffix(r.URL.Path, "/containers/create") {
				if r.URL.Query().Get("name") != "x" {
					t.Errorf("query: %s", r.URL.RawQuery)
				}
				_ = json.NewDecoder(r.Body).Decode(&body)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusCreated)
				_, _ = w.Write([]byte(`{"Id":"abc","Warnings":["from the daemon"]}`))
			}
		}))
		e := open(t, docker.Config{Host: "tcp://" + server.Listener.Addr().String()})
		id, warnings, err := e.Create(t.Context(), spec)
		if err != nil || id != "abc" || len(warnings) != 1+wants["warnings"].(int) {
			t.Errorf("%s: id %q, warnings %q, error %v", version, id, warnings, err)
		}
		delete(wants, "warnings")
		for path, want := range map[string]any{
			"HostConfig.Cgroup": "container:y", "HostConfig.StorageOpt.size": "1G", "HostConfig.CpuRealtimePeriod": 1000.0, "HostConfig.CpuRealtimeRuntime": 500.0,
			"HostConfig.BlkioWeight": 300.0, "HostConfig.BlkioWeightDevice": []any{map[string]any{"Path": "/dev/a", "Weight": 5.0}},
			"HostConfig.BlkioDeviceReadIOps":  []any{map[string]any{"Path": "/dev/a", "Rate": 1.0}},
			"HostConfig.BlkioDeviceWriteIOps": []any{map[string]any{"Path": "/dev/a", "Rate": 2.0}},
			"HostConfig.BlkioDeviceReadBps":   []any{map[string]any{"Path": "/dev/a", "Rate": 3.0}, map[string]any{"Path": "/dev/b", "Rate": 9.0}},
			"HostConfig.BlkioDeviceWriteBps":  []any{map[string]any{"Path": "/dev/a", "Rate": 4.0}},
		} {
			wants[path] = want
		}
		for path, want := range wants {
			if v := look(body, path); !reflect.DeepEqual(v, want) {
				t.Errorf("%s: %s: got %#v, want %#v", version, path, v, want)
			}
		}
		e.Close()
		server.Close()
	}
}

func TestPublishedPort(t *testing.T) {
	e := engine(t, docker.Config{})
	spec := &runtime.ContainerSpec{Name: randomName(), Image: image, Cmd: []string{"sleep", "1000"}, PortBindings: []runtime.Port{{IP: "127.0.0.1", PrivatePort: 8080, Protocol: "tcp"}}}
	id, _, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNow(t, id) })
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	list, err := e.List(t.Context(), runtime.ListOptions{Name: spec.Name})
	if err != nil || len(list) != 1 || len(list[0].Ports) != 1 {
		t.Fatalf("List: %+v, %v", list, err)
	}
	if p := list[0].Ports[0]; p.IP != "127.0.0.1" || p.PrivatePort != 8080 || p.PublicPort == 0 || p.Protocol != "tcp" {
		t.Errorf("port: %+v", p)
	}
	st, err := e.State(t.Context(), id)
	if err != nil || !strings.Contains(st.IP, ".") || st.LogDriver != "json-file" || !strings.HasSuffix(st.LogPath, "-json.log") || st.RootFS == "" {
		t.Errorf("State: %+v, %v", st, err)
	}
}

func TestStartFailure(t *testing.T) {
	e := engine(t, docker.Config{})
	id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{Name: randomName(), Image: image, Cmd: []string{"/no/such/command"}, NetworkMode: "none"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNow(t, id) })
	err = e.Start(t.Context(), id)
	if err == nil || !strings.Contains(err.Error(), "/no/such/command") || strings.Contains(err.Error(), "Error response from daemon") {
		t.Errorf("got %v", err)
	}
}

func nameOf(t *testing.T, e *docker.Engine, id string) string {
	t.Helper()
	st, err := e.State(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return st.Name
}
