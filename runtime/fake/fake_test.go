package fake_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/fake"
	"github.com/droverhq/drover/runtime/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const image = "drover-test/busybox:1"

func TestConformance(t *testing.T) {
	auth := runtime.RegistryAuth{Username: "joe", Password: "secret-5"}
	runtimetest.Run(t, func(t *testing.T) runtime.Engine {
		e := fake.New(fake.WithImage(image, runtime.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}, Size: 1 << 20}),
			fake.WithRegistry("reg.test/good:1"))
		e.Publish("reg.test/broken:1", fake.Remote{Err: errors.New("unexpected EOF")})
		e.Publish("reg.test/stalled:1", fake.Remote{Stall: true})
		e.Publish("reg.test/private:1", fake.Remote{Auth: &auth})
		return e
	}, runtimetest.Options{
		Image:   image,
		Without: map[string]string{"Large/Copy": "its files are in memory"},
		Registry: func(*testing.T) runtimetest.Registry {
			return runtimetest.Registry{
				Good: "reg.test/good:1", Missing: "reg.test/missing:1", Broken: "reg.test/broken:1",
				Stalled: "reg.test/stalled:1", Private: "reg.test/private:1", Auth: auth,
			}
		},
	})
}
