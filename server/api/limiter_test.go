package api

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestLimiterCountsFailures(t *testing.T) {
	now := time.Unix(1700000000, 0)
	l := newLimiter(func() time.Time { return now })
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for range userBurst {
		if l.blocked(a, "key", "x") > 0 {
			t.Fatal("blocked too early")
		}
		l.failed(a, "key")
	}
	wait := l.blocked(a, "key", "x")
	if wait <= 0 || wait > time.Minute {
		t.Errorf("after %d failures the wait is %v", userBurst, wait)
	}
	if l.blocked(a, "other", "x") > 0 || l.blocked(b, "key", "x") > 0 {
		t.Error("another key, or the same one from elsewhere, is blocked as well")
	}
	now = now.Add(wait)
	if l.blocked(a, "key", "x") > 0 {
		t.Error("still blocked after the wait")
	}
}

func TestLimiterLetsThoseInWhoWereIn(t *testing.T) {
	now := time.Unix(1700000000, 0)
	l := newLimiter(func() time.Time { return now })
	a := netip.MustParseAddr("192.0.2.1")
	l.succeeded(a, "key", "right")
	for range 2 * userBurst {
		l.failed(a, "key")
	}
	if l.blocked(a, "key", "right") > 0 {
		t.Error("guesses from the same address lock out who was in")
	}
	if l.blocked(a, "key", "wrong") == 0 || l.blocked(netip.MustParseAddr("192.0.2.2"), "key", "right") > 0 {
		t.Error("the limit is that of one client and one user")
	}
	for i := range maxKnown * 2 {
		l.succeeded(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "k", "s")
	}
	if n := len(l.known); n > maxKnown {
		t.Errorf("%d credentials are remembered", n)
	}
}

func TestLimiterCountsAllUsersOfAClient(t *testing.T) {
	now := time.Unix(1700000000, 0)
	l := newLimiter(func() time.Time { return now })
	client := netip.MustParseAddr("2001:db8::1")
	limited := 0
	for i := range clientBurst * 2 {
		// Another address of the same network, and another user, each time.
		addr := netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1))
		if l.failed(addr, fmt.Sprint(i)) > 0 {
			limited++
		}
	}
	if limited != clientBurst {
		t.Errorf("%d of %d guesses were limited, want %d", limited, clientBurst*2, clientBurst)
	}
	if l.blocked(client, "good", "x") > 0 {
		t.Error("a key that nobody guessed is blocked")
	}
}

func TestLimiterIsBounded(t *testing.T) {
	now := time.Unix(1700000000, 0)
	l := newLimiter(func() time.Time { return now })
	for i := range maxLimits * 3 {
		l.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "k")
	}
	if n := len(l.limits); n > maxLimits+2 {
		t.Errorf("%d limits are kept", n)
	}
}
