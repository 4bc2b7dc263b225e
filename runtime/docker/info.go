package docker

import (
	"context"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/system"

	"github.com/droverhq/drover/runtime"
)

// Info asks the daemon about itself and its host.
func (e *Engine) Info(ctx context.Context) (runtime.Info, error) {
	var (
		info    system.Info
		version types.Version
		api     string
	)
	err := e.read(ctx, "info", func(ctx context.Context, s *session) (err error) {
		api = s.version
		if info, err = s.api.Info(ctx); err != nil {
			return err
		}
		version, err = s.api.ServerVersion(ctx)
		return err
	})
	if err != nil {
		return runtime.Info{}, err
	}
	out := runtime.Info{
		ID:                info.ID,
		Name:              info.Name,
		Version:           info.ServerVersion,
		BuildID:           version.GitCommit,
		APIVersion:        api,
		OperatingSystem:   info.OperatingSystem,
		OSType:            info.OSType,
		Architecture:      info.Architecture,
		KernelVersion:     info.KernelVersion,
		StorageDriver:     info.Driver,
		StorageStatus:     info.DriverStatus,
		RootDir:           info.DockerRootDir,
		LoggingDriver:     info.LoggingDriver,
		CgroupVersion:     info.CgroupVersion,
		CPUs:              info.NCPU,
		MemoryBytes:       info.MemTotal,
		Labels:            info.Labels,
		Containers:        info.Containers,
		ContainersRunning: info.ContainersRunning,
	}
	if out.CgroupVersion == "" { // before API 1.41 there was only one
		out.CgroupVersion = "1"
	}
	return out, nil
}
