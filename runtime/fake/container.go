package fake

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A container's fields are guarded by the engine's mu.
type container struct {
	id, name string
	spec     runtime.ContainerSpec
	image    *image
	created  time.Time
	command  []string // entrypoint and arguments
	anon     []string // anonymous volumes
	status   string   // created, running, paused, exited
	running  bool
	paused   bool
	pid      int
	ip       string
	exitCode int
	started  time.Time
	finished time.Time
	starts   int
	proc     *mainProcess
	stdin    *io.PipeWriter // of the present or the next run; nil without OpenStdin
	stdinEnd *io.PipeReader
	ended    chan struct{} // closed when the present or the next run is over
	output   *output
	files    *files
	inspect  json.RawMessage // cached; nil when stale
}

func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// Create makes a container.
func (e *Engine) Create(ctx context.Context, spec *runtime.ContainerSpec) (string, []string, error) {
	op := "create container"
	if err := e.enter(ctx, "Create", op); err != nil {
		return "", nil, err
	}
	if spec == nil {
		return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "no spec"}
	}
	if spec.Name != "" {
		op = "create " + spec.Name
		if !validName(spec.Name) {
			return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "Invalid container name"}
		}
	}
	if _, err := normalize(op, spec.Image); err != nil {
		return "", nil, err
	}
	for _, p := range append(slices.Clone(spec.ExposedPorts), spec.PortBindings...) {
		if p.PrivatePort == 0 {
			return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "port 0"}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	img := e.findImage(spec.Image)
	if img == nil {
		return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "No such image: " + spec.Image}
	}
	c := &container{id: newID(), name: spec.Name, spec: cloneSpec(spec), image: img, status: "created", output: newOutput(), files: newFiles()}
	c.rearm()
	if c.name == "" {
		c.name = "fake_" + c.id[:12]
	}
	if other := e.byName[c.name]; other != nil {
		return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: fmt.Sprintf(
			"Conflict. The container name %q is already in use by container %q.", "/"+c.name, other.id)}
	}
	c.spec.Env = mergeEnv(img.config.Env, spec.Env)
	entrypoint, cmd := spec.Entrypoint, spec.Cmd
	if len(entrypoint) == 0 {
		entrypoint = img.config.Entrypoint
		if len(cmd) == 0 {
			cmd = img.config.Cmd
		}
	}
	if c.command = append(slices.Clone(entrypoint), cmd...); len(c.command) == 0 {
		return "", nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "No command specified"}
	}
	for range spec.Volumes {
		name := newID()
		e.volumes[name] = &runtime.Volume{Name: name, Driver: "local", Mountpoint: "/var/lib/fake/volumes/" + name + "/_data"}
		c.anon = append(c.anon, name)
	}
	c.created = e.now()
	e.containers[c.id], e.byName[c.name] = c, c
	e.order = append(e.order, c)
	e.notify(c, "create")
	var warnings []string
	if spec.Resources.DiskQuota != 0 {
		warnings = append(warnings, "fake: no disk quota; ignored")
	}
	return c.id, warnings, nil
}

// cloneSpec copies what the caller might change later.
func cloneSpec(spec *runtime.ContainerSpec) runtime.ContainerSpec {
	out := *spec
	out.Cmd, out.Entrypoint = slices.Clone(spec.Cmd), slices.Clone(spec.Entrypoint)
	out.Labels = cloneMap(spec.Labels)
	return out
}

// mergeEnv adds env to the image's; the later wins.
func mergeEnv(base, env []string) []string {
	var out []string
	at := map[string]int{}
	for _, entry := range append(slices.Clone(base), env...) {
		key, _, _ := strings.Cut(entry, "=")
		if i, ok := at[key]; ok {
			out[i] = entry
			continue
		}
		at[key] = len(out)
		out = append(out, entry)
	}
	return out
}

// Start starts a container; one that runs is no error.
func (e *Engine) Start(ctx context.Context, id string) error {
	op := "start " + id
	if err := e.enter(ctx, "Start", op); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return err
	}
	if c.paused {
		return &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "cannot start a paused container, try unpause instead"}
	}
	if !c.running {
		e.start(c)
	}
	return nil
}

// rearm prepares what those who attach hold on to for the next run.
func (c *container) rearm() {
	c.ended = make(chan struct{})
	if c.spec.OpenStdin {
		c.stdinEnd, c.stdin = io.Pipe()
	}
}

// start starts a container that does not run. e.mu is held.
func (e *Engine) start(c *container) {
	e.pids++
	c.starts++
	c.pid, c.status, c.running, c.exitCode = e.pids, "running", true, 0
	c.started, c.inspect = e.now(), nil
	if c.starts > 1 {
		c.rearm()
	}
	if c.spec.NetworkMode == "" || c.spec.NetworkMode == "default" || c.spec.NetworkMode == "bridge" {
		n := e.pids - 1000
		c.ip = fmt.Sprintf("172.17.%d.%d", n/250%250, n%250+2)
	}
	e.notify(c, "start")
	e.launch(c)
}

// Stop ends a container; one that does not run is no error.
func (e *Engine) Stop(ctx context.Context, id string, timeout *time.Duration) error {
	if err := e.enter(ctx, "Stop", "stop "+id); err != nil {
		return err
	}
	return e.stop(ctx, "stop "+id, id, timeout)
}

