package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/runtime/fake"
)

// reported returns what a reply says of the instance.
func reported(t testing.TB, reply *wire.Reply, path ...string) any {
	t.Helper()
	return field(t, orEmpty(reply.Data), append([]string{"instanceHostMap", "instance"}, path...)...)
}

// TestLifeOnDocker walks one instance through its life, with each event twice: the second finds it done.
func TestLifeOnDocker(t *testing.T) { testLife(t, dockerEngine(t)) }

func TestLifeOnFake(t *testing.T) {
	e := fake.New(fake.WithImages(testImage))
	t.Cleanup(func() { e.Close() })
	testLife(t, e)
}

func testLife(t *testing.T, e runtime.Engine) {
	cache := runtime.NewCache(runtime.CacheConfig{Source: e, Index: []string{handlers.LabelUUID}})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- cache.Run(ctx) }()
	defer func() { cancel(); <-ran }()
	<-cache.Ready()

	opts := handlers.Options{Containers: cache, HostIP: "10.0.0.5"}
	r := newRouter(e, opts)
	in := newInstance(t, e)
	in["ports"] = []any{map[string]any{"privatePort": 80, "protocol": "tcp", "data": map[string]any{"fields": map[string]any{"bindAddress": "127.0.0.1"}}}}
	in["nics"] = nics("dockerBridge", "bridge")

	var id string
	for range 2 {
		reply := mustServe(t, r, in.event(t, handlers.EventInstanceActivate, nil))
		now := reported(t, reply, "externalId").(string)
		if id != "" && now != id {
			t.Fatalf("the second activate made another container: %s, %s", id, now)
		}
		id = now
		if reported(t, reply, "+data", "dockerInspect", "State", "Running") != true || reported(t, reply, "+data", "dockerContainer", "Id") != id {
			t.Errorf("reply is %.500s", reply.Data)
		}
		ports := fmt.Sprint(reported(t, reply, "+data", "+fields", "dockerPorts"))
		if !strings.HasPrefix(ports, "[127.0.0.1:") || !strings.HasSuffix(ports, ":80/tcp]") {
			t.Errorf("ports are %s", ports)
		}
		if ip, _ := reported(t, reply, "+data", "+fields", "dockerIp").(string); net.ParseIP(ip) == nil {
			t.Errorf("address is %q", ip)
		}
	}

	// inspect relays the daemon's own bytes.
	want, err := e.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{`{"id":"` + id + `"}`, `{"id":"gone","name":"r-` + prefix + `web-` + strings.Split(in["uuid"].(string), "-")[0] + `"}`} {
		reply := mustServe(t, r, &wire.Event{
			ID: "1", Name: handlers.EventInstanceInspect, ReplyTo: "reply.1", ResourceType: "instanceInspect",
			Data: json.RawMessage(`{"instanceInspect":` + q + `}`),
		})
		if got := string(reply.Data); got != `{"instanceInspect":`+strings.TrimSpace(string(want))+`}` {
			t.Errorf("inspect relayed %.200s", got)
		}
	}

	for range 2 {
		reply := mustServe(t, r, in.event(t, handlers.EventInstanceDeactivate, map[string]any{"timeout": 1}))
		if reported(t, reply, "externalId") != id || reported(t, reply, "+data", "dockerInspect", "State", "Running") != false {
			t.Errorf("reply is %.500s", reply.Data)
		}
	}
	// A no-op looks and does nothing; without it the same container starts again.
	reply := mustServe(t, r, in.event(t, handlers.EventInstanceActivate, map[string]any{"containerNoOpEvent": true}))
	if reported(t, reply, "+data", "dockerInspect", "State", "Running") != false {
		t.Error("a no-op started the container")
	}
	reply = mustServe(t, r, in.event(t, handlers.EventInstanceActivate, nil))
	if reported(t, reply, "externalId") != id || reported(t, reply, "+data", "dockerInspect", "State", "Running") != true {
		t.Errorf("reply is %.500s", reply.Data)
	}
	reply = mustServe(t, r, in.event(t, handlers.EventInstanceDeactivate, map[string]any{"containerNoOpEvent": true}))
	if reported(t, reply, "+data", "dockerInspect", "State", "Running") != true {
		t.Error("a no-op stopped the container")
	}

	for i := range 2 {
		reply := mustServe(t, r, in.event(t, handlers.EventInstanceRemove, nil))
		switch i {
		case 0:
			if reported(t, reply, "+data", "dockerInspect") != nil || reported(t, reply, "+data", "+fields", "dockerHostIp") != "10.0.0.5" {
				t.Errorf("reply is %.500s", reply.Data)
			}
		default:
			if len(reply.Data) != 0 {
				t.Errorf("the second remove has data %s", reply.Data)
			}
		}
	}
	if _, err := e.State(t.Context(), id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("after remove: %v", err)
	}
	mustServe(t, r, in.event(t, handlers.EventInstanceDeactivate, nil))
}

