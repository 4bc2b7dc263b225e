package compute

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

func TestARestartTakesUpWhatWasInProgress(t *testing.T) {
	st := storetest.Open(t)
	addHost(t, st, "one", store.ConnectionOnline, nil)
	first := startBench(t, st, func(ctx context.Context, ev *wire.Event, p func(*wire.Reply)) (*wire.Reply, error) {
		if ev.Name == "compute.instance.activate" {
			return hold(ctx, ev, p)
		}
		return obey(ctx, ev, p)
	})
	c := first.create(`{"imageUuid":"a","labels":{"l":"v"}}`)
	eventually(t, "the start is under way", func() bool { return len(first.hub.seen()) == 2 })
	first.stop()
	if got, _ := st.Containers.Get(c.ID); got.State != store.ContainerStarting || got.Transitioning != "yes" {
		t.Fatalf("an orderly end changed the container: %s", got.State)
	}

	second := startBench(t, st, obey)
	if c = second.settled(c.ID); c.State != store.ContainerRunning {
		t.Errorf("%s %s", c.State, c.TransitioningMessage)
	}
	seen := second.hub.seen()
	if len(seen) != 1 || seen[0].ID != first.hub.seen()[1].ID {
		t.Errorf("the new process sent %v: want the event in flight, under its id", second.hub.names())
	}
}

func TestAHubThatShutsDownLeavesTheRecord(t *testing.T) {
	b := newBench(t, func(context.Context, *wire.Event, func(*wire.Reply)) (*wire.Reply, error) { return nil, hub.ErrClosed })
	c := b.create(`{"imageUuid":"a"}`)
	eventually(t, "the event was refused", func() bool { return len(b.hub.seen()) > 0 })
	b.stop()
	if got, _ := b.store.Containers.Get(c.ID); got.State != store.ContainerCreating || len(got.Work) == 0 {
		t.Errorf("%s, work %s", got.State, got.Work)
	}
}

func TestAnUnknownOperationIsMarked(t *testing.T) {
	st := storetest.Open(t)
	h := addHost(t, st, "one", store.ConnectionOnline, nil)
	c, err := st.Containers.Create(t.Context(), store.Container{
		UUID: "u", HostID: h.ID, State: store.ContainerStarting, Transitioning: "yes", Work: json.RawMessage(`{"version":99}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	b := startBench(t, st, obey)
	if c = b.settled(c.ID); c.State != store.ContainerError || c.TransitioningMessage != interrupted {
		t.Errorf("%s %q", c.State, c.TransitioningMessage)
	}
}

func TestReplicasTakeOver(t *testing.T) {
	url := storetest.NATS(t)
	open := func() *store.Store {
		return storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
	}
	stA, stB := open(), open()
	addHost(t, stA, "one", store.ConnectionOnline, nil)
	a := startBench(t, stA, hold)
	b := startBench(t, stB, obey)
	c := a.create(`{"imageUuid":"a","pull":"never"}`)
	eventually(t, "the event is under way", func() bool { return len(a.hub.seen()) == 1 })
	eventually(t, "the other replica sees the record", func() bool { _, err := stB.Containers.Get(c.ID); return err == nil })
	b.resume(t.Context())
	if n := len(b.hub.seen()); n != 0 {
		t.Fatal("a replica took what another one holds")
	}
	a.stop() // releases the lease
	eventually(t, "the other replica finishes", func() bool {
		b.resume(t.Context())
		got, err := stB.Containers.Get(c.ID)
		return err == nil && got.State == store.ContainerRunning
	})
	if seen := b.hub.seen(); len(seen) != 1 || seen[0].ID != a.hub.seen()[0].ID {
		t.Errorf("the event was sent %d times", len(seen))
	}
}

func TestPurge(t *testing.T) {
	now := time.Now()
	st := storetest.Open(t)
	addHost(t, st, "one", store.ConnectionOnline, nil)
	b := startBench(t, st, obey)
	b.stop()
	b.Engine.now = func() time.Time { return now }
	old, err := st.Containers.Create(t.Context(), store.Container{UUID: "old", State: store.ContainerRemoved, Removed: now.Add(-2 * keepRemoved)})
	if err != nil {
		t.Fatal(err)
	}
	young, err := st.Containers.Create(t.Context(), store.Container{UUID: "young", State: store.ContainerRemoved, Removed: now.Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	b.purge(t.Context())
	if _, err := st.Containers.Get(old.ID); err == nil {
		t.Error("a container that was removed long ago is still listed")
	}
	if _, err := st.Containers.Get(young.ID); err != nil {
		t.Error("a container that was removed just now is gone")
	}
}
