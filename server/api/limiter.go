package api

import (
	"crypto/sha256"
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

	// Credentials that were good are not limited for this long: someone who guesses from the same address, behind the
	// same NAT say, does not lock out those who are in.
	knownFor = time.Hour
	maxKnown = 16384
)

// A limiter counts failed logins. A client is an IPv4 address or an IPv6 network of 64 bits.
type limiter struct {
	now func() time.Time

	mu     sync.Mutex // guards the following fields
	limits map[limitKey]*rate.Limiter
	known  map[[sha256.Size]byte]time.Time // when credentials were good, by their digest
}

type limitKey struct {
	client netip.Prefix
	user   string // "": all users
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, limits: map[limitKey]*rate.Limiter{}, known: map[[sha256.Size]byte]time.Time{}}
}

func clientNet(client netip.Addr) netip.Prefix {
	bits := 32
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits) // an unknown address is one client of its own
	return p
}

// blocked returns how long a client must wait before it may try a user's secret; 0 means not at all.
func (l *limiter) blocked(client netip.Addr, user, secret string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	lim := l.limits[limitKey{clientNet(client), user}]
	if lim == nil {
		return 0
	}
	now := l.now()
	if at, ok := l.known[credentialKey(client, user, secret)]; ok && now.Sub(at) < knownFor {
		return 0
	}
	return untilOne(lim, now)
}

// succeeded remembers good credentials.
func (l *limiter) succeeded(client netip.Addr, user, secret string) {
	key := credentialKey(client, user, secret)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if at, ok := l.known[key]; ok && now.Sub(at) < knownFor/2 {
		return
	}
	if len(l.known) >= maxKnown {
		for k, at := range l.known {
			if len(l.known) >= maxKnown*3/4 || now.Sub(at) >= knownFor {
				delete(l.known, k)
			}
		}
	}
	l.known[key] = now
}

func credentialKey(client netip.Addr, user, secret string) [sha256.Size]byte {
	return sha256.Sum256([]byte(clientNet(client).String() + "\x00" + user + "\x00" + secret))
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
