package compute

import (
	"context"
	"strings"
	"testing"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

func (b *bench) pulled(id string) *store.PullTask {
	b.t.Helper()
	var task *store.PullTask
	eventually(b.t, "task "+id+" ends", func() bool {
		var err error
		if task, err = b.store.PullTasks.Get(id); err != nil {
			b.t.Fatal(err)
		}
		return len(task.Work) == 0
	})
	return task
}

func TestPullOnAllHosts(t *testing.T) {
	st := storetest.Open(t)
	addHost(t, st, "one", store.ConnectionOnline, nil)
	addHost(t, st, "two", store.ConnectionOnline, nil)
	addHost(t, st, "away", store.ConnectionDisconnected, nil)
	b := startBench(t, st, obey)
	task, err := b.Pull(t.Context(), "1a1", "docker:nginx:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if task.Image != "nginx:1" || task.Transitioning != "yes" || len(task.HostIDs) != 2 {
		t.Errorf("begun: %+v", task)
	}
	task = b.pulled(task.ID)
	if task.State != store.StateActive || task.Transitioning != "no" || task.Status["1h1"] != "done" || task.Status["1h2"] != "done" {
		t.Errorf("ended: %+v", task)
	}
	if ev := b.hub.seen()[0]; ev.ResourceType != "resourcePull" || !strings.Contains(string(ev.Data), `"fullName":"nginx:1"`) {
		t.Errorf("event %s %s", ev.ResourceType, ev.Data)
	}
}

func TestPullReportsEachHost(t *testing.T) {
	st := storetest.Open(t)
	addHost(t, st, "one", store.ConnectionOnline, nil)
	addHost(t, st, "two", store.ConnectionOnline, nil)
	addHost(t, st, "three", store.ConnectionOnline, nil)
	b := startBench(t, st, nil)
	b.hub.answer = func(ctx context.Context, ev *wire.Event, p func(*wire.Reply)) (*wire.Reply, error) {
		task := b.store.PullTasks.List()[0]
		w := pullWorkOf(task.Work)
		switch ev.ID {
		case w.Events["1h1"]:
			return refuse(wire.CodeNotFound, "no such image"), nil
		case w.Events["1h2"]:
			return &wire.Reply{Data: []byte(`{"fields":{"dockerImage":{"Id":""}}}`)}, nil // an original agent's way of saying so
		}
		p(&wire.Reply{Transitioning: "yes", TransitioningMessage: "Downloading", TransitioningProgress: 60})
		return obey(ctx, ev, p)
	}
	task, err := b.Pull(t.Context(), "1a1", "nginx", nil)
	if err != nil {
		t.Fatal(err)
	}
	task = b.pulled(task.ID)
	if task.Transitioning != "error" || !strings.HasPrefix(task.TransitioningMessage, "2 of 3 hosts failed") {
		t.Errorf("%s %q", task.Transitioning, task.TransitioningMessage)
	}
	if task.Status["1h1"] != "error: no such image" || !strings.HasPrefix(task.Status["1h2"], "error: ") || task.Status["1h3"] != "done" {
		t.Errorf("status %v", task.Status)
	}
}

func TestPullRefuses(t *testing.T) {
	b := newBench(t, obey)
	for _, image := range []string{"", "docker:", "a b", "a\nb"} {
		if _, err := b.Pull(t.Context(), "1a1", image, nil); codeOf(err) != wire.CodeInvalid {
			t.Errorf("%q: %v", image, err)
		}
	}
	if _, err := b.Pull(t.Context(), "1a1", "a", []string{"1h9"}); codeOf(err) != wire.CodeInvalid {
		t.Errorf("unknown host: %v", err)
	}
}

func TestPullIsTakenUp(t *testing.T) {
	st := storetest.Open(t)
	addHost(t, st, "one", store.ConnectionOnline, nil)
	first := startBench(t, st, hold)
	task, err := first.Pull(t.Context(), "1a1", "a", []string{"1h1", "1h1"})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pull is under way", func() bool { return len(first.hub.seen()) == 1 })
	first.stop()
	second := startBench(t, st, obey)
	if task = second.pulled(task.ID); task.Status["1h1"] != "done" {
		t.Errorf("%+v", task)
	}
	if second.hub.seen()[0].ID != first.hub.seen()[0].ID {
		t.Error("the pull was taken up under another id")
	}
}
