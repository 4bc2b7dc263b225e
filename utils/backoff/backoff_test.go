package backoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBoundsGrowToTheCap(t *testing.T) {
	p := Policy{}
	want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}
	for n, d := range want {
		if got := p.Bound(n); got != d {
			t.Errorf("after %d failures: %s, want %s", n, got, d)
		}
	}
	for _, n := range []int{61, 62, 63, 64, 1 << 40} {
		if got := p.Bound(n); got != time.Minute {
			t.Errorf("after %d failures: %s", n, got)
		}
	}
	if got := (Policy{First: time.Hour, Max: time.Second}).Bound(0); got != time.Second {
		t.Errorf("the cap does not hold the first delay: %s", got)
	}
}

func TestDelaysAreSpreadOverTheWholeRange(t *testing.T) {
	const n = 2000
	var below, above int
	for range n {
		s := Policy{}.Start()
		d := s.Next()
		if d <= 0 || d > time.Second {
			t.Fatalf("first delay %s", d)
		}
		if d < time.Second/2 {
			below++
		} else {
			above++
		}
		if d := s.Next(); d <= 0 || d > 2*time.Second {
			t.Fatalf("second delay %s", d)
		}
		if d := s.Again(); d <= 0 || d > 4*time.Second {
			t.Fatalf("third delay %s", d)
		}
		s.Reset()
		if d := s.Next(); d > time.Second {
			t.Fatalf("delay after Reset %s", d)
		}
	}
	if below < n/3 || above < n/3 {
		t.Errorf("%d delays below the middle, %d above", below, above)
	}
}

func TestSlowest(t *testing.T) {
	for range 100 {
		if d := (Policy{}).Slowest(); d < 30*time.Second || d > time.Minute {
			t.Fatalf("%s", d)
		}
	}
}

func TestAtLeast(t *testing.T) {
	if d := AtLeast(0, time.Second); d != time.Second {
		t.Errorf("nothing asked for: %s", d)
	}
	for range 100 {
		if d := AtLeast(10*time.Second, time.Second); d < 11*time.Second || d > 15*time.Second {
			t.Fatalf("10 s asked for: %s", d)
		}
	}
}

func TestSleepListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := Sleep(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if err := Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if err := Sleep(ctx, 0); err == nil {
			t.Error("an ended context went unnoticed")
		}
	})
}
