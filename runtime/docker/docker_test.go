package docker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/runtime/runtimetest"
)

const image = "drover-test/busybox:1"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine returns one on the local daemon, and fails the test if there is none.
func engine(t testing.TB, cfg docker.Config) *docker.Engine {
	t.Helper()
	e, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.ImageConfig(t.Context(), image); err != nil {
		t.Fatalf("these tests need a dockerd on %s with the image of scripts/test-image: %v", docker.DefaultHost, err)
	}
	return e
}

func TestConformance(t *testing.T) {
	reg := registries(t)
	runtimetest.Run(t, func(t *testing.T) runtime.Engine { return engine(t, docker.Config{}) }, runtimetest.Options{
		Image:    image,
		Prefix:   "drover-rtdocker-",
		Registry: func(*testing.T) runtimetest.Registry { return reg },
	})
}

// Where the daemon's processes are not visible, as in a container of its own, Exec ends them from inside.
func TestExecEndWithoutHostProcesses(t *testing.T) {
	runtimetest.Run(t, func(t *testing.T) runtime.Engine {
		e := engine(t, docker.Config{})
		e.HideProcesses(t.TempDir())
		return e
	}, runtimetest.Options{Image: image, Prefix: "drover-rtdocker-", Only: []string{"ExecEnd"}})
}

// sleeper returns a container of the real daemon that sleeps.
func sleeper(t testing.TB) string {
	t.Helper()
	return run(t, &runtime.ContainerSpec{Cmd: []string{"sleep", "1000"}})
}

// run starts a container on the real daemon.
func run(t testing.TB, spec *runtime.ContainerSpec) string {
	t.Helper()
	e := engine(t, docker.Config{})
	spec.Name, spec.Image, spec.NetworkMode = randomName(), image, "none"
	id, _, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNow(t, id) })
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

// removeNow removes a container by an engine of its own, as that of the test may be closed.
func removeNow(t testing.TB, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	direct, err := docker.New(docker.Config{})
	if err != nil {
		t.Error(err)
		return
	}
	defer direct.Close()
	err = direct.Remove(ctx, id, runtime.RemoveOptions{Force: true, Volumes: true})
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
}