func (e *Engine) stop(ctx context.Context, op, id string, timeout *time.Duration) error {
	grace := 10 * time.Second
	if timeout != nil {
		if grace = *timeout; grace < 0 {
			return &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "negative timeout"}
		}
	}
	e.mu.Lock()
	c, err := e.find(op, id)
	if err != nil || !c.running {
		e.mu.Unlock()
		return err
	}
	if timeout == nil && c.spec.StopTimeout != nil {
		grace = time.Duration(*c.spec.StopTimeout) * time.Second
	}
	stopped := c.ended
	signal := 15
	if c.spec.StopSignal != "" {
		if n, ok := signalNumber(c.spec.StopSignal); ok {
			signal = n
		}
	}
	if grace > 0 {
		e.notify(c, "kill")
		e.signal(c, signal)
	}
	e.mu.Unlock()

	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		e.mu.Lock()
		if c.ended == stopped && c.running {
			e.notify(c, "kill")
			e.signal(c, 9)
		}
		e.mu.Unlock()
		select {
		case <-stopped:
		case <-ctx.Done():
			return ended(ctx, op)
		}
	case <-ctx.Done():
		return ended(ctx, op)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notify(c, "stop")
	return nil
}

// Restart stops a container if it runs, and starts it.
func (e *Engine) Restart(ctx context.Context, id string, timeout *time.Duration) error {
	op := "restart " + id
	if err := e.enter(ctx, "Restart", op); err != nil {
		return err
	}
	if err := e.stop(ctx, op, id, timeout); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return err
	}
	if !c.running {
		e.start(c)
	}
	e.notify(c, "restart")
	return nil
}

// Kill sends a signal.
func (e *Engine) Kill(ctx context.Context, id, signal string) error {
	op := "kill " + id
	if err := e.enter(ctx, "Kill", op); err != nil {
		return err
	}
	number, ok := 9, true
	if signal != "" {
		if number, ok = signalNumber(signal); !ok {
			return &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "Invalid signal: " + signal}
		}
	}
	e.mu.Lock()
	c, err := e.find(op, id)
	if err == nil && !c.running {
		err = &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "Container " + c.id + " is not running"}
	}
	if err != nil {
		e.mu.Unlock()
		return err
	}
	stopped := c.ended
	e.notify(c, "kill")
	e.signal(c, number)
	e.mu.Unlock()
	if number != 9 {
		return nil
	}
	select { // SIGKILL is waited for, as dockerd does
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ended(ctx, op)
	}
}

// Pause freezes a container; its processes do not notice.
func (e *Engine) Pause(ctx context.Context, id string) error {
	return e.setPaused(ctx, "Pause", id, true)
}

// Unpause thaws a container.
func (e *Engine) Unpause(ctx context.Context, id string) error {
	return e.setPaused(ctx, "Unpause", id, false)
}

func (e *Engine) setPaused(ctx context.Context, method, id string, paused bool) error {
	action := strings.ToLower(method)
	op := action + " " + id
	if err := e.enter(ctx, method, op); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return err
	}
	if !c.running || c.paused == paused {
		return &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "Container " + c.id + " is " + c.status}
	}
	c.paused, c.inspect, c.status = paused, nil, "running"
	if paused {
		c.status = "paused"
	}
	e.notify(c, action)
	return nil
}

// Remove deletes a container.
func (e *Engine) Remove(ctx context.Context, id string, opts runtime.RemoveOptions) error {
	op := "remove " + id
	if err := e.enter(ctx, "Remove", op); err != nil {
		return err
	}
	e.mu.Lock()
	c, err := e.find(op, id)
	if err == nil && c.running && !opts.Force {
		err = &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "You cannot remove a running container " + c.id}
	}
	if err != nil {
		e.mu.Unlock()
		return err
	}
	if stopped := c.ended; c.running {
		e.notify(c, "kill")
		e.signal(c, 9)
		e.mu.Unlock()
		select {
		case <-stopped:
		case <-ctx.Done():
			return ended(ctx, op)
		}
		e.mu.Lock()
	}
	defer e.mu.Unlock()
	e.remove(c, opts.Volumes)
	return nil
}

// remove deletes a container that does not run. e.mu is held.
func (e *Engine) remove(c *container, volumes bool) {
	if e.containers[c.id] == nil {
		return
	}
	delete(e.containers, c.id)
	delete(e.byName, c.name)
	if c.stdin != nil {
		c.stdinEnd.Close()
	}
	if c.starts == 0 {
		close(c.ended)
	}
	e.order = slices.DeleteFunc(e.order, func(o *container) bool { return o == c })
	if volumes {
		for _, name := range c.anon {
			delete(e.volumes, name)
		}
	}
	e.notify(c, "destroy")
}

// Wait blocks until the container does not run.
func (e *Engine) Wait(ctx context.Context, id string) (int, error) {
	op := "wait for " + id
	if err := e.enter(ctx, "Wait", op); err != nil {
		return 0, err
	}
	e.mu.Lock()
	c, err := e.find(op, id)
	if err != nil {
		e.mu.Unlock()
		return 0, err
	}
	stopped, running := c.ended, c.running
	e.mu.Unlock()
	if running {
		select {
		case <-stopped:
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: %w", op, ctx.Err())
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return c.exitCode, nil
}
