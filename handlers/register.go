package handlers

import (
	"net/http"
	"net/url"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/runtime"
)

// The events that Register wires.
const (
	EventInstanceActivate   = "compute.instance.activate"
	EventInstanceDeactivate = "compute.instance.deactivate"
	EventInstanceForceStop  = "compute.instance.force.stop"
	EventInstanceInspect    = "compute.instance.inspect"
	EventInstancePull       = "compute.instance.pull"
	EventInstanceRemove     = "compute.instance.remove"
	EventImageActivate      = "storage.image.activate"
	EventVolumeActivate     = "storage.volume.activate"
	EventVolumeRemove       = "storage.volume.remove"
	EventConfigUpdate       = "config.update"
)

// An Engine is what the handlers need. [runtime.Volumes], [runtime.Builder] and [runtime.Infoer] are used where the
// engine has them, and answered with [runtime.ErrUnsupported] or done without where it has not.
type Engine interface {
	runtime.Containers
	runtime.Images
}

// A Router takes handlers by event name; [events.Router] is one.
type Router interface {
	Handle(name string, h events.Handler)
}

// An Index finds containers without asking the engine; [runtime.Cache] is one. What it says is verified before it is
// acted on, and what it does not know is asked of the engine.
type Index interface {
	ByLabel(label, value string) []runtime.ContainerSummary
	ByName(name string) (runtime.ContainerSummary, bool)
	Snapshot() []runtime.ContainerSummary
}

// Options configures the handlers. The zero value works; each field says what it then means.
type Options struct {
	// Log gets what no reply can tell; nil discards it.
	Log logrus.FieldLogger
	// Containers finds containers without a list call; nil asks the engine each time. Index label
	// [LabelUUID] in it.
	Containers Index
	// Self names the agent's own container, by name or id. It and "rancher-agent" are never stopped or removed.
	Self []string
	// HostIP is reported as dockerHostIp.
	HostIP string
	// ConfigURL is handed to agent instances as CATTLE_CONFIG_URL and CATTLE_URL.
	ConfigURL string
	// ProxyEnv is set in system containers, as "K=V", over what they ask for.
	ProxyEnv []string
	// DockerRoot is the engine's root directory on the host; "" asks the engine.
	DockerRoot string
	// CNIDir holds the results of Rancher's network plugins, <container id>/<started at>; default
	// "/var/lib/rancher/state/cni".
	CNIDir string
	// Proc is the host's /proc, where addresses of CNI containers are read; default "/proc".
	Proc string
	// ResolvConf is the host's resolver configuration; default "/etc/resolv.conf".
	ResolvConf string
	// VolumePlugins is the folder of Rancher's volume plugin sockets; default "/var/run/rancher/storage".
	VolumePlugins string
	// DefaultDisk returns the device that "DEFAULT_DISK" means in blkioDeviceOptions, "" if unknown; may be nil.
	DefaultDisk func() string
	// KeepAnonymousVolumes leaves the anonymous volumes of removed containers behind, as Rancher's agent did.
	KeepAnonymousVolumes bool
	// PullInactivity is the longest wait for any progress of a pull; default 5 minutes.
	PullInactivity time.Duration
	// IPWait is how long to wait for the address of a CNI container; default 30 s.
	IPWait time.Duration
	// ImageRoots are the folders of the host whose files image.import, image.build and image.load may read; none: they
	// are refused.
	ImageRoots []string
	// ExportRoots are the folders of the host that image.save may make files in; none: it is refused.
	ExportRoots []string
	// MaxImport bounds the root file system that image.import takes, in bytes without compression; default 64 GiB.
	MaxImport int64
	// TempDir takes an image while it is pushed through the agent; "" is the system's.
	TempDir string
	// RegistryProxy tells the proxy on the way to a registry; nil is none.
	RegistryProxy func(*http.Request) (*url.URL, error)
	// Config is the script that config.update runs.
	Config ConfigScript
}

// A ConfigScript is run for config.update, one run at a time, with the items' names as arguments.
type ConfigScript struct {
	Path      string        // "" or a missing file: nothing is run
	Home      string        // working directory, and CATTLE_HOME of the script
	AccessKey string        // given to the script in its environment
	SecretKey string        // likewise
	Env       []string      // the rest of its environment, "K=V"
	SkipItems []string      // names that are left out
	Timeout   time.Duration // of one run; default 5 minutes
}

// Register wires every event of this package to r. It does no I/O.
func Register(r Router, e Engine, opts Options) {
	h := newHandlers(e, opts)
	r.Handle(EventInstanceActivate, events.HandlerFunc(h.activate))
	r.Handle(EventInstanceDeactivate, events.HandlerFunc(h.deactivate))
	r.Handle(EventInstanceForceStop, events.HandlerFunc(h.forceStop))
	r.Handle(EventInstanceInspect, events.HandlerFunc(h.inspect))
	r.Handle(EventInstancePull, events.HandlerFunc(h.pull))
	r.Handle(EventInstanceRemove, events.HandlerFunc(h.remove))
	r.Handle(EventImageActivate, events.HandlerFunc(h.imageActivate))
	r.Handle(EventVolumeActivate, events.HandlerFunc(h.volumeActivate))
	r.Handle(EventVolumeRemove, events.HandlerFunc(h.volumeRemove))
	r.Handle(EventConfigUpdate, events.HandlerFunc(h.configUpdate))
	registerImages(r, h)
}
