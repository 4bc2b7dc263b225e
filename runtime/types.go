package runtime

import (
	"encoding/json"
	"io"
	"os"
	"time"
)

// Info describes an engine and its host as the engine sees it. Unknown values are zero.
type Info struct {
	ID                string
	Name              string // hostname
	Version           string // of the engine, as "20.10.24"
	BuildID           string // commit of the engine
	APIVersion        string
	OperatingSystem   string
	OSType            string // "linux"
	Architecture      string
	KernelVersion     string
	StorageDriver     string
	StorageStatus     [][2]string
	RootDir           string // of the engine, on the host
	LoggingDriver     string
	CgroupVersion     string // "1" or "2"
	CPUs              int
	MemoryBytes       int64
	Labels            []string
	Containers        int
	ContainersRunning int
}

// A ContainerSummary is one row of a list.
type ContainerSummary struct {
	ID      string
	Names   []string // without the leading "/"
	Image   string   // as the container was created with
	ImageID string
	Command string
	Created time.Time
	State   string // created, running, paused, restarting, removing, exited, dead
	Status  string // as the engine words it: "Up 3 minutes"
	Labels  map[string]string
	Ports   []Port
	Raw     json.RawMessage // the engine's own JSON of this row; only with ListOptions.Raw
}

// A Port is a port of a container and where it is published.
type Port struct {
	IP          string
	PrivatePort uint16
	PublicPort  uint16 // 0: not published
	Protocol    string // tcp, udp, sctp
}

// A ContainerStatus is what callers need to decide on.
type ContainerStatus struct {
	ID         string
	Name       string // without the leading "/"
	Image      string
	Running    bool
	Paused     bool
	Status     string // created, running, paused, restarting, removing, exited, dead
	Pid        int    // on the host; 0 when it does not run
	ExitCode   int
	StartedAt  time.Time
	FinishedAt time.Time
	TTY        bool
	OpenStdin  bool
	Labels     map[string]string
	IP         string // first network's IPv4
	LogPath    string // file of the log on the host, "" if there is none
	LogDriver  string
	RootFS     string // merged root on the host, "" if unknown
}

// A ContainerSpec is what Create makes. Zero values leave the choice to the engine; pointers tell unset from zero.
type ContainerSpec struct {
	Name       string
	Image      string
	Cmd        []string
	Entrypoint []string
	Env        []string // "K=V"
	Labels     map[string]string
	Hostname   string
	Domainname string
	User       string
	WorkingDir string
	MacAddress string
	TTY        bool
	OpenStdin  bool
	StdinOnce  bool

	StopSignal      string
	StopTimeout     *int // seconds
	NetworkDisabled bool
	Healthcheck     *Healthcheck

	ExposedPorts []Port // PublicPort and IP unused
	PortBindings []Port // PublicPort 0: the engine chooses
	PublishAll   bool
	NetworkMode  string // "", "bridge", "host", "none", "container:<id>" or a network's name

	Binds       []string            // "src:dst[:mode]"
	Volumes     map[string]struct{} // anonymous ones, by destination
	VolumesFrom []string
	Tmpfs       map[string]string
	Links       []string

	Privileged     bool
	ReadOnlyRootFS bool
	CapAdd         []string
	CapDrop        []string
	SecurityOpt    []string
	GroupAdd       []string
	Devices        []Device
	Sysctls        map[string]string
	StorageOpt     map[string]string

	DNS        []string
	DNSSearch  []string
	DNSOptions []string
	ExtraHosts []string

	PidMode      string
	IpcMode      string
	UTSMode      string
	UsernsMode   string
	Cgroup       string
	CgroupParent string
	Runtime      string
	Init         *bool

	LogDriver     string
	LogOptions    map[string]string
	RestartPolicy RestartPolicy
	AutoRemove    bool

	Resources Resources
}

// Resources are the limits of a container. Sizes are bytes.
type Resources struct {
	CPUShares          int64
	NanoCPUs           int64
	CPUPeriod          int64 // microseconds
	CPUQuota           int64 // microseconds
	CPURealtimePeriod  int64 // microseconds
	CPURealtimeRuntime int64 // microseconds
	CpusetCpus         string
	CpusetMems         string
	Memory             int64
	MemoryReservation  int64
	MemorySwap         int64 // -1: unlimited
	MemorySwappiness   *int64
	KernelMemory       int64
	ShmSize            int64
	DiskQuota          int64
	PidsLimit          *int64
	OomKillDisable     *bool
	OomScoreAdj        int
	Ulimits            []Ulimit
	BlkioWeight        uint16
	BlkioDevices       []BlkioDevice
}

// A BlkioDevice limits the use of one block device; zero values are not set.
type BlkioDevice struct {
	Path      string
	Weight    uint16
	ReadIOps  uint64
	WriteIOps uint64
	ReadBps   uint64
	WriteBps  uint64
}

