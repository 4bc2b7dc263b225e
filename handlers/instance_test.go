package handlers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// failing returns a stub's fail that fails the calls that begin with the prefix.
func failing(prefix string, err error) func(string) error {
	return func(call string) error {
		if strings.HasPrefix(call, prefix) {
			return err
		}
		return nil
	}
}

func wantCalls(t testing.TB, s *stub, want ...string) {
	t.Helper()
	if got := s.changes(); !slices.Equal(got, want) {
		t.Errorf("the engine was asked to\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.calls, "list name= labels=map[]") {
		t.Error("an event listed all containers")
	}
	s.calls = nil
}

func testContainer(running bool) runtime.ContainerStatus {
	return runtime.ContainerStatus{
		ID: stubID, Name: "r-test-c861f990", Image: "nginx:latest", Running: running, Status: "exited",
		Labels: map[string]string{handlers.LabelUUID: testUUID},
	}
}

// TestWideSpec holds everything that the widest request says to the engine.
func TestWideSpec(t *testing.T) {
	s := badInputStub()
	opts := handlers.Options{ConfigURL: "http://10.0.0.1:8080/v1", ProxyEnv: []string{"https_proxy=p"}}
	mustServe(t, newRouter(s, opts), event(t, "wide"))
	got, err := json.MarshalIndent(s.spec, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	name := filepath.Join("testdata", "wide.spec.json")
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("spec is\n%s", got)
	}
}

// A container that cannot be started is not left behind if the event made it, and kept if it was there before.
func TestStartFails(t *testing.T) {
	s := newStub()
	s.fail = failing("start", errors.New("port is already allocated"))
	r := newRouter(s, handlers.Options{})
	wantError(t, serve(t, r, event(t, "activate")), wire.CodeInternal, "port is already allocated")
	wantCalls(t, s, "create r-test-c861f990", "start r-test-c861f990", "remove r-test-c861f990 force=true volumes=true")

	s.add(testContainer(false))
	wantError(t, serve(t, r, event(t, "activate")), wire.CodeInternal, "port is already allocated")
	wantCalls(t, s, "start r-test-c861f990")
}

// The time of an event that is up between create and start does not leave a container behind.
func TestTimeIsUpAfterCreate(t *testing.T) {
	s := newStub()
	ctx, cancel := context.WithCancel(t.Context())
	s.fail = func(call string) error {
		if strings.HasPrefix(call, "start") {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	reply := newRouter(s, handlers.Options{}).Serve(ctx, event(t, "activate"), nil)
	if reply.Transitioning != wire.TransitioningError || len(s.containers) != 0 {
		t.Errorf("reply %+v, containers %v", reply, s.containers)
	}
}

func TestMissingImageIsPulled(t *testing.T) {
	s := newStub()
	delete(s.images, "nginx:latest")
	r := newRouter(s, handlers.Options{})
	mustServe(t, r, event(t, "activate"))
	wantCalls(t, s, "create r-test-c861f990", "pull nginx:latest as nobody", "create r-test-c861f990", "start r-test-c861f990")

	// What else is missing is not looked for in a registry.
	s = newStub()
	s.fail = failing("create", fmt.Errorf("network x not found: %w", runtime.ErrNotFound))
	wantError(t, serve(t, newRouter(s, handlers.Options{}), event(t, "activate")), wire.CodeNotFound, "network x not found")
	wantCalls(t, s, "create r-test-c861f990")

	// A label asks for a pull of an image that is there.
	s = newStub()
	ev := with(t, event(t, "activate"), "instanceHostMap.instance.data.fields.labels", map[string]any{"io.rancher.container.pull_image": "always"})
	mustServe(t, newRouter(s, handlers.Options{}), ev)
	wantCalls(t, s, "pull nginx:latest as nobody", "create r-test-c861f990", "start r-test-c861f990")

	// One who says never gets an error that names the image.
	s = newStub()
	delete(s.images, "nginx:latest")
	ev = with(t, event(t, "activate"), "instanceHostMap.instance.data.fields.pull", "never")
	wantError(t, serve(t, newRouter(s, handlers.Options{}), ev), wire.CodeNotFound, "nginx:latest")
	wantCalls(t, s, "create r-test-c861f990")

	// A container of a CNI network needs its image to be described.
	s = newStub()
	delete(s.images, "nginx:latest")
	ev = with(t, event(t, "activate"), "instanceHostMap.instance.data.fields.labels", map[string]any{"io.rancher.cni.wait": "true"})
	ev = with(t, ev, "instanceHostMap.instance.data.fields.command", nil)
	mustServe(t, newRouter(s, handlers.Options{}), ev)
	wantCalls(t, s, "pull nginx:latest as nobody", "create r-test-c861f990", "start r-test-c861f990")
	if !slices.Equal(s.spec.Entrypoint, []string{"/.r/r"}) || !slices.Equal(s.spec.Cmd, []string{"/run"}) {
		t.Errorf("entrypoint %q, command %q", s.spec.Entrypoint, s.spec.Cmd)
	}
}

// A name that is taken by the instance's own container, made unseen, is that container.
func TestCreateRaces(t *testing.T) {
	s := newStub()
	s.fail = func(call string) error {
		if strings.HasPrefix(call, "create") {
			s.add(testContainer(false))
		}
		return nil
	}
	mustServe(t, newRouter(s, handlers.Options{}), event(t, "activate"))
	wantCalls(t, s, "create r-test-c861f990", "start r-test-c861f990")

	s = newStub()
	foreign := testContainer(false)
	foreign.Labels = nil
	s.add(foreign)
	wantError(t, serve(t, newRouter(s, handlers.Options{}), event(t, "activate")), wire.CodeConflict, "is in use")
}

// A stop that fails is reported, unless the container ends after all.
func TestStopFails(t *testing.T) {
	s := newStub()
	s.add(testContainer(true))
	s.fail = failing("stop", errors.New("shim is gone"))
	r := newRouter(s, handlers.Options{})
	mustServe(t, r, event(t, "deactivate"))
	wantCalls(t, s, "stop r-test-c861f990 7s", "kill r-test-c861f990 SIGKILL")

	s.add(testContainer(true))
	s.fail = func(call string) error {
		if strings.HasPrefix(call, "stop") || strings.HasPrefix(call, "kill") {
			return errors.New(call + " failed")
		}
		return nil
	}
	wantError(t, serve(t, r, event(t, "deactivate")), wire.CodeInternal, "stop r-test-c861f990 7s failed")
	wantError(t, serve(t, r, event(t, "force.stop")), wire.CodeInternal, "kill r-test-c861f990 SIGKILL failed")
}

// A container that survives its SIGKILL is an error after a bounded time.
func TestUnkillable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		c := s.add(testContainer(true))
		s.fail = func(call string) error {
			c.status.Running = true
			return nil
		}
		begun := time.Now()
		wantError(t, serve(t, newRouter(s, handlers.Options{}), event(t, "deactivate")), wire.CodeInternal, "still runs after SIGKILL")
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestRemoveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		s.add(testContainer(true))
		s.fail = failing("remove", fmt.Errorf("removal is already in progress: %w", runtime.ErrConflict))
		r := newRouter(s, handlers.Options{})
		done := make(chan *wire.Reply)
		go func() { done <- serve(t, r, event(t, "remove")) }()
		time.Sleep(2 * time.Second)
		s.mu.Lock()
		delete(s.containers, stubID) // somebody else's removal is through
		s.mu.Unlock()
		if reply := <-done; reply.Transitioning != "" {
			t.Errorf("reply is %+v", reply)
		}
		s.add(testContainer(true))
		wantError(t, serve(t, r, event(t, "remove")), wire.CodeConflict, "already in progress")
		s.fail = failing("remove", fmt.Errorf("device busy"))
		wantError(t, serve(t, r, event(t, "remove")), wire.CodeInternal, "device busy")
	})
}

