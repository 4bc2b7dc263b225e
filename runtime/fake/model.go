package fake

import (
	"context"
	"strings"

	"github.com/droverhq/drover/runtime"
)

var _ runtime.ModelSource = (*Engine)(nil)

// ModelList lists all containers. Sandboxes are those with Docker's label of one.
func (e *Engine) ModelList(ctx context.Context) ([]*runtime.EngineSimpleContainer, error) {
	if err := e.enter(ctx, "ModelList", "list containers"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	rows := make([]runtime.EngineSimpleContainer, len(e.order))
	out := make([]*runtime.EngineSimpleContainer, len(e.order))
	for i, c := range e.order {
		rows[i] = runtime.EngineSimpleContainer{ID: c.id, Labels: cloneMap(c.spec.Labels), Running: c.running}
		out[i] = &rows[i]
	}
	return out, nil
}

// ModelDetail tells what the pod model needs of one container.
func (e *Engine) ModelDetail(ctx context.Context, id string) (*runtime.EngineDetailContainer, error) {
	op := "inspect " + id
	if err := e.enter(ctx, "ModelDetail", op); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return nil, err
	}
	s := &c.spec
	out := &runtime.EngineDetailContainer{
		ID: c.id, Name: c.name, Runtime: runtime.Runc, Image: s.Image, Labels: cloneMap(s.Labels), Env: mergeEnv(nil, s.Env),
		IsSandbox: s.Labels["io.kubernetes.docker.type"] == "podsandbox", SandboxID: s.Labels["io.kubernetes.sandbox.id"],
		Hostname: s.Hostname, NetworkMode: c.networkMode(), PidMode: s.PidMode,
		State: runtime.ContainerState{Pid: c.pid, Status: c.status}, Created: c.created,
	}
	if out.Hostname == "" {
		out.Hostname = c.id[:12]
	}
	for _, bind := range s.Binds {
		parts := strings.SplitN(bind, ":", 3)
		if len(parts) < 2 || !strings.HasPrefix(parts[0], "/") {
			continue
		}
		readOnly := len(parts) > 2 && strings.Contains(","+parts[2]+",", ",ro,")
		out.Mounts = append(out.Mounts, &runtime.MountPoint{Source: parts[0], Destination: parts[1], RW: !readOnly})
	}
	return out, nil
}
