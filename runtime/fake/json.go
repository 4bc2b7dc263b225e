package fake

import (
	"encoding/json"
	"time"

	"github.com/droverhq/drover/runtime"
)

// inspectJSON is a container as dockerd's inspect writes it.
func inspectJSON(c *container) object {
	s := &c.spec
	exposed := object{}
	for _, p := range append(append([]runtime.Port(nil), s.ExposedPorts...), s.PortBindings...) {
		exposed[portKey(p)] = object{}
	}
	hostname := s.Hostname
	if hostname == "" {
		hostname = c.id[:12]
	}
	config := object{
		"Hostname": hostname, "Domainname": s.Domainname, "User": s.User, "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
		"Tty": s.TTY, "OpenStdin": s.OpenStdin, "StdinOnce": s.StdinOnce, "Env": s.Env, "Cmd": s.Cmd, "Image": s.Image,
		"Volumes": s.Volumes, "WorkingDir": s.WorkingDir, "Entrypoint": s.Entrypoint, "Labels": s.Labels,
	}
	set := func(key string, value any, isSet bool) {
		if isSet {
			config[key] = value
		}
	}
	set("ExposedPorts", exposed, len(exposed) > 0)
	set("MacAddress", s.MacAddress, s.MacAddress != "")
	set("NetworkDisabled", true, s.NetworkDisabled)
	set("StopSignal", s.StopSignal, s.StopSignal != "")
	set("StopTimeout", s.StopTimeout, s.StopTimeout != nil)
	if h := s.Healthcheck; h != nil {
		config["Healthcheck"] = object{"Test": h.Test, "Interval": h.Interval, "Timeout": h.Timeout, "Retries": h.Retries}
	}
	return object{
		"Id": c.id, "Created": timeJSON(c.created), "Path": c.command[0], "Args": c.command[1:],
		"State": object{
			"Status": c.status, "Running": c.running, "Paused": c.paused, "Restarting": false, "OOMKilled": false, "Dead": false,
			"Pid": c.pid, "ExitCode": c.exitCode, "Error": "", "StartedAt": timeJSON(c.started), "FinishedAt": timeJSON(c.finished),
		},
		"Image": c.image.id, "ResolvConfPath": "", "HostnamePath": "", "HostsPath": "", "LogPath": "", "Name": "/" + c.name,
		"RestartCount": 0, "Driver": "memory", "Platform": "linux", "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "",
		"ExecIDs": nil, "HostConfig": hostConfigJSON(c), "GraphDriver": object{"Name": "memory", "Data": nil}, "Mounts": c.mounts(),
		"Config": config,
		"NetworkSettings": object{
			"Bridge": "", "SandboxID": "", "Ports": bindings(c.summary().Ports), "IPAddress": c.ip, "IPPrefixLen": 16,
			"Gateway": "172.17.0.1", "MacAddress": s.MacAddress, "Networks": c.networks(),
		},
	}
}

func hostConfigJSON(c *container) object {
	s, r := &c.spec, &c.spec.Resources
	policy := s.RestartPolicy
	if policy.Name == "" {
		policy.Name = "no"
	}
	devices := []object{}
	for _, d := range s.Devices {
		devices = append(devices, object{"PathOnHost": d.Host, "PathInContainer": d.Container, "CgroupPermissions": d.Permissions})
	}
	weights := []object{}
	rates := map[string][]object{}
	for _, d := range r.BlkioDevices {
		if d.Weight != 0 {
			weights = append(weights, object{"Path": d.Path, "Weight": d.Weight})
		}
		for key, rate := range map[string]uint64{"ReadBps": d.ReadBps, "WriteBps": d.WriteBps, "ReadIOps": d.ReadIOps, "WriteIOps": d.WriteIOps} {
			if rate != 0 {
				rates[key] = append(rates[key], object{"Path": d.Path, "Rate": rate})
			}
		}
	}
	return object{
		"Binds": s.Binds, "LogConfig": object{"Type": c.logDriver(), "Config": cloneMap(s.LogOptions)}, "NetworkMode": c.networkMode(),
		"PortBindings": bindings(s.PortBindings), "RestartPolicy": object{"Name": policy.Name, "MaximumRetryCount": policy.MaxRetries},
		"AutoRemove": s.AutoRemove, "VolumeDriver": "", "VolumesFrom": s.VolumesFrom, "CapAdd": s.CapAdd, "CapDrop": s.CapDrop,
		"Dns": s.DNS, "DnsOptions": s.DNSOptions, "DnsSearch": s.DNSSearch, "ExtraHosts": s.ExtraHosts, "GroupAdd": s.GroupAdd,
		"IpcMode": s.IpcMode, "Cgroup": s.Cgroup, "Links": s.Links, "OomScoreAdj": r.OomScoreAdj, "PidMode": s.PidMode,
		"Privileged": s.Privileged, "PublishAllPorts": s.PublishAll, "ReadonlyRootfs": s.ReadOnlyRootFS, "SecurityOpt": s.SecurityOpt,
		"StorageOpt": s.StorageOpt, "Tmpfs": s.Tmpfs, "UTSMode": s.UTSMode, "UsernsMode": s.UsernsMode, "ShmSize": r.ShmSize,
		"Sysctls": s.Sysctls, "Runtime": s.Runtime, "CpuShares": r.CPUShares, "Memory": r.Memory, "NanoCpus": r.NanoCPUs,
		"CgroupParent": s.CgroupParent, "BlkioWeight": r.BlkioWeight, "BlkioWeightDevice": weights,
		"BlkioDeviceReadBps": rates["ReadBps"], "BlkioDeviceWriteBps": rates["WriteBps"],
		"BlkioDeviceReadIOps": rates["ReadIOps"], "BlkioDeviceWriteIOps": rates["WriteIOps"],
		"CpuPeriod": r.CPUPeriod, "CpuQuota": r.CPUQuota, "CpuRealtimePeriod": r.CPURealtimePeriod, "CpuRealtimeRuntime": r.CPURealtimeRuntime,
		"CpusetCpus": r.CpusetCpus, "CpusetMems": r.CpusetMems, "Devices": devices, "KernelMemory": r.KernelMemory,
		"MemoryReservation": r.MemoryReservation, "MemorySwap": r.MemorySwap, "MemorySwappiness": r.MemorySwappiness,
		"OomKillDisable": r.OomKillDisable, "PidsLimit": r.PidsLimit, "Ulimits": r.Ulimits, "Init": s.Init,
	}
}

// imageJSON is an image as dockerd's inspect writes it.
func imageJSON(img *image) (json.RawMessage, error) {
	exposed := object{}
	for _, p := range img.config.ExposedPorts {
		exposed[portKey(p)] = object{}
	}
	config := object{"Env": img.config.Env, "Cmd": img.config.Cmd, "Entrypoint": img.config.Entrypoint, "Labels": nil, "ExposedPorts": exposed}
	digests := img.config.RepoDigests
	if digests == nil {
		digests = []string{}
	}
	return json.Marshal(object{
		"Id": img.id, "RepoTags": img.names(), "RepoDigests": digests, "Parent": "", "Created": img.created.UTC().Format(time.RFC3339Nano),
		"Architecture": "amd64", "Os": "linux", "Size": img.config.Size, "VirtualSize": img.config.Size, "Config": config,
		"GraphDriver": object{"Name": "memory", "Data": nil}, "RootFS": object{"Type": "layers", "Layers": []string{}},
	})
}
