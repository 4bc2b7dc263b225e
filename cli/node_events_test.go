package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/runtime/pods"
)

type routes map[string]events.Handler

func (r routes) Handle(name string, h events.Handler) { r[name] = h }

// TestPodEventsOnDocker is what a server asks of a Kubernetes node, with a pod map of the local dockerd.
func TestPodEventsOnDocker(t *testing.T) {
	e, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	random := make([]byte, 6)
	_, _ = rand.Read(random)
	ns := "drover-events-" + hex.EncodeToString(random)
	id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{
		Name: ns, Image: "drover-test/busybox:1", Cmd: []string{"sleep", "1000"}, NetworkMode: "none", StopSignal: "SIGKILL",
		Labels: map[string]string{
			"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": ns, "io.kubernetes.pod.uid": "1", "io.kubernetes.container.name": "app",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	removed := false
	remove := func() {
		if !removed {
			removed = true
			if err := e.Remove(context.Background(), id, runtime.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(func() {
		remove()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	cfg := mustLoad(t, nil, "", map[string]string{"state-dir": t.TempDir()})
	cfg.Pods.KmsgPath = "-"
	log := logrus.New()
	log.SetOutput(io.Discard)
	host, err := newNodeHost(cfg, []runtime.Engine{e}, func(string) string { return "" }, log)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := newNodeService(cfg, host.engine, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	r := routes{}
	if err := host.join(streams, r); err != nil {
		t.Fatal(err)
	}
	running, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- host.run(running) }()
	t.Cleanup(func() {
		end()
		if err := errors.Join(<-ended, streams.Close()); err != nil {
			t.Error(err)
		}
	})
	<-host.store.Ready()
	ask := func(event string, data, into any) error {
		t.Helper()
		b, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := r[event].Handle(t.Context(), &wire.Event{Data: b}, nil)
		if err != nil {
			return err
		}
		if b, err = json.Marshal(answer); err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return nil
	}
	var list struct{ Pods []pods.View }
	if err := ask(handlers.EventPodmapList, map[string]string{"namespace": ns}, &list); err != nil || len(list.Pods) != 1 || list.Pods[0].Name != "web" ||
		list.Pods[0].Containers[0].ID != id || !list.Pods[0].Containers[0].Running {
		t.Errorf("the list: %+v, %v", list, err)
	}
	facts := func() (limit uint64) {
		t.Helper()
		var answer struct {
			Facts struct {
				Memory struct{ Limit *uint64 }
			}
		}
		if err := ask(handlers.EventContainerFacts, map[string]string{"container": ns + "/web"}, &answer); err != nil {
			t.Fatal(err)
		}
		if answer.Facts.Memory.Limit != nil {
			limit = *answer.Facts.Memory.Limit
		}
		return limit
	}
	if limit := facts(); limit != 0 {
		t.Errorf("a limit before one was set: %d", limit)
	}
	limits := map[string]any{"container": ns + "/web", "limits": map[string]any{"memory": 64 << 20, "memorySwap": 64 << 20}}
	var done struct{ Container string }
	if err := ask(handlers.EventContainerLimits, limits, &done); err != nil || done.Container != id {
		t.Errorf("limits: %+v, %v", done, err)
	}
	if limit := facts(); limit != 64<<20 {
		t.Errorf("the limit is %d", limit)
	}
	remove()
	// The engine's own notice, or the refresh: whichever comes first.
	var state struct{ PodMap struct{ Ready bool } }
	if err := ask(handlers.EventPodmapRefresh, nil, &state); err != nil || !state.PodMap.Ready {
		t.Errorf("refresh: %+v, %v", state, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err := ask(handlers.EventPodmapList, map[string]string{"namespace": ns}, &list); err == nil && len(list.Pods) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the pod is still there: %+v", list)
		}
	}
	if err := ask(handlers.EventContainerFacts, map[string]string{"container": ns + "/web"}, &done); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("facts of a pod that is gone: %v", err)
	}
}
