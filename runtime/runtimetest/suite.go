// Package runtimetest states how a container engine behaves, as one suite that every engine's tests run. Optional
// capabilities are found as everywhere, by type assertion: what an engine does not offer is not tested, what it offers
// must be right.
package runtimetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
)

// patience is what one test may take: the machine may be busy with others.
const patience = 2 * time.Minute

// Options tells the suite what the engine has.
type Options struct {
	// Image is there, and has sh, cat, echo, env, head, id, printf, pwd, sleep, stty, true and wc.
	Image string
	// Prefix begins the names of everything that is made; "" is "rt-". All of it is removed again.
	Prefix string
	// Network is the network mode of the containers; "" is "none".
	Network string
	// Registry makes images to pull; nil leaves the pulls out.
	Registry func(t *testing.T) Registry
	// Large is the size of a file that is copied there and back, more than the memory that may be used; 0 is 256 MiB.
	Large int64
	// Without names the tests that the engine cannot pass, and why: "Lifecycle/AutoRemove".
	Without map[string]string
	// Only names the groups to run; nil is all.
	Only []string
}

// A Registry is what the pulls are tried on.
type Registry struct {
	Good    string // can be pulled, and is not there yet
	Missing string // is not in the registry
	Broken  string // breaks off in the middle of a layer
	Stalled string // falls silent in the middle of a layer
	Private string // wants Auth
	Auth    runtime.RegistryAuth
}

// Run runs the suite. newEngine returns an engine that may be used by one test; it is closed by the suite.
func Run(t *testing.T, newEngine func(t *testing.T) runtime.Engine, opts Options) {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = "rt-"
	}
	if opts.Network == "" {
		opts.Network = "none"
	}
	if opts.Large == 0 {
		opts.Large = 256 << 20
	}
	s := &suite{open: newEngine, opts: opts}
	groups := []struct {
		name  string
		tests []test
	}{
		{"Engine", engineTests},
		{"Lifecycle", lifecycleTests},
		{"List", listTests},
		{"Image", imageTests},
		{"Pull", pullTests},
		{"Watch", watchTests},
		{"Exec", execTests},
		{"ExecEnd", execEndTests},
		{"Attach", attachTests},
		{"Log", logTests},
		{"Stats", statsTests},
		{"Copy", copyTests},
		{"Large", largeTests},
		{"Limits", limitTests},
		{"Volume", volumeTests},
		{"Model", modelTests},
	}
	for _, g := range groups {
		if opts.Only != nil && !slices.Contains(opts.Only, g.name) {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			for _, test := range g.tests {
				if _, out := opts.Without[g.name+"/"+test.name]; out {
					continue
				}
				t.Run(test.name, func(t *testing.T) { s.run(t, test.fn) })
			}
		})
	}
}

// A test is one promise. fn gets an engine and a ctx that ends when the patience does.
type test struct {
	name string
	fn   func(*env)
}

type suite struct {
	open func(*testing.T) runtime.Engine
	opts Options
}

// An env is what a test works with.
type env struct {
	*testing.T
	ctx    context.Context
	engine runtime.Engine
	opts   Options
}

func (s *suite) run(t *testing.T, fn func(*env)) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	engine := s.open(t)
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	fn(&env{T: t, ctx: ctx, engine: engine, opts: s.opts})
}

// name returns a new name.
func (e *env) name() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return e.opts.Prefix + hex.EncodeToString(b)
}

// spec is a container that runs cmd; without cmd it sleeps.
func (e *env) spec(cmd ...string) *runtime.ContainerSpec {
	if len(cmd) == 0 {
		cmd = []string{"sleep", "1000"}
	}
	return &runtime.ContainerSpec{Name: e.name(), Image: e.opts.Image, Cmd: cmd, NetworkMode: e.opts.Network}
}

// create makes a container that is removed at the end.
func (e *env) create(spec *runtime.ContainerSpec) string {
	e.Helper()
	id, _, err := e.engine.Create(e.ctx, spec)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	e.removeLater(id)
	return id
}

func (e *env) removeLater(id string) {
	e.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := e.engine.Remove(ctx, id, runtime.RemoveOptions{Force: true, Volumes: true})
		if err != nil && !errors.Is(err, runtime.ErrNotFound) && !errors.Is(err, runtime.ErrConflict) {
			e.Errorf("remove %s: %v", id, err)
		}
	})
}

// start makes a container and starts it.
func (e *env) start(spec *runtime.ContainerSpec) string {
	e.Helper()
	id := e.create(spec)
	if err := e.engine.Start(e.ctx, id); err != nil {
		e.Fatalf("Start: %v", err)
	}
	return id
}

func (e *env) state(id string) runtime.ContainerStatus {
	e.Helper()
	st, err := e.engine.State(e.ctx, id)
	if err != nil {
		e.Fatalf("State: %v", err)
	}
	return st
}

// stopped waits until a container does not run any more.
func (e *env) stopped(id string) runtime.ContainerStatus {
	e.Helper()
	var st runtime.ContainerStatus
	e.until("the container has ended", func() bool {
		st = e.state(id)
		return !st.Running && st.Status != "created"
	})
	return st
}

// until waits for a condition.
func (e *env) until(what string, ok func() bool) {
	e.Helper()
	for !ok() {
		select {
		case <-e.ctx.Done():
			e.Fatalf("waited too long until %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// want fails unless err is of the class.
func (e *env) want(what string, err, class error) {
	e.Helper()
	if !errors.Is(err, class) {
		e.Errorf("%s: got error %v, want %v", what, err, class)
	}
}

func (e *env) noError(what string, err error) {
	e.Helper()
	if err != nil {
		e.Errorf("%s: %v", what, err)
	}
}

// must is noError that ends the test.
func (e *env) must(what string, err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s: %v", what, err)
	}
}

func ids(list []runtime.ContainerSummary) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.ID)
	}
	slices.Sort(out)
	return out
}

func sorted(list ...string) []string {
	slices.Sort(list)
	return list
}

// unix undoes what a terminal makes of line ends.
func unix(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }
