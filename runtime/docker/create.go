package docker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/blkiodev"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"

	"github.com/droverhq/drover/runtime"
)

// A creation is the body of a create call.
type creation struct {
	config  *container.Config
	host    *container.HostConfig
	network *network.NetworkingConfig
}

// createRequest maps a spec. What is unset in it is unset in the request. The warnings tell what this API version
// cannot say.
func createRequest(op string, spec *runtime.ContainerSpec, version string) (creation, []string, error) {
	exposed, bindings, err := ports(op, spec)
	if err != nil {
		return creation{}, nil, err
	}
	req := creation{
		config: &container.Config{
			Hostname:        spec.Hostname,
			Domainname:      spec.Domainname,
			User:            spec.User,
			ExposedPorts:    exposed,
			Tty:             spec.TTY,
			OpenStdin:       spec.OpenStdin,
			StdinOnce:       spec.StdinOnce,
			Env:             spec.Env,
			Cmd:             spec.Cmd,
			Image:           spec.Image,
			Volumes:         spec.Volumes,
			WorkingDir:      spec.WorkingDir,
			Entrypoint:      spec.Entrypoint,
			NetworkDisabled: spec.NetworkDisabled,
			Labels:          spec.Labels,
			StopSignal:      spec.StopSignal,
			StopTimeout:     spec.StopTimeout,
		},
		host: &container.HostConfig{
			Binds:           spec.Binds,
			LogConfig:       container.LogConfig{Type: spec.LogDriver, Config: spec.LogOptions},
			NetworkMode:     container.NetworkMode(spec.NetworkMode),
			PortBindings:    bindings,
			RestartPolicy:   container.RestartPolicy{Name: container.RestartPolicyMode(spec.RestartPolicy.Name), MaximumRetryCount: spec.RestartPolicy.MaxRetries},
			AutoRemove:      spec.AutoRemove,
			VolumesFrom:     spec.VolumesFrom,
			CapAdd:          spec.CapAdd,
			CapDrop:         spec.CapDrop,
			DNS:             spec.DNS,
			DNSOptions:      spec.DNSOptions,
			DNSSearch:       spec.DNSSearch,
			ExtraHosts:      spec.ExtraHosts,
			GroupAdd:        spec.GroupAdd,
			IpcMode:         container.IpcMode(spec.IpcMode),
			Cgroup:          container.CgroupSpec(spec.Cgroup),
			Links:           spec.Links,
			OomScoreAdj:     spec.Resources.OomScoreAdj,
			PidMode:         container.PidMode(spec.PidMode),
			Privileged:      spec.Privileged,
			PublishAllPorts: spec.PublishAll,
			ReadonlyRootfs:  spec.ReadOnlyRootFS,
			SecurityOpt:     spec.SecurityOpt,
			StorageOpt:      spec.StorageOpt,
			Tmpfs:           spec.Tmpfs,
			UTSMode:         container.UTSMode(spec.UTSMode),
			UsernsMode:      container.UsernsMode(spec.UsernsMode),
			ShmSize:         spec.Resources.ShmSize,
			Sysctls:         spec.Sysctls,
			Runtime:         spec.Runtime,
			Init:            spec.Init,
			Resources:       resources(spec),
		},
	}
	if h := spec.Healthcheck; h != nil {
		req.config.Healthcheck = &container.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, Retries: h.Retries}
	}
	if spec.MacAddress != "" {
		if versions.LessThan(version, "1.44") {
			//lint:ignore SA1019 older daemons know no other place for it
			req.config.MacAddress = spec.MacAddress
		} else { // moved from the container to its network
			req.network = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				cmp.Or(spec.NetworkMode, network.NetworkDefault): {MacAddress: spec.MacAddress},
			}}
		}
	}
	var warnings []string
	if spec.Resources.DiskQuota != 0 {
		warnings = append(warnings, "the daemon has no disk quota of a container; ignored")
	}
	if spec.Resources.KernelMemory != 0 && (versions.GreaterThanOrEqualTo(version, "1.42") || versions.LessThan(version, "1.40")) {
		warnings = append(warnings, "API version "+version+" has no kernel memory limit; ignored")
	}
	return req, warnings, nil
}