// index is a cache that knows what a test says.
type index []runtime.ContainerSummary

func (x index) ByLabel(label, value string) (found []runtime.ContainerSummary) {
	for _, c := range x {
		if c.Labels[label] == value {
			found = append(found, c)
		}
	}
	return found
}

func (x index) ByName(string) (runtime.ContainerSummary, bool) {
	return runtime.ContainerSummary{}, false
}
func (x index) Snapshot() []runtime.ContainerSummary { return x }

func TestFinding(t *testing.T) {
	label := map[string]string{handlers.LabelUUID: testUUID}
	const other = "3333333333333333333333333333333333333333333333333333333333333333"
	stop := func(t *testing.T, s *stub, cache handlers.Index, change func(*wire.Event) *wire.Event) []string {
		t.Helper()
		ev := event(t, "deactivate")
		if change != nil {
			ev = change(ev)
		}
		mustServe(t, newRouter(s, handlers.Options{Containers: cache}), ev)
		return s.changes()
	}
	t.Run("the label beats the external id", func(t *testing.T) {
		s := newStub()
		s.add(runtime.ContainerStatus{ID: stubID, Name: "external", Running: true})
		s.add(runtime.ContainerStatus{ID: other, Name: "labelled", Running: true, Labels: label})
		if got := stop(t, s, nil, nil); !slices.Equal(got, []string{"stop labelled 7s"}) {
			t.Error(got)
		}
	})
	t.Run("the external id must be whole", func(t *testing.T) {
		s := newStub()
		s.add(runtime.ContainerStatus{ID: stubID, Name: "external", Running: true})
		short := func(ev *wire.Event) *wire.Event {
			return with(t, ev, "instanceHostMap.instance.externalId", stubID[:20])
		}
		if got := stop(t, s, nil, short); len(got) != 0 {
			t.Error(got)
		}
		if got := stop(t, s, nil, nil); !slices.Equal(got, []string{"stop external 7s"}) {
			t.Error(got)
		}
	})
	t.Run("a cache that is wrong costs nothing but a look", func(t *testing.T) {
		s := newStub()
		s.add(runtime.ContainerStatus{ID: other, Name: "labelled", Running: true, Labels: label})
		cache := index{{ID: nativeID, Labels: label}, {ID: stubID, Labels: label}}
		if got := stop(t, s, cache, nil); !slices.Equal(got, []string{"stop labelled 7s"}) {
			t.Error(got)
		}
	})
	t.Run("a cache that is right saves the list", func(t *testing.T) {
		s := newStub()
		s.add(runtime.ContainerStatus{ID: other, Name: "labelled", Running: true, Labels: label})
		none := func(ev *wire.Event) *wire.Event { return with(t, ev, "instanceHostMap.instance.externalId", nil) }
		stop(t, s, index{{ID: other, Labels: label}}, none)
		for _, call := range s.calls {
			if strings.HasPrefix(call, "list name= ") {
				t.Errorf("asked for %s", call)
			}
		}
	})
	t.Run("a native container goes by its name or its id", func(t *testing.T) {
		for _, uuid := range []string{"by-name", "no-uuid-" + other} {
			s := newStub()
			s.add(runtime.ContainerStatus{ID: other, Name: "by-name", Running: true})
			native := func(ev *wire.Event) *wire.Event {
				ev = with(t, ev, "instanceHostMap.instance.externalId", nil)
				return with(t, ev, "instanceHostMap.instance.uuid", uuid)
			}
			if got := stop(t, s, nil, native); !slices.Equal(got, []string{"stop by-name 7s"}) {
				t.Errorf("%s: %v", uuid, got)
			}
		}
	})
	t.Run("a name of another server's container is not the instance", func(t *testing.T) {
		s := newStub()
		s.add(runtime.ContainerStatus{ID: other, Name: testUUID, Running: true, Labels: map[string]string{handlers.LabelUUID: "else"}})
		none := func(ev *wire.Event) *wire.Event { return with(t, ev, "instanceHostMap.instance.externalId", nil) }
		if got := stop(t, s, nil, none); len(got) != 0 {
			t.Error(got)
		}
	})
	t.Run("an engine that fails is no absent container", func(t *testing.T) {
		s := newStub()
		s.fail = failing("list", fmt.Errorf("no answer: %w", runtime.ErrUnavailable))
		wantError(t, serve(t, newRouter(s, handlers.Options{}), event(t, "remove")), wire.CodeUnavailable, "no answer")
	})
}

