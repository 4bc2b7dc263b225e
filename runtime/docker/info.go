package docker

import (
	"cmp"
	"context"

	"github.com/droverhq/drover/runtime"
)

// daemonInfo is the part of the daemon's own description that Info passes on.
type daemonInfo struct {
	ID, Name, ServerVersion, OperatingSystem, OSType, Architecture, KernelVersion, Driver, DockerRootDir, LoggingDriver, CgroupVersion string

	DriverStatus                        [][2]string
	Labels                              []string
	MemTotal                            int64
	NCPU, Containers, ContainersRunning int
}

// Info asks the daemon about itself and its host.
func (e *Engine) Info(ctx context.Context) (runtime.Info, error) {
	var (
		info    daemonInfo
		version struct{ GitCommit string }
		api     string
	)
	err := e.read(ctx, "info", func(ctx context.Context, s *session) error {
		api = s.version
		if err := e.getJSON(ctx, s, "/info", "", &info); err != nil {
			return err
		}
		return e.getJSON(ctx, s, "/version", "", &version)
	})
	if err != nil {
		return runtime.Info{}, err
	}
	return runtime.Info{
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
		CgroupVersion:     cmp.Or(info.CgroupVersion, "1"), // before API 1.41 there was only one
		CPUs:              info.NCPU,
		MemoryBytes:       info.MemTotal,
		Labels:            info.Labels,
		Containers:        info.Containers,
		ContainersRunning: info.ContainersRunning,
	}, nil
}
