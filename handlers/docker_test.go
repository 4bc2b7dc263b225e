package handlers_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

const (
	testImage = "drover-test/busybox:1"
	prefix    = "drover-handlers-"
)

// dockerEngine returns the local daemon, and fails the test if there is none.
func dockerEngine(t testing.TB) *docker.Engine {
	t.Helper()
	e, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.ImageConfig(t.Context(), testImage); err != nil {
		t.Fatalf("these tests need a dockerd on %s with the image of scripts/test-image: %v", docker.DefaultHost, err)
	}
	return e
}

// newUUID returns what no other test uses.
func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return fmt.Sprintf("%x-%x-%x", b[:4], b[4:6], b[6:])
}

// cleanupContext outlives the test's own.
func cleanupContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// instance is the data of one instance, to which a test adds.
type instance map[string]any

// newInstance is a busybox that sleeps; it is removed when the test ends.
func newInstance(t testing.TB, e runtime.Engine) instance {
	in := instance{
		"id": 1, "name": prefix + "web", "uuid": newUUID(),
		"data": map[string]any{"fields": map[string]any{
			"imageUuid": "docker:" + testImage, "command": []any{"sleep", "1000"}, "stopSignal": "SIGKILL",
		}},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		rows, err := e.List(ctx, runtime.ListOptions{Labels: map[string]string{handlers.LabelUUID: in["uuid"].(string)}})
		if err != nil {
			t.Error(err)
		}
		for _, c := range rows {
			if err := e.Remove(ctx, c.ID, runtime.RemoveOptions{Force: true, Volumes: true}); err != nil {
				t.Error(err)
			}
		}
	})
	return in
}

func (in instance) fields() map[string]any {
	return in["data"].(map[string]any)["fields"].(map[string]any)
}

// event is an event about the instance.
func (in instance) event(t testing.TB, name string, process map[string]any) *wire.Event {
	t.Helper()
	data := map[string]any{"instanceHostMap": map[string]any{"id": 50, "instance": in}}
	if process != nil {
		data["processData"] = process
	}
	b, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Event{
		ID: newUUID(), Name: name, ReplyTo: "reply.1", ResourceID: "1ihm50", ResourceType: "instanceHostMap",
		TimeoutMillis: 120_000, Data: b,
	}
}

// inspected runs an activate and returns dockerd's JSON out of the reply.
func inspected(t testing.TB, e handlers.Engine, opts handlers.Options, in instance) map[string]any {
	t.Helper()
	reply := mustServe(t, newRouter(e, opts), in.event(t, handlers.EventInstanceActivate, nil))
	m, ok := field(t, reply.Data, "instanceHostMap", "instance", "+data", "dockerInspect").(map[string]any)
	if !ok {
		t.Fatalf("reply has no inspect: %.300s", reply.Data)
	}
	return m
}

// at returns the value at a path "HostConfig.Memory".
func at(m map[string]any, path string) any {
	var v any = m
	for key := range strings.SplitSeq(path, ".") {
		next, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = next[key]
	}
	return v
}

// same compares a value of dockerd's JSON with one of Go.
func same(t testing.TB, got, want any) bool {
	t.Helper()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var w any
	if err := json.Unmarshal(b, &w); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(got, w)
}

// A row is one line of the mapping table: what is asked for and what dockerd then knows.
type row struct {
	field string // below instance.data.fields, or "instance:x" for a field of the instance itself
	value any
	path  string // in the inspect JSON
	want  any
}

