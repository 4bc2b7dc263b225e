package multi_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/fake"
	"github.com/droverhq/drover/runtime/multi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func started(t *testing.T, e runtime.Engine, name string) string {
	t.Helper()
	id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{Name: name, Image: "busybox", Cmd: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func newFake(t *testing.T) *fake.Engine {
	t.Helper()
	e := fake.New(fake.WithImages("busybox"))
	return e
}

func TestTwoEngines(t *testing.T) {
	a, b := newFake(t), newFake(t)
	idA, idB := started(t, a, "one"), started(t, b, "two")
	m, err := multi.New(multi.Config{Resolve: func(name string) (string, error) {
		if name == "ns/pod/app" {
			return idB, nil
		}
		return "", runtime.NoPodError("ns", name)
	}}, a, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	list, err := m.List(t.Context(), runtime.ListOptions{})
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for name, want := range map[string]string{idA: idA, idB: idB, "one": idA, "two": idB, idB[:12]: idB, "ns/pod/app": idB} {
		st, err := m.State(t.Context(), name)
		if err != nil || st.ID != want {
			t.Errorf("%s: %s, %v", name, st.ID, err)
		}
		var out bytes.Buffer
		err = m.Exec(t.Context(), name, runtime.ExecSpec{Cmd: []string{"echo", "hello"}}, runtime.Streams{Out: &out})
		if err != nil || out.String() != "hello\n" {
			t.Errorf("exec in %s: %q, %v", name, out.String(), err)
		}
		if _, err := m.Stats(t.Context(), name); err != nil {
			t.Errorf("stats of %s: %v", name, err)
		}
	}
	if _, err := m.State(t.Context(), "three"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("an unknown container: %v", err)
	}
	if err := m.Exec(t.Context(), "ns/other", runtime.ExecSpec{Cmd: []string{"true"}}, runtime.Streams{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("an unknown pod: %v", err)
	}
	if _, err := multi.New(multi.Config{}); err == nil {
		t.Error("no engine is no error")
	}
}

func TestWatchOfAll(t *testing.T) {
	a, b := newFake(t), newFake(t)
	m, err := multi.New(multi.Config{}, a, b)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	began := time.Now()
	idA, idB := started(t, a, "one"), started(t, b, "two")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var seen []string
	for n, err := range m.Watch(ctx, began) {
		if err != nil {
			t.Fatal(err)
		}
		if n.Action == "start" {
			seen = append(seen, n.ID)
		}
		if slices.Contains(seen, idA) && slices.Contains(seen, idB) {
			break
		}
	}
	if ctx.Err() != nil {
		t.Errorf("seen %v", seen)
	}
}