// A Ulimit is one resource limit of a process.
type Ulimit struct {
	Name string
	Soft int64
	Hard int64
}

// A Device of the host inside a container.
type Device struct {
	Host        string
	Container   string
	Permissions string // of "rwm"
}

// A Healthcheck is run by the engine. Test is the engine's form: {"CMD", args...}, {"CMD-SHELL", line} or {"NONE"}.
type Healthcheck struct {
	Test     []string
	Interval time.Duration
	Timeout  time.Duration
	Retries  int
}

// A RestartPolicy is "", "no", "always", "unless-stopped" or "on-failure" with a retry limit (0: none).
type RestartPolicy struct {
	Name       string
	MaxRetries int
}

// An ImageConfig is what an image says about its containers.
type ImageConfig struct {
	ID           string
	RepoTags     []string
	RepoDigests  []string
	Entrypoint   []string
	Cmd          []string
	Env          []string
	ExposedPorts []Port
	Size         int64
}

// An ImageSummary is one row of an image list.
type ImageSummary struct {
	ID       string
	RepoTags []string
	Created  time.Time
	Size     int64 // bytes
	InUse    int   // containers that use it, -1 if unknown
}

// A PullRequest names an image and how to get it.
type PullRequest struct {
	Ref        string
	Auth       *RegistryAuth
	Platform   string        // "linux/arm64"; "" is the host's
	Inactivity time.Duration // longest wait without any progress; 0 is 5 minutes
}

// RegistryAuth is a credential of a registry. Its String never shows the secret.
type RegistryAuth struct {
	Username      string
	Password      string
	IdentityToken string
	Email         string
	ServerAddress string
}

// String hides the secrets.
func (a RegistryAuth) String() string { return a.Username + "@" + a.ServerAddress + " [redacted]" }

// GoString hides the secrets.
func (a RegistryAuth) GoString() string { return a.String() }

// PullProgress is one step of a pull, push or build.
type PullProgress struct {
	Layer   string // layer or step id, "" for the whole
	Status  string // "Downloading", "Extracting", "Pull complete" ..., or a line of build output
	Current int64  // bytes
	Total   int64  // bytes, 0 if unknown
}

// A VolumeSpec is what CreateVolume makes.
type VolumeSpec struct {
	Name    string
	Driver  string
	Options map[string]string
	Labels  map[string]string
}

// A Volume of the engine.
type Volume struct {
	Name       string
	Driver     string
	Mountpoint string
	Labels     map[string]string
}

// A Notice is one thing that happened to a container.
type Notice struct {
	ID     string            // of the container
	Name   string            // without the leading "/"
	Action string            // create, start, stop, die, kill, destroy, oom, pause, unpause, rename, exec_start ...
	Image  string            // as the container was created with
	Labels map[string]string // of the container
	Time   time.Time
}

// An ExecSpec is a process to run in a container.
type ExecSpec struct {
	Cmd        []string
	Env        []string // "K=V"
	User       string
	WorkingDir string
	TTY        bool
	Privileged bool
	Size       *TerminalSize // initial console size, with TTY
	Keep       bool          // the process may outlive ctx
	Grace      time.Duration // between SIGHUP and SIGKILL when ctx ends; 0 is 5 s
}

// An AttachSpec says what to attach to.
type AttachSpec struct {
	TTY      bool   // what the caller expects; whether there is a terminal the engine knows
	Logs     bool   // replay the log first
	Attached func() // called once when the streams are connected, before anything is copied; may be nil
}

// Streams are the ends of a process. A nil one is not attached; Out and Err may be the same writer. With a TTY all
// output is on Out. Reading In blocks only the stream itself. A Write that never returns keeps the call from returning:
// the owner of a writer ends it when ctx ends. Resize may be nil; it is closed by its owner.
type Streams struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Resize <-chan TerminalSize
}

// A TerminalSize is in characters.
type TerminalSize struct {
	Width  uint16
	Height uint16
}

// LogOptions narrows Logs. The zero value is everything so far.
type LogOptions struct {
	Stdout, Stderr bool // neither: both
	Follow         bool
	Timestamps     bool // prefix each entry with RFC3339Nano and a space
	Tail           int  // last n entries; 0: all, -1: none
	Since, Until   time.Time
}

// Stats is one sample of a container's use. Counters grow from the container's start.
type Stats struct {
	ID          string
	Time        time.Time
	CPUTotal    uint64 // nanoseconds
	CPUUser     uint64
	CPUSystem   uint64
	PerCPU      []uint64
	Memory      uint64 // bytes, without inactive file cache
	MemoryLimit uint64 // bytes
	Pids        uint64
	ReadBytes   uint64
	WriteBytes  uint64
	Networks    []NetworkStats
}

// NetworkStats are the counters of one interface.
type NetworkStats struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// A FileStat describes a file of a container.
type FileStat struct {
	Name       string
	Size       int64
	Mode       os.FileMode
	Mtime      time.Time
	LinkTarget string
}
