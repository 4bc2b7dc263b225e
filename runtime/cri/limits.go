package cri

import (
	"context"

	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

var _ runtime.Limiter = (*Engine)(nil)

// UpdateLimits changes what is set of the limits of a container.
func (e *Engine) UpdateLimits(ctx context.Context, id string, limits runtime.LimitsUpdate) error {
	if err := limits.Check(); err != nil {
		return err
	}
	for name, set := range map[string]bool{"memoryReservation": limits.MemoryReservation != nil, "pidsLimit": limits.PidsLimit != nil} {
		if set {
			return unsupported("a CRI runtime does not change %s", name)
		}
	}
	f, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	r := &criv1.LinuxContainerResources{}
	for to, from := range map[*int64]*int64{
		&r.CpuShares: limits.CPUShares, &r.CpuQuota: limits.CPUQuota, &r.CpuPeriod: limits.CPUPeriod, &r.MemoryLimitInBytes: limits.Memory,
		&r.MemorySwapLimitInBytes: limits.MemorySwap,
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
	_, err = e.rt.UpdateContainerResources(ctx, &criv1.UpdateContainerResourcesRequest{ContainerId: f.GetId(), Linux: r})
	return e.fail(ctx, "limits of "+runtime.ShortContainerId(id), err)
}
