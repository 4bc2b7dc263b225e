package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

var _ runtime.ModelSource = (*Engine)(nil)

const annotationRestarts = "io.kubernetes.container.restartCount"

// ModelList lists all containers and sandboxes.
func (e *Engine) ModelList(ctx context.Context) ([]*runtime.EngineSimpleContainer, error) {
	list, err := e.rt.ListContainers(ctx, &criv1.ListContainersRequest{})
	if err != nil {
		return nil, e.fail(ctx, "listing containers", err)
	}
	sandboxes, err := e.rt.ListPodSandbox(ctx, &criv1.ListPodSandboxRequest{})
	if err != nil {
		return nil, e.fail(ctx, "listing sandboxes", err)
	}
	out := make([]*runtime.EngineSimpleContainer, 0, len(list.GetContainers())+len(sandboxes.GetItems()))
	for _, c := range list.GetContainers() {
		out = append(out, &runtime.EngineSimpleContainer{
			ID: c.GetId(), Labels: labelsOf(c), Running: c.GetState() == criv1.ContainerState_CONTAINER_RUNNING, Source: c,
		})
	}
	for _, sb := range sandboxes.GetItems() {
		if sb.GetLabels()[labelStandalone] != "" {
			continue // no pod of Kubernetes
		}
		out = append(out, &runtime.EngineSimpleContainer{
			ID: sb.GetId(), Labels: sb.GetLabels(), Running: sb.GetState() == criv1.PodSandboxState_SANDBOX_READY, Source: sb,
		})
	}
	return out, nil
}

// ModelDetail tells what the pod model needs of one container or sandbox.
func (e *Engine) ModelDetail(ctx context.Context, id string) (*runtime.EngineDetailContainer, error) {
	op := "inspecting container " + runtime.ShortContainerId(id)
	list, err := e.rt.ListContainers(ctx, &criv1.ListContainersRequest{Filter: &criv1.ContainerFilter{Id: id}})
	if err != nil {
		return nil, e.fail(ctx, op, err)
	}
	for _, c := range list.GetContainers() {
		if c.GetId() == id {
			return e.containerDetail(ctx, c)
		}
	}
	return e.sandboxDetail(ctx, id)
}

func (e *Engine) containerDetail(ctx context.Context, c *criv1.Container) (*runtime.EngineDetailContainer, error) {
	resp, v, err := e.status(ctx, c.GetId())
	if err != nil {
		return nil, err
	}
	st := resp.GetStatus()
	out := &runtime.EngineDetailContainer{
		ID: st.GetId(), Name: namesOf(c)[0], Runtime: v.runtimeName(), Image: st.GetImage().GetImage(), SandboxID: c.GetPodSandboxId(),
		Labels: labelsOf(c), Env: v.RuntimeSpec.Process.Env, Hostname: v.RuntimeSpec.Hostname, LogPath: st.GetLogPath(),
		State: runtime.ContainerState{Status: states[st.GetState()]}, RestartCount: int(st.GetMetadata().GetAttempt()), Created: moment(st.GetCreatedAt()),
	}
	if st.GetImage().GetUserSpecifiedImage() != "" {
		out.Image = st.GetImage().GetUserSpecifiedImage()
	}
	if n, err := strconv.Atoi(st.GetAnnotations()[annotationRestarts]); err == nil {
		out.RestartCount = n
	}
	if st.GetState() == criv1.ContainerState_CONTAINER_RUNNING {
		out.State.Pid = v.Pid
	}
	for _, m := range st.GetMounts() {
		out.Mounts = append(out.Mounts, &runtime.MountPoint{Source: m.GetHostPath(), Destination: m.GetContainerPath(), RW: !m.GetReadonly()})
	}
	v.namespaces(out)
	return out, nil
}

func (e *Engine) sandboxDetail(ctx context.Context, id string) (*runtime.EngineDetailContainer, error) {
	op := "inspecting sandbox " + runtime.ShortContainerId(id)
	resp, err := e.rt.PodSandboxStatus(ctx, &criv1.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, e.fail(ctx, op, err)
	}
	var v verbose
	if text := resp.GetInfo()["info"]; text != "" {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return nil, fmt.Errorf("verbose status of sandbox %s: %w", runtime.ShortContainerId(id), err)
		}
	}
	st := resp.GetStatus()
	out := &runtime.EngineDetailContainer{
		ID: st.GetId(), Name: st.GetMetadata().GetName(), Runtime: v.runtimeName(), IsSandbox: true, SandboxID: st.GetId(), Labels: st.GetLabels(),
		Env: v.RuntimeSpec.Process.Env, Hostname: v.RuntimeSpec.Hostname, State: runtime.ContainerState{Status: "exited"}, Created: moment(st.GetCreatedAt()),
	}
	if st.GetState() == criv1.PodSandboxState_SANDBOX_READY {
		out.State = runtime.ContainerState{Pid: v.Pid, Status: "running"}
	}
	v.namespaces(out)
	if st.GetLinux().GetNamespaces().GetOptions().GetNetwork() == criv1.NamespaceMode_NODE {
		out.NetworkMode = "host"
	}
	return out, nil
}

// runtimeName is the model's name of what runs a container: runc stands for all whose root the host can see.
func (v *verbose) runtimeName() string {
	switch t := v.RuntimeType; {
	case t == "", strings.Contains(t, "runc"), strings.Contains(t, "crun"):
		return runtime.Runc
	case strings.Contains(t, "rund"):
		return runtime.Rund
	default:
		return t
	}
}

// namespaces fills the modes in as far as the OCI specification tells: a namespace of its own, one that is joined, or
// the host's.
func (v *verbose) namespaces(out *runtime.EngineDetailContainer) {
	if len(v.RuntimeSpec.Linux.Namespaces) == 0 {
		return
	}
	out.NetworkMode, out.PidMode = "host", "host"
	for _, ns := range v.RuntimeSpec.Linux.Namespaces {
		switch ns.Type {
		case "network":
			out.NetworkMode = ""
			if ns.Path != "" {
				out.NetworkMode = "netns:" + ns.Path
			}
		case "pid":
			out.PidMode = ""
		}
	}
}
