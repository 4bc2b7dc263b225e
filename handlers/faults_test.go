package handlers_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime/fake"
)

// An engine that is down or hangs fails each event clearly and in time; when it is back, the same handlers go on.
func TestEngineOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New(fake.WithImages(testImage))
		t.Cleanup(func() { e.Close() })
		r := newRouter(e, handlers.Options{})
		in := newInstance(t, e)
		mustServe(t, r, in.event(t, handlers.EventInstanceActivate, nil))
		all := []*wire.Event{
			in.event(t, handlers.EventInstanceActivate, nil), in.event(t, handlers.EventInstanceDeactivate, nil), in.event(t, handlers.EventInstanceRemove, nil),
			event(t, "inspect"), event(t, "force.stop"), event(t, "pull"), event(t, "image.activate"), event(t, "volume.activate"), event(t, "volume.remove"),
		}
		e.Down()
		for _, ev := range all {
			if reply := serve(t, r, ev); reply.Code != wire.CodeUnavailable {
				t.Errorf("%s of an engine that is down: %q %q", ev.Name, reply.Code, reply.TransitioningMessage)
			}
		}
		e.Up()
		e.Hang()
		for _, ev := range all {
			ev.TimeoutMillis = 5000
			begun := time.Now()
			reply := serve(t, r, ev)
			if took := time.Since(begun); took > 6*time.Second || reply.Code != wire.CodeTimeout && reply.Code != wire.CodeUnavailable {
				t.Errorf("%s of an engine that hangs: %q %q after %v", ev.Name, reply.Code, reply.TransitioningMessage, took)
			}
		}
		e.Up()
		mustServe(t, r, in.event(t, handlers.EventInstanceRemove, nil))
	})
}
