package handlers

import (
	"maps"
	"slices"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// resources maps the limits. What is not asked for stays unset; Rancher's agent gave every container 2 CPU shares.
func (h *handlers) resources(in *instance) runtime.Resources {
	f := &in.Data.Fields
	r := runtime.Resources{
		CPUShares:          cpuShares(in),
		CPUPeriod:          f.CPUPeriod,
		CPUQuota:           f.CPUQuota,
		CPURealtimePeriod:  f.CPURealtimePeriod,
		CPURealtimeRuntime: f.CPURealtimeRuntime,
		CpusetCpus:         f.CPUSet,
		CpusetMems:         f.CPUSetMems,
		Memory:             f.Memory,
		MemoryReservation:  in.MemoryReservation,
		MemorySwap:         f.MemorySwap,
		MemorySwappiness:   f.MemorySwappiness,
		KernelMemory:       f.KernelMemory,
		ShmSize:            f.ShmSize,
		DiskQuota:          f.DiskQuota,
		PidsLimit:          f.PidsLimit,
		OomKillDisable:     f.OomKillDisable,
		OomScoreAdj:        f.OomScoreAdj,
		BlkioWeight:        f.BlkioWeight,
		BlkioDevices:       h.blkioDevices(f.BlkioDeviceOptions),
	}
	for _, u := range f.Ulimits {
		r.Ulimits = append(r.Ulimits, runtime.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return r
}

// cpuShares takes the reservation before the user's wish. The kernel's least is 2.
func cpuShares(in *instance) int64 {
	shares := in.Data.Fields.CPUShares
	if m := in.MilliCPU; m != 0 {
		const most = 1 << 40 // far beyond what a kernel takes, and far from an overflow
		shares = max(-most, min(m, most)) * 1024 / 1000
	} else if shares == 0 {
		return 0
	}
	return max(2, shares)
}

// blkioDevices maps the limits of disks, in the order of their names.
func (h *handlers) blkioDevices(options map[string]blkioDevice) []runtime.BlkioDevice {
	var list []runtime.BlkioDevice
	for _, name := range slices.Sorted(maps.Keys(options)) {
		o := options[name]
		path := name
		if path == "DEFAULT_DISK" {
			path = ""
			if h.opts.DefaultDisk != nil {
				path = h.opts.DefaultDisk()
			}
			if path == "" {
				h.log.Warn("the default disk is unknown, its limits are left out")
				continue
			}
		}
		list = append(list, runtime.BlkioDevice{
			Path: path, Weight: o.Weight,
			ReadIOps: o.ReadIOps, WriteIOps: o.WriteIOps, ReadBps: o.ReadBps, WriteBps: o.WriteBps,
		})
	}
	return list
}

// devices maps "host[:container[:permissions]]".
func devices(specs []string) ([]runtime.Device, error) {
	var list []runtime.Device
	for i, s := range specs {
		parts := strings.Split(s, ":")
		if len(parts) > 3 || parts[0] == "" {
			return nil, invalid(join("instance.data.fields", "devices")+index(i), "expected host[:container[:permissions]]")
		}
		d := runtime.Device{Host: parts[0], Container: parts[0], Permissions: "rwm"}
		if len(parts) > 1 && parts[1] != "" {
			d.Container = parts[1]
		}
		if len(parts) > 2 && parts[2] != "" {
			d.Permissions = parts[2]
		}
		list = append(list, d)
	}
	return list, nil
}
