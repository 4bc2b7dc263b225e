package cri_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/cri"
	"github.com/droverhq/drover/runtime/cri/critest"
	"github.com/droverhq/drover/runtime/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEngine(t *testing.T, c *critest.Containerd) *cri.Engine {
	t.Helper()
	e, err := cri.New(cri.Config{Socket: c.Socket, Poll: 100 * time.Millisecond, LogDir: c.Dir + "/podlogs", CgroupParent: c.CgroupParent})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestConformance(t *testing.T) {
	c := critest.Start(t)
	runtimetest.Run(t, func(t *testing.T) runtime.Engine { return newEngine(t, c) }, runtimetest.Options{
		Image: critest.Image, Prefix: "rt-cri-", Network: "host", Large: 1 << 30,
		Without: map[string]string{
			"Lifecycle/CreateStartStopRemove": "a CRI runtime starts a container once; TestEngine/Lifecycle has the rest",
			"Lifecycle/AutoRemove":            "CRI has no removal at the end; TestEngine/Refused has the refusal",
			"Image/TagRemoveList":             "CRI gives an image no second name; TestEngine/Images has the rest",
			"Watch/OrderAndSince":             "a CRI runtime does not remember what is gone; TestEngine/Watch has the rest",
			"Watch/Gap":                       "the same",
			"Attach/BeforeStart":              "a CRI runtime attaches to what runs alone; TestEngine/Refused has the refusal",
			"Copy/Errors":                     "files are copied where a process runs; TestEngine/CopyErrors has the rest",
			"Pull/Good":                       "a CRI runtime tells nothing of layers; TestPull has the rest",
		},
	})
}
