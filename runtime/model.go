package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// The names of runtimes that a [Container] may run under.
const (
	Runc = "runc" // an ordinary container: its root is visible on the host
	Rund = "rund" // a sandboxed one, whose root is not
)

// A ContainerEngineFeature is something that not every engine can do.
type ContainerEngineFeature uint8

// ContainerEngineFeatureCopy is copying files without a running shell in the container.
const ContainerEngineFeatureCopy ContainerEngineFeature = 2

// The states of what is installed in a container, [Container.Hacked]. Drover installs nothing, so all its containers
// are HackSkipped; the names are there for programs that share the model.
const (
	HackInit = iota
	HackIng
	HackOk
	HackSkipped
	HackRetryError
)

// DefaultSampleOutputLength is how many bytes of each stream [ExecResult.SampleOutput] gives.
const DefaultSampleOutputLength = 1024

// Errors of look-ups in the model.
var (
	ErrMultiBiz        = errors.New("multi biz containers")
	ErrNoBiz           = errors.New("no biz container")
	ErrNoSuchContainer = fmt.Errorf("no such container: %w", ErrNotFound)
)

// NoPodError says that a pod is not known on this node. It is ErrNotFound.
func NoPodError(namespace, pod string) error {
	return &Error{Kind: ErrNotFound, Message: fmt.Sprintf("no pod ns=[%s] pod=[%s]", namespace, pod)}
}

// A ContainerRole is what a container is for in its pod.
type ContainerRole string

// The roles.
const (
	ContainerRoleBiz     ContainerRole = "biz"     // what the pod is there for
	ContainerRoleSidecar ContainerRole = "sidecar" // helps the biz containers
	ContainerRoleSandbox ContainerRole = "sandbox" // holds the pod's namespaces
)

// AlpineStatus tells whether a container is an Alpine system.
type AlpineStatus uint8

// The states of [AlpineStatus].
const (
	AlpineStatusUnknown AlpineStatus = iota
	AlpineStatusYes
	AlpineStatusNo
)

// MarshalText gives yes, no or unknown.
func (s AlpineStatus) MarshalText() ([]byte, error) {
	switch s {
	case AlpineStatusYes:
		return []byte("yes"), nil
	case AlpineStatusNo:
		return []byte("no"), nil
	default:
		return []byte("unknown"), nil
	}
}

// NsEnterType names a way of entering a namespace. No values are defined.
type NsEnterType uint8

// A MountPoint is a directory or file of the host inside a container.
type MountPoint struct {
	Source      string // on the host, below the prefix where the host's root is mounted
	Destination string // in the container, absolute
	RW          bool
}

// SortMountPointsByLongSourceFirst sorts in place, longest Source first; equal ones keep their order. Finding the
// mount of a path needs the longest Destination instead, which [TransferToHostPathForContainer] looks for itself.
func SortMountPointsByLongSourceFirst(mounts []*MountPoint) {
	slices.SortStableFunc(mounts, func(a, b *MountPoint) int { return cmp.Compare(len(b.Source), len(a.Source)) })
}

// TzInfo is the time zone of a container.
type TzInfo struct {
	Name         string         // IANA name, "UTC", or "UNKNOWN" for a file that no name belongs to
	TzObj        *time.Location `json:"-"`
	Zone         string         // abbreviation, "CST"
	Offset       int            // seconds east of UTC
	EtcLocaltime string         // what /etc/localtime points to, if it is a link
	EnvTz        string         // the TZ variable of the container
}

// ContainerState is whether a container runs.
type ContainerState struct {
	Pid    int    // of its first process, on the host; 0 when it does not run
	Status string // "running", "exited" ...
}

// IsRunning tells whether the status is "running".
func (s *ContainerState) IsRunning() bool { return s.Status == "running" }

