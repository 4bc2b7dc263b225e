package hub_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

const (
	manyEvents    = 10_000
	manyResources = 200
)

// burst pushes many events at once and checks that each gets its own answer.
func burst(t *testing.T, servers []*hubtest.Server, agentID string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	var wrong atomic.Int32
	for i := range n {
		wg.Go(func() {
			ev := hubtest.Event(i, i%manyResources)
			ev.TimeoutMillis = (5 * time.Minute).Milliseconds()
			r, err := servers[i%len(servers)].Call(t.Context(), agentID, ev, nil)
			if want := fmt.Sprintf(`{"n":%d}`, i); err != nil || string(r.Data) != want {
				if wrong.Add(1) < 5 {
					t.Errorf("event %d: %v, %v", i, r, err)
				}
			}
		})
	}
	wg.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d events without their answer", n)
	}
}

func checkOnce(t *testing.T, a *hubtest.Agent, n int) {
	t.Helper()
	runs := a.Runs()
	if len(runs) != n {
		t.Errorf("%d events were handled, want %d", len(runs), n)
	}
	for id, n := range runs {
		if n != 1 {
			t.Errorf("%s was handled %d times", id, n)
		}
	}
	if n := a.AfterAck(); n != 0 {
		t.Errorf("%d events came again after their reply was acknowledged", n)
	}
	hubtest.WaitFor(t, "all acknowledgements", func() bool { return a.Unacked() == 0 })
}

func checkQueueEmpty(t *testing.T, s *store.Store) {
	t.Helper()
	hubtest.WaitFor(t, "the queue to be empty", func() bool {
		n, err := s.QueueLen(t.Context())
		return err == nil && n == 0
	})
}

func TestTenThousandEventsAtOnce(t *testing.T) {
	srv, a := start(t, hubtest.AgentConfig{})
	begin := time.Now()
	burst(t, []*hubtest.Server{srv}, "1a1", manyEvents)
	t.Logf("%d events in %v", manyEvents, time.Since(begin))
	checkOnce(t, a, manyEvents)
	checkQueueEmpty(t, srv.Store)
	if s := srv.Stats(); s.Replies != manyEvents || s.Duplicates != 0 || s.Late != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestTenThousandEventsAtOnceToAnOriginalAgent(t *testing.T) {
	srv, a := start(t, hubtest.AgentConfig{Original: true})
	burst(t, []*hubtest.Server{srv}, "1a1", manyEvents/5)
	if n := a.Dropped(); n != 0 {
		t.Errorf("the agent dropped %d events", n)
	}
	for id, n := range a.Runs() {
		if n != 1 {
			t.Errorf("%s was handled %d times", id, n)
		}
	}
	checkQueueEmpty(t, srv.Store)
}

func TestTenThousandEventsWhileTheSocketIsCut(t *testing.T) {
	burstWithCuts(t, hub.Timings{}, manyEvents)
}

// The same where every event is stored before it is pushed, and where many are answered while they are being stored.
func TestStoredEventsWhileTheSocketIsCut(t *testing.T) {
	for _, after := range []time.Duration{-1, time.Microsecond, time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) { burstWithCuts(t, hub.Timings{StoreAfter: after}, manyEvents/8) })
	}
}

func burstWithCuts(t *testing.T, timings hub.Timings, n int) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t), Timings: timings})
	id := srv.Register(t, "key")
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id, Handle: func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) {
		time.Sleep(time.Millisecond)
		return ev.Data, nil
	}})
	a.WaitConnected()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Millisecond):
				a.Cut()
			}
		}
	})
	burst(t, []*hubtest.Server{srv}, id, n)
	close(stop)
	wg.Wait()
	checkOnce(t, a, n)
	checkQueueEmpty(t, srv.Store)
	t.Logf("stats %+v", srv.Stats())
}

