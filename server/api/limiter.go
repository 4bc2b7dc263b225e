package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Wrong credentials that one client may send: of one user name, and of all together.
const (
	userBurst    = 20
	userRefill   = rate.Limit(1.0 / 3)
	clientBurst  = 100
	clientRefill = rate.Limit(2)
	maxLimits    = 8192
)

// A limiter counts failed logins. A client is an IPv4 address or an IPv6 network of 64 bits.
type limiter struct {
	now func() time.Time

	mu     sync.Mutex // guards the following field
	limits map[limitKey]*rate.Limiter
}

type limitKey struct {
	client netip.Prefix
	user   string // "": all users
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, limits: map[limitKey]*rate.Limiter{}}
}

func clientNet(client netip.Addr) netip.Prefix {
	bits := 32
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits) // an unknown address is one client of its own
	return p
}

// blocked returns how long a client must wait before it may try user again; 0 means not at all.
func (l *limiter) blocked(client netip.Addr, user string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	lim := l.limits[limitKey{clientNet(client), user}]
	if lim == nil {
		return 0
	}
	return untilOne(lim, l.now())
}

// failed counts a failure and returns how long the client must wait, if it failed too often with whatever user.
func (l *limiter) failed(client netip.Addr, user string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, network := l.now(), clientNet(client)
	l.limit(limitKey{network, user}, userRefill, userBurst, now).AllowN(now, 1)
	all := l.limit(limitKey{network, ""}, clientRefill, clientBurst, now)
	if !all.AllowN(now, 1) {
		return untilOne(all, now)
	}
	return 0
}

func untilOne(lim *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - lim.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / float64(lim.Limit()) * float64(time.Second))
}

func (l *limiter) limit(key limitKey, refill rate.Limit, burst int, now time.Time) *rate.Limiter {
	if lim := l.limits[key]; lim != nil {
		return lim
	}
	if len(l.limits) >= maxLimits {
		l.forget(now)
	}
	lim := rate.NewLimiter(refill, burst)
	l.limits[key] = lim
	return lim
}

// forget makes room: those that have recovered go first, and if that is not enough, some of the others.
func (l *limiter) forget(now time.Time) {
	for key, lim := range l.limits {
		if lim.TokensAt(now) >= float64(lim.Burst()) {
			delete(l.limits, key)
		}
	}
	for key := range l.limits {
		if len(l.limits) < maxLimits*3/4 {
			return
		}
		delete(l.limits, key)
	}
}
