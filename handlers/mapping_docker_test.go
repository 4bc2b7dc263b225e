package handlers_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

func nics(kind, name string) []any {
	return []any{
		map[string]any{"deviceNumber": 1, "macAddress": "02:00:00:00:00:99", "network": map[string]any{"kind": "other"}},
		map[string]any{
			"deviceNumber": 0, "macAddress": "02:03:04:05:06:07",
			"ipAddresses": []any{
				map[string]any{"role": "secondary", "address": "10.42.9.9", "subnet": map[string]any{"cidrSize": 8}},
				map[string]any{"role": "primary", "address": "10.42.10.10", "subnet": map[string]any{"cidrSize": 16}},
			},
			"network": map[string]any{"kind": kind, "name": name},
		},
	}
}

func TestNetworksOnDocker(t *testing.T) {
	e := dockerEngine(t)
	ports := []any{
		map[string]any{"privatePort": 80, "publicPort": nil, "protocol": "tcp", "data": map[string]any{"fields": map[string]any{"bindAddress": "127.0.0.1"}}},
		map[string]any{"privatePort": 53, "publicPort": 0, "protocol": "udp"},
	}
	shared := newInstance(t, e)
	inspected(t, e, handlers.Options{}, shared)
	for _, c := range []struct {
		kind, mode string
		ports      bool
		disabled   bool
		hostname   bool
	}{
		{"dockerBridge", "default", true, false, true},
		{"dockerHost", "host", false, false, false},
		{"dockerNone", "none", false, true, true},
		{"dockerContainer", "container:", false, false, false},
		{"cni", "none", false, false, true},
	} {
		t.Run(c.kind, func(t *testing.T) {
			in := newInstance(t, e)
			in["nics"], in["ports"], in["hostname"] = nics(c.kind, "mynet"), ports, "web1"
			in["networkContainer"] = shared
			in.fields()["publishAllPorts"] = true
			if c.kind == "cni" {
				// Without Rancher's helper in its volume the container cannot run /.r/r; the label lets it go without.
				in.fields()["labels"] = map[string]any{"io.rancher.cni.wait": "false", "io.rancher.cni.network": ""}
			}
			if c.kind == "dockerContainer" {
				in.fields()["publishAllPorts"] = nil
			}
			m := inspected(t, e, handlers.Options{}, in)
			mode, _ := at(m, "HostConfig.NetworkMode").(string)
			if !strings.HasPrefix(mode, c.mode) || c.kind == "dockerContainer" && len(mode) != len("container:")+64 {
				t.Errorf("network mode is %q, want %q", mode, c.mode)
			}
			bindings, _ := at(m, "HostConfig.PortBindings").(map[string]any)
			exposed, _ := at(m, "Config.ExposedPorts").(map[string]any)
			mac, _ := at(m, "Config.MacAddress").(string)
			if c.ports {
				if !same(t, bindings, map[string]any{"80/tcp": []any{map[string]any{"HostIp": "127.0.0.1", "HostPort": ""}}, "53/udp": []any{map[string]any{"HostIp": "", "HostPort": ""}}}) {
					t.Errorf("bindings are %v", bindings)
				}
				if len(exposed) != 2 || mac != "02:03:04:05:06:07" || at(m, "HostConfig.PublishAllPorts") != true {
					t.Errorf("exposed %v, mac %q, publish all %v", exposed, mac, at(m, "HostConfig.PublishAllPorts"))
				}
			} else if len(bindings) != 0 || len(exposed) != 0 || mac != "" || at(m, "HostConfig.PublishAllPorts") != false {
				t.Errorf("a network without ports has bindings %v, exposed %v, mac %q, publish all %v", bindings, exposed, mac, at(m, "HostConfig.PublishAllPorts"))
			}
			disabled, _ := at(m, "Config.NetworkDisabled").(bool)
			if disabled != c.disabled {
				t.Errorf("network disabled is %v", disabled)
			}
			if name := at(m, "Config.Hostname"); c.hostname != (name == "web1") {
				t.Errorf("hostname is %v", name)
			}
			labels := at(m, "Config.Labels").(map[string]any)
			if labels["io.rancher.container.ip"] != "10.42.10.10/16" || labels["io.rancher.container.mac_address"] != "02:03:04:05:06:07" {
				t.Errorf("labels are %v", labels)
			}
		})
	}
}