// TestMappingTable makes containers through the activate event and checks each row by what dockerd says. The rows of a
// group share a container.
func TestMappingTable(t *testing.T) {
	e := dockerEngine(t)
	t.Cleanup(func() { // a daemon leaves the parent of its containers' groups behind
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/drover-handlers")
		for _, dir := range append(groups, "/sys/fs/cgroup/drover-handlers") {
			_ = os.Remove(dir)
		}
	})
	groups := []struct {
		name string
		rows []row
	}{
		{"plain", []row{
			{"command", []any{"sleep", "1000"}, "Config.Cmd", []string{"sleep", "1000"}},
			{"environment", map[string]any{"A": "b", "N": 5, "EMPTY": nil}, "Config.Env", []string{"A=b", "EMPTY=", "N=5", "PATH=/bin"}},
			{"labels", map[string]any{"app": "x", "io.rancher.container.name": "mine"}, "Config.Labels.app", "x"},
			{"workingDir", "/tmp", "Config.WorkingDir", "/tmp"},
			{"user", "nobody", "Config.User", "nobody"},
			{"domainName", "example.org", "Config.Domainname", "example.org"},
			{"stopSignal", "SIGKILL", "Config.StopSignal", "SIGKILL"},
			{"stopTimeout", 5, "Config.StopTimeout", 5},
			{"tty", true, "Config.Tty", true},
			{"stdinOpen", true, "Config.OpenStdin", true},
			{"readOnly", true, "HostConfig.ReadonlyRootfs", true},
			{"extraHosts", []any{"a:1.2.3.4"}, "HostConfig.ExtraHosts", []string{"a:1.2.3.4"}},
			{"securityOpt", []any{"no-new-privileges"}, "HostConfig.SecurityOpt", []string{"no-new-privileges"}},
			{"capAdd", []any{"NET_ADMIN"}, "HostConfig.CapAdd", []string{"CAP_NET_ADMIN"}},
			{"capDrop", []any{"MKNOD"}, "HostConfig.CapDrop", []string{"CAP_MKNOD"}},
			{"dns", []any{"192.0.2.53"}, "HostConfig.Dns", []string{"192.0.2.53"}},
			{"dnsSearch", []any{"example.org"}, "HostConfig.DnsSearch", []string{"example.org"}},
			{"dnsOpt", []any{"ndots:2"}, "HostConfig.DnsOptions", []string{"ndots:2"}},
			{"groupAdd", []any{"65534"}, "HostConfig.GroupAdd", []string{"65534"}},
			{
				"logConfig",
				map[string]any{"driver": "json-file", "config": map[string]any{"max-size": "1m"}},
				"HostConfig.LogConfig",
				map[string]any{"Type": "json-file", "Config": map[string]any{"max-size": "1m"}},
			},
			{"devices", []any{"/dev/null:/dev/xnull:rw", "/dev/zero"}, "HostConfig.Devices", []map[string]any{
				{"PathOnHost": "/dev/null", "PathInContainer": "/dev/xnull", "CgroupPermissions": "rw"},
				{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rwm"},
			}},
			{
				"restartPolicy",
				map[string]any{"name": "on-failure", "maximumRetryCount": 3},
				"HostConfig.RestartPolicy",
				map[string]any{"Name": "on-failure", "MaximumRetryCount": 3},
			},
			{"tmpfs", map[string]any{"/run": "size=1m"}, "HostConfig.Tmpfs", map[string]any{"/run": "size=1m"}},
			{"sysctls", map[string]any{"net.ipv4.ip_forward": "1"}, "HostConfig.Sysctls", map[string]any{"net.ipv4.ip_forward": "1"}},
			{
				"ulimits",
				[]any{map[string]any{"name": "nofile", "hard": 200, "soft": 100}},
				"HostConfig.Ulimits",
				[]map[string]any{{"Name": "nofile", "Hard": 200, "Soft": 100}},
			},
			{"runInit", true, "HostConfig.Init", true},
			{"healthCmd", []any{"CMD", "true"}, "Config.Healthcheck.Test", []string{"CMD", "true"}},
			{"healthInterval", 60, "Config.Healthcheck.Interval", int64(60e9)},
			{"healthTimeout", 3, "Config.Healthcheck.Timeout", int64(3e9)},
			{"healthRetries", 2, "Config.Healthcheck.Retries", 2},
			{"publishAllPorts", true, "HostConfig.PublishAllPorts", true},
			{"instance:hostname", "web1", "Config.Hostname", "web1"},
		}},
		{"limits", []row{
			{"cpuSet", "0", "HostConfig.CpusetCpus", "0"},
			{"cpuSetMems", "0", "HostConfig.CpusetMems", "0"},
			{"cpuPeriod", 100000, "HostConfig.CpuPeriod", 100000},
			{"cpuQuota", 50000, "HostConfig.CpuQuota", 50000},
			{"cpuShares", 512, "HostConfig.CpuShares", 512},
			{"memory", 64 << 20, "HostConfig.Memory", 64 << 20},
			{"memorySwap", 128 << 20, "HostConfig.MemorySwap", 128 << 20},
			{"memorySwappiness", 10, "HostConfig.MemorySwappiness", 10},
			{"shmSize", 1 << 20, "HostConfig.ShmSize", 1 << 20},
			{"pidsLimit", 100, "HostConfig.PidsLimit", 100},
			{"oomKillDisable", true, "HostConfig.OomKillDisable", true},
			{"oomScoreAdj", 100, "HostConfig.OomScoreAdj", 100},
			{"instance:memoryReservation", 32 << 20, "HostConfig.MemoryReservation", 32 << 20},
			{"cgroupParent", "/drover-handlers", "HostConfig.CgroupParent", "/drover-handlers"},
			{
				"blkioDeviceOptions",
				map[string]any{"DEFAULT_DISK": map[string]any{"readIops": 100, "writeIops": "200", "readBps": 1 << 20, "writeBps": 2 << 20}},
				"HostConfig.BlkioDeviceReadIOps",
				[]map[string]any{{"Path": "/dev/vda", "Rate": 100}},
			},
		}},
		{"name spaces", []row{
			{"pidMode", "host", "HostConfig.PidMode", "host"},
			{"ipcMode", "host", "HostConfig.IpcMode", "host"},
			{"uts", "host", "HostConfig.UTSMode", "host"},
			{"usernsMode", "host", "HostConfig.UsernsMode", "host"},
			{"cgroup", "container:nobody", "HostConfig.Cgroup", "container:nobody"},
			{"cpuRealtimePeriod", 1000000, "HostConfig.CpuRealtimePeriod", 1000000},
			{"kernelMemory", 8 << 20, "HostConfig.KernelMemory", 8 << 20},
			{"diskQuota", 0, "HostConfig.DiskQuota", nil},
			{"instance:milliCpuReservation", 500, "HostConfig.CpuShares", 512},
			{"entryPoint", []any{"/bin/busybox"}, "Config.Entrypoint", []string{"/bin/busybox"}},
		}},
		{"unset", []row{ // what nobody asked for is not sent
			{"cpuShares", nil, "HostConfig.CpuShares", 0},
			{"healthCmd", nil, "Config.Healthcheck", nil},
			{"command", nil, "Config.Cmd", []string{"/bin/sh"}},
			{"tty", true, "HostConfig.RestartPolicy.Name", ""},
			{"memorySwappiness", nil, "HostConfig.MemorySwappiness", nil},
			{"runInit", nil, "HostConfig.Init", nil},
			{"stdinOpen", true, "HostConfig.LogConfig.Type", "json-file"},
			{"logConfig", nil, "HostConfig.NetworkMode", "default"},
		}},
		{"a string for a command", []row{
			{"command", `sh -c 'echo "$HOME"; sleep 1000' x\ y`, "Config.Cmd", []string{"sh", "-c", `echo "$HOME"; sleep 1000`, "x y"}},
			{"healthCmd", "test -e /bin/sh", "Config.Healthcheck.Test", []string{"CMD-SHELL", "test -e /bin/sh"}},
			{"cpuShares", 1, "HostConfig.CpuShares", 2},
		}},
	}
	disk := firstDisk(t)
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			in := newInstance(t, e)
			for _, r := range g.rows {
				if name, ok := strings.CutPrefix(r.field, "instance:"); ok {
					in[name] = r.value
				} else {
					in.fields()[r.field] = r.value
				}
			}
			m := inspected(t, e, handlers.Options{DefaultDisk: func() string { return disk }}, in)
			for _, r := range g.rows {
				want := r.want
				if list, ok := want.([]map[string]any); ok && len(list) == 1 && list[0]["Path"] == "/dev/vda" {
					list[0]["Path"] = disk
				}
				if got := at(m, r.path); !same(t, got, want) {
					t.Errorf("%s = %v: %s is %v, want %v", r.field, r.value, r.path, got, want)
				}
			}
			if got := at(m, "Config.Image"); got != testImage {
				t.Errorf("Config.Image is %v", got)
			}
			if name := "/r-" + prefix + "web-" + strings.Split(in["uuid"].(string), "-")[0]; m["Name"] != name {
				t.Errorf("name is %v, want %v", m["Name"], name)
			}
			labels := m["Config"].(map[string]any)["Labels"].(map[string]any)
			if labels[handlers.LabelUUID] != in["uuid"] {
				t.Errorf("labels are %v", labels)
			}
			switch g.name {
			case "plain":
				if labels["io.rancher.container.name"] != "mine" {
					t.Errorf("the user's label lost: %v", labels)
				}
			case "limits":
				for path, rate := range map[string]int{"WriteIOps": 200, "ReadBps": 1 << 20, "WriteBps": 2 << 20} {
					if got := at(m, "HostConfig.BlkioDevice"+path); !same(t, got, []map[string]any{{"Path": disk, "Rate": rate}}) {
						t.Errorf("BlkioDevice%s is %v", path, got)
					}
				}
			default:
				if labels["io.rancher.container.name"] != in["name"] {
					t.Errorf("labels are %v", labels)
				}
			}
		})
	}
}

