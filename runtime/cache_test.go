package runtime

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// engine is a CacheSource under a test's control.
type engine struct {
	mu      sync.Mutex
	rows    map[string]ContainerSummary
	past    []Notice // what Watch replays
	stream  chan Notice
	breaks  chan error
	listErr error
	delay   time.Duration // of a list, before it answers with what it saw at its beginning
	since   []time.Time

	lists, atOnce, most atomic.Int32
}

func newEngine() *engine {
	return &engine{rows: map[string]ContainerSummary{}, stream: make(chan Notice), breaks: make(chan error)}
}

func (e *engine) List(ctx context.Context, opts ListOptions) ([]ContainerSummary, error) {
	e.lists.Add(1)
	if n := e.atOnce.Add(1); n > e.most.Load() {
		e.most.Store(n)
	}
	defer e.atOnce.Add(-1)
	e.mu.Lock()
	var rows []ContainerSummary
	for _, r := range e.rows {
		if opts.Name == "" || slices.Contains(r.Names, opts.Name) {
			rows = append(rows, r)
		}
	}
	err, delay := e.listErr, e.delay
	e.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return rows, err
}

func (e *engine) Watch(ctx context.Context, since time.Time) iter.Seq2[Notice, error] {
	e.mu.Lock()
	e.since = append(e.since, since)
	past := slices.Clone(e.past)
	e.mu.Unlock()
	return func(yield func(Notice, error) bool) {
		for _, n := range past {
			if !n.Time.Before(since) && !yield(n, nil) {
				return
			}
		}
		for {
			select {
			case n := <-e.stream:
				if !yield(n, nil) {
					return
				}
			case err := <-e.breaks:
				yield(Notice{}, err)
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// set changes the engine without a notice.
func (e *engine) set(id, state string, labels map[string]string) ContainerSummary {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, ok := e.rows[id]
	if !ok {
		r = ContainerSummary{ID: id, Names: []string{"name-" + id}, Image: "img", Created: time.Now(), Labels: labels}
	}
	r.State, r.Status = state, "status of "+state
	e.rows[id] = r
	return r
}

func (e *engine) unset(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.rows, id)
}

// tell sends a notice and waits until it was taken.
func (e *engine) tell(id, action string) {
	e.mu.Lock()
	r := e.rows[id]
	e.mu.Unlock()
	n := Notice{ID: id, Action: action, Image: r.Image, Labels: r.Labels, Time: time.Now()}
	if len(r.Names) > 0 {
		n.Name = r.Names[0]
	}
	e.stream <- n
	synctest.Wait()
}

// cached starts a cache on the engine; settle lets it do what it wants to do.
func cached(t *testing.T, e *engine) (c *Cache, settle func()) {
	c = NewCache(CacheConfig{Source: e, Index: []string{"uuid"}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	settle = func() {
		time.Sleep(2 * time.Second)
		synctest.Wait()
	}
	return c, settle
}

func states(c *Cache) map[string]string {
	m := map[string]string{}
	for _, s := range c.Snapshot() {
		m[s.ID] = s.State
	}
	return m
}

func wantStates(t *testing.T, c *Cache, want string) {
	t.Helper()
	if got := fmt.Sprint(states(c)); got != want {
		t.Errorf("cache holds %s, want %s", got, want)
	}
}

func TestCacheFollowsNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", map[string]string{"uuid": "u1"})
		c, settle := cached(t, e)
		if c.Healthy() || len(c.Snapshot()) != 0 {
			t.Error("a cache that has not run is healthy or holds something")
		}
		<-c.Ready()
		settle()
		wantStates(t, c, "map[a:running]")
		if !c.Healthy() || e.lists.Load() != 1 {
			t.Errorf("healthy %v after %d lists", c.Healthy(), e.lists.Load())
		}
		if s, ok := c.ByName("name-a"); !ok || s.ID != "a" {
			t.Error("not found by name")
		}
		if l := c.ByLabel("uuid", "u1"); len(l) != 1 || l[0].ID != "a" {
			t.Errorf("by label: %v", l)
		}

		// A notice counts at once, its details follow by a list of that container alone.
		e.set("b", "created", map[string]string{"uuid": "u2", "other": "x"})
		e.tell("b", "create")
		wantStates(t, c, "map[a:running b:created]")
		if l := c.ByLabel("other", "x"); len(l) != 1 {
			t.Errorf("by a label without index: %v", l)
		}
		e.set("b", "running", nil)
		e.tell("b", "start")
		wantStates(t, c, "map[a:running b:running]")
		settle()
		if s, _ := c.Get("b"); s.Status != "status of running" {
			t.Errorf("b is %+v", s)
		}
		if e.lists.Load() != 2 {
			t.Errorf("%d lists, want 2: notices must gather", e.lists.Load())
		}
		e.set("b", "exited", nil)
		e.tell("b", "die")
		wantStates(t, c, "map[a:running b:exited]")
		e.unset("b")
		e.tell("b", "destroy")
		wantStates(t, c, "map[a:running]")
		if _, ok := c.ByName("name-b"); ok || len(c.ByLabel("uuid", "u2")) != 0 {
			t.Error("b is gone but found")
		}
		settle()
		lists := e.lists.Load()
		e.tell("a", "exec_start")
		settle()
		if e.lists.Load() != lists {
			t.Error("an exec was worth a list")
		}
	})
}

func TestCacheRename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		e.set("b", "running", nil)
		c, settle := cached(t, e)
		settle()
		sub := c.Subscribe(0)
		defer sub.Close()
		for i, id := range []string{"a", "b"} {
			e.mu.Lock()
			r := e.rows[id]
			r.Names = []string{"new-" + id}
			e.rows[id] = r
			e.mu.Unlock()
			if i == 0 {
				e.tell(id, "rename")
			} else {
				e.stream <- Notice{ID: id, Action: "update", Time: time.Now()} // its name is found to be wrong by the list
			}
			settle()
		}
		for _, id := range []string{"a", "b"} {
			if s, ok := c.ByName("new-" + id); !ok || s.ID != id {
				t.Errorf("%s is not found by its new name", id)
			}
			if _, ok := c.ByName("name-" + id); ok {
				t.Errorf("%s is found by its old name", id)
			}
		}
		for _, want := range []string{"rename", "update"} {
			if ch, err := sub.Next(t.Context()); err != nil || ch.Notice.Action != want || ch.Simulated {
				t.Errorf("got %+v, %v, want %s", ch, err, want)
			}
		}
	})
}

func TestCacheSnapshotIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		for i := range 1000 {
			e.set(fmt.Sprintf("c%04d", i), "running", nil)
			time.Sleep(time.Millisecond)
		}
		c, settle := cached(t, e)
		settle()
		a, b := c.Snapshot(), c.Snapshot()
		if len(a) != 1000 || &a[0] != &b[0] {
			t.Error("two snapshots without a change between them are not the same")
		}
		if a[0].ID != "c0999" {
			t.Errorf("the first is %s, want the newest", a[0].ID)
		}
		e.tell("c0999", "die")
		if d := c.Snapshot(); a[0].State != "running" || d[0].State != "exited" {
			t.Error("an old snapshot changed, or the new one did not")
		}
		settle()
	})
}

func TestCacheListsTogetherWhenManyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		c, settle := cached(t, e)
		settle()
		for i := range 50 {
			id := fmt.Sprint("n", i)
			e.set(id, "created", nil)
			e.tell(id, "create")
		}
		settle()
		if n := e.lists.Load(); n > 3 || len(c.Snapshot()) != 50 {
			t.Errorf("%d lists for 50 changes, %d containers", n, len(c.Snapshot()))
		}
		if e.most.Load() != 1 {
			t.Errorf("%d lists at once", e.most.Load())
		}
	})
}

// A list that began before a notice must not undo it.
func TestCacheOldListDoesNotUndoNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		e.set("b", "running", nil)
		c, settle := cached(t, e)
		settle()
		e.mu.Lock()
		e.delay = 10 * time.Second
		e.mu.Unlock()
		time.Sleep(5 * time.Minute) // the resync begins and has seen both running
		synctest.Wait()
		e.unset("a")
		e.tell("a", "destroy")
		e.set("b", "exited", nil)
		e.tell("b", "die")
		e.set("n", "created", nil)
		e.tell("n", "create")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantStates(t, c, "map[b:exited n:created]")
		time.Sleep(time.Minute)
		settle()
		wantStates(t, c, "map[b:exited n:created]")
	})
}

func TestCacheSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		e.set("z", "running", nil)
		c, settle := cached(t, e)
		settle()
		sub := c.Subscribe(0)
		defer sub.Close()
		next := func() string {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ch, err := sub.Next(ctx)
			switch {
			case err != nil:
				return "nothing"
			case ch.Gap:
				return "gap"
			case ch.Simulated:
				return "simulated " + ch.Notice.Action + " " + ch.Notice.ID
			}
			return ch.Notice.Action + " " + ch.Notice.ID
		}
		want := func(texts ...string) {
			t.Helper()
			var got []string
			for range texts {
				got = append(got, next())
			}
			slices.Sort(got)
			slices.Sort(texts)
			if !slices.Equal(got, texts) {
				t.Errorf("got %q, want %q", got, texts)
			}
		}
		e.set("a", "exited", nil)
		e.tell("a", "kill")
		e.tell("a", "die")
		e.tell("a", "stop")
		want("kill a")
		want("die a")
		want("stop a")
		settle()

		// While the stream is broken, a starts, z goes and y comes. The engine remembers only the first of it.
		e.breaks <- errors.New("connection reset")
		synctest.Wait()
		want("gap")
		if c.Healthy() || c.Status().Gaps != 1 || c.Status().LastError == "" {
			t.Errorf("status is %+v", c.Status())
		}
		e.set("a", "running", nil)
		e.mu.Lock()
		e.past = []Notice{{ID: "a", Action: "start", Time: time.Now()}}
		e.mu.Unlock()
		e.unset("z")
		e.set("y", "running", nil)
		settle()
		want("start a")
		want("simulated start y", "simulated destroy z")
		want("nothing")
		wantStates(t, c, "map[a:running y:running]")
		if !c.Healthy() {
			t.Errorf("status is %+v", c.Status())
		}
	})
}

// A stream that is reopened repeats the notices of its last instant; none is delivered twice.
func TestCacheDropsRepetitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		c, settle := cached(t, e)
		settle()
		sub := c.Subscribe(0)
		defer sub.Close()
		now := time.Now()
		for _, action := range []string{"kill", "die"} {
			n := Notice{ID: "a", Action: action, Time: now}
			e.stream <- n
			e.mu.Lock()
			e.past = append(e.past, n)
			e.mu.Unlock()
		}
		e.mu.Lock()
		e.past = append(e.past, Notice{ID: "a", Action: "stop", Time: now})
		r := e.rows["a"]
		r.State = "exited"
		e.rows["a"] = r
		e.mu.Unlock()
		synctest.Wait()
		e.breaks <- errors.New("reset")
		settle()
		var got []string
		for range 4 {
			ch, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ch.Notice.Action)
		}
		if !slices.Equal(got, []string{"kill", "die", "", "stop"}) {
			t.Errorf("got %q", got)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.since) != 2 || !e.since[1].Equal(now) {
			t.Errorf("streams were opened since %v, the last notice was of %v", e.since, now)
		}
	})
}

func TestCacheSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		c, settle := cached(t, e)
		settle()
		sub := c.Subscribe(3)
		defer sub.Close()
		for range 5 {
			e.tell("a", "kill")
			time.Sleep(time.Millisecond)
		}
		if ch, err := sub.Next(t.Context()); err != nil || !ch.Gap || sub.Dropped() != 2 {
			t.Errorf("first read is %+v, %v, with %d dropped", ch, err, sub.Dropped())
		}
		for range 3 {
			if ch, err := sub.Next(t.Context()); err != nil || ch.Notice.Action != "kill" {
				t.Errorf("read %+v, %v", ch, err)
			}
		}
		sub.Close()
		sub.Close()
		e.tell("a", "kill")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if ch, err := sub.Next(ctx); err == nil {
			t.Errorf("a closed subscription delivered %+v", ch)
		}
		settle()
	})
}

func TestCacheBacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		e.listErr = ErrUnavailable
		c, settle := cached(t, e)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := e.lists.Load(); n < 8 || n > 16 {
			t.Errorf("%d lists of a dead engine in a minute", n)
		}
		if s := c.Status(); s.Ready || s.Healthy || s.LastError == "" {
			t.Errorf("status is %+v", s)
		}
		e.mu.Lock()
		e.listErr = nil
		e.mu.Unlock()
		time.Sleep(10 * time.Second)
		settle()
		wantStates(t, c, "map[a:running]")
		if !c.Healthy() {
			t.Errorf("status is %+v", c.Status())
		}
	})
}

// A hung engine is noticed by the list, which is bounded.
func TestCacheHungEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		c, settle := cached(t, e)
		settle()
		e.mu.Lock()
		e.delay = time.Hour
		e.mu.Unlock()
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if c.Healthy() {
			t.Error("a hung engine is healthy")
		}
		wantStates(t, c, "map[a:running]")
	})
}

func BenchmarkCacheSnapshot(b *testing.B) {
	c := NewCache(CacheConfig{})
	for i := range 1000 {
		c.putLocked(ContainerSummary{ID: fmt.Sprint(i)}, 1)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Snapshot()
	}
}