// Drover's own server sends no nics but a network mode.
func TestNetworkModeWithoutNics(t *testing.T) {
	e := dockerEngine(t)
	other := newInstance(t, e)
	id := inspected(t, e, handlers.Options{}, other)["Id"].(string)
	for mode, want := range map[string]string{"host": "host", "none": "none", "bridge": "bridge", "container:" + id: "container:" + id, "managed": "default"} {
		in := newInstance(t, e)
		in.fields()["networkMode"] = mode
		if got := at(inspected(t, e, handlers.Options{}, in), "HostConfig.NetworkMode"); got != want {
			t.Errorf("mode %q became %v, want %q", mode, got, want)
		}
	}
}

func TestVolumesOnDocker(t *testing.T) {
	e := dockerEngine(t)
	name := prefix + newUUID()
	t.Cleanup(func() { _ = e.RemoveVolume(cleanupContext(t), name, true) })

	from := newInstance(t, e)
	from.fields()["dataVolumes"] = []any{"/shared"}
	fromID := inspected(t, e, handlers.Options{}, from)["Id"].(string)

	in := newInstance(t, e)
	in.fields()["dataVolumes"] = []any{"/anon", "/tmp:/host", "/etc:/conf:ro", name + ":/named", "/var/lib/docker:/var/lib/docker:ro"}
	in["dataVolumesFromContainers"] = []any{from, map[string]any{"uuid": newUUID(), "name": "gone"}}
	in["volumesFromDataVolumeMounts"] = []any{map[string]any{
		"name": name, "deviceNumber": 1,
		"data": map[string]any{"fields": map[string]any{"driver": "local", "driverOpts": map[string]any{"type": "tmpfs", "device": "tmpfs"}}},
	}}
	m := inspected(t, e, handlers.Options{DockerRoot: "/opt"}, in)

	wantBinds := []string{"/tmp:/host:rw", "/etc:/conf:ro", name + ":/named:rw", "/opt:/var/lib/docker:ro", "/opt:/opt:ro"}
	if !same(t, at(m, "HostConfig.Binds"), wantBinds) {
		t.Errorf("binds are %v, want %v", at(m, "HostConfig.Binds"), wantBinds)
	}
	volumes, _ := at(m, "Config.Volumes").(map[string]any)
	for _, dest := range []string{"/anon", "/host", "/conf", "/named"} {
		if _, ok := volumes[dest]; !ok {
			t.Errorf("Config.Volumes %v has no %s", volumes, dest)
		}
	}
	if !same(t, at(m, "HostConfig.VolumesFrom"), []string{fromID}) {
		t.Errorf("volumes from are %v", at(m, "HostConfig.VolumesFrom"))
	}
	if v, err := e.InspectVolume(t.Context(), name); err != nil || v.Driver != "local" {
		t.Errorf("volume is %+v, %v", v, err)
	}
	anonymous := func() (names []string) {
		for _, mount := range m["Mounts"].([]any) {
			if mount := mount.(map[string]any); mount["Destination"] == "/anon" {
				names = append(names, mount["Name"].(string))
			}
		}
		return names
	}()
	if len(anonymous) != 1 {
		t.Fatalf("mounts are %v", m["Mounts"])
	}

	// The anonymous volume goes with its container, the named one stays.
	mustServe(t, newRouter(e, handlers.Options{}), in.event(t, handlers.EventInstanceRemove, nil))
	if _, err := e.InspectVolume(t.Context(), anonymous[0]); err == nil {
		t.Error("the anonymous volume is left behind")
	}
	if _, err := e.InspectVolume(t.Context(), name); err != nil {
		t.Errorf("the named volume went too: %v", err)
	}
}

func TestAnonymousVolumesMayBeKept(t *testing.T) {
	e := dockerEngine(t)
	in := newInstance(t, e)
	in.fields()["dataVolumes"] = []any{"/anon"}
	opts := handlers.Options{KeepAnonymousVolumes: true}
	m := inspected(t, e, opts, in)
	name := m["Mounts"].([]any)[0].(map[string]any)["Name"].(string)
	mustServe(t, newRouter(e, opts), in.event(t, handlers.EventInstanceRemove, nil))
	if _, err := e.InspectVolume(t.Context(), name); err != nil {
		t.Errorf("the volume was to be kept: %v", err)
	}
	if err := e.RemoveVolume(cleanupContext(t), name, true); err != nil {
		t.Error(err)
	}
}