// firstDisk returns a block device of this machine.
func firstDisk(t testing.TB) string {
	t.Helper()
	disks, err := filepath.Glob("/sys/block/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		dev := "/dev/" + filepath.Base(d)
		if fi, err := os.Stat(dev); err == nil && fi.Mode()&os.ModeDevice != 0 {
			return dev
		}
	}
	t.Fatal("no block device on this machine")
	return ""
}

// TestMappingByKernel has the rows that not every kernel or disk can do. Then the daemon refuses the container or drops
// the wish with a warning, which shows as well that it arrived.
func TestMappingByKernel(t *testing.T) {
	e := dockerEngine(t)
	disk := firstDisk(t)
	for _, c := range []struct {
		row
		text string // of the refusal or the warning, a regular expression
	}{
		{row{"privileged", true, "HostConfig.Privileged", true}, "apply caps"},
		{row{"storageOpt", map[string]any{"size": "1G"}, "HostConfig.StorageOpt", map[string]any{"size": "1G"}}, "storage-opt"},
		{row{"cpuRealtimeRuntime", 950000, "HostConfig.CpuRealtimeRuntime", 950000}, "real-time|rt_runtime"},
		{row{"blkioWeight", 300, "HostConfig.BlkioWeight", 300}, "weight"},
		{row{
			"blkioDeviceOptions",
			map[string]any{disk: map[string]any{"weight": 200}},
			"HostConfig.BlkioWeightDevice",
			[]map[string]any{{"Path": disk, "Weight": 200}},
		}, "weight"},
		{row{"diskQuota", 1 << 30, "HostConfig.DiskQuota", 1 << 30}, "quota"},
	} {
		t.Run(c.field, func(t *testing.T) {
			in := newInstance(t, e)
			in.fields()[c.field] = c.value
			log, warnings := recorder()
			reply := serve(t, newRouter(e, handlers.Options{Log: log}), in.event(t, handlers.EventInstanceActivate, nil))
			if m, ok := field(t, orEmpty(reply.Data), "instanceHostMap", "instance", "+data", "dockerInspect").(map[string]any); ok && same(t, at(m, c.path), c.want) {
				return
			}
			if said := strings.ToLower(reply.TransitioningMessage + warnings.String()); !regexp.MustCompile(c.text).MatchString(said) {
				t.Errorf("neither does %s = %v show, nor is it refused: %q", c.field, c.value, said)
			}
		})
	}
}

