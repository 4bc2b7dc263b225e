// Package backoff spaces attempts out in time: exponentially growing, capped, and with full jitter, so that many
// clients of one restarted server do not come back in one instant. Nothing in it starts a goroutine; only [Sleep]
// blocks, and it listens to its context.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Policy says how long to wait between attempts. The zero value is ready: up to 1 s, twice, then growing by half each
// time, at most 60 s. Doubling would leave stragglers far behind the rest of a thousand clients that lost one server
// for a moment.
type Policy struct {
	First time.Duration // bound of the first delay; 1 s if 0
	Base  time.Duration // bound of the second delay, from which it grows; First if 0
	Max   time.Duration // cap of every delay; 60 s if 0
}

func (p Policy) withDefaults() Policy {
	if p.Max <= 0 {
		p.Max = time.Minute
	}
	if p.First <= 0 {
		p.First = time.Second
	}
	if p.Base <= 0 {
		p.Base = p.First
	}
	return p
}

// Bound returns the longest delay after n earlier failures.
func (p Policy) Bound(n int) time.Duration {
	p = p.withDefaults()
	if n <= 0 {
		return min(p.First, p.Max)
	}
	d := p.Base
	for ; n > 1 && d < p.Max; n-- {
		d += d/2 + 1
	}
	return min(d, p.Max)
}

// After returns a random delay after n earlier failures: above 0 and at most the bound.
func (p Policy) After(n int) time.Duration { return jitter(p.Bound(n)) }

// Slowest returns a delay of the policy's slowest pace: between half of Max and Max.
func (p Policy) Slowest() time.Duration {
	p = p.withDefaults()
	return p.Max/2 + jitter(p.Max-p.Max/2)
}

// Start returns the delays of one series of attempts.
func (p Policy) Start() *Series { return &Series{policy: p} }

// A Series yields one delay after another. It is not safe for concurrent use.
type Series struct {
	policy   Policy
	failures int
}

// Next returns the next delay: above 0 and at most the bound, evenly distributed, and the bound grows with each call.
func (s *Series) Next() time.Duration {
	d := s.Again()
	s.failures++
	return d
}

// Again returns a delay under the present bound, without letting the bound grow.
func (s *Series) Again() time.Duration { return s.policy.After(s.failures) }

// Reset starts over with the first bound.
func (s *Series) Reset() { s.failures = 0 }

// AtLeast returns a delay of at least least, which a server may have asked for, plus jitter: up to half of least, and
// no less than d, so that the many who were told the same do not come at the same moment.
func AtLeast(least, d time.Duration) time.Duration {
	if least <= 0 {
		return d
	}
	return least + max(d, jitter(least/2))
}

// Sleep waits for d or until ctx ends, and returns ctx's error then.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// jitter returns a random duration above 0 and at most most.
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return 1 + rand.N(most)
}