func TestOriginalAgentIsProtected(t *testing.T) {
	s := newStub()
	c := testContainer(true)
	c.Name = "rancher-agent"
	s.add(c)
	r := newRouter(s, handlers.Options{})
	mustServe(t, r, event(t, "deactivate"))
	mustServe(t, r, event(t, "remove"))
	wantError(t, serve(t, r, event(t, "force.stop")), wire.CodeConflict, "not stopped")
	wantCalls(t, s)
}

func TestContainerNames(t *testing.T) {
	for name, want := range map[string]string{
		"web": "r-web-c861f990", "we b": "r-" + testUUID, "": "r-" + testUUID, "w": "r-" + testUUID, "-web": "r-" + testUUID,
		"web.1_a-b": "r-web.1_a-b-c861f990", "wéb": "r-" + testUUID,
	} {
		s := newStub()
		mustServe(t, newRouter(s, handlers.Options{}), with(t, event(t, "activate"), "instanceHostMap.instance.name", name))
		if s.spec.Name != want {
			t.Errorf("an instance called %q gets %q, want %q", name, s.spec.Name, want)
		}
	}
}

// Keys match in any case, numbers may be strings and strings numbers.
func TestTolerantDecoding(t *testing.T) {
	s := newStub()
	ev := event(t, "activate")
	ev.Data = json.RawMessage(`{"INSTANCEhostmap":{"Instance":{"UUID":12345,"Name":"web","unknown":[{}],"data":{"FIELDS":{"imageuuid":"docker:nginx:latest",
		"memory":"1048576","CPUshares":5.12e2,"privileged":"true","tty":1,"stdinOpen":0,"environment":{"A":1.50,"B":true,"C":null},"stopTimeout":"3",
		"memorySwap":-1,"oomScoreAdj":1.9,"capAdd":null,"labels":{"n":7},"Memory":5}}}}}`)
	mustServe(t, newRouter(s, handlers.Options{}), ev)
	spec := s.spec
	if spec.Resources.Memory != 1048576 || spec.Resources.CPUShares != 512 || !spec.Privileged || !spec.TTY || spec.OpenStdin ||
		!slices.Equal(spec.Env, []string{"A=1.50", "B=true", "C="}) || spec.StopTimeout == nil || *spec.StopTimeout != 3 ||
		spec.Resources.MemorySwap != -1 || spec.Resources.OomScoreAdj != 1 || spec.Labels["n"] != "7" || spec.Labels[handlers.LabelUUID] != "12345" {
		t.Errorf("spec is %+v", spec)
	}
}