func TestEnvironmentOnDocker(t *testing.T) {
	e := dockerEngine(t)
	in := newInstance(t, e)
	in["system"], in["agentId"] = true, 7
	in.fields()["environment"] = map[string]any{"http_proxy": "mine", "CATTLE_URL": "mine"}
	in["instanceLinks"] = []any{map[string]any{
		"linkName":       "My-db",
		"targetInstance": map[string]any{"uuid": "x", "data": map[string]any{"dockerInspect": map[string]any{"Config": map[string]any{"Env": []any{"PASS=a=b", "HOME=/x", "PATH=/y", "Q_NAME=/cattle/q", "Q_PORT=tcp://q:1", "NOVALUE"}}}}},
		"data": map[string]any{"fields": map[string]any{"instanceNames": []any{"st_db_1"}, "ports": []any{
			map[string]any{"privatePort": 3306, "protocol": "tcp"}, map[string]any{"privatePort": "53", "protocol": "udp"},
		}}},
	}}
	m := inspected(t, e, handlers.Options{ConfigURL: "http://10.0.0.1:8080/v1", ProxyEnv: []string{"http_proxy=theirs", "no_proxy=a,b"}}, in)
	var env []string
	for _, kv := range at(m, "Config.Env").([]any) {
		env = append(env, kv.(string))
	}
	want := []string{
		"CATTLE_CONFIG_URL=http://10.0.0.1:8080/v1", "CATTLE_URL=mine", "http_proxy=theirs", "no_proxy=a,b", "PATH=/bin",
		"MY_DB_NAME=/cattle/My-db", "MY_DB_PORT=udp://my-db:53", "MY_DB_ENV_PASS=a=b",
		"MY_DB_PORT_3306_TCP=tcp://my-db:3306", "MY_DB_PORT_3306_TCP_ADDR=my-db", "MY_DB_PORT_3306_TCP_PORT=3306", "MY_DB_PORT_3306_TCP_PROTO=tcp",
		"MY_DB_PORT_53_UDP=udp://my-db:53", "MY_DB_PORT_53_UDP_ADDR=my-db", "MY_DB_PORT_53_UDP_PORT=53", "MY_DB_PORT_53_UDP_PROTO=udp",
	}
	for alias, e := range map[string]string{"st_db_1": "ST_DB_1", "db_1": "DB_1"} {
		want = append(want, e+"_NAME=/cattle/"+alias, e+"_PORT=udp://My-db:53", e+"_ENV_PASS=a=b",
			e+"_PORT_3306_TCP=tcp://My-db:3306", e+"_PORT_3306_TCP_ADDR=My-db", e+"_PORT_3306_TCP_PORT=3306", e+"_PORT_3306_TCP_PROTO=tcp",
			e+"_PORT_53_UDP=udp://My-db:53", e+"_PORT_53_UDP_ADDR=My-db", e+"_PORT_53_UDP_PORT=53", e+"_PORT_53_UDP_PROTO=udp")
	}
	slices.Sort(env)
	slices.Sort(want)
	if !slices.Equal(env, want) {
		t.Errorf("environment is\n%s\nwant\n%s", strings.Join(env, "\n"), strings.Join(want, "\n"))
	}
	if got := at(m, "Config.Labels").(map[string]any)["io.rancher.container.agent_id"]; got != "7" {
		t.Errorf("agent id label is %v", got)
	}

	// A server that calls itself localhost is reached another way.
	local := newInstance(t, e)
	local["labels"] = map[string]any{"io.rancher.container.cattle_url": "x"}
	m = inspected(t, e, handlers.Options{ConfigURL: "http://localhost:8080/v1"}, local)
	if got := fmt.Sprint(at(m, "Config.Env")); got != "[CATTLE_AGENT_INSTANCE=true CATTLE_CONFIG_URL_PATH=/v1 CATTLE_CONFIG_URL_PORT=9342 CATTLE_CONFIG_URL_SCHEME=http PATH=/bin]" {
		t.Errorf("environment is %s", got)
	}
}

func TestSearchDomains(t *testing.T) {
	e := dockerEngine(t)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 192.0.2.1\nsearch old\n# search no\nsearch host.example rancher.internal\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ask   []any
		order string
		want  []string
	}{
		{[]any{"a.rancher.internal", "rancher.internal"}, "", []string{"a.rancher.internal", "rancher.internal", "host.example"}},
		{[]any{"a.rancher.internal", "rancher.internal"}, "service_last", []string{"host.example", "rancher.internal", "a.rancher.internal"}},
		{[]any{"a.rancher.internal", "example.org"}, "", []string{"a.rancher.internal", "example.org"}},
	} {
		in := newInstance(t, e)
		in.fields()["dnsSearch"] = c.ask
		if c.order != "" {
			in.fields()["labels"] = map[string]any{"io.rancher.container.dns.priority": c.order}
		}
		if got := at(inspected(t, e, handlers.Options{ResolvConf: conf}, in), "HostConfig.DnsSearch"); !same(t, got, c.want) {
			t.Errorf("%v with order %q: searches %v, want %v", c.ask, c.order, got, c.want)
		}
	}
}

