package cri

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// namespace is that of pods of one.
const namespace = "drover"

// possible refuses what CRI has no field for, rather than to make something else than was asked for.
func possible(spec *runtime.ContainerSpec) error {
	if spec.Name != "" && !validName().MatchString(spec.Name) {
		return invalid("%.80q is no container name", spec.Name)
	}
	if err := validImage(spec.Image); err != nil {
		return err
	}
	r := &spec.Resources
	for _, x := range []struct {
		what  string
		asked bool
	}{
		{"volumes of another container", len(spec.VolumesFrom) > 0},
		{"anonymous volumes", len(spec.Volumes) > 0},
		{"tmpfs mounts", len(spec.Tmpfs) > 0},
		{"links", len(spec.Links) > 0},
		{"extra hosts", len(spec.ExtraHosts) > 0},
		{"the network mode " + spec.NetworkMode, !networkModes[spec.NetworkMode]},
		{"a network that is off", spec.NetworkDisabled},
		{"a MAC address", spec.MacAddress != ""},
		{"published ports without a number", spec.PublishAll},
		{"a restart policy", spec.RestartPolicy.Name != "" && spec.RestartPolicy.Name != "no"},
		{"removal at its end", spec.AutoRemove},
		{"a health check", spec.Healthcheck != nil},
		{"an init process", spec.Init != nil && *spec.Init},
		{"storage options", len(spec.StorageOpt) > 0},
		{"a disk quota", r.DiskQuota > 0},
		{"the log driver " + spec.LogDriver, spec.LogDriver != "" && spec.LogDriver != "cri"},
		{"security options", len(spec.SecurityOpt) > 0},
		{"the process namespace " + spec.PidMode, spec.PidMode != "" && spec.PidMode != "host"},
		{"the IPC namespace " + spec.IpcMode, spec.IpcMode != "" && spec.IpcMode != "host" && spec.IpcMode != "private"},
		{"the user namespace " + spec.UsernsMode, spec.UsernsMode != "" && spec.UsernsMode != "host"},
		{"limits of a user (ulimits)", len(r.Ulimits) > 0},
		{"a limit of processes", r.PidsLimit != nil && *r.PidsLimit > 0},
	} {
		if x.asked {
			return unsupported("a CRI runtime cannot give a container %s", x.what)
		}
	}
	for _, bind := range spec.Binds {
		if parts := strings.SplitN(bind, ":", 3); len(parts) < 2 || !path.IsAbs(parts[1]) {
			return invalid("%.80q is no mount: want source:destination[:mode]", bind)
		} else if !path.IsAbs(parts[0]) {
			return unsupported("a CRI runtime cannot give a container the volume %.80s: it mounts paths of the host alone", parts[0])
		}
	}
	for _, group := range spec.GroupAdd {
		if _, err := strconv.ParseInt(group, 10, 64); err != nil {
			return unsupported("a CRI runtime adds a container to groups by number alone, not to %.80s", group)
		}
	}
	return nil
}

var networkModes = map[string]bool{"": true, "default": true, "bridge": true, "host": true}

func invalid(format string, args ...any) error {
	return &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf(format, args...)}
}

// ignored names what is less than was asked for, and harmless.
func ignored(spec *runtime.ContainerSpec) []string {
	r := &spec.Resources
	var out []string
	for _, x := range []struct {
		what  string
		asked bool
	}{
		{"memory reservation", r.MemoryReservation > 0},
		{"swappiness", r.MemorySwappiness != nil && *r.MemorySwappiness >= 0},
		{"kernel memory", r.KernelMemory > 0},
		{"size of /dev/shm", r.ShmSize > 0},
		{"block I/O weight", r.BlkioWeight > 0 || len(r.BlkioDevices) > 0},
		{"real-time scheduling", r.CPURealtimePeriod > 0 || r.CPURealtimeRuntime > 0},
		{"switching off of the OOM killer", r.OomKillDisable != nil && *r.OomKillDisable},
		{"domain name", spec.Domainname != ""},
	} {
		if x.asked {
			out = append(out, "the "+x.what+" is left out: CRI has no field for it")
		}
	}
	return out
}

// validName is docker's rule, within the length of a file name that is made of it.
var validName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
})

func (e *Engine) sandboxConfig(spec *runtime.ContainerSpec, name, uid string) *criv1.PodSandboxConfig {
	cfg := &criv1.PodSandboxConfig{
		Metadata: &criv1.PodSandboxMetadata{Name: name, Uid: uid, Namespace: namespace},
		Hostname: spec.Hostname, LogDirectory: path.Join(e.cfg.LogDir, namespace+"_"+name+"_"+uid),
		Labels: map[string]string{labelStandalone: name, labelSandbox: uid},
		Linux: &criv1.LinuxPodSandboxConfig{
			CgroupParent: e.cfg.CgroupParent, Sysctls: spec.Sysctls,
			SecurityContext: &criv1.LinuxSandboxSecurityContext{NamespaceOptions: namespaces(spec), Privileged: spec.Privileged},
		},
	}
	if spec.CgroupParent != "" {
		cfg.Linux.CgroupParent = spec.CgroupParent
	}
	if len(spec.DNS)+len(spec.DNSSearch)+len(spec.DNSOptions) > 0 {
		cfg.DnsConfig = &criv1.DNSConfig{Servers: spec.DNS, Searches: spec.DNSSearch, Options: spec.DNSOptions}
	}
	for _, p := range spec.PortBindings {
		cfg.PortMappings = append(cfg.PortMappings, &criv1.PortMapping{
			Protocol:      criv1.Protocol(criv1.Protocol_value[strings.ToUpper(p.Protocol)]),
			ContainerPort: int32(p.PrivatePort), HostPort: int32(p.PublicPort), HostIp: p.IP,
		})
	}
	return cfg
}

