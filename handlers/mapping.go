package handlers

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/droverhq/drover/runtime"
)

// errNeedsImage says that a container can only be described once its image is on the host.
var errNeedsImage = errors.New("the image is not on the host")

// The labels that the agent gives to containers, LabelUUID apart.
const (
	labelName       = "io.rancher.container.name"
	labelIP         = "io.rancher.container.ip"
	labelMac        = "io.rancher.container.mac_address"
	labelAgentID    = "io.rancher.container.agent_id"
	labelCattleURL  = "io.rancher.container.cattle_url"
	labelDNSOrder   = "io.rancher.container.dns.priority"
	labelCNIWait    = "io.rancher.cni.wait"
	labelCNINetwork = "io.rancher.cni.network"
)

// containerSpec describes the container of an instance. The parts that follow each fill their own fields; the labels
// of the user come last and win over the agent's.
func (h *handlers) containerSpec(ctx context.Context, in *instance) (*runtime.ContainerSpec, error) {
	f := &in.Data.Fields
	spec := &runtime.ContainerSpec{
		Name:           containerName(in),
		Image:          imageName(f.ImageUUID),
		Cmd:            f.Command,
		Entrypoint:     f.EntryPoint,
		Labels:         map[string]string{},
		Hostname:       in.Hostname,
		Domainname:     f.DomainName,
		User:           f.User,
		WorkingDir:     f.WorkingDir,
		TTY:            f.TTY,
		OpenStdin:      f.StdinOpen,
		StopSignal:     f.StopSignal,
		StopTimeout:    f.StopTimeout,
		Healthcheck:    healthcheck(f),
		Privileged:     f.Privileged,
		ReadOnlyRootFS: f.ReadOnly,
		PublishAll:     f.PublishAllPorts,
		CapAdd:         f.CapAdd,
		CapDrop:        f.CapDrop,
		SecurityOpt:    f.SecurityOpt,
		GroupAdd:       f.GroupAdd,
		Tmpfs:          f.Tmpfs,
		Sysctls:        f.Sysctls,
		StorageOpt:     f.StorageOpt,
		ExtraHosts:     f.ExtraHosts,
		PidMode:        f.PidMode,
		IpcMode:        f.IpcMode,
		UTSMode:        f.UTS,
		UsernsMode:     f.UsernsMode,
		Cgroup:         f.Cgroup,
		CgroupParent:   f.CgroupParent,
		Init:           f.RunInit,
		LogDriver:      f.LogConfig.Driver,
		LogOptions:     f.LogConfig.Config,
		RestartPolicy:  runtime.RestartPolicy{Name: f.RestartPolicy.Name, MaxRetries: f.RestartPolicy.MaximumRetryCount},
		Resources:      h.resources(in),
	}
	if in.UUID != "" {
		spec.Labels[LabelUUID] = in.UUID
	}
	if in.Name != "" {
		spec.Labels[labelName] = in.Name
	}
	var err error
	if spec.Devices, err = devices(f.Devices); err != nil {
		return nil, err
	}
	h.mapDNS(ctx, spec, in)
	mapPorts(spec, in)
	if err := h.mapNetwork(ctx, spec, in); err != nil {
		return nil, err
	}
	if err := h.mapVolumes(ctx, spec, in); err != nil {
		return nil, err
	}
	spec.Env = h.environment(spec, in)
	maps.Copy(spec.Labels, f.Labels)
	if err := h.mapCNIWait(ctx, spec); err != nil {
		return nil, err
	}
	return spec, nil
}

// healthcheck is nil where nothing of it is asked for.
func healthcheck(f *instanceFields) *runtime.Healthcheck {
	if len(f.HealthCmd) == 0 && f.HealthInterval == 0 && f.HealthTimeout == 0 && f.HealthRetries == 0 {
		return nil
	}
	test := []string(f.HealthCmd)
	if len(test) > 0 && !slices.Contains([]string{"NONE", "CMD", "CMD-SHELL"}, test[0]) {
		test = append([]string{"CMD"}, test...)
	}
	return &runtime.Healthcheck{
		Test:     test,
		Interval: seconds(f.HealthInterval),
		Timeout:  seconds(f.HealthTimeout),
		Retries:  f.HealthRetries,
	}
}

// seconds holds a number of seconds to what a Duration can hold.
func seconds(n int64) time.Duration {
	const most = int64(math.MaxInt64 / time.Second)
	return time.Duration(max(-most, min(n, most))) * time.Second
}
