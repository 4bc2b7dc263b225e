package hostinfo

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// Config configures a [Collector]; the zero value reads this machine.
type Config struct {
	// Root is where the host's root is mounted; default "/".
	Root string
	// FS is the host's root as a file system; default os.DirFS(Root).
	FS fs.FS
	// Usage returns the use of the file system at path, which has Root in front; default statfs.
	Usage func(path string) (Usage, error)
	// StateDir holds host.key, info.json, read.json and write.json; "" has none of them.
	StateDir string
	// EngineRoot returns the folder where containers live, on the host, or "" if unknown; may be nil.
	EngineRoot func() string
	// Limits says that the limits of the outermost cgroup below Root are the host's own, as in an LXC container that
	// acts as a host. Leave it out when the agent itself runs in a limited container and sees its own.
	Limits bool
	// Metadata reaches the metadata service of the cloud that the host runs in, to write info.json where there is none:
	// see [MetadataTransport]. nil asks nobody.
	Metadata http.RoundTripper
	// Interval is the time between two samples; default 10 s.
	Interval time.Duration
	// Log gets each collector's error, once until it changes; nil discards.
	Log logrus.FieldLogger
}

// A Sample is what was known at one time. It is shared: do not write to it. Nil and zero mean unknown.
type Sample struct {
	Time   time.Time
	CPU    *CPU
	Load   []string // 1, 5 and 15 minutes, as the kernel writes them
	Memory *Memory
	Disk   *Disk
	IOPS   map[string]IOPS // by device, as "/dev/sda"
	OS     OS
	Labels map[string]string // of the cloud provider
	// HostKey is the host's public key in PEM.
	HostKey string
	// KVM tells that the host has /dev/kvm.
	KVM bool
}

// A Collector samples a host.
type Collector struct {
	cfg   Config
	last  atomic.Pointer[Sample]
	first chan struct{}

	// Only Run's goroutine uses these.
	stat   cpuTimes
	cpu    *CPU
	key    string
	errors map[string]string
}

// slowEvery is how many samples share one reading of what hardly changes.
const slowEvery = 30

// firstGap is the time between the first two samples, so that percentages are known soon.
const firstGap = 200 * time.Millisecond

// New returns a collector without any sample. It does no I/O.
func New(cfg Config) *Collector {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.FS == nil {
		cfg.FS = os.DirFS(cfg.Root)
	}
	if cfg.Usage == nil {
		cfg.Usage = statfs
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 10 * time.Second
	}
	c := &Collector{cfg: cfg, first: make(chan struct{}), errors: make(map[string]string)}
	c.last.Store(&Sample{})
	return c
}

// First is closed when there is a sample.
func (c *Collector) First() <-chan struct{} { return c.first }

// Sample returns the last sample, an empty one before the first. It never blocks and never returns nil.
func (c *Collector) Sample() *Sample { return c.last.Load() }

// Run samples until ctx ends, and returns ctx's error. It is called once.
func (c *Collector) Run(ctx context.Context) error {
	t := time.NewTimer(firstGap)
	defer t.Stop()
	detected := make(chan error, 1)
	var detecting sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer func() { stop(); detecting.Wait() }()
	slow := true
	for n := 0; ; n++ {
		s := c.collect(slow || n%slowEvery == 0)
		slow = false
		if n > 0 {
			t.Reset(c.cfg.Interval)
		}
		s.HostKey = c.key
		c.last.Store(s)
		if n == 0 {
			close(c.first)
			// Making a key takes longer than an answer may wait.
			var err error
			c.key, err = c.hostKey()
			c.report("host key", err)
			if c.cfg.Metadata != nil && lacksCloudLabels(c.cfg.StateDir) {
				detecting.Go(func() { detected <- c.detectCloud(ctx) })
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		case err := <-detected:
			c.report("cloud provider", err)
			slow = true
		}
	}
}

// collect takes one sample. slow also reads what hardly changes; the rest is carried over from the last sample.
func (c *Collector) collect(slow bool) *Sample {
	s := &Sample{Time: time.Now()}
	prev := c.last.Load()
	var err error

	if slow || c.cpu == nil {
		c.cpu, err = readCPUInfo(c.cfg.FS)
		c.report("cpu", err)
		s.OS, err = readOS(c.cfg.FS)
		c.report("os", err)
		s.IOPS, err = readIOPS(c.cfg.StateDir)
		c.report("iops", err)
		s.Labels, err = readCloudLabels(c.cfg.StateDir)
		c.report("cloud labels", err)
		_, err = fs.Stat(c.cfg.FS, "dev/kvm")
		s.KVM = err == nil
	} else {
		s.OS, s.IOPS, s.Labels, s.KVM = prev.OS, prev.IOPS, prev.Labels, prev.KVM
	}

	now, err := readCPUTimes(c.cfg.FS)
	c.report("cpu times", err)
	s.CPU = c.cpu.with(c.stat.percentages(now))
	c.stat = now
	s.Load, err = readLoad(c.cfg.FS)
	c.report("load", err)
	s.Memory, err = readMemory(c.cfg.FS)
	c.report("memory", err)
	if c.cfg.Limits {
		readLimits(c.cfg.FS).apply(s)
	}
	root := ""
	if c.cfg.EngineRoot != nil {
		root = c.cfg.EngineRoot()
	}
	s.Disk, err = readDisk(c.cfg.FS, c.cfg.Root, root, c.cfg.Usage)
	c.report("disk", err)
	return s
}

// report logs an error of a collector once, and again when it changed.
func (c *Collector) report(name string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if c.errors[name] == text {
		return
	}
	c.errors[name] = text
	if c.cfg.Log != nil && err != nil {
		c.cfg.Log.WithField("collector", name).WithError(err).Warn("host information is incomplete")
	}
}

func read(fsys fs.FS, name string) (string, error) {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return "", fmt.Errorf("read host file: %w", err)
	}
	return string(b), nil
}
