package cli

import (
	"strings"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/logs"
)

// podLogs is a pod map as the log service sees it: names, and where the containers' log files are.
type podLogs struct {
	meta   runtime.MetaStore
	hostFS string // what the paths of meta begin with, and those of the log service do not
}

// Pods implements [logs.Pods].
func (p podLogs) Pods() []logs.Pod {
	var all []logs.Pod
	for _, pod := range p.meta.GetAllPods() {
		if n := len(all); n > 0 && all[n-1].Namespace == pod.Namespace && all[n-1].Name == pod.Name {
			continue // one takes the place of the other just now
		}
		if latest, err := p.meta.GetPod(pod.Namespace, pod.Name); err == nil {
			all = append(all, p.describe(latest))
		}
	}
	return all
}

// Named implements [logs.Pods].
func (p podLogs) Named(name string) []logs.Pod {
	var found []logs.Pod
	namespaces := map[string]bool{}
	for _, pod := range p.meta.GetAllPods() {
		if pod.Name != name || namespaces[pod.Namespace] {
			continue
		}
		namespaces[pod.Namespace] = true
		if latest, err := p.meta.GetPod(pod.Namespace, name); err == nil {
			found = append(found, p.describe(latest))
		}
	}
	return found
}

func (p podLogs) describe(pod *runtime.Pod) logs.Pod {
	out := logs.Pod{Namespace: pod.Namespace, Name: pod.Name, Created: pod.Created}
	seen := map[string]bool{}
	for _, c := range pod.All {
		if c.IsSandbox() || seen[c.K8sContainerName] {
			continue
		}
		seen[c.K8sContainerName] = true
		latest, err := pod.GetContainer(c.K8sContainerName)
		if err != nil || latest.LogPath == "" {
			continue
		}
		out.Containers = append(out.Containers, logs.PodContainer{
			Name: latest.K8sContainerName, ID: latest.Id, Log: strings.TrimPrefix(latest.LogPath, p.hostFS),
		})
	}
	return out
}