// The numbers that cannot be are refused by their names.
func TestNumbersOutOfRange(t *testing.T) {
	for path, values := range map[string][]any{
		"instanceHostMap.instance.data.fields.memory":      {json.Number("1e30"), json.Number("9223372036854775808"), "1e400"},
		"instanceHostMap.instance.data.fields.blkioWeight": {65536, -1, "70000"},
		"instanceHostMap.instance.agentId":                 {json.Number("-1e19")},
		"processData.timeout":                              {-1, json.Number("2147483648")},
	} {
		for _, v := range values {
			reply := serve(t, newRouter(newStub(), handlers.Options{}), with(t, event(t, "wide"), path, v))
			wantError(t, reply, wire.CodeInvalid, strings.TrimPrefix(path, "instanceHostMap.")+": number out of range")
		}
	}
	reply := serve(t, newRouter(newStub(), handlers.Options{}), with(t, event(t, "wide"), "instanceHostMap.instance.data.fields.memory", "512m"))
	wantError(t, reply, wire.CodeInvalid, "instance.data.fields.memory: expected a number, got a string")
}

func TestInspectByAlias(t *testing.T) {
	s := newStub()
	s.add(testContainer(true))
	r := newRouter(s, handlers.Options{Containers: index{{ID: nativeID, Names: []string{"x"}}, {ID: stubID, Names: []string{"r-test-c861f990", "other/web"}}}})
	ev := with(t, event(t, "inspect"), "instanceInspect.id", "")
	if got := field(t, mustServe(t, r, ev).Data, "instanceInspect", "Id"); got != stubID {
		t.Errorf("id is %v", got)
	}
	wantError(t, serve(t, r, with(t, ev, "instanceInspect.name", "")), wire.CodeInvalid, "instanceInspect.id")
}
