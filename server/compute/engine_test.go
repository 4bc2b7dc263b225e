package compute

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

func TestLifeOfAContainer(t *testing.T) {
	b := newBench(t, obey)
	c := b.create(`{"name":"web","imageUuid":"docker:nginx","labels":{"app":"x"},"dataVolumes":["data:/data","/srv:/srv:ro","data:/again"]}`)
	if c.State != store.ContainerCreating || c.Transitioning != "yes" || c.HostID != "1h1" || c.UUID == "" {
		t.Errorf("created: %+v", c)
	}
	c = b.settled(c.ID)
	if c.State != store.ContainerRunning || c.Transitioning != "no" || c.TransitioningMessage != "" {
		t.Errorf("state %s %s %q", c.State, c.Transitioning, c.TransitioningMessage)
	}
	if c.ExternalID != "b7c1" || c.PrimaryIPAddress != "172.17.0.9" || !slices.Equal(c.DockerPorts, []string{"0.0.0.0:8080:80/tcp"}) {
		t.Errorf("the reply was not merged: %+v", c)
	}
	if len(c.Labels) != 1 || c.Labels["app"] != "x" || c.ExternalCreated.Year() != 2026 {
		t.Errorf("labels %v, created %v", c.Labels, c.ExternalCreated)
	}
	want := []string{"storage.image.activate", "storage.volume.activate", "compute.instance.activate"}
	if got := b.hub.names(); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}

	seven := 7
	if c, err := b.Stop(t.Context(), c.ID, &seven); err != nil || c.State != store.ContainerStopping {
		t.Fatalf("stop: %v %+v", err, c)
	}
	if c = b.settled(c.ID); c.State != store.ContainerStopped || c.PrimaryIPAddress != "" {
		t.Errorf("after stop: %s %q", c.State, c.PrimaryIPAddress)
	}
	ev := b.hub.seen()[3]
	if !strings.Contains(string(ev.Data), `"processData":{"timeout":7}`) || ev.TimeoutMillis != 52000 {
		t.Errorf("deactivate: %d ms %s", ev.TimeoutMillis, ev.Data)
	}
	if c, err := b.Start(t.Context(), c.ID); err != nil || c.State != store.ContainerStarting {
		t.Fatalf("start: %v", err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRunning {
		t.Errorf("after start: %s", c.State)
	}
	if _, err := b.Restart(t.Context(), c.ID, nil); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRunning {
		t.Errorf("after restart: %s", c.State)
	}
	if _, err := b.Remove(t.Context(), c.ID, false, nil); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRemoved || c.Removed.IsZero() {
		t.Errorf("after remove: %s %v", c.State, c.Removed)
	}
	want = append(want, "compute.instance.deactivate", "compute.instance.activate", "compute.instance.deactivate",
		"compute.instance.activate", "compute.instance.deactivate", "compute.instance.remove")
	if got := b.hub.names(); !slices.Equal(got, want) {
		t.Errorf("events %v,\nwant %v", got, want)
	}
	if _, err := b.Start(t.Context(), c.ID); codeOf(err) != wire.CodeConflict {
		t.Errorf("start of a removed container: %v", err)
	}
	if again, err := b.Remove(t.Context(), c.ID, false, nil); err != nil || again.State != store.ContainerRemoved {
		t.Errorf("second remove: %v", err)
	}
	seen := map[string]bool{}
	for _, ev := range b.hub.seen() {
		if ev.ID == "" || seen[ev.ID] {
			t.Errorf("event id %q is used twice", ev.ID)
		}
		seen[ev.ID] = true
	}
}

func TestNativeContainersAreDrivenToo(t *testing.T) {
	b := newBench(t, obey)
	c, err := b.store.Containers.Create(t.Context(), store.Container{
		UUID: "uuid-one/b7c1", Name: "found", HostID: "1h1", ExternalID: "b7c1", State: store.ContainerStopped, Native: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRunning || c.MapID == "" || c.Labels["from"] != "image" {
		t.Errorf("%s %q %v", c.State, c.MapID, c.Labels)
	}
	if ev := b.hub.seen()[0]; ev.Name != "compute.instance.activate" || ev.ResourceID != c.MapID {
		t.Errorf("%s %s: the order key is %q", ev.Name, ev.ResourceID, ev.Key())
	}
	if _, err := b.Remove(t.Context(), c.ID, true, nil); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRemoved {
		t.Errorf("%s %s", c.State, c.TransitioningMessage)
	}
}

func TestCreateVariants(t *testing.T) {
	for name, tc := range map[string]struct {
		fields string
		events []string
		state  string
	}{
		"never pull":     {`{"imageUuid":"docker:a","pull":"never"}`, []string{"compute.instance.activate"}, "running"},
		"always pull":    {`{"imageUuid":"docker:a","pull":"always"}`, []string{"compute.instance.pull", "compute.instance.activate"}, "running"},
		"do not start":   {`{"imageUuid":"docker:a","startOnCreate":false}`, []string{"storage.image.activate"}, "stopped"},
		"nothing to do":  {`{"imageUuid":"docker:a","startOnCreate":false,"pull":"never"}`, nil, "stopped"},
		"without scheme": {`{"imageUuid":"a","pull":"never"}`, []string{"compute.instance.activate"}, "running"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, obey)
			c := b.settled(b.create(tc.fields).ID)
			if c.State != tc.state || c.ImageUUID != "docker:a" {
				t.Errorf("state %s, image %s", c.State, c.ImageUUID)
			}
			if got := b.hub.names(); !slices.Equal(got, tc.events) {
				t.Errorf("events %v, want %v", got, tc.events)
			}
			if tc.state == "stopped" {
				if _, err := b.Start(t.Context(), c.ID); err != nil {
					t.Fatal(err)
				}
				if c = b.settled(c.ID); c.State != store.ContainerRunning {
					t.Errorf("after start: %s %s", c.State, c.TransitioningMessage)
				}
			}
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	b := newBench(t, obey)
	b.settled(b.create(`{"imageUuid":"docker:a","name":"taken"}`).ID)
	for name, tc := range map[string]struct{ fields, field, code string }{
		"no image":               {`{}`, "imageUuid", wire.CodeInvalid},
		"scheme alone":           {`{"imageUuid":"docker:"}`, "imageUuid", wire.CodeInvalid},
		"image with a space":     {`{"imageUuid":"docker:a b"}`, "imageUuid", wire.CodeInvalid},
		"name of an option":      {`{"imageUuid":"a","name":"-rf"}`, "name", wire.CodeInvalid},
		"name that leaves":       {`{"imageUuid":"a","name":"../x"}`, "name", wire.CodeInvalid},
		"name too long":          {`{"imageUuid":"a","name":"` + strings.Repeat("n", 200) + `"}`, "name", wire.CodeInvalid},
		"name taken":             {`{"imageUuid":"a","name":"taken"}`, "name", wire.CodeConflict},
		"unknown host":           {`{"imageUuid":"a","requestedHostId":"1h99"}`, "requestedHostId", wire.CodeInvalid},
		"unknown pull":           {`{"imageUuid":"a","pull":"sometimes"}`, "pull", wire.CodeInvalid},
		"port":                   {`{"imageUuid":"a","ports":["80:http"]}`, "ports", wire.CodeInvalid},
		"volume":                 {`{"imageUuid":"a","dataVolumes":["x:y"]}`, "dataVolumes", wire.CodeInvalid},
		"network":                {`{"imageUuid":"a","networkMode":"mesh"}`, "networkMode", wire.CodeInvalid},
		"network of nobody":      {`{"imageUuid":"a","networkMode":"container"}`, "networkContainerId", wire.CodeInvalid},
		"network of the unknown": {`{"imageUuid":"a","networkMode":"container:1i77"}`, "networkContainerId", wire.CodeInvalid},
		"volumes of the unknown": {`{"imageUuid":"a","dataVolumesFrom":["1i77"]}`, "dataVolumesFrom", wire.CodeInvalid},
		"label list":             {`{"imageUuid":"a","labels":{"io.rancher.scheduler.affinity:host_label":"x"}}`, "labels", wire.CodeInvalid},
		"no such labels":         {`{"imageUuid":"a","labels":{"io.rancher.scheduler.affinity:host_label":"x=y"}}`, "", wire.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Create(t.Context(), "1a1", json.RawMessage(tc.fields))
			var e *Error
			if err == nil || codeOf(err) != tc.code {
				t.Fatalf("got %v", err)
			}
			if e, _ = err.(*Error); e.Field != tc.field {
				t.Errorf("field %q, want %q (%v)", e.Field, tc.field, err)
			}
		})
	}
	if n := b.store.Containers.Len(); n != 1 {
		t.Errorf("%d records, want the one that was accepted", n)
	}
}

func TestSchedule(t *testing.T) {
	st := storetest.Open(t)
	addHost(t, st, "away", store.ConnectionDisconnected, map[string]string{"disk": "ssd"})
	hdd := addHost(t, st, "hdd", store.ConnectionOnline, map[string]string{"disk": "hdd"})
	ssd := addHost(t, st, "ssd", store.ConnectionOnline, map[string]string{"disk": "ssd", "zone": "a"})
	b := startBench(t, st, obey)
	for _, tc := range []struct{ fields, host string }{
		{`{"imageUuid":"a"}`, hdd.ID}, // both are empty: the first one
		{`{"imageUuid":"a"}`, ssd.ID}, // the other one is
		{`{"imageUuid":"a","labels":{"io.rancher.scheduler.affinity:host_label":"disk=ssd, zone=a"}}`, ssd.ID},
		{`{"imageUuid":"a","labels":{"io.rancher.scheduler.affinity:host_label_ne":"disk=hdd"}}`, ssd.ID},
		{`{"imageUuid":"a","requestedHostId":"1h1"}`, "1h1"}, // it may be away
	} {
		if c := b.create(tc.fields); c.HostID != tc.host {
			t.Errorf("%s went to %s, want %s", tc.fields, c.HostID, tc.host)
		}
	}
}

func TestNoHostIsOnline(t *testing.T) {
	st := storetest.Open(t)
	addHost(t, st, "away", store.ConnectionReconnecting, nil)
	b := startBench(t, st, obey)
	if _, err := b.Create(t.Context(), "1a1", json.RawMessage(`{"imageUuid":"a"}`)); codeOf(err) != wire.CodeUnavailable {
		t.Errorf("create: %v", err)
	}
	if _, err := b.Pull(t.Context(), "1a1", "a", nil); codeOf(err) != wire.CodeUnavailable {
		t.Errorf("pull: %v", err)
	}
}

func TestFailureEndsTheOperation(t *testing.T) {
	var broken atomic.Value
	broken.Store("storage.image.activate")
	b := newBench(t, func(ctx context.Context, ev *wire.Event, p func(*wire.Reply)) (*wire.Reply, error) {
		if ev.Name == broken.Load() {
			return refuse(wire.CodeNotFound, "no such image: nginx"), nil
		}
		return obey(ctx, ev, p)
	})
	c := b.settled(b.create(`{"imageUuid":"nginx"}`).ID)
	if c.State != store.ContainerError || c.Transitioning != "error" || c.TransitioningMessage != "no such image: nginx" {
		t.Errorf("create: %s %s %q", c.State, c.Transitioning, c.TransitioningMessage)
	}
	if n := len(b.hub.seen()); n != 1 {
		t.Errorf("%d events went out after the failure", n)
	}
	broken.Store("")
	if _, err := b.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRunning || c.Transitioning != "no" {
		t.Errorf("start after the failure: %s %s", c.State, c.TransitioningMessage)
	}
	broken.Store("compute.instance.deactivate")
	if _, err := b.Stop(t.Context(), c.ID, nil); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRunning || c.Transitioning != "error" {
		t.Errorf("a stop that failed: %s %s", c.State, c.Transitioning)
	}
	if _, err := b.Remove(t.Context(), c.ID, false, nil); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerError {
		t.Errorf("a remove that failed: %s", c.State)
	}
	broken.Store("compute.instance.remove") // answers notFound: that is what was wanted
	if _, err := b.Remove(t.Context(), c.ID, true, nil); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRemoved {
		t.Errorf("remove of a container that is gone: %s %s", c.State, c.TransitioningMessage)
	}
}

func TestAnAgentThatDoesNotAnswer(t *testing.T) {
	b := newBench(t, func(context.Context, *wire.Event, func(*wire.Reply)) (*wire.Reply, error) { return nil, hub.ErrTimeout })
	c := b.settled(b.create(`{"imageUuid":"a"}`).ID)
	if c.State != store.ContainerError || c.TransitioningMessage != "host one did not answer in time" {
		t.Errorf("%s %q", c.State, c.TransitioningMessage)
	}
}

func TestBusyAgentIsAskedAgain(t *testing.T) {
	var calls atomic.Int32
	b := newBench(t, func(ctx context.Context, ev *wire.Event, p func(*wire.Reply)) (*wire.Reply, error) {
		switch calls.Add(1) {
		case 1:
			return refuse(wire.CodeBusy, "queue is full"), nil
		case 2:
			return nil, hub.ErrFull
		}
		return obey(ctx, ev, p)
	})
	c := b.settled(b.create(`{"imageUuid":"a","pull":"never"}`).ID)
	if c.State != store.ContainerRunning {
		t.Errorf("%s %q", c.State, c.TransitioningMessage)
	}
	seen := b.hub.seen()
	if len(seen) != 3 || seen[0].ID == seen[1].ID {
		t.Errorf("%d events; an agent answers an id that it knows as before", len(seen))
	}
}

func TestProgressIsShown(t *testing.T) {
	release := make(chan struct{})
	b := newBench(t, func(ctx context.Context, ev *wire.Event, p func(*wire.Reply)) (*wire.Reply, error) {
		if ev.Name == "storage.image.activate" {
			p(&wire.Reply{Transitioning: "yes", TransitioningMessage: "Downloading 3 of 7", TransitioningProgress: 42})
			<-release
		}
		return obey(ctx, ev, p)
	})
	c := b.create(`{"imageUuid":"a"}`)
	eventually(t, "progress is in the record", func() bool {
		got, err := b.store.Containers.Get(c.ID)
		return err == nil && got.TransitioningProgress == 42 && got.TransitioningMessage == "Downloading 3 of 7" && got.State == store.ContainerCreating
	})
	close(release)
	if c = b.settled(c.ID); c.TransitioningProgress != 0 || c.State != store.ContainerRunning {
		t.Errorf("afterwards: %s %d", c.State, c.TransitioningProgress)
	}
}

func TestSuperseding(t *testing.T) {
	b := newBench(t, func(ctx context.Context, ev *wire.Event, p func(*wire.Reply)) (*wire.Reply, error) {
		if ev.Name == "compute.instance.activate" {
			return hold(ctx, ev, p)
		}
		return obey(ctx, ev, p)
	})
	c := b.create(`{"imageUuid":"a","pull":"never"}`)
	eventually(t, "the start is under way", func() bool { return len(b.hub.seen()) == 1 })
	if again, err := b.Start(t.Context(), c.ID); err != nil || again.State != store.ContainerStarting {
		t.Errorf("start while it starts: %v", err)
	}
	if _, err := b.Restart(t.Context(), c.ID, nil); codeOf(err) != wire.CodeConflict {
		t.Errorf("restart while it starts: %v", err)
	}
	if _, err := b.Stop(t.Context(), c.ID, nil); err != nil {
		t.Fatal(err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerStopped {
		t.Errorf("a stop does not supersede a start: %s", c.State)
	}
	if _, err := b.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second start is under way", func() bool { return len(b.hub.seen()) == 3 })
	if _, err := b.Remove(t.Context(), c.ID, true, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stop(t.Context(), c.ID, nil); err != nil && codeOf(err) != wire.CodeConflict {
		t.Errorf("stop while it is removed: %v", err)
	}
	if c = b.settled(c.ID); c.State != store.ContainerRemoved {
		t.Errorf("a remove does not supersede a start: %s", c.State)
	}
}

func TestInspectAndAsk(t *testing.T) {
	var mode atomic.Value
	mode.Store("good")
	b := newBench(t, func(ctx context.Context, ev *wire.Event, p func(*wire.Reply)) (*wire.Reply, error) {
		switch {
		case ev.Name != "compute.instance.inspect", mode.Load() == "good":
			return obey(ctx, ev, p)
		case mode.Load() == "zero":
			return &wire.Reply{Data: json.RawMessage(`{"instanceInspect":{"Config":null,"Mounts":null,"NetworkSettings":null}}`)}, nil
		case mode.Load() == "down":
			return refuse(wire.CodeUnavailable, "the engine does not answer"), nil
		}
		return nil, hub.ErrUnsupported
	})
	c := b.create(`{"imageUuid":"a"}`)
	c = b.settled(c.ID)
	raw, err := b.Inspect(t.Context(), c.ID)
	if err != nil || string(raw) != `{"Id":"b7c1","Big":12345678901234567890}` {
		t.Errorf("inspect: %s %v", raw, err)
	}
	for m, code := range map[string]string{"zero": wire.CodeNotFound, "down": wire.CodeUnavailable, "old": wire.CodeUnsupported} {
		mode.Store(m)
		if _, err := b.Inspect(t.Context(), c.ID); codeOf(err) != code {
			t.Errorf("%s: %v", m, err)
		}
	}
	if _, err := b.Inspect(t.Context(), "1i99"); codeOf(err) != wire.CodeNotFound {
		t.Errorf("unknown container: %v", err)
	}
	if _, err := b.Ask(t.Context(), "1h99", &wire.Event{Name: "x"}, nil); codeOf(err) != wire.CodeNotFound {
		t.Errorf("unknown host: %v", err)
	}
}
