package handlers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// plugin is a volume plugin of Rancher on a unix socket.
type plugin struct {
	dir     string
	mu      sync.Mutex
	calls   []string
	answers map[string]string // by method; "404" and "500" are statuses
}

// newPlugin serves the driver until the test ends.
func newPlugin(t *testing.T, driver string, answers map[string]string) *plugin {
	t.Helper()
	p := &plugin{dir: t.TempDir(), answers: answers}
	l, err := net.Listen("unix", filepath.Join(p.dir, driver+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(p.serve)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return p
}

func (p *plugin) serve(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Name string
		Opts map[string]string
	}
	err := json.NewDecoder(r.Body).Decode(&req)
	method := strings.TrimPrefix(r.URL.Path, "/VolumeDriver.")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprint(method, " ", req.Name, " ", req.Opts))
	answer := p.answers[method]
	switch {
	case err != nil || r.Method != http.MethodPost || r.Host != "volume-plugin":
		w.WriteHeader(http.StatusInternalServerError)
	case answer == "404":
		w.WriteHeader(http.StatusNotFound)
	case answer == "500":
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintln(w, "disk on fire")
	case answer == "":
		fmt.Fprintln(w, "{}")
	default:
		fmt.Fprintln(w, answer)
	}
}

func (p *plugin) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

const flexScope = `{"Capabilities":{"Scope":"flex"}}`

func volumeEvent(t *testing.T, name, driver string, changes ...any) *wire.Event {
	t.Helper()
	ev := with(t, event(t, name), "volumeStoragePoolMap.volume.data.fields.driver", driver)
	for i := 0; i+1 < len(changes); i += 2 {
		ev = with(t, ev, "volumeStoragePoolMap.volume."+changes[i].(string), changes[i+1])
	}
	return ev
}

func TestFlexVolumes(t *testing.T) {
	p := newPlugin(t, "rancher-ebs", map[string]string{"Capabilities": flexScope, "Mount": `{"Mountpoint":"/mnt/vol1"}`})
	s := newStub()
	r := newRouter(s, handlers.Options{VolumePlugins: p.dir})
	mustServe(t, r, volumeEvent(t, "volume.activate", "rancher-ebs"))
	if got := p.take(); !slices.Equal(got, []string{"Capabilities vol1 map[type:tmpfs]", "Create vol1 map[type:tmpfs]"}) {
		t.Errorf("plugin was asked %q", got)
	}
	mustServe(t, r, volumeEvent(t, "volume.remove", "rancher-ebs"))
	if got := p.take(); !slices.Equal(got, []string{"Capabilities vol1 map[type:tmpfs]", "Remove vol1 map[type:tmpfs]"}) {
		t.Errorf("plugin was asked %q", got)
	}
	wantCalls(t, s)
	s.volumes["vol1"] = runtime.Volume{Name: "vol1"} // the engine knows it after all
	mustServe(t, r, volumeEvent(t, "volume.remove", "rancher-ebs"))
	wantCalls(t, s, "remove-volume vol1")
	p.take()

	// An instance has its flex volumes attached, mounted and bound.
	ev := with(t, event(t, "activate"), "instanceHostMap.instance.volumesFromDataVolumeMounts", []any{
		map[string]any{"name": "vol1", "data": map[string]any{"fields": map[string]any{"driver": "rancher-ebs", "driverOpts": map[string]any{"size": 10}}}},
	})
	ev = with(t, ev, "instanceHostMap.instance.data.fields.dataVolumes", []any{"vol1:/data:ro", "vol1:/again", "other:/other"})
	mustServe(t, r, ev)
	if !slices.Equal(s.spec.Binds, []string{"/mnt/vol1:/data:ro", "/mnt/vol1:/again:rw", "other:/other:rw"}) {
		t.Errorf("binds are %q", s.spec.Binds)
	}
	want := []string{"Capabilities vol1 map[size:10]", "Create vol1 map[size:10]", "Capabilities vol1 map[size:10]", "Attach vol1 map[size:10]", "Mount vol1 map[size:10]"}
	if got := p.take(); !slices.Equal(got, want) {
		t.Errorf("plugin was asked %q", got)
	}
}

func TestPluginVolumesThatAreNotFlex(t *testing.T) {
	p := newPlugin(t, "rancher-nfs", map[string]string{"Capabilities": "404"})
	s := newStub()
	r := newRouter(s, handlers.Options{VolumePlugins: p.dir})
	mustServe(t, r, volumeEvent(t, "volume.activate", "rancher-nfs"))
	wantCalls(t, s, "create-volume vol1 rancher-nfs map[type:tmpfs]")
	s.volumes["vol1"] = runtime.Volume{Name: "vol1", Mountpoint: "moved"}
	mustServe(t, r, volumeEvent(t, "volume.activate", "rancher-nfs"))
	wantCalls(t, s, "create-volume vol1 rancher-nfs map[type:tmpfs]")
	mustServe(t, r, volumeEvent(t, "volume.activate", "rancher-nfs"))
	wantCalls(t, s)
	p.take()
	ev := with(t, event(t, "activate"), "instanceHostMap.instance.volumesFromDataVolumeMounts", []any{
		map[string]any{"name": "vol1", "data": map[string]any{"fields": map[string]any{"driver": "rancher-nfs"}}},
	})
	mustServe(t, r, ev)
	if got := p.take(); got[len(got)-1] != "Attach vol1 map[]" {
		t.Errorf("plugin was asked %q", got)
	}
}