func namespaces(spec *runtime.ContainerSpec) *criv1.NamespaceOption {
	mode := func(host bool) criv1.NamespaceMode {
		if host {
			return criv1.NamespaceMode_NODE
		}
		return criv1.NamespaceMode_POD
	}
	pid := criv1.NamespaceMode_CONTAINER
	if spec.PidMode == "host" {
		pid = criv1.NamespaceMode_NODE
	}
	return &criv1.NamespaceOption{Network: mode(spec.NetworkMode == "host"), Ipc: mode(spec.IpcMode == "host"), Pid: pid}
}

func containerConfig(spec *runtime.ContainerSpec, name string) *criv1.ContainerConfig {
	labels := map[string]string{}
	maps.Copy(labels, spec.Labels)
	labels[labelStandalone] = name
	notes := map[string]string{annotationCommand: strings.Join(append(append([]string{}, spec.Entrypoint...), spec.Cmd...), " ")}
	if spec.StopTimeout != nil {
		notes[annotationStop] = strconv.Itoa(*spec.StopTimeout)
	}
	cfg := &criv1.ContainerConfig{
		Metadata: &criv1.ContainerMetadata{Name: name}, Image: &criv1.ImageSpec{Image: spec.Image, UserSpecifiedImage: spec.Image},
		Command: spec.Entrypoint, Args: spec.Cmd, WorkingDir: spec.WorkingDir, Labels: labels, Annotations: notes, LogPath: "0.log",
		Stdin: spec.OpenStdin, StdinOnce: spec.StdinOnce, Tty: spec.TTY,
		Linux: &criv1.LinuxContainerConfig{SecurityContext: security(spec), Resources: resources(&spec.Resources)},
	}
	if n, ok := criv1.Signal_value[strings.ToUpper(spec.StopSignal)]; ok {
		cfg.StopSignal = criv1.Signal(n)
	}
	for _, env := range spec.Env {
		k, v, _ := strings.Cut(env, "=")
		cfg.Envs = append(cfg.Envs, &criv1.KeyValue{Key: k, Value: []byte(v)})
	}
	for _, bind := range spec.Binds {
		cfg.Mounts = append(cfg.Mounts, mount(strings.SplitN(bind, ":", 3)))
	}
	for _, d := range spec.Devices {
		cfg.Devices = append(cfg.Devices, &criv1.Device{HostPath: d.Host, ContainerPath: d.Container, Permissions: d.Permissions})
	}
	return cfg
}

func mount(parts []string) *criv1.Mount {
	m := &criv1.Mount{HostPath: parts[0], ContainerPath: parts[1]}
	if len(parts) < 3 {
		return m
	}
	for opt := range strings.SplitSeq(parts[2], ",") {
		switch opt {
		case "ro":
			m.Readonly = true
		case "z", "Z":
			m.SelinuxRelabel = true
		case "rshared", "shared":
			m.Propagation = criv1.MountPropagation_PROPAGATION_BIDIRECTIONAL
		case "rslave", "slave":
			m.Propagation = criv1.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		}
	}
	return m
}

func security(spec *runtime.ContainerSpec) *criv1.LinuxContainerSecurityContext {
	out := &criv1.LinuxContainerSecurityContext{
		Privileged: spec.Privileged, ReadonlyRootfs: spec.ReadOnlyRootFS, NamespaceOptions: namespaces(spec),
		Capabilities: &criv1.Capability{AddCapabilities: spec.CapAdd, DropCapabilities: spec.CapDrop},
	}
	user, group, _ := strings.Cut(spec.User, ":")
	if n, err := strconv.ParseInt(user, 10, 64); err == nil {
		out.RunAsUser = &criv1.Int64Value{Value: n}
	} else {
		out.RunAsUsername = user
	}
	if n, err := strconv.ParseInt(group, 10, 64); err == nil && user != "" {
		out.RunAsGroup = &criv1.Int64Value{Value: n}
	}
	for _, g := range spec.GroupAdd {
		if n, err := strconv.ParseInt(g, 10, 64); err == nil {
			out.SupplementalGroups = append(out.SupplementalGroups, n)
		}
	}
	return out
}

func resources(r *runtime.Resources) *criv1.LinuxContainerResources {
	out := &criv1.LinuxContainerResources{
		CpuPeriod: r.CPUPeriod, CpuQuota: r.CPUQuota, CpuShares: r.CPUShares, MemoryLimitInBytes: r.Memory, OomScoreAdj: int64(r.OomScoreAdj),
		CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems, MemorySwapLimitInBytes: r.MemorySwap,
	}
	if r.NanoCPUs > 0 {
		out.CpuPeriod, out.CpuQuota = 100_000, r.NanoCPUs/10_000
	}
	return out
}
