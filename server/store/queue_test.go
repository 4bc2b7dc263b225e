package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

func queuedEvents(t *testing.T, s *store.Store, agentID string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out []string
	var last uint64
	err := s.Events(ctx, agentID, func(q store.QueuedEvent) error {
		if q.Seq <= last || q.Agent != agentID {
			t.Errorf("event %d of %s after %d of %s", q.Seq, q.Agent, last, agentID)
		}
		last = q.Seq
		out = append(out, string(q.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestQueueKeepsOrderOverARestart(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute).Truncate(time.Millisecond)
	var want []string
	for i := range 600 {
		body := fmt.Sprintf(`{"n":%d}`, i)
		if _, err := s.PutEvent(ctx, store.EventRef{Agent: "1a1", ID: fmt.Sprint("ev-", i)}, deadline, "aa", []byte(body)); err != nil {
			t.Fatal(err)
		}
		want = append(want, body)
	}
	if _, err := s.PutEvent(ctx, store.EventRef{Agent: "1a11", ID: "ev.with > odd * letters"}, deadline, "aa", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if err := s.DropEvents(ctx, []store.EventRef{{Agent: "1a1", ID: "ev-0"}, {Agent: "1a1", ID: "ev-300"}, {Agent: "1a1", ID: "none"}}); err != nil {
		t.Fatal(err)
	}
	want = slices.Delete(want, 300, 301)[1:]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = storetest.OpenConfig(t, store.Config{Dir: dir})
	if got := queuedEvents(t, s, "1a1"); !slices.Equal(got, want) {
		t.Errorf("%d events after a restart, want %d, the same in the same order", len(got), len(want))
	}
	if got := queuedEvents(t, s, "1a2"); len(got) != 0 {
		t.Errorf("an agent without events gets %d", len(got))
	}
	found := 0
	err = s.Events(ctx, "1a11", func(q store.QueuedEvent) error {
		found++
		if !q.Deadline.Equal(deadline) || q.Origin != "aa" {
			t.Errorf("%+v; want deadline %v and origin aa", q, deadline)
		}
		return nil
	})
	if err != nil || found != 1 {
		t.Errorf("%d events with an odd id, %v; want one", found, err)
	}
	if err := s.PurgeEvents(ctx, "1a1"); err != nil {
		t.Fatal(err)
	}
	if got := queuedEvents(t, s, "1a1"); len(got) != 0 {
		t.Errorf("%d events after a purge", len(got))
	}
}

func TestFullQueueSaysSoAndRecovers(t *testing.T) {
	ctx := t.Context()
	s := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), MaxQueueBytes: 64 << 10})
	body := make([]byte, 4<<10)
	deadline := time.Now().Add(time.Minute)
	var refs []store.EventRef
	var err error
	for i := range 100 {
		ref := store.EventRef{Agent: "1a1", ID: fmt.Sprint(i)}
		if _, err = s.PutEvent(ctx, ref, deadline, "aa", body); err != nil {
			break
		}
		refs = append(refs, ref)
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("after %d events: %v, want ErrFull", len(refs), err)
	}
	if err := s.DropEvents(ctx, refs); err != nil {
		t.Fatalf("drop from a full queue: %v", err)
	}
	if got := queuedEvents(t, s, "1a1"); len(got) != 0 {
		t.Errorf("%d events are left", len(got))
	}
	if _, err := s.PutEvent(ctx, refs[0], deadline, "aa", body); err != nil {
		t.Errorf("put after dropping: %v", err)
	}
}

func TestDroppedEventsLeaveNothing(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	ref := store.EventRef{Agent: "1a1", ID: "x"}
	for range 3 {
		if _, err := s.PutEvent(ctx, ref, time.Now().Add(time.Hour), "aa", []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		if err := s.DropEvents(ctx, []store.EventRef{ref}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the queue to be empty", func() bool {
		n, err := s.QueueLen(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
}

func TestReplicasFollowEachOther(t *testing.T) {
	ctx := t.Context()
	url := storetest.NATS(t)
	type change struct{ on, agent string }
	changes := make(chan change, 100)
	lost := make(chan string, 10)
	join := func(name string) (*store.Store, *store.Replicas) {
		s := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
		r, err := s.OpenReplicas(ctx, name, store.Watcher{
			Moved: func(agent string) { changes <- change{name, agent} },
			Lost:  func(replica string) { lost <- replica },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return s, r
	}
	_, a := join("aa")
	_, b := join("bb")
	holder := func(r *store.Replicas, want string) func() bool {
		return func() bool { got, _ := r.Holder("1a1"); return got == want }
	}
	if err := a.Hold(ctx, "1a1"); err != nil {
		t.Fatal(err)
	}
	if !holder(a, "aa")() {
		t.Error("a does not know at once that it holds the agent")
	}
	waitFor(t, "b to see that a holds the agent", holder(b, "aa"))
	if err := b.Hold(ctx, "1a1"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a to see that b took over", holder(a, "bb"))
	if err := a.Release(ctx, "1a1"); err != nil {
		t.Fatal(err)
	}
	if !holder(b, "bb")() {
		t.Error("a's late release took the agent from b")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a to see that b left", holder(a, ""))
	if got := <-lost; got != "bb" || a.Alive("bb") || !a.Alive("aa") {
		t.Errorf("lost %s; bb alive: %v, aa alive: %v", got, a.Alive("bb"), a.Alive("aa"))
	}
	if len(changes) == 0 {
		t.Error("no change was reported")
	}
}

func TestBus(t *testing.T) {
	url := storetest.NATS(t)
	a := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
	b := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop, err := b.Handle("drover.test", func(m store.Message) { m.Answer(append(m.Data, '!')) })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Request(ctx, "drover.test", []byte("hello")); err != nil || string(got) != "hello!" {
		t.Errorf("%q, %v", got, err)
	}
	answers := make(chan store.Message, 2)
	stopAnswers, err := a.Handle("drover.answers.>", func(m store.Message) { answers <- m })
	if err != nil {
		t.Fatal(err)
	}
	defer stopAnswers()
	if err := a.Ask("drover.test", "drover.answers.1", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if m := <-answers; string(m.Data) != "hello!" || m.Subject != "drover.answers.1" || m.Nobody {
		t.Errorf("answer %+v", m)
	}
	if err := a.Ask("drover.nobody", "drover.answers.2", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if m := <-answers; m.Subject != "drover.answers.2" || !m.Nobody {
		t.Errorf("answer %+v", m)
	}
	stop()
	waitFor(t, "nobody to listen", func() bool {
		_, err := a.Request(ctx, "drover.test", nil)
		return errors.Is(err, store.ErrNobody)
	})
}

func BenchmarkPutDropEvent(b *testing.B) {
	s := storetest.Open(b)
	body := make([]byte, 400)
	deadline := time.Now().Add(time.Minute)
	i := 0
	for b.Loop() {
		ref := []store.EventRef{{Agent: "1a1", ID: fmt.Sprint(i)}}
		i++
		if _, err := s.PutEvent(b.Context(), ref[0], deadline, "aa", body); err != nil {
			b.Fatal(err)
		}
		if err := s.DropEvents(b.Context(), ref); err != nil {
			b.Fatal(err)
		}
	}
}