func orEmpty(raw []byte) []byte {
	if len(raw) == 0 {
		return []byte("{}")
	}
	return raw
}

// TestRefusedContainers are those that no daemon takes: its own words reach the user, and nothing is left behind.
func TestRefusedContainers(t *testing.T) {
	e := dockerEngine(t)
	for _, c := range []struct {
		field string
		value any
		code  string
		text  string
	}{
		{"capAdd", []any{"NO_SUCH"}, wire.CodeInvalid, "NO_SUCH"},
		{"memory", 1, wire.CodeInvalid, "memory"},
		{"command", []any{"no-such-program"}, "", "no-such-program"},
		{"devices", []any{"/dev/no-such-device"}, "", "no-such-device"},
		{"devices", []any{":/dev/x"}, wire.CodeInvalid, "instance.data.fields.devices[0]"},
		{"dataVolumes", []any{"a:b:rw", ":b"}, wire.CodeInvalid, "instance.data.fields.dataVolumes[1]"},
		{"imageUuid", "docker:", wire.CodeInvalid, "instance.data.fields.imageUuid"},
		{"imageUuid", "docker:UPPER/ Case", wire.CodeInvalid, "UPPER/ Case"},
	} {
		t.Run(fmt.Sprint(c.field, c.value), func(t *testing.T) {
			in := newInstance(t, e)
			in.fields()[c.field] = c.value
			reply := serve(t, newRouter(e, handlers.Options{}), in.event(t, handlers.EventInstanceActivate, nil))
			code := c.code
			if code == "" {
				code = reply.Code // daemons do not agree on the class
			}
			wantError(t, reply, code, c.text)
			rows, err := e.List(t.Context(), runtime.ListOptions{Labels: map[string]string{handlers.LabelUUID: in["uuid"].(string)}})
			if err != nil || len(rows) != 0 {
				t.Errorf("left behind: %v, %v", rows, err)
			}
		})
	}
}