func TestEventsWaitForAnAbsentAgent(t *testing.T) {
	srv := hubtest.Start(t, hub.Config{Store: storetest.Open(t)})
	id := srv.Register(t, "k")
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			if _, err := srv.Call(t.Context(), id, hubtest.Event(i, 1), nil); err != nil {
				t.Error(err)
			}
		})
		hubtest.WaitFor(t, "the event to be stored", func() bool {
			n, err := srv.Store.QueueLen(t.Context())
			return err == nil && n == uint64(i+1)
		})
	}
	short := hubtest.Event(99, 1)
	short.TimeoutMillis = 50
	if _, err := srv.Call(t.Context(), id, short, nil); !errors.Is(err, hub.ErrTimeout) {
		t.Errorf("event whose deadline passes: %v, want ErrTimeout", err)
	}
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id})
	wg.Wait()
	frames := a.Frames()
	if len(frames) != 30 {
		t.Fatalf("the agent got %d events, want 30: the one that expired is not for it", len(frames))
	}
	for i, frame := range frames {
		ev, err := wire.DecodeEvent([]byte(frame))
		if err != nil || string(ev.Data) != fmt.Sprintf(`{"n":%d}`, i) {
			t.Errorf("frame %d: %s: not in the order in which the events were given", i, frame)
		}
	}
	checkQueueEmpty(t, srv.Store)
}

// A server that stops leaves its events to the one that is started after it.
func TestEventsOutliveTheServer(t *testing.T) {
	dir := t.TempDir()
	open := func() (*hubtest.Server, *store.Store) {
		s, err := store.Open(t.Context(), store.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return hubtest.Start(t, hub.Config{Store: s}), s
	}
	srv, s := open()
	id := srv.Register(t, "k")
	const n = 20
	ended := make(chan error, n)
	for i := range n {
		ev := hubtest.Event(i, i)
		ev.ID = fmt.Sprintf("ev-%02d", i)
		go func() { _, err := srv.Call(t.Context(), id, ev, nil); ended <- err }()
	}
	if err := srv.Send(t.Context(), id, hubtest.Event(100, 100)); err != nil {
		t.Fatal(err)
	}
	expired := hubtest.Event(200, 200)
	expired.TimeoutMillis = 20
	if err := srv.Send(t.Context(), id, expired); err != nil {
		t.Fatal(err)
	}
	hubtest.WaitFor(t, "the calls", func() bool { return srv.Stats().Pending == n })
	srv.Stop()
	for range n {
		if err := <-ended; !errors.Is(err, hub.ErrClosed) {
			t.Errorf("call while the server stops: %v, want ErrClosed", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(30 * time.Millisecond)

	srv, s = open()
	defer func() {
		srv.Stop()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	a := hubtest.StartAgent(t, hubtest.To(srv), hubtest.AgentConfig{ID: id})
	defer a.Stop()
	hubtest.WaitFor(t, "the events", func() bool { return len(a.Runs()) == n+1 })
	checkQueueEmpty(t, s)
	// Whoever began them asks for their outcome, and gets it without their being done again.
	for i := range n {
		ev := hubtest.Event(i, i)
		ev.ID = fmt.Sprintf("ev-%02d", i)
		r, err := srv.Call(t.Context(), id, ev, nil)
		if err != nil || string(r.Data) != fmt.Sprintf(`{"n":%d}`, i) {
			t.Errorf("event %d: %v, %v", i, r, err)
		}
	}
	checkOnce(t, a, n+1)
}

// A reply that the agent could not deliver before the server stopped finds its event at the next server.
func TestRepliesOutliveTheServer(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	srv := hubtest.Start(t, hub.Config{Store: s})
	id := srv.Register(t, "k")
	var current atomic.Pointer[hubtest.Server]
	current.Store(srv)
	release := make(chan struct{})
	a := hubtest.StartAgent(t, current.Load, hubtest.AgentConfig{ID: id, Handle: func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) {
		<-release
		return ev.Data, nil
	}})
	ended := make(chan error, 1)
	ev := hubtest.Event(1, 1)
	ev.ID = "long-work"
	go func() { _, err := srv.Call(t.Context(), id, ev, nil); ended <- err }()
	hubtest.WaitFor(t, "the event", func() bool { return len(a.Frames()) == 1 })
	current.Store(nil)
	srv.Stop()
	if err := <-ended; !errors.Is(err, hub.ErrClosed) {
		t.Fatal(err)
	}
	if a.GoAway() <= 0 {
		t.Error("the agent was not told to go away")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	close(release) // the work ends while there is no server

	s, err = store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	srv = hubtest.Start(t, hub.Config{Store: s})
	current.Store(srv)
	defer func() {
		a.Stop()
		srv.Stop()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := srv.Call(t.Context(), id, ev, nil)
	if err != nil || string(r.Data) != `{"n":1}` {
		t.Errorf("%v, %v", r, err)
	}
	checkOnce(t, a, 1)
	checkQueueEmpty(t, s)
}
