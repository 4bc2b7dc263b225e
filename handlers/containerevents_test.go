package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// feed is an engine of which a test decides what happens.
type feed struct {
	mu     sync.Mutex
	rows   []runtime.ContainerSummary
	stream chan runtime.Notice
	told   int64
}

func (f *feed) List(context.Context, runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.rows), nil
}

func (f *feed) Watch(ctx context.Context, _ time.Time) iter.Seq2[runtime.Notice, error] {
	return func(yield func(runtime.Notice, error) bool) {
		for {
			select {
			case n := <-f.stream:
				if !yield(n, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func (f *feed) Inspect(_ context.Context, id string) (json.RawMessage, error) {
	if strings.HasPrefix(id, "gone") {
		return nil, fmt.Errorf("no such container: %w", runtime.ErrNotFound)
	}
	return json.RawMessage(`{"Id":"` + id + `"}`), nil
}

func (f *feed) tell(id, action string) {
	f.told++
	f.stream <- runtime.Notice{ID: id, Action: action, Image: "img", Time: time.Unix(1700000000, f.told)}
	synctest.Wait()
}

// status is what events.Client returns for a refused post.
func status(code int) error { return &events.APIError{Status: code} }

// server takes posts as a test wants.
type server struct {
	mu     sync.Mutex
	bodies []map[string]any
	answer func(id, status string) error
}

func (s *server) Post(_ context.Context, resourceType string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if resourceType != "containerEvent" {
		return errors.New("unknown type " + resourceType)
	}
	if s.answer != nil {
		if err := s.answer(m["externalId"].(string), m["externalStatus"].(string)); err != nil {
			return err
		}
	}
	s.bodies = append(s.bodies, m)
	return nil
}

func (s *server) took() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.bodies {
		list = append(list, fmt.Sprint(m["externalId"], " ", m["externalStatus"]))
	}
	return list
}

// posting runs ContainerEvents on a cache; the functions tell what happens and settle.
func posting(t *testing.T, f *feed, s *server, cfg handlers.ContainerEventsConfig) *handlers.ContainerEvents {
	f.stream = make(chan runtime.Notice)
	cache := runtime.NewCache(runtime.CacheConfig{Source: f})
	cfg.Source, cfg.Engine, cfg.Poster, cfg.HostUUID = cache, f, s, "host-1"
	c := handlers.NewContainerEvents(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = cache.Run(ctx) })
	wg.Go(func() {
		if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	synctest.Wait()
	return c
}

func wantTaken(t *testing.T, s *server, want ...string) {
	t.Helper()
	if got := s.took(); !slices.Equal(got, want) {
		t.Errorf("the server took %q, want %q", got, want)
	}
}

func TestContainerEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := &feed{rows: []runtime.ContainerSummary{{ID: "old", State: "running"}}}, &server{}
		c := posting(t, f, s, handlers.ContainerEventsConfig{})
		for _, action := range []string{"create", "start", "exec_create", "exec_start", "kill", "die", "stop", "rename", "destroy"} {
			f.tell("c1", action)
		}
		f.tell("gone", "die")
		wantTaken(t, s, "c1 start", "c1 kill", "c1 die", "c1 stop", "c1 destroy", "gone die")
		body, _ := json.Marshal(s.bodies[0])
		if want := `{"dockerInspect":{"Id":"c1"},"externalFrom":"img","externalId":"c1","externalStatus":"start","externalTimestamp":1700000000,"reportedHostUuid":"host-1"}`; string(body) != want {
			t.Errorf("body is %s, want %s", body, want)
		}
		for _, i := range []int{4, 5} {
			body, _ = json.Marshal(s.bodies[i]["dockerInspect"])
			if want := `{"Config":null,"Mounts":null,"NetworkSettings":null}`; string(body) != want {
				t.Errorf("inspect of %s is %s, want %s", s.bodies[i]["externalStatus"], body, want)
			}
		}
		if st := c.Stats(); st.Posted != 6 || st.Retried+st.Dropped+st.Coalesced != 0 || st.Queued != 0 {
			t.Errorf("stats are %+v", st)
		}
	})
}

func TestContainerEventsInitial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := &feed{rows: []runtime.ContainerSummary{{ID: "a", State: "running", Image: "i"}, {ID: "b", State: "exited"}, {ID: "c", State: "paused"}}}, &server{}
		posting(t, f, s, handlers.ContainerEventsConfig{Initial: true})
		got := s.took()
		slices.Sort(got)
		if !slices.Equal(got, []string{"a start", "c start"}) {
			t.Errorf("the server took %q", got)
		}
	})
}