func resources(spec *runtime.ContainerSpec) container.Resources {
	r := spec.Resources
	out := container.Resources{
		CPUShares:          r.CPUShares,
		Memory:             r.Memory,
		NanoCPUs:           r.NanoCPUs,
		CgroupParent:       spec.CgroupParent,
		BlkioWeight:        r.BlkioWeight,
		CPUPeriod:          r.CPUPeriod,
		CPUQuota:           r.CPUQuota,
		CPURealtimePeriod:  r.CPURealtimePeriod,
		CPURealtimeRuntime: r.CPURealtimeRuntime,
		CpusetCpus:         r.CpusetCpus,
		CpusetMems:         r.CpusetMems,
		KernelMemory:       r.KernelMemory,
		MemoryReservation:  r.MemoryReservation,
		MemorySwap:         r.MemorySwap,
		MemorySwappiness:   r.MemorySwappiness,
		OomKillDisable:     r.OomKillDisable,
		PidsLimit:          r.PidsLimit,
	}
	for _, d := range spec.Devices {
		out.Devices = append(out.Devices, container.DeviceMapping{
			PathOnHost:        d.Host,
			PathInContainer:   cmp.Or(d.Container, d.Host),
			CgroupPermissions: cmp.Or(d.Permissions, "rwm"),
		})
	}
	for _, u := range r.Ulimits {
		out.Ulimits = append(out.Ulimits, &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	throttle := func(to *[]*blkiodev.ThrottleDevice, path string, rate uint64) {
		if rate != 0 {
			*to = append(*to, &blkiodev.ThrottleDevice{Path: path, Rate: rate})
		}
	}
	for _, d := range r.BlkioDevices {
		if d.Weight != 0 {
			out.BlkioWeightDevice = append(out.BlkioWeightDevice, &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight})
		}
		throttle(&out.BlkioDeviceReadIOps, d.Path, d.ReadIOps)
		throttle(&out.BlkioDeviceWriteIOps, d.Path, d.WriteIOps)
		throttle(&out.BlkioDeviceReadBps, d.Path, d.ReadBps)
		throttle(&out.BlkioDeviceWriteBps, d.Path, d.WriteBps)
	}
	return out
}

// ports maps exposed and published ports. The daemon publishes only what is exposed, so a published port is both.
func ports(op string, spec *runtime.ContainerSpec) (nat.PortSet, nat.PortMap, error) {
	var exposed nat.PortSet
	var bindings nat.PortMap
	add := func(p runtime.Port) (nat.Port, error) {
		proto := cmp.Or(strings.ToLower(p.Protocol), "tcp")
		if p.PrivatePort == 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
			return "", invalid(op, "%d/%s is no port", p.PrivatePort, shorten(p.Protocol))
		}
		if exposed == nil {
			exposed = nat.PortSet{}
		}
		port := nat.Port(fmt.Sprintf("%d/%s", p.PrivatePort, proto))
		exposed[port] = struct{}{}
		return port, nil
	}
	for _, p := range spec.ExposedPorts {
		if _, err := add(p); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range spec.PortBindings {
		port, err := add(p)
		if err != nil {
			return nil, nil, err
		}
		if bindings == nil {
			bindings = nat.PortMap{}
		}
		binding := nat.PortBinding{HostIP: p.IP}
		if p.PublicPort != 0 {
			binding.HostPort = strconv.Itoa(int(p.PublicPort))
		}
		bindings[port] = append(bindings[port], binding)
	}
	return exposed, bindings, nil
}

// parsePorts turns the keys "80/tcp" of a JSON object into ports, sorted.
func parsePorts(keys map[string]struct{}) []runtime.Port {
	var list []runtime.Port
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		number, proto, _ := strings.Cut(key, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			continue
		}
		list = append(list, runtime.Port{PrivatePort: uint16(n), Protocol: cmp.Or(proto, "tcp")})
	}
	return list
}
