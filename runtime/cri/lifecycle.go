package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// Create makes a sandbox and the container in it. Nothing is left if the second fails.
func (e *Engine) Create(ctx context.Context, spec *runtime.ContainerSpec) (string, []string, error) {
	if spec == nil {
		return "", nil, &runtime.Error{Op: "creating a container", Kind: runtime.ErrInvalid, Message: "no specification"}
	}
	op := "creating container " + spec.Name[:min(len(spec.Name), 80)]
	if err := possible(spec); err != nil {
		return "", nil, err
	}
	image, err := e.images.ImageStatus(ctx, &criv1.ImageStatusRequest{Image: &criv1.ImageSpec{Image: spec.Image}})
	if err != nil {
		return "", nil, e.fail(ctx, op, err)
	}
	if image.GetImage() == nil {
		return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "no such image: " + spec.Image}
	}
	name := spec.Name
	uid := uuid.NewString()
	if name == "" {
		name = "drover-" + uid[:8]
	} else if _, err := e.find(ctx, name); err == nil {
		return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "the name " + name + " is in use"}
	} else if !errors.Is(err, runtime.ErrNotFound) {
		return "", nil, err
	}
	sandbox := e.sandboxConfig(spec, name, uid)
	sb, err := e.rt.RunPodSandbox(ctx, &criv1.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return "", nil, errors.Join(e.fail(ctx, op, err), e.sweep(uid))
	}
	c, err := e.rt.CreateContainer(ctx, &criv1.CreateContainerRequest{
		PodSandboxId: sb.GetPodSandboxId(), Config: containerConfig(spec, name), SandboxConfig: sandbox,
	})
	if err != nil {
		err = e.fail(ctx, op, err)
		return "", nil, errors.Join(err, e.removeSandbox(sb.GetPodSandboxId()))
	}
	return c.GetContainerId(), ignored(spec), nil
}

// sweep removes the sandbox that a failed start leaves behind, as containerd does without a network.
func (e *Engine) sweep(uid string) error {
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.CallTimeout)
	defer cancel()
	list, err := e.rt.ListPodSandbox(ctx, &criv1.ListPodSandboxRequest{Filter: &criv1.PodSandboxFilter{LabelSelector: map[string]string{labelSandbox: uid}}})
	if err != nil {
		return e.fail(ctx, "listing sandboxes", err)
	}
	var errs []error
	for _, sb := range list.GetItems() {
		errs = append(errs, e.removeSandbox(sb.GetId()))
	}
	return errors.Join(errs...)
}

// removeSandbox works on a ctx of its own: what was begun must be undone.
func (e *Engine) removeSandbox(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.CallTimeout)
	defer cancel()
	_, err := e.rt.StopPodSandbox(ctx, &criv1.StopPodSandboxRequest{PodSandboxId: id})
	if err == nil {
		_, err = e.rt.RemovePodSandbox(ctx, &criv1.RemovePodSandboxRequest{PodSandboxId: id})
	}
	return e.fail(ctx, "removing sandbox "+runtime.ShortContainerId(id), err)
}

// Start starts a container that was made and never started.
func (e *Engine) Start(ctx context.Context, id string) error {
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	switch c.GetState() {
	case criv1.ContainerState_CONTAINER_RUNNING:
		return nil
	case criv1.ContainerState_CONTAINER_EXITED:
		return unsupported("container %s has ended, and a CRI runtime cannot start it again: remove it and make a new one", id)
	}
	_, err = e.rt.StartContainer(ctx, &criv1.StartContainerRequest{ContainerId: c.GetId()})
	return e.fail(ctx, "starting container "+id, err)
}

// Stop asks the container to end and kills it after timeout. If that is nil the container's own counts, which its
// maker said, else 10 s.
func (e *Engine) Stop(ctx context.Context, id string, timeout *time.Duration) error {
	if timeout != nil && *timeout < 0 {
		return &runtime.Error{Op: "stopping a container", Kind: runtime.ErrInvalid, Message: fmt.Sprintf("a timeout of %s", *timeout)}
	}
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	if c.GetState() != criv1.ContainerState_CONTAINER_RUNNING {
		return nil
	}
	grace := defaultGrace
	for _, key := range []string{annotationGrace, annotationStop} {
		if n, err := strconv.Atoi(c.GetAnnotations()[key]); err == nil && n >= 0 {
			grace = time.Duration(n) * time.Second
		}
	}
	if timeout != nil {
		grace = *timeout
	}
	return e.stop(ctx, c.GetId(), grace)
}

const defaultGrace = 10 * time.Second

func (e *Engine) stop(ctx context.Context, id string, grace time.Duration) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, grace+e.cfg.CallTimeout)
		defer cancel()
	}
	seconds := int64((grace + time.Second - 1) / time.Second)
	_, err := e.rt.StopContainer(ctx, &criv1.StopContainerRequest{ContainerId: id, Timeout: seconds})
	return e.fail(ctx, "stopping container "+runtime.ShortContainerId(id), err)
}

// Kill sends a signal to the first process. CRI itself knows only SIGKILL; others are sent from the host, which needs
// this process to see the host's processes.
func (e *Engine) Kill(ctx context.Context, id, signal string) error {
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	if c.GetState() != criv1.ContainerState_CONTAINER_RUNNING {
		return &runtime.Error{Op: "killing container " + id, Kind: runtime.ErrConflict, Message: "it does not run"}
	}
	sig, err := parseSignal(signal)
	if err != nil {
		return err
	}
	if sig == syscall.SIGKILL {
		return e.stop(ctx, c.GetId(), 0)
	}
	_, v, err := e.status(ctx, c.GetId())
	if err != nil {
		return err
	}
	if !e.owns(v.Pid, c.GetId()) {
		return unsupported("a CRI runtime sends no signal but KILL, and this agent does not see the processes of the host (hostPID)")
	}
	if err := syscall.Kill(v.Pid, sig); err != nil {
		return &runtime.Error{Op: "killing container " + id, Message: err.Error(), Cause: err}
	}
	return nil
}

func parseSignal(name string) (syscall.Signal, error) {
	if name == "" {
		return syscall.SIGKILL, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "SIG") {
		upper = "SIG" + upper
	}
	if sig := unix.SignalNum(upper); sig != 0 {
		return sig, nil
	}
	return 0, &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf("unknown signal %q", name)}
}

// owns tells whether pid is a process of the container as this process sees the host: the number alone would be
// somebody else's in another process namespace.
func (e *Engine) owns(pid int, id string) bool {
	if pid <= 1 {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(b), id)
}

// Remove deletes a container, and the sandbox of a pod of one with it.
func (e *Engine) Remove(ctx context.Context, id string, opts runtime.RemoveOptions) error {
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	op := "removing container " + id
	if c.GetState() == criv1.ContainerState_CONTAINER_RUNNING {
		if !opts.Force {
			return &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "it runs: stop it first, or force"}
		}
		if err := e.stop(ctx, c.GetId(), 0); err != nil {
			return err
		}
	}
	if _, err := e.rt.RemoveContainer(ctx, &criv1.RemoveContainerRequest{ContainerId: c.GetId()}); err != nil {
		return e.fail(ctx, op, err)
	}
	if c.GetLabels()[labelStandalone] == "" {
		return nil
	}
	return e.removeSandbox(c.GetPodSandboxId())
}