// A Container is one container of a pod, as of one moment. A published Container does not change: what changes is
// replaced by a new one.
type Container struct {
	Id               string //nolint:revive // the name of the shared model
	ContainerName    string // of the engine
	Runtime          string // Runc, Rund, or another one's name
	Engine           string // type of the engine that runs it
	Role             ContainerRole
	K8sContainerName string // in the pod; "POD" for a sandbox without one
	Namespace        string
	PodName          string
	PodUID           string
	SandboxID        string
	Image            string
	Labels           map[string]string
	Env              map[string]string
	Mounts           []*MountPoint
	MergedDir        string // root of the container on the host, below HostFS; "" if unknown
	HostFS           string // where the host's root is mounted for this process; "" is its own
	LogPath          string // below HostFS
	NetworkMode      string
	PidMode          string
	Hostname         string
	State            ContainerState
	RestartCount     int
	Created          time.Time
	Tz               TzInfo
	Alpine           AlpineStatus
	Pid1Name         string
	// Pid1CanRecycleZombieProcesses tells whether the first process reaps the children that others leave.
	Pid1CanRecycleZombieProcesses bool
	ZombieCount                   int // children of the first process that nobody reaped; -1: unknown
	Hacked                        int
	Init                          bool // an init container
	Ephemeral                     bool
	Attributes                    map[string]any
	Pod                           *Pod `json:"-"`
}

// IsRunning tells whether the container has a process and says so.
func (c *Container) IsRunning() bool { return c.State.Pid > 0 && c.State.IsRunning() }

// ShortID returns the first 12 characters of the id.
func (c *Container) ShortID() string { return ShortContainerId(c.Id) }

// GetTz returns the time zone, nil if it is unknown.
func (c *Container) GetTz() *time.Location { return c.Tz.TzObj }

// GetTzName returns the name of the time zone.
func (c *Container) GetTzName() string { return c.Tz.Name }

// IsBiz tells whether the pod is there for this container.
func (c *Container) IsBiz() bool { return c.Role == ContainerRoleBiz }

// IsSidecar tells whether the container helps others.
func (c *Container) IsSidecar() bool { return c.Role == ContainerRoleSidecar }

// IsSandbox tells whether the container only holds the pod's namespaces.
func (c *Container) IsSandbox() bool { return c.Role == ContainerRoleSandbox }

// ShortContainerId returns the first 12 bytes of an id.
func ShortContainerId(cid string) string { //nolint:revive // the name of the shared model
	return cid[:min(len(cid), 12)]
}

// A Pod is a pod of this node and its containers, as of one moment. A published Pod does not change.
type Pod struct {
	Namespace   string
	Name        string
	UID         string
	NodeName    string
	Phase       string // Pending, Running, Succeeded, Failed, Unknown
	PodIP       string
	HostIPAddr  string
	Hostname    string
	Labels      map[string]string
	Annotations map[string]string
	Created     time.Time
	Sources     []string // what told of it: labels, kubelet, apiserver, rm

	All     []*Container `json:"-"`
	Biz     []*Container `json:"biz"`
	Sidecar []*Container `json:"sidecar"`
	Sandbox *Container
}

// MainBiz returns the only biz container, nil if there is none or more than one.
func (p *Pod) MainBiz() *Container {
	c, err := p.MainBizE()
	if err != nil {
		return nil
	}
	return c
}

// MainBizE returns the only biz container, ErrNoBiz or ErrMultiBiz.
func (p *Pod) MainBizE() (*Container, error) {
	switch len(p.Biz) {
	case 0:
		return nil, ErrNoBiz
	case 1:
		return p.Biz[0], nil
	default:
		return nil, ErrMultiBiz
	}
}

// IP returns the address of the pod.
func (p *Pod) IP() string { return p.PodIP }

// HostIP returns the address of the node.
func (p *Pod) HostIP() string { return p.HostIPAddr }

// IsRunning tells whether the pod is in the phase Running.
func (p *Pod) IsRunning() bool { return p.Phase == "Running" }

// GetContainer returns the container of a name in the pod, or ErrNoSuchContainer. A running one goes before an ended
// one of the same name, a later one before an earlier.
func (p *Pod) GetContainer(name string) (*Container, error) {
	var found *Container
	for _, c := range p.All {
		if c.K8sContainerName != name {
			continue
		}
		better := found == nil || c.IsRunning() && !found.IsRunning() ||
			c.IsRunning() == found.IsRunning() && c.Created.After(found.Created)
		if better {
			found = c
		}
	}
	if found == nil {
		return nil, ErrNoSuchContainer
	}
	return found, nil
}

// LocalAgentMeta is where this agent itself runs, from the downward API.
type LocalAgentMeta struct {
	Namespace string
	PodName   string
	PodIP     string
	NodeName  string
	NodeIP    string
}

// IsLocalPod tells whether a pod is on this node.
func (m LocalAgentMeta) IsLocalPod(p *Pod) bool {
	return p != nil && (p.NodeName == "" || p.NodeName == m.NodeName)
}

