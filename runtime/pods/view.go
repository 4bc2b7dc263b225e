package pods

import (
	"cmp"
	"slices"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A View is a pod as JSON, for programs: its fields are only ever added to. docs/pods.md has them all.
type View struct {
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	UID         string            `json:"uid"`
	Node        string            `json:"node,omitempty"`
	Phase       string            `json:"phase"`
	IP          string            `json:"ip,omitempty"`
	HostIP      string            `json:"hostIp,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Created     *time.Time        `json:"created,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Sources     []string          `json:"sources"`
	Containers  []ContainerView   `json:"containers"`
}

// A ContainerView is a container as JSON. The environment is left out: it holds secrets.
type ContainerView struct {
	ID           string      `json:"id"`
	Name         string      `json:"name"`
	Namespace    string      `json:"namespace"`
	Pod          string      `json:"pod"`
	PodUID       string      `json:"podUid"`
	Role         string      `json:"role"` // biz, sidecar, sandbox
	Kind         string      `json:"kind"` // container, init, ephemeral, sandbox
	Engine       string      `json:"engine"`
	EngineName   string      `json:"engineName,omitempty"`
	Image        string      `json:"image,omitempty"`
	State        string      `json:"state"`
	Running      bool        `json:"running"`
	Pid          int         `json:"pid,omitempty"`
	RestartCount int         `json:"restartCount"`
	Created      *time.Time  `json:"created,omitempty"`
	SandboxID    string      `json:"sandboxId,omitempty"`
	Hostname     string      `json:"hostname,omitempty"`
	NetworkMode  string      `json:"networkMode,omitempty"`
	LogPath      string      `json:"logPath,omitempty"`
	Mounts       []MountView `json:"mounts,omitempty"`
	Timezone     *ZoneView   `json:"timezone,omitempty"`
	Alpine       string      `json:"alpine"` // yes, no, unknown
	Pid1         string      `json:"pid1,omitempty"`
	Zombies      *int        `json:"zombies,omitempty"`
}

// A MountView is one mount as JSON.
type MountView struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	ReadWrite   bool   `json:"readWrite"`
}

// A ZoneView is a time zone as JSON.
type ZoneView struct {
	Name   string `json:"name"`
	Zone   string `json:"zone"`
	Offset int    `json:"offset"` // seconds east of UTC
}

// ViewOf returns a pod as JSON: its sandbox first, then the containers by name and age.
func ViewOf(p *runtime.Pod) View {
	v := View{
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: p.NodeName, Phase: p.Phase, IP: p.PodIP, HostIP: p.HostIPAddr,
		Hostname: p.Hostname, Created: moment(p.Created), Labels: p.Labels, Annotations: p.Annotations,
		Sources: append([]string{}, p.Sources...), Containers: make([]ContainerView, 0, len(p.All)),
	}
	list := slices.Clone(p.All)
	slices.SortStableFunc(list, func(a, b *runtime.Container) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.K8sContainerName, b.K8sContainerName), a.Created.Compare(b.Created))
	})
	for _, c := range list {
		v.Containers = append(v.Containers, ContainerViewOf(c))
	}
	return v
}

func order(c *runtime.Container) int {
	if c.IsSandbox() {
		return 0
	}
	return 1
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// ContainerViewOf returns a container as JSON.
func ContainerViewOf(c *runtime.Container) ContainerView {
	alpine, _ := c.Alpine.MarshalText() // it never fails
	v := ContainerView{
		ID: c.Id, Name: c.K8sContainerName, Namespace: c.Namespace, Pod: c.PodName, PodUID: c.PodUID, Role: string(c.Role), Kind: "container",
		Engine: c.Engine, EngineName: c.ContainerName, Image: c.Image, State: c.State.Status, Running: c.IsRunning(), Pid: c.State.Pid,
		RestartCount: c.RestartCount, Created: moment(c.Created), SandboxID: c.SandboxID, Hostname: c.Hostname, NetworkMode: c.NetworkMode,
		LogPath: c.LogPath, Alpine: string(alpine), Pid1: c.Pid1Name,
	}
	switch {
	case c.IsSandbox():
		v.Kind = "sandbox"
	case c.Init:
		v.Kind = "init"
	case c.Ephemeral:
		v.Kind = "ephemeral"
	}
	for _, m := range c.Mounts {
		v.Mounts = append(v.Mounts, MountView{m.Source, m.Destination, m.RW})
	}
	if c.Tz.TzObj != nil {
		v.Timezone = &ZoneView{c.Tz.Name, c.Tz.Zone, c.Tz.Offset}
	}
	if c.ZombieCount >= 0 {
		zombies := c.ZombieCount
		v.Zombies = &zombies
	}
	return v
}
