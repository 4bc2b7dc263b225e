package cli

import (
	"reflect"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/logs"
)

type somePods struct {
	runtime.MetaStore
	pods []*runtime.Pod
}

func (s somePods) GetAllPods() []*runtime.Pod { return s.pods }

func (s somePods) GetPod(namespace, name string) (*runtime.Pod, error) {
	var latest *runtime.Pod
	for _, p := range s.pods {
		if p.Namespace == namespace && p.Name == name && (latest == nil || p.Created.After(latest.Created)) {
			latest = p
		}
	}
	return latest, nil
}

func TestLogsOfThePodMap(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	running := runtime.ContainerState{Pid: 7, Status: "running"}
	pod := &runtime.Pod{Namespace: "prod", Name: "web", Created: at, All: []*runtime.Container{
		{Id: "box", Role: runtime.ContainerRoleSandbox, K8sContainerName: "POD", LogPath: "/host/var/log/pods/box.log"},
		{Id: "old", K8sContainerName: "app", LogPath: "/host/var/log/pods/w/app/0.log", Created: at.Add(time.Hour)},
		{Id: "new", K8sContainerName: "app", LogPath: "/host/var/log/pods/w/app/1.log", Created: at, State: running},
		{Id: "none", K8sContainerName: "quiet"},
	}}
	replaced := &runtime.Pod{Namespace: "prod", Name: "web", Created: at.Add(-time.Hour)}
	other := &runtime.Pod{Namespace: "test", Name: "web", Created: at}
	p := podLogs{meta: somePods{pods: []*runtime.Pod{replaced, pod, other}}, hostFS: "/host"}
	want := []logs.Pod{
		{Namespace: "prod", Name: "web", Created: at, Containers: []logs.PodContainer{{Name: "app", ID: "new", Log: "/var/log/pods/w/app/1.log"}}},
		{Namespace: "test", Name: "web", Created: at},
	}
	if got := p.Named("web"); !reflect.DeepEqual(got, want) {
		t.Errorf("named: %+v", got)
	}
	if got := p.Pods(); !reflect.DeepEqual(got, want) {
		t.Errorf("all: %+v", got)
	}
	if got := p.Named("gone"); got != nil {
		t.Errorf("a pod that is not there: %+v", got)
	}
}
