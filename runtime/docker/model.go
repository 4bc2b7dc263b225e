package docker

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

var _ runtime.ModelSource = (*Engine)(nil)

// Labels of dockershim and its successor.
const (
	labelType     = "io.kubernetes.docker.type"
	labelSandbox  = "io.kubernetes.sandbox.id"
	labelName     = "io.kubernetes.container.name"
	labelLogPath  = "io.kubernetes.container.logpath"
	labelRestarts = "annotation.io.kubernetes.container.restartCount"
)

// ModelList lists all containers.
func (e *Engine) ModelList(ctx context.Context) ([]*runtime.EngineSimpleContainer, error) {
	rows, err := e.List(ctx, runtime.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make([]*runtime.EngineSimpleContainer, len(rows))
	for i, r := range rows {
		out[i] = &runtime.EngineSimpleContainer{ID: r.ID, Labels: r.Labels, Running: r.State == "running" || r.State == "paused", Source: r}
	}
	return out, nil
}

// detail is the part of a container's JSON that the pod model reads.
type detail struct {
	ID      string
	Name    string
	Created time.Time
	State   struct {
		Status string
		Pid    int
	}
	LogPath      string
	RestartCount int
	HostConfig   struct{ NetworkMode, PidMode, Runtime string }
	GraphDriver  struct{ Data map[string]string }
	Mounts       []struct {
		Source, Destination string
		RW                  bool
	}
	Config struct {
		Hostname, Image string
		Env             []string
		Labels          map[string]string
	}
}

// ModelDetail tells what the pod model needs of one container.
func (e *Engine) ModelDetail(ctx context.Context, id string) (*runtime.EngineDetailContainer, error) {
	op := "inspect " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return nil, err
	}
	var c detail
	err = e.read(ctx, op, func(ctx context.Context, s *session) error {
		return e.getJSON(ctx, s, "/containers/"+id+"/json", "", &c)
	})
	if err != nil {
		return nil, err
	}
	l := c.Config.Labels
	out := &runtime.EngineDetailContainer{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Runtime: c.HostConfig.Runtime, Image: c.Config.Image,
		IsSandbox: l[labelType] == "podsandbox" || l[labelName] == "POD" || l["io.kubernetes.pouch.type"] == "sandbox",
		SandboxID: l[labelSandbox], Labels: l, Env: c.Config.Env, Hostname: c.Config.Hostname, MergedDir: c.GraphDriver.Data["MergedDir"],
		LogPath: c.LogPath, NetworkMode: c.HostConfig.NetworkMode, PidMode: c.HostConfig.PidMode,
		State:        runtime.ContainerState{Pid: c.State.Pid, Status: c.State.Status},
		RestartCount: c.RestartCount, Created: known(c.Created),
	}
	if out.Runtime == "" {
		out.Runtime = runtime.Runc
	}
	if p := l[labelLogPath]; p != "" {
		out.LogPath = p // where the kubelet wants it, with the format of CRI
	}
	if n, err := strconv.Atoi(l[labelRestarts]); err == nil {
		out.RestartCount = n
	}
	for _, m := range c.Mounts {
		out.Mounts = append(out.Mounts, &runtime.MountPoint{Source: m.Source, Destination: m.Destination, RW: m.RW})
	}
	return out, nil
}
