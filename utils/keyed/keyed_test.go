package keyed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestOneKeyIsInOrderAndOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, each, workers = 20, 100, 8
		q := NewQueue[int]()
		var mu sync.Mutex
		busy := map[int]bool{}
		got := map[int][]int{}
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for {
					v, err := q.Pop(t.Context())
					if err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
					key := v.Value % keys
					mu.Lock()
					if busy[key] {
						t.Errorf("key %d is out twice", key)
					}
					busy[key] = true
					got[key] = append(got[key], v.Value)
					mu.Unlock()
					synctestYield()
					mu.Lock()
					busy[key] = false
					mu.Unlock()
					v.Done()
				}
			})
		}
		for i := range keys * each {
			q.Push(fmt.Sprint(i%keys), i)
		}
		q.Close()
		wg.Wait()
		for key, values := range got {
			if len(values) != each || !slices.IsSorted(values) {
				t.Errorf("key %d: %d values, sorted %v", key, len(values), slices.IsSorted(values))
			}
		}
		if len(got) != keys || q.Len() != 0 || len(q.lanes) != 0 {
			t.Errorf("%d keys came out; %d values and %d lanes are left", len(got), q.Len(), len(q.lanes))
		}
	})
}

// synctestYield gives other goroutines a turn.
func synctestYield() {
	done := make(chan struct{})
	go close(done)
	<-done
}

func TestAHeldKeyDoesNotHoldOthers(t *testing.T) {
	q := NewQueue[string]()
	for _, v := range []string{"a1", "a2", "b1"} {
		q.Push(v[:1], v)
	}
	a1, _ := q.Pop(t.Context())
	b1, _ := q.Pop(t.Context())
	if a1.Value != "a1" || b1.Value != "b1" {
		t.Fatalf("got %s and %s, want a1 and b1", a1.Value, b1.Value)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := q.Pop(ended); err == nil {
		t.Errorf("%s came out while a1 is", v.Value)
	}
	a1.Done()
	if a2, err := q.Pop(t.Context()); err != nil || a2.Value != "a2" {
		t.Errorf("got %q, %v", a2.Value, err)
	}
}

func TestAgainComesBeforeWhatIsBehindIt(t *testing.T) {
	q := NewQueue[string]()
	q.Push("a", "a1")
	q.Push("a", "a2")
	for i, want := range []string{"a1", "a1", "a2"} {
		v, err := q.Pop(t.Context())
		if err != nil || v.Value != want {
			t.Fatalf("got %q, %v, want %s", v.Value, err, want)
		}
		if i == 0 {
			v.Again()
			continue
		}
		v.Done()
	}
}

func TestTheEmptyKeyAsksForNoOrder(t *testing.T) {
	q := NewQueue[int]()
	q.Push("", 1)
	q.Push("", 2)
	one, _ := q.Pop(t.Context())
	two, err := q.Pop(t.Context())
	if err != nil || one.Value != 1 || two.Value != 2 {
		t.Errorf("%v: %d, %d", err, one.Value, two.Value)
	}
	one.Done()
	two.Done()
	if len(q.lanes) != 0 {
		t.Errorf("%d lanes are left", len(q.lanes))
	}
}

func TestPushSaysWhetherAPoolShouldGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[int]()
		if !q.Push("a", 1) {
			t.Error("nobody waits, and Push did not say so")
		}
		if q.Push("a", 2) {
			t.Error("a value behind another of its key needs nobody yet")
		}
		v, _ := q.Pop(t.Context())
		waiting := make(chan Taken[int])
		go func() {
			v, _ := q.Pop(t.Context())
			waiting <- v
		}()
		synctest.Wait()
		if q.Push("b", 3) {
			t.Error("somebody waits, and Push did not know")
		}
		if got := <-waiting; got.Value != 3 {
			t.Errorf("got %d", got.Value)
		}
		v.Done()
	})
}

func TestDrainTakesEverythingInOrder(t *testing.T) {
	q := NewQueue[string]()
	for _, v := range []string{"a1", "b1", "a2", "b2", "a3"} {
		q.Push(v[:1], v)
	}
	out, _ := q.Pop(t.Context())
	got := q.Drain()
	if q.Len() != 0 || len(got) != 4 {
		t.Fatalf("drained %v, %d left", got, q.Len())
	}
	var a []string
	for _, v := range got {
		if v[0] == 'a' {
			a = append(a, v)
		}
	}
	if !slices.Equal(a, []string{"a2", "a3"}) {
		t.Errorf("a's values came as %v", a)
	}
	out.Done()
	q.Push("a", "a4")
	if v, err := q.Pop(t.Context()); err != nil || v.Value != "a4" {
		t.Errorf("after Drain: %q, %v", v.Value, err)
	}
}

func TestCloseWakesEveryPop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[int]()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := q.Pop(t.Context()); !errors.Is(err, ErrClosed) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		q.Close()
		wg.Wait()
	})
}

func BenchmarkPushPop(b *testing.B) {
	q := NewQueue[int]()
	keys := make([]string, 200)
	for i := range keys {
		keys[i] = fmt.Sprintf("instanceHostMap:1ihm%d", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		q.Push(keys[i%len(keys)], i)
		v, err := q.Pop(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		v.Done()
	}
}