// A container that ignores SIGTERM is killed when its time is up; force.stop does not even ask.
func TestStubbornContainerOnDocker(t *testing.T) {
	e := dockerEngine(t)
	r := newRouter(e, handlers.Options{})
	in := newInstance(t, e)
	in.fields()["stopSignal"] = nil
	in.fields()["restartPolicy"] = map[string]any{"name": "always"}
	in.fields()["command"] = []any{"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}
	reply := mustServe(t, r, in.event(t, handlers.EventInstanceActivate, nil))
	id := reported(t, reply, "externalId").(string)
	reply = mustServe(t, r, in.event(t, handlers.EventInstanceDeactivate, map[string]any{"timeout": "1"}))
	if code := reported(t, reply, "+data", "dockerInspect", "State", "ExitCode"); code != 137.0 {
		t.Errorf("exit code is %v, want that of SIGKILL", code)
	}
	mustServe(t, r, in.event(t, handlers.EventInstanceActivate, nil))
	force := &wire.Event{ID: "2", Name: handlers.EventInstanceForceStop, Data: json.RawMessage(`{"instanceForceStop":{"kind":"docker","id":"` + id + `"}}`)}
	for range 2 {
		begun := time.Now()
		mustServe(t, r, force)
		if st, err := e.State(t.Context(), id); err != nil || st.Running || st.ExitCode != 137 {
			t.Errorf("after force.stop: %+v, %v", st, err)
		}
		t.Log("force.stop took", time.Since(begun))
	}
	force.Data = json.RawMessage(`{"instanceForceStop":{"id":"` + strings.Repeat("0", 64) + `"}}`)
	mustServe(t, r, force)
}

// The agent's own container survives every event, whatever it is named by.
func TestOwnContainerOnDocker(t *testing.T) {
	e := dockerEngine(t)
	in := newInstance(t, e)
	id := inspected(t, e, handlers.Options{}, in)["Id"].(string)
	for _, self := range []string{id, id[:12], "/r-" + prefix + "web-" + strings.Split(in["uuid"].(string), "-")[0]} {
		r := newRouter(e, handlers.Options{Self: []string{"", "other", self}})
		mustServe(t, r, in.event(t, handlers.EventInstanceDeactivate, nil))
		mustServe(t, r, in.event(t, handlers.EventInstanceRemove, nil))
		wantError(t, serve(t, r, &wire.Event{
			ID: "3", Name: handlers.EventInstanceForceStop, ReplyTo: "reply.1",
			Data: json.RawMessage(`{"instanceForceStop":{"id":"` + id + `"}}`),
		}), wire.CodeConflict, "the agent's own")
		mustServe(t, r, &wire.Event{
			ID: "4", Name: handlers.EventVolumeRemove, ReplyTo: "reply.1",
			Data: json.RawMessage(`{"volumeStoragePoolMap":{"volume":{"deviceNumber":0,"instance":{"uuid":"` + in["uuid"].(string) + `"}}}}`),
		})
		if st, err := e.State(t.Context(), id); err != nil || !st.Running {
			t.Fatalf("known as %q the agent ended itself: %+v, %v", self, st, err)
		}
	}
}

// registry starts a registry on loopback and returns its address.
func registry(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/docker-registry", "serve", conf)
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need Debian's docker-registry: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := client.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry does not answer: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// pushed puts the test image into the registry under a name that the host does not have.
func pushed(t testing.TB, e *docker.Engine, addr, name string) string {
	t.Helper()
	ref := addr + "/" + name
	if err := e.TagImage(t.Context(), testImage, ref); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("docker", "push", ref).CombinedOutput(); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	forget := func() {
		for _, r := range []string{ref, ref + "pull-1"} {
			_ = e.RemoveImage(cleanupContext(t), r, true)
		}
	}
	forget()
	t.Cleanup(forget)
	return ref
}

func TestPullsOnDocker(t *testing.T) {
	e := dockerEngine(t)
	addr := registry(t)
	ref := pushed(t, e, addr, prefix+"image:1")
	r := newRouter(e, handlers.Options{})
	server, full, _ := strings.Cut(ref, "/")
	exists := func(ref string) bool {
		_, err := e.ImageConfig(t.Context(), ref)
		return err == nil
	}
	pull := func(complete bool, mode string) *wire.Event {
		return &wire.Event{ID: "1", Name: handlers.EventInstancePull, ReplyTo: "reply.1", ResourceType: "resourcePull", Data: json.RawMessage(fmt.Sprintf(
			`{"instancePull":{"kind":"docker","mode":%q,"complete":%v,"tag":"pull-1","image":{"data":{"dockerImage":{"fullName":%q,"server":%q}}}}}`,
			mode, complete, full, server))}
	}

	reply := mustServe(t, r, pull(false, "cached"))
	if exists(ref) || field(t, reply.Data, "fields", "dockerImage", "Id") != "" {
		t.Errorf("mode cached pulled, or found what is not there: %s", reply.Data)
	}
	p := &reports{}
	if reply := r.Serve(t.Context(), pull(false, "all"), p); reply.Transitioning != "" {
		t.Fatal(reply.TransitioningMessage)
	} else if id, _ := field(t, reply.Data, "fields", "dockerImage", "Id").(string); !strings.HasPrefix(id, "sha256:") {
		t.Errorf("reply is %.300s", reply.Data)
	}
	if !exists(ref) || !exists(ref+"pull-1") {
		t.Error("the image or its tag is missing")
	}
	if lines, _ := p.all(); len(lines) == 0 || !strings.HasPrefix(lines[0], "Pulling "+ref+": ") {
		t.Errorf("progress is %q", lines)
	}
	mustServe(t, r, pull(true, "all"))
	mustServe(t, r, pull(true, "all"))
	if exists(ref+"pull-1") || !exists(ref) {
		t.Error("complete did not take the tag away, or took the image")
	}

	// storage.image.activate and an instance whose image is missing pull as well, with wrong credentials and without.
	for _, credential := range []string{"null", `{"publicValue":"u","secretValue":"wrong","data":{"fields":{"serverAddress":"` + addr + `"}}}`} {
		if err := e.RemoveImage(t.Context(), ref, true); err != nil {
			t.Fatal(err)
		}
		ev := &wire.Event{ID: "2", Name: handlers.EventImageActivate, ReplyTo: "reply.1", Data: json.RawMessage(
			`{"imageStoragePoolMap":{"image":{"name":"` + ref + `","registryCredential":` + credential + `}}}`)}
		if reply := mustServe(t, r, ev); string(reply.Data) != `{"imageStoragePoolMap":{}}` || !exists(ref) {
			t.Errorf("reply is %s", reply.Data)
		}
	}
	if err := e.RemoveImage(t.Context(), ref, true); err != nil {
		t.Fatal(err)
	}
	in := newInstance(t, e)
	in.fields()["imageUuid"] = "docker:" + ref
	if got := at(inspected(t, e, handlers.Options{}, in), "Config.Image"); got != ref {
		t.Errorf("image is %v", got)
	}
	mustServe(t, r, in.event(t, handlers.EventInstanceRemove, nil))

	// What is in no registry is an error that names it.
	ev := &wire.Event{ID: "3", Name: handlers.EventImageActivate, ReplyTo: "reply.1", Data: json.RawMessage(
		`{"imageStoragePoolMap":{"image":{"name":"` + addr + `/none:1"}}}`)}
	wantError(t, serve(t, r, ev), wire.CodeNotFound, addr+"/none")
}

func TestManagedVolumeOnDocker(t *testing.T) {
	e := dockerEngine(t)
	name := prefix + newUUID()
	t.Cleanup(func() { _ = e.RemoveVolume(cleanupContext(t), name, true) })
	r := newRouter(e, handlers.Options{})
	ev := func(what string, deviceNumber string) *wire.Event {
		return &wire.Event{ID: newUUID(), Name: what, ReplyTo: "reply.1", Data: json.RawMessage(
			`{"volumeStoragePoolMap":{"volume":{"name":"` + name + `","deviceNumber":` + deviceNumber + `,"data":{"fields":{"driver":"local"}}}}}`)}
	}
	for range 2 {
		mustServe(t, r, ev(handlers.EventVolumeActivate, "1"))
	}
	if _, err := e.InspectVolume(t.Context(), name); err != nil {
		t.Error(err)
	}
	// In use it cannot go, and that is what the reply says.
	in := newInstance(t, e)
	in.fields()["dataVolumes"] = []any{name + ":/v"}
	inspected(t, e, handlers.Options{}, in)
	wantError(t, serve(t, r, ev(handlers.EventVolumeRemove, "1")), wire.CodeConflict, "in use")
	mustServe(t, r, in.event(t, handlers.EventInstanceRemove, nil))
	for range 2 {
		mustServe(t, r, ev(handlers.EventVolumeRemove, "null"))
	}
	if _, err := e.InspectVolume(t.Context(), name); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("after remove: %v", err)
	}
}

// A root volume takes its container with it, and only an explicit device number 0 makes one.
func TestRootVolumeOnDocker(t *testing.T) {
	e := dockerEngine(t)
	r := newRouter(e, handlers.Options{})
	in := newInstance(t, e)
	id := inspected(t, e, handlers.Options{}, in)["Id"].(string)
	keep := filepath.Join(t.TempDir(), "keep")
	if err := os.WriteFile(keep, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	remove := func(number string) {
		t.Helper()
		mustServe(t, r, &wire.Event{ID: newUUID(), Name: handlers.EventVolumeRemove, ReplyTo: "reply.1", Data: json.RawMessage(
			`{"volumeStoragePoolMap":{"volume":{"uri":"file://` + keep + `"` + number + `,"instance":{"uuid":"` + in["uuid"].(string) + `"}}}}`)})
	}
	remove("")
	remove(`,"deviceNumber":null`)
	remove(`,"deviceNumber":1`)
	if st, err := e.State(t.Context(), id); err != nil || !st.Running {
		t.Fatalf("a volume that is not the root took the container: %+v, %v", st, err)
	}
	remove(`,"deviceNumber":0`)
	remove(`,"deviceNumber":"0"`)
	if _, err := e.State(t.Context(), id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("the container is still there: %v", err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("a path of an event was deleted: %v", err)
	}
}

// A daemon that is not there is a clear error, at once.
func TestAbsentDaemon(t *testing.T) {
	e, err := docker.New(docker.Config{Host: "unix://" + filepath.Join(t.TempDir(), "none.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	r := newRouter(e, handlers.Options{})
	for _, name := range []string{"activate", "deactivate", "remove", "inspect", "pull", "force.stop", "image.activate", "volume.activate", "volume.remove"} {
		wantError(t, serve(t, r, event(t, name)), wire.CodeUnavailable, "none.sock")
	}
}
