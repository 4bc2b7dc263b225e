package backoff

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestBoundsGrowToTheCap(t *testing.T) {
	p := Policy{}
	want := []float64{1, 1, 1.5, 2.25, 3.375, 5.063, 7.594, 11.391, 17.086, 25.629, 38.443, 57.665, 60, 60}
	for n, s := range want {
		d := time.Duration(s * float64(time.Second)).Round(time.Millisecond)
		if got := p.Bound(n).Round(time.Millisecond); got != d {
			t.Errorf("after %d failures: %s, want %s", n, got, d)
		}
	}
	for _, n := range []int{62, 63, 64, 1 << 40} {
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
		if d := s.Next(); d <= 0 || d > time.Second {
			t.Fatalf("second delay %s", d)
		}
		if d := s.Again(); d <= 0 || d > 1500*time.Millisecond {
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

// TestAShortOutageMakesNoStorm lets 100 clients lose a server at one instant and come back to it when it is up again.
// The busiest second must not see more than three times the mean.
func TestAShortOutageMakesNoStorm(t *testing.T) {
	for _, down := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second} {
		const clients, rounds = 100, 200
		var sum float64
		for range rounds {
			var back []time.Duration
			for range clients {
				s := Policy{}.Start()
				at := s.Next()
				for at < down {
					at += s.Next()
				}
				back = append(back, at)
			}
			slices.Sort(back)
			seconds := map[time.Duration]int{}
			peak := 0
			for _, at := range back {
				bin := (at - back[0]) / time.Second
				seconds[bin]++
				peak = max(peak, seconds[bin])
			}
			mean := clients / max(1, (back[clients-1]-back[0]).Seconds())
			sum += float64(peak) / mean
		}
		if ratio := sum / rounds; ratio >= 3 {
			t.Errorf("after %s: the busiest second sees %.1f times the mean", down, ratio)
		}
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
