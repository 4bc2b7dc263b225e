package fake

import (
	"context"

	"github.com/droverhq/drover/runtime"
)

// UpdateLimits changes what is set of the limits of a container, which Stats and Inspect tell. Nothing holds processes to
// them.
func (e *Engine) UpdateLimits(ctx context.Context, id string, limits runtime.LimitsUpdate) error {
	op := "limits of " + id
	if err := e.enter(ctx, "UpdateLimits", op); err != nil {
		return err
	}
	if err := limits.Check(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return err
	}
	r := &c.spec.Resources
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
	if limits.PidsLimit != nil {
		n := *limits.PidsLimit
		r.PidsLimit = &n
	}
	c.inspect = nil
	e.notify(c, "update")
	return nil
}
