package docker_test

import (
	"testing"

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
