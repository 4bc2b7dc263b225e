package handlers_test

import (
	"testing"

	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// BenchmarkInspect is an inspect event without the engine's own time.
func BenchmarkInspect(b *testing.B) {
	s := newStub()
	s.add(runtime.ContainerStatus{ID: stubID, Name: "web", Image: "nginx:latest", Running: true})
	r := newRouter(s, handlers.Options{})
	ev := event(b, "inspect")
	b.ReportAllocs()
	for b.Loop() {
		mustServe(b, r, ev)
		s.calls = s.calls[:0]
	}
}

// BenchmarkActivate is an activate event for a container that runs, with the widest request.
func BenchmarkActivate(b *testing.B) {
	s := badInputStub()
	r := newRouter(s, handlers.Options{})
	ev := event(b, "wide")
	b.ReportAllocs()
	for b.Loop() {
		mustServe(b, r, ev)
		s.calls = s.calls[:0]
	}
}
