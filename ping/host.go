package ping

import (
	"maps"
	"math"

	"github.com/droverhq/drover/hostinfo"
)

// A hostPart is the rendered host, without and with stats, as of one sample and one set of facts.
type hostPart struct {
	sample *hostinfo.Sample
	facts  *facts
	plain  []byte
	stats  []byte
}

// hostResources renders physicalHost, host, storagePool and ipAddress. It is done once for each sample.
func (r *Reporter) hostResources(stats bool) ([]byte, error) {
	sample, f := &hostinfo.Sample{}, r.facts.Load()
	if r.cfg.Host != nil {
		sample = r.cfg.Host.Sample()
	}
	p := r.hosts.Load()
	if p == nil || r.cfg.Host != nil && p.sample != sample || p.facts != f {
		p = &hostPart{sample: sample, facts: f}
		var err error
		if p.plain, err = r.renderHost(sample, f, false); err != nil {
			return nil, err
		}
		if p.stats, err = r.renderHost(sample, f, true); err != nil {
			return nil, err
		}
		r.hosts.Store(p)
	}
	if stats {
		return p.stats, nil
	}
	return p.plain, nil
}

func (r *Reporter) renderHost(s *hostinfo.Sample, f *facts, stats bool) ([]byte, error) {
	cfg := &r.cfg
	host := map[string]any{
		"type": "host", "kind": "docker", "uuid": cfg.HostUUID, "physicalHostUuid": cfg.PhysicalHostUUID,
		"hostname": cfg.Hostname, "labels": r.labels(s, f),
	}
	if labels := r.createLabels(); len(labels) > 0 {
		host["createLabels"] = labels
	}
	if cfg.APIProxy != "" {
		host["apiProxy"] = cfg.APIProxy
	}
	if stats {
		host["info"] = info(s, f)
		if s.Memory != nil {
			host["memory"] = s.Memory.Total
		}
		if s.CPU != nil && s.CPU.Count > 0 {
			host["milliCpu"] = s.CPU.Count * 1000
		}
	}
	if s.Disk != nil && s.Disk.Storage != nil {
		host["localStorageMb"] = s.Disk.Storage.Free / 1_000_000
	}
	for key, value := range map[string]int64{
		"memory": cfg.MemoryOverride, "milliCpu": cfg.MilliCPUOverride, "localStorageMb": cfg.LocalStorageMBOverride,
	} {
		if value > 0 {
			host[key] = value
		}
	}
	resources := []map[string]any{
		{"type": "physicalHost", "kind": "physicalHost", "uuid": cfg.PhysicalHostUUID, "name": cfg.Hostname},
		host,
		{
			"type": "storagePool", "kind": "docker", "uuid": cfg.HostUUID + "-pool", "hostUuid": cfg.HostUUID,
			"name": cfg.Hostname + " Storage Pool",
		},
	}
	if f.address != "" {
		// Servers take the uuid for the address. The other key is misspelt on the wire.
		resources = append(resources, map[string]any{
			"type": "ipAddress", "uuid": f.address, "addresss": f.address, "hostUuid": cfg.HostUUID,
		})
	}
	var b []byte
	for _, m := range resources {
		var err error
		if b, err = appendResource(b, m); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// labels are the host's labels; what is unknown has none.
func (r *Reporter) labels(s *hostinfo.Sample, f *facts) map[string]string {
	l := map[string]string{
		"io.rancher.host.os":          "linux",
		"io.rancher.host.agent_image": r.cfg.AgentImage,
	}
	if v := hostinfo.Version(f.engine.Version, 2); v != "" {
		l["io.rancher.host.docker_version"] = v
	}
	kernel := s.OS.KernelVersion(2)
	if kernel == "" {
		kernel = hostinfo.Version(f.engine.KernelVersion, 2)
	}
	if kernel != "" {
		l["io.rancher.host.linux_kernel_version"] = kernel
	}
	if s.KVM {
		l["io.rancher.host.kvm"] = "true"
	}
	maps.Copy(l, s.Labels)
	return l
}

func (r *Reporter) createLabels() map[string]string {
	l := maps.Clone(r.cfg.HostLabels)
	if l == nil {
		l = make(map[string]string)
	}
	if v := r.cfg.SchedulerIPs; v != "" {
		l["io.rancher.scheduler.ips"] = v
	}
	if v := r.cfg.SchedulerRequireAny; v != "" {
		l["io.rancher.scheduler.require_any"] = v
	}
	return l
}

// info is the host's description in the server's words and units. What is unknown is left out.
func info(s *hostinfo.Sample, f *facts) map[string]any {
	m := map[string]any{
		"cpuInfo": cpuInfo(s), "memoryInfo": memoryInfo(s.Memory), "diskInfo": diskInfo(s, f),
		"iopsInfo": map[string]any{}, "osInfo": osInfo(s, f), "cloudProvider": nil,
	}
	if len(s.IOPS) > 0 {
		m["iopsInfo"] = s.IOPS
	}
	if s.HostKey != "" {
		m["hostKey"] = map[string]any{"data": s.HostKey}
	}
	return m
}

func cpuInfo(s *hostinfo.Sample) map[string]any {
	m := map[string]any{}
	if c := s.CPU; c != nil {
		if c.Count > 0 {
			m["count"] = c.Count
		}
		if c.ModelName != "" {
			m["modelName"] = c.ModelName
		}
		if c.MHz > 0 {
			m["mhz"] = c.MHz
		}
		if c.Percentages != nil {
			m["cpuCoresPercentages"] = c.Percentages
		}
	}
	if s.Load != nil {
		m["loadAvg"] = s.Load
	}
	return m
}

// memoryInfo is in MiB.
func memoryInfo(mem *hostinfo.Memory) map[string]any {
	m := map[string]any{}
	if mem == nil {
		return m
	}
	m["memTotal"] = mem.Total >> 20
	for key, value := range map[string]*int64{
		"memFree": mem.Free, "memAvailable": mem.Available, "buffers": mem.Buffers, "cached": mem.Cached,
		"active": mem.Active, "inactive": mem.Inactive,
		"swapCached": mem.SwapCached, "swaptotal": mem.SwapTotal, "swapfree": mem.SwapFree,
	} {
		if value != nil {
			m[key] = *value >> 20
		}
	}
	return m
}

// diskInfo is in MiB, by device.
func diskInfo(s *hostinfo.Sample, f *facts) map[string]any {
	fileSystems, mountPoints := map[string]any{}, map[string]any{}
	if s.Disk != nil {
		for device, u := range s.Disk.Devices {
			fileSystems[device] = map[string]any{"capacity": u.Total >> 20}
			mountPoints[device] = map[string]any{
				"total": u.Total >> 20, "used": u.Used >> 20, "free": u.Free >> 20,
				"percentage": math.Round(u.Percentage()*100) / 100,
			}
		}
	}
	m := map[string]any{
		"fileSystems": fileSystems, "mountPoints": mountPoints, "dockerStorageDriverStatus": map[string]any{},
	}
	if f.engine.StorageDriver != "" {
		m["dockerStorageDriver"] = f.engine.StorageDriver
	}
	return m
}

func osInfo(s *hostinfo.Sample, f *facts) map[string]any {
	m := map[string]any{}
	set := func(key string, values ...string) {
		for _, v := range values {
			if v != "" {
				m[key] = v
				return
			}
		}
	}
	set("operatingSystem", f.engine.OperatingSystem, s.OS.Name)
	set("kernelVersion", s.OS.KernelVersion(3), hostinfo.Version(f.engine.KernelVersion, 3))
	if v := f.engine.Version; v != "" {
		set("dockerVersion", "Docker version "+v+", build "+f.engine.BuildID)
	}
	return m
}