// While the server cannot be reached nothing is lost and nothing overtakes.
func TestContainerEventsAreRetriedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := &feed{}, &server{}
		down := true
		s.answer = func(string, string) error {
			if down {
				return errors.New("connection refused")
			}
			return nil
		}
		c := posting(t, f, s, handlers.ContainerEventsConfig{})
		for _, action := range []string{"start", "kill", "die", "destroy"} {
			f.tell("c1", action)
		}
		time.Sleep(time.Minute)
		s.mu.Lock()
		down = false
		s.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		wantTaken(t, s, "c1 start", "c1 kill", "c1 die", "c1 destroy")
		if st := c.Stats(); st.Posted != 4 || st.Retried < 5 || st.Retried > 12 || st.Dropped != 0 {
			t.Errorf("stats are %+v", st)
		}
	})
}

// What the server refuses for good is given up, and only that.
func TestContainerEventsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := &feed{}, &server{}
		unknown := 3 // posts until the server knows the host
		busy := 2
		s.answer = func(id, _ string) error {
			switch {
			case unknown > 0:
				unknown--
				return fmt.Errorf("post: %w", status(422))
			case id == "bad":
				return status(422)
			case id == "wrong":
				return status(400)
			case id == "busy" && busy > 0:
				busy--
				return status(409)
			}
			return nil
		}
		log, out := recorder()
		c := posting(t, f, s, handlers.ContainerEventsConfig{Lanes: 1, Log: log})
		for _, id := range []string{"a", "bad", "wrong", "busy", "z"} {
			f.tell(id, "start")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		wantTaken(t, s, "a start", "busy start", "z start")
		if st := c.Stats(); st.Posted != 3 || st.Retried != 5 || st.Dropped != 2 {
			t.Errorf("stats are %+v", st)
		}
		if !strings.Contains(out.String(), "container event lost") || !strings.Contains(out.String(), "container=bad") {
			t.Errorf("log is %s", out)
		}
	})
}

// Too much for the queue shrinks to the last of each container, then loses the oldest; both are counted.
func TestContainerEventsOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := &feed{}, &server{}
		down := true
		s.answer = func(string, string) error {
			if down {
				return errors.New("down")
			}
			return nil
		}
		c := posting(t, f, s, handlers.ContainerEventsConfig{Lanes: 1, Queue: 4})
		f.tell("held", "start") // is being posted
		for range 3 {
			f.tell("loop", "start")
			f.tell("loop", "die")
		}
		if st := c.Stats(); st.Coalesced == 0 || st.Dropped != 0 || st.Queued > 4 {
			t.Errorf("stats are %+v", st)
		}
		for i := range 5 {
			f.tell(fmt.Sprint("c", i), "start")
		}
		if st := c.Stats(); st.Dropped == 0 || st.Queued != 4 {
			t.Errorf("stats are %+v", st)
		}
		s.mu.Lock()
		down = false
		s.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		wantTaken(t, s, "held start", "c1 start", "c2 start", "c3 start", "c4 start")
	})
}

func TestContainerEventsGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := &feed{}, &server{answer: func(string, string) error { return status(500) }}
		c := posting(t, f, s, handlers.ContainerEventsConfig{Attempts: 3})
		f.tell("a", "start")
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := c.Stats(); st.Retried != 2 || st.Dropped != 1 || st.Posted != 0 {
			t.Errorf("stats are %+v", st)
		}
	})
}

// A real daemon's containers are posted as they live and die.
func TestContainerEventsOnDocker(t *testing.T) {
	e := dockerEngine(t)
	cache := runtime.NewCache(runtime.CacheConfig{Source: e})
	in := newInstance(t, e)
	s := &server{}
	c := handlers.NewContainerEvents(handlers.ContainerEventsConfig{Source: cache, Engine: e, Poster: s, HostUUID: "host-1"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = cache.Run(ctx) })
	wg.Go(func() { _ = c.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	<-cache.Ready()

	id := inspected(t, e, handlers.Options{}, in)["Id"].(string)
	r := newRouter(e, handlers.Options{})
	mustServe(t, r, in.event(t, handlers.EventInstanceDeactivate, map[string]any{"timeout": 0}))
	mustServe(t, r, in.event(t, handlers.EventInstanceRemove, nil))
	mine := func() (list []string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range s.bodies {
			if m["externalId"] == id {
				list = append(list, m["externalStatus"].(string))
			}
		}
		return list
	}
	for deadline := time.Now().Add(time.Minute); !slices.Contains(mine(), "destroy"); {
		if time.Now().After(deadline) {
			t.Fatalf("the server took %q", mine())
		}
		time.Sleep(20 * time.Millisecond)
	}
	got := mine()
	if got[0] != "start" || got[len(got)-1] != "destroy" || !slices.Contains(got, "die") {
		t.Errorf("the server took %q", got)
	}
}