func TestNativeLinksOnDocker(t *testing.T) {
	e := dockerEngine(t)
	target := newInstance(t, e)
	inspected(t, e, handlers.Options{}, target)
	in := newInstance(t, e)
	in["nativeContainer"] = true
	in["instanceLinks"] = []any{map[string]any{"linkName": "db", "targetInstance": target}}
	m := inspected(t, e, handlers.Options{}, in)
	first := strings.Split(target["uuid"].(string), "-")[0]
	if got := fmt.Sprint(at(m, "HostConfig.Links")); !strings.Contains(got, "/r-"+prefix+"web-"+first+":") || !strings.HasSuffix(got, "/db]") {
		t.Errorf("links are %s", got)
	}
}

// A container that waits for its network starts with Rancher's helper, out of a volume of the network.
func TestCNIWaitOnDocker(t *testing.T) {
	e := dockerEngine(t)
	had := false
	if _, err := e.InspectVolume(t.Context(), "rancher-cni"); err == nil {
		had = true
	}
	t.Cleanup(func() {
		if !had {
			_ = e.RemoveVolume(cleanupContext(t), "rancher-cni", true)
		}
	})
	v, err := e.CreateVolume(t.Context(), runtime.VolumeSpec{Name: "rancher-cni"})
	if err != nil {
		t.Fatal(err)
	}
	// The helper's part is played by a script that becomes what it was given.
	helper := filepath.Join(v.Mountpoint, "r")
	if _, err := os.Stat(helper); err != nil {
		if err := os.WriteFile(helper, []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in := newInstance(t, e)
	in["nics"] = nics("cni", "mynet")
	in.fields()["command"], in.fields()["tty"], in.fields()["stdinOpen"] = nil, true, true
	opts := handlers.Options{CNIDir: t.TempDir(), IPWait: 1}
	reply := serve(t, newRouter(e, opts), in.event(t, handlers.EventInstanceActivate, nil))
	wantError(t, reply, wire.CodeInternal, "Timeout getting IP address")

	// The network's agent wrote down the address: now the container, which runs, is answered with it.
	rows, err := e.List(t.Context(), runtime.ListOptions{Labels: map[string]string{handlers.LabelUUID: in["uuid"].(string)}})
	if err != nil || len(rows) != 1 || rows[0].State != "running" {
		t.Fatalf("containers are %v, %v", rows, err)
	}
	raw, err := e.Inspect(t.Context(), rows[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	started := field(t, raw, "State", "StartedAt").(string)
	dir := filepath.Join(opts.CNIDir, rows[0].ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, started), []byte(`{"IP4":{"IP":"10.42.7.7/16"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	reply = mustServe(t, newRouter(e, opts), in.event(t, handlers.EventInstanceActivate, nil))
	if ip := field(t, reply.Data, "instanceHostMap", "instance", "+data", "+fields", "dockerIp"); ip != "10.42.7.7" {
		t.Errorf("address is %v", ip)
	}
	m := field(t, reply.Data, "instanceHostMap", "instance", "+data", "dockerInspect").(map[string]any)
	if !same(t, at(m, "Config.Entrypoint"), []string{"/.r/r"}) || !same(t, at(m, "Config.Cmd"), []string{"/bin/sh"}) ||
		!same(t, at(m, "HostConfig.Binds"), []string{"rancher-cni:/.r:ro"}) {
		t.Errorf("entrypoint %v, command %v, binds %v", at(m, "Config.Entrypoint"), at(m, "Config.Cmd"), at(m, "HostConfig.Binds"))
	}
	labels := at(m, "Config.Labels").(map[string]any)
	if labels["io.rancher.cni.wait"] != "true" || labels["io.rancher.cni.network"] != "mynet" || at(m, "HostConfig.NetworkMode") != "none" {
		t.Errorf("labels are %v, mode %v", labels, at(m, "HostConfig.NetworkMode"))
	}
	// An error of the network's agent fails the event with its own words.
	if err := os.WriteFile(filepath.Join(dir, started), []byte(`{"Error":"no addresses left"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, serve(t, newRouter(e, opts), in.event(t, handlers.EventInstanceActivate, nil)), wire.CodeInternal, "no addresses left")
	mustServe(t, newRouter(e, opts), in.event(t, handlers.EventInstanceActivate, map[string]any{"containerNoOpEvent": true}))
}
