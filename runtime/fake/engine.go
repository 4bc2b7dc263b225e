package fake

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"github.com/droverhq/drover/runtime"
)

// An Engine is a container engine in memory. Make it with [New].
type Engine struct {
	programs map[string]Program
	timeout  time.Duration
	info     runtime.Info

	life  context.Context // ends with Close
	end   context.CancelFunc
	procs sync.WaitGroup // the processes

	faults faults

	// mu guards what follows.
	mu         sync.Mutex
	containers map[string]*container // by id
	byName     map[string]*container
	order      []*container // by age
	images     map[string]*image
	tags       map[string]*image // by normalized reference
	registry   map[string]*remote
	volumes    map[string]*runtime.Volume
	notices    []runtime.Notice // the last maxNotices
	dropped    int              // how many were before them
	changed    chan struct{}    // closed and replaced when notices or outages change
	last       time.Time        // of the last notice; times never repeat
	pids       int
}

// The interfaces that an Engine offers.
var (
	_ runtime.Engine    = (*Engine)(nil)
	_ runtime.Volumes   = (*Engine)(nil)
	_ runtime.Builder   = (*Engine)(nil)
	_ runtime.Execer    = (*Engine)(nil)
	_ runtime.Attacher  = (*Engine)(nil)
	_ runtime.LogReader = (*Engine)(nil)
	_ runtime.Statser   = (*Engine)(nil)
	_ runtime.Copier    = (*Engine)(nil)
	_ runtime.Toper     = (*Engine)(nil)
	_ runtime.Restarter = (*Engine)(nil)
	_ runtime.Pauser    = (*Engine)(nil)
	_ runtime.Waiter    = (*Engine)(nil)
	_ runtime.Limiter   = (*Engine)(nil)
)

// An Option configures an [Engine].
type Option func(*Engine)

// WithImages makes images that are there from the start. Their command is the name of the image without a path.
func WithImages(refs ...string) Option {
	return func(e *Engine) {
		for _, ref := range refs {
			e.addImage(ref, runtime.ImageConfig{Cmd: []string{baseName(ref)}, Env: []string{"PATH=/bin"}, Size: 1 << 20})
		}
	}
}

// WithImage makes one image that is there from the start, with what it says about its containers.
func WithImage(ref string, config runtime.ImageConfig) Option {
	return func(e *Engine) { e.addImage(ref, config) }
}

// WithRegistry makes images that can be pulled.
func WithRegistry(refs ...string) Option {
	return func(e *Engine) {
		for _, ref := range refs {
			e.Publish(ref, Remote{})
		}
	}
}

// WithProgram makes command, the base name of a process's first argument, run fn.
func WithProgram(command string, fn Program) Option {
	return func(e *Engine) { e.programs[command] = fn }
}

// WithTimeout is how long a call on a hung engine takes if its ctx has no deadline; the default is 30 s.
func WithTimeout(d time.Duration) Option {
	return func(e *Engine) { e.timeout = d }
}

// WithInfo is what Info returns, but for the counts of containers.
func WithInfo(info runtime.Info) Option {
	return func(e *Engine) { e.info = info }
}

// New returns an engine without containers.
func New(opts ...Option) *Engine {
	e := &Engine{
		programs:   builtins(),
		timeout:    30 * time.Second,
		containers: map[string]*container{},
		byName:     map[string]*container{},
		images:     map[string]*image{},
		tags:       map[string]*image{},
		registry:   map[string]*remote{},
		volumes:    map[string]*runtime.Volume{},
		changed:    make(chan struct{}),
		pids:       1000,
		info: runtime.Info{
			ID: "FAKE:" + newID()[:12], Name: "fake", Version: "1.0.0", BuildID: "fake", APIVersion: "1.41",
			OperatingSystem: "Fake Linux", OSType: "linux", Architecture: "x86_64", KernelVersion: "6.1.0",
			StorageDriver: "memory", RootDir: "/var/lib/fake", LoggingDriver: "json-file", CgroupVersion: "2",
			CPUs: 2, MemoryBytes: 4 << 30,
		},
	}
	e.life, e.end = context.WithCancel(context.Background())
	e.faults.init()
	for _, opt := range opts {
		opt(e)
	}
	return e
}

// Type returns "fake".
func (e *Engine) Type() string { return "fake" }

// Ping fails while the engine is down or hung.
func (e *Engine) Ping(ctx context.Context) error { return e.enter(ctx, "Ping", "ping") }

// Info describes the engine.
func (e *Engine) Info(ctx context.Context) (runtime.Info, error) {
	if err := e.enter(ctx, "Info", "info"); err != nil {
		return runtime.Info{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	info := e.info
	info.Containers = len(e.containers)
	for _, c := range e.containers {
		if c.running {
			info.ContainersRunning++
		}
	}
	return info, nil
}

// Close ends all processes and waits for them.
func (e *Engine) Close() error {
	e.end()
	e.mu.Lock()
	for _, c := range e.containers {
		if c.proc != nil {
			c.proc.kill()
		}
	}
	e.mu.Unlock()
	e.procs.Wait()
	return nil
}

// wake tells the watchers to look again. e.mu is held.
func (e *Engine) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// now is the time, later than any that it returned before. e.mu is held.
func (e *Engine) now() time.Time {
	t := time.Now().Round(0)
	if !t.After(e.last) {
		t = e.last.Add(1)
	}
	e.last = t
	return t
}

// find returns the container with that id, name, or unambiguous prefix of an id. e.mu is held.
func (e *Engine) find(op, id string) (*container, error) {
	id = strings.TrimPrefix(id, "/")
	if !validName(id) {
		return nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "no id or name of a container"}
	}
	if c := e.containers[id]; c != nil {
		return c, nil
	}
	if c := e.byName[id]; c != nil {
		return c, nil
	}
	var found *container
	for full, c := range e.containers {
		if strings.HasPrefix(full, id) {
			if found != nil {
				return nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "multiple IDs found with provided prefix: " + id}
			}
			found = c
		}
	}
	if found == nil {
		return nil, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "No such container: " + id}
	}
	return found, nil
}

// normalize returns the full form of an image reference.
func normalize(op, ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "invalid reference format: " + ref}
	}
	return reference.TagNameOnly(named).String(), nil
}

// familiar is the short form of a full reference, as engines show it.
func familiar(full string) string {
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return full
	}
	return reference.FamiliarString(named)
}

func baseName(ref string) string {
	ref = ref[strings.LastIndexByte(ref, '/')+1:]
	name, _, _ := strings.Cut(ref, ":")
	return name
}

func validName(name string) bool {
	for i, c := range name {
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return name != ""
}

// matches reports whether labels has all of want; an empty value matches any.
func matches(labels, want map[string]string) bool {
	for key, value := range want {
		if have, ok := labels[key]; !ok || value != "" && have != value {
			return false
		}
	}
	return true
}

func cloneMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}
