package docker

import (
	"context"

	"github.com/docker/docker/api/types/container"

	"github.com/droverhq/drover/runtime"
)

var _ runtime.Limiter = (*Engine)(nil)

// UpdateLimits changes what is set of the limits of a container.
func (e *Engine) UpdateLimits(ctx context.Context, id string, limits runtime.LimitsUpdate) error {
	op := "limits of " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	if err := limits.Check(); err != nil {
		return err
	}
	var r container.Resources
	for to, from := range map[*int64]*int64{
		&r.CPUShares: limits.CPUShares, &r.CPUQuota: limits.CPUQuota, &r.CPUPeriod: limits.CPUPeriod, &r.Memory: limits.Memory,
		&r.MemoryReservation: limits.MemoryReservation, &r.MemorySwap: limits.MemorySwap,
	} {
		if from != nil {
			*to = *from
		}
	}
	if limits.CpusetCpus != nil {
		r.CpusetCpus = *limits.CpusetCpus
	}
	if limits.CpusetMems != nil {
		r.CpusetMems = *limits.CpusetMems
	}
	r.PidsLimit = limits.PidsLimit
	return e.change(ctx, op, func(ctx context.Context, s *session) error {
		_, err := s.api.ContainerUpdate(ctx, id, container.UpdateConfig{Resources: r})
		return err
	})
}
