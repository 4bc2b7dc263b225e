package pods

import (
	corev1 "k8s.io/api/core/v1"
)

// mirrorOf is the annotation of the API server's picture of a static pod: the uid that the containers have.
const mirrorOf = "kubernetes.io/config.mirror"

// fromCore takes from a pod of Kubernetes what the map needs.
func fromCore(p *corev1.Pod) *PodInfo {
	out := &PodInfo{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), NodeName: p.Spec.NodeName, Phase: string(p.Status.Phase),
		PodIP: p.Status.PodIP, HostIP: p.Status.HostIP, Hostname: p.Spec.Hostname, Labels: p.Labels, Annotations: p.Annotations,
		Created: p.CreationTimestamp.Time, Containers: map[string]ContainerInfo{},
	}
	if uid := p.Annotations[mirrorOf]; uid != "" {
		out.UID = uid
	}
	restarts := map[string]int{}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			restarts[list[i].Name] = int(list[i].RestartCount)
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		stays := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		out.Containers[c.Name] = ContainerInfo{Init: !stays, Sidecar: stays, RestartCount: restarts[c.Name]}
	}
	for i := range p.Spec.Containers {
		out.Containers[p.Spec.Containers[i].Name] = ContainerInfo{RestartCount: restarts[p.Spec.Containers[i].Name]}
	}
	for i := range p.Spec.EphemeralContainers {
		name := p.Spec.EphemeralContainers[i].Name
		out.Containers[name] = ContainerInfo{Ephemeral: true, RestartCount: restarts[name]}
	}
	return out
}
