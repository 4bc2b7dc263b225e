package handlers_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newRouter wires the handlers as the agent does.
func newRouter(e handlers.Engine, opts handlers.Options) *events.Router {
	r := events.NewRouter(events.RouterConfig{Classify: handlers.Classify})
	handlers.Register(r, e, opts)
	return r
}

// event reads a request of testdata.
func event(t testing.TB, name string) *wire.Event {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".request.json"))
	if err != nil {
		t.Fatal(err)
	}
	var ev wire.Event
	if err := json.Unmarshal(b, &ev); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return &ev
}

// tree is an event's data to change.
func tree(t testing.TB, ev *wire.Event) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(ev.Data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// with returns a copy of the event in which the value at the path is another one.
func with(t testing.TB, ev *wire.Event, path string, value any) *wire.Event {
	t.Helper()
	m := tree(t, ev)
	keys := strings.Split(path, ".")
	at := m
	for _, k := range keys[:len(keys)-1] {
		next, ok := at[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[k] = next
		}
		at = next
	}
	at[keys[len(keys)-1]] = value
	return withData(t, ev, m)
}

func withData(t testing.TB, ev *wire.Event, data any) *wire.Event {
	t.Helper()
	b, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	c := *ev
	c.Data = b
	return &c
}

// serve runs an event and returns its final reply.
func serve(t testing.TB, r *events.Router, ev *wire.Event) *wire.Reply {
	t.Helper()
	return r.Serve(t.Context(), ev, nil)
}

// mustServe is serve for an event that must succeed.
func mustServe(t testing.TB, r *events.Router, ev *wire.Event) *wire.Reply {
	t.Helper()
	reply := serve(t, r, ev)
	if reply.Transitioning == wire.TransitioningError {
		t.Fatalf("%s: %s: %s", ev.Name, reply.Code, reply.TransitioningMessage)
	}
	return reply
}

// wantError checks that an event fails with the code and a text that holds want.
func wantError(t testing.TB, reply *wire.Reply, code, want string) {
	t.Helper()
	if reply.Transitioning != wire.TransitioningError || reply.Code != code || !strings.Contains(reply.TransitioningMessage, want) {
		t.Errorf("reply is %q %q %q with data %.200s, want an error %q with %q",
			reply.Transitioning, reply.Code, reply.TransitioningMessage, reply.Data, code, want)
	}
}

// reports collects progress.
type reports struct {
	mu    sync.Mutex
	lines []string
	last  int
}

func (r *reports) Report(message string, percent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.last = append(r.lines, message), percent
}

func (r *reports) all() ([]string, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines, r.last
}

// field returns what is at a path of a reply's data; nil if there is nothing.
func field(t testing.TB, raw []byte, path ...string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %.200s", err, raw)
	}
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// recorder returns a logger and what it wrote.
func recorder() (*logrus.Logger, *lockedBuffer) {
	out := &lockedBuffer{}
	l := logrus.New()
	l.SetOutput(out)
	l.SetLevel(logrus.DebugLevel)
	return l, out
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