func TestPluginFailures(t *testing.T) {
	for _, c := range []struct {
		answers map[string]string
		code    string
		text    string
	}{
		{map[string]string{"Capabilities": flexScope, "Create": `{"Err":"quota\nexceeded"}`}, wire.CodeInternal, "Create of volume vol1: quota exceeded"},
		{map[string]string{"Capabilities": "500"}, wire.CodeInternal, "disk on fire"},
		{map[string]string{"Capabilities": "<html>"}, wire.CodeInternal, "invalid character"},
	} {
		p := newPlugin(t, "rancher-efs", c.answers)
		r := newRouter(newStub(), handlers.Options{VolumePlugins: p.dir})
		wantError(t, serve(t, r, volumeEvent(t, "volume.activate", "rancher-efs")), c.code, c.text)
	}
	r := newRouter(newStub(), handlers.Options{VolumePlugins: t.TempDir()})
	wantError(t, serve(t, r, volumeEvent(t, "volume.activate", "rancher-ebs")), wire.CodeUnavailable, "volume driver rancher-ebs does not run on this host")
	p := newPlugin(t, "rancher-ebs", map[string]string{"Capabilities": flexScope, "Mount": "{}"})
	r = newRouter(newStub(), handlers.Options{VolumePlugins: p.dir})
	ev := with(t, event(t, "activate"), "instanceHostMap.instance.volumesFromDataVolumeMounts", []any{
		map[string]any{"name": "vol1", "data": map[string]any{"fields": map[string]any{"driver": "rancher-ebs"}}},
	})
	wantError(t, serve(t, r, ev), wire.CodeInternal, "named no mount point")
}

// A volume that cannot be removed is an error, in the driver's own words.
func TestVolumeRemovalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		s.volumes["vol1"] = runtime.Volume{Name: "vol1"}
		s.fail = failing("remove-volume", errors.New("device is busy"))
		r := newRouter(s, handlers.Options{})
		begun := time.Now()
		for range 2 { // and again when it is asked again
			wantError(t, serve(t, r, event(t, "volume.remove")), wire.CodeInternal, "device is busy")
			wantCalls(t, s, "remove-volume vol1", "remove-volume vol1", "remove-volume vol1")
		}
		if took := time.Since(begun); took != 4*time.Second {
			t.Errorf("it took %v", took)
		}
		s.fail = failing("remove-volume", errors.New("Should retry later"))
		wantError(t, serve(t, r, event(t, "volume.remove")), wire.CodeInternal, "Should retry")
		wantCalls(t, s, "remove-volume vol1")
	})
}

func TestUnmanagedVolumes(t *testing.T) {
	s := newStub()
	r := newRouter(s, handlers.Options{})
	for _, name := range []string{"volume.activate", "volume.remove"} {
		mustServe(t, r, volumeEvent(t, name, ""))
		mustServe(t, r, volumeEvent(t, name, "local", "name", ""))
		mustServe(t, r, volumeEvent(t, name, "", "uri", "file:///", "data.fields.isHostPath", true))
	}
	wantCalls(t, s)
	wantError(t, serve(t, newRouter(plainEngine{s}, handlers.Options{}), event(t, "volume.activate")), wire.CodeUnsupported, "volumes")
}

// The uri of a root volume reaches nothing but a volume of the engine's own.
func TestRootVolumeUri(t *testing.T) {
	for uri, want := range map[string][]string{
		"/var/lib/docker/volumes/v1/_data":                 {"remove-volume v1"},
		"file:///var/lib/docker/volumes/v1/_data":          {"remove-volume v1"},
		"/var/lib/docker/volumes/v1":                       nil,
		"/var/lib/docker/volumes/v1/_data/x":               nil,
		"/var/lib/docker/volumes/../../../../etc/v1/_data": nil,
		"/var/lib/docker/volumes/x/../v1/_data":            {"remove-volume v1"},
		"/var/lib/docker/volumes//_data":                   nil,
		"/etc":                                             nil,
		"/":                                                nil,
		"v1/_data":                                         nil,
		"":                                                 nil,
		"/var/lib/docker/volumes/unknown/_data":            nil,
		"/var/lib/docker/volumes/a/b/_data":                nil,
		"file://host/var/lib/docker/volumes/v1/_data":      nil,
		"/var/lib/docker/volumes/v1/_data\x00/../../../etc/": nil,
	} {
		s := newStub()
		s.volumes["v1"] = runtime.Volume{Name: "v1"}
		ev := volumeEvent(t, "volume.remove", "", "deviceNumber", 0, "uri", uri)
		mustServe(t, newRouter(s, handlers.Options{}), ev)
		if got := s.changes(); !slices.Equal(got, want) {
			t.Errorf("%q led to %q, want %q", uri, got, want)
		}
		s.volumes["v1"] = runtime.Volume{Name: "v1"}
		s.calls = nil
		mustServe(t, newRouter(s, handlers.Options{}), volumeEvent(t, "volume.remove", "", "deviceNumber", 0, "uri", uri, "data.fields.isHostPath", true))
		wantCalls(t, s)
	}
}
