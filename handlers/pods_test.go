package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/pods"
)

// podMap is a map of one pod.
type podMap struct {
	pod       *runtime.Pod
	refreshed int
	limits    runtime.LimitsUpdate
}

func (m *podMap) GetAllPods() []*runtime.Pod { return []*runtime.Pod{m.pod} }
func (m *podMap) Refresh()                   { m.refreshed++ }
func (m *podMap) Health() pods.Health        { return pods.Health{Ready: true, Pods: 1, Containers: 1} }

func (m *podMap) GetContainerByCid(cid string) (*runtime.Container, error) {
	if cid == "c1" {
		return m.pod.All[0], nil
	}
	return nil, runtime.ErrNoSuchContainer
}

func (m *podMap) UpdateLimits(_ context.Context, _ string, l runtime.LimitsUpdate) error {
	m.limits = l
	return nil
}

type routes map[string]events.Handler

func (r routes) Handle(name string, h events.Handler) { r[name] = h }

func TestPodEvents(t *testing.T) {
	m := &podMap{pod: &runtime.Pod{Namespace: "ns", Name: "web", All: []*runtime.Container{{Id: "c1", K8sContainerName: "app"}}}}
	r := routes{}
	handlers.RegisterPods(r, handlers.PodsOptions{
		Map: m, Limiter: m,
		Find: func(_ context.Context, name string) (string, error) {
			if name == "ns/web" || name == "c1" {
				return "c1", nil
			}
			return "", runtime.NoPodError("ns", name)
		},
		Facts: func(_ context.Context, c *runtime.Container) (any, error) {
			return map[string]string{"of": c.Id}, nil
		},
	})
	for _, c := range []struct {
		event, data, want string
		err               error
	}{
		{handlers.EventPodmapRefresh, ``, `{"podMap":{"containers":1,"errors":null,"pods":1,"ready":true}}`, nil},
		{handlers.EventPodmapList, `{}`, `"name":"web"`, nil},
		{handlers.EventPodmapList, `{"namespace":"other"}`, `{"pods":[]}`, nil},
		{handlers.EventPodmapList, `{"namespace":{}}`, "namespace", runtime.ErrInvalid},
		{handlers.EventContainerFacts, `{"container":"ns/web"}`, `{"facts":{"of":"c1"}}`, nil},
		{handlers.EventContainerFacts, `{"container":"nope"}`, "no pod", runtime.ErrNotFound},
		{handlers.EventContainerFacts, `{}`, "container: missing", runtime.ErrInvalid},
		{handlers.EventContainerLimits, `{"container":"c1","limits":{"memory":67108864}}`, `{"container":"c1","limits":{"memory":67108864}}`, nil},
		{handlers.EventContainerLimits, `{"container":"c1"}`, "limits: missing", runtime.ErrInvalid},
		{handlers.EventContainerLimits, `{"container":"c1","limits":{"memory":1}}`, "memory: 1", runtime.ErrInvalid},
		{handlers.EventContainerLimits, `{"container":"c1","limits":{"ram":1}}`, "ram", runtime.ErrInvalid},
	} {
		data, err := r[c.event].Handle(t.Context(), &wire.Event{Data: json.RawMessage(c.data)}, nil)
		got, _ := json.Marshal(data)
		if err != nil {
			got = []byte(err.Error())
		}
		if !errors.Is(err, c.err) || !strings.Contains(string(got), c.want) {
			t.Errorf("%s %s: %s, %v", c.event, c.data, got, err)
		}
	}
	if m.refreshed != 1 || m.limits.Memory == nil || *m.limits.Memory != 64<<20 {
		t.Errorf("%+v", m)
	}
}