// A MetaStore knows the pods of this node. Reads never block on a refresh: they see the last complete state.
type MetaStore interface {
	// Start begins to follow the sources and blocks until the first complete state is there or ctx ends.
	Start(ctx context.Context) error
	// Stop ends what Start began and waits for it.
	Stop()
	// GetAllPods returns all pods, sorted by namespace and name.
	GetAllPods() []*Pod
	// GetPod finds a pod by namespace and name; NoPodError otherwise. Of several with the name, as while one is
	// replaced by another, it is the one that was made last.
	GetPod(namespace, name string) (*Pod, error)
	// GetPodBySandboxId finds the pod that a sandbox holds.
	GetPodBySandboxId(sandboxID string) (*Pod, error) //nolint:revive // the name of the shared model
	// GetContainerByCid finds a container by its full id or an unambiguous prefix.
	GetContainerByCid(cid string) (*Container, error)
	// LocalAgentMeta tells where this agent itself is.
	LocalAgentMeta() LocalAgentMeta
	// AddListener makes l hear of changes; RemoveListener ends it.
	AddListener(l MetaListener)
	RemoveListener(l MetaListener)
}

// A MetaListener hears of changes: pods and containers that appeared, changed or vanished. Calls come one after
// another from a goroutine of the store, never under a lock of it; several changes may be told in one call.
type MetaListener interface {
	OnAnyPodChanged()
}

// An Interface is a node's containers: who they are, and what can be done in them.
type Interface interface {
	MetaStore
	Exec(ctx context.Context, c *Container, req ExecRequest) (ExecResult, error)
	ExecAsync(ctx context.Context, c *Container, req ExecRequest) (ExecAsyncResult, error)
	CopyToContainer(ctx context.Context, c *Container, srcPath, dstPath string) error
	CopyFromContainer(ctx context.Context, c *Container, srcPath, dstPath string) error
}

// A ContainerEngine is an engine as the pod model uses it.
type ContainerEngine interface {
	// Init connects; it may be called again after an error.
	Init(ctx context.Context) error
	// Type names the engine.
	Type() string
	// ListAllContainers lists all containers, running or not.
	ListAllContainers(ctx context.Context) ([]*EngineSimpleContainer, error)
	// GetContainerDetail tells all that the engine knows of a container; ErrNotFound if it is gone.
	GetContainerDetail(ctx context.Context, cid string) (*EngineDetailContainer, error)
	// Exec runs a process and waits for its end. A code other than 0 is no error. When ctx ends, so does the process.
	Exec(ctx context.Context, c *Container, req ExecRequest) (ExecResult, error)
	// ExecAsync starts a process; see [ExecAsyncResult].
	ExecAsync(ctx context.Context, c *Container, req ExecRequest) (ExecAsyncResult, error)
	// CopyToContainer copies a file of this process's file system into a container.
	CopyToContainer(ctx context.Context, c *Container, srcPath, dstPath string) error
	// CopyFromContainer copies a file of a container to this process's file system.
	CopyFromContainer(ctx context.Context, c *Container, srcPath, dstPath string) error
	// Supports tells whether the engine can do something that not all can.
	Supports(feature ContainerEngineFeature) bool
}

// An EngineSimpleContainer is one row of an engine's list.
type EngineSimpleContainer struct {
	ID      string
	Labels  map[string]string
	Running bool
	Source  any // the engine's own row
}

// An EngineDetailContainer is what an engine knows of one container.
type EngineDetailContainer struct {
	ID           string
	Name         string
	Runtime      string
	Image        string
	IsSandbox    bool
	SandboxID    string
	Labels       map[string]string
	Env          []string
	Hostname     string
	Mounts       []*MountPoint // as the engine says, without a prefix
	MergedDir    string        // without a prefix
	LogPath      string        // without a prefix
	NetworkMode  string
	PidMode      string
	State        ContainerState
	RestartCount int
	Created      time.Time
}

// An ExecRequest is a process to run in a container.
type ExecRequest struct {
	Cmd        []string  `json:"cmd"`
	Env        []string  `json:"env"` // "K=V", added to the container's own
	WorkingDir string    `json:"workingDir"`
	User       string    `json:"user,omitempty"` // "" is the container's own
	Input      io.Reader `json:"-"`
	// MaxOutput bounds what is kept of each stream in an [ExecResult], in bytes; 0 is 1 MiB.
	MaxOutput int `json:"maxOutput,omitempty"`
}
