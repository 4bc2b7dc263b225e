package events

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sirupsen/logrus"
)

// Config says how a [Client] reaches its server and how much it may hold. URL and Router are required; every other
// field has a default.
type Config struct {
	// URL is the base of the server's API, for example https://rancher.example/v1. Credentials in it are refused:
	// they would end in logs.
	URL       string
	AccessKey string
	SecretKey string
	Router    *Router

	// Journal is the file that keeps replies until the server took them; the segments of its log stand beside it, with
	// ".log-" and a number after its name. Its folder must exist, and it takes some MB. "" keeps replies in memory alone:
	// they survive a lost connection, not the process.
	Journal string

	Log     logrus.FieldLogger
	Version string      // sent as Drover-Version; "" sends "dev"
	Header  http.Header // more headers for every request

	TLS *tls.Config // nil means the system's roots
	// Proxy chooses the proxy of a request, for the socket and for REST alike; nil means none. The schemes http, https,
	// socks5 and socks5h work. It sees http and https URLs, never ws.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial opens TCP connections, to the server or its proxy. nil means a net.Dialer with keep-alive.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	Workers      int           // events handled at once, pings apart; 64
	QueueEvents  int           // events that may wait; 16,384
	QueueBytes   int64         // bytes of events that may wait; 24 MiB
	ReplyTimeout time.Duration // one attempt to POST; 30 s
	ReplyTTL     time.Duration // how long a reply that nobody takes is offered; 1 h, longer if the event's own deadline is

	HandshakeTimeout time.Duration // 30 s
	PingInterval     time.Duration // 5 s; a link silent for 2.5 intervals, in either direction, is dropped
	FirstDelay       time.Duration // longest random delay after a lost connection; 1 s
	MaxDelay         time.Duration // cap of the back-off; 60 s
	Steady           time.Duration // a connection that held this long resets the back-off; 30 s
	ResendAfter      time.Duration // a reply sent over the socket and not acknowledged is sent again; 15 s
	Drain            time.Duration // how long Run may take to finish once its context ended; 10 s

	// Serialize reports whether compute events must run one at a time (storage driver devicemapper). It is asked for
	// each event whose name begins with compute.instance.; nil means never. See [Exclusive].
	Serialize func() bool
	// OnState is told of each change of the state, one call at a time; it must not block. May be nil.
	OnState func(Status)
}

func (c *Config) setDefaults() {
	def(&c.Version, "dev")
	def(&c.Workers, 64)
	def(&c.QueueEvents, 16384)
	def(&c.QueueBytes, 24<<20)
	def(&c.ReplyTimeout, 30*time.Second)
	def(&c.ReplyTTL, time.Hour)
	def(&c.HandshakeTimeout, 30*time.Second)
	def(&c.PingInterval, 5*time.Second)
	def(&c.FirstDelay, time.Second)
	def(&c.MaxDelay, time.Minute)
	def(&c.Steady, 30*time.Second)
	def(&c.ResendAfter, 15*time.Second)
	def(&c.Drain, 10*time.Second)
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = silent
	}
	if c.Serialize == nil {
		c.Serialize = func() bool { return false }
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: c.HandshakeTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
}

// def sets *v to value where it is zero.
func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// validate checks c after defaults were set and returns the parsed URL.
func (c *Config) validate() (*url.URL, error) {
	if c.Router == nil {
		return nil, errors.New("events: config: Router is missing")
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("events: config: URL: %w", err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("events: config: URL %q: the scheme must be http or https", u.Redacted())
	case u.Host == "":
		return nil, fmt.Errorf("events: config: URL %q names no host", u.Redacted())
	case u.User != nil:
		return nil, errors.New("events: config: URL holds credentials; give AccessKey and SecretKey")
	}
	for name, v := range map[string]int64{
		"Workers": int64(c.Workers), "QueueEvents": int64(c.QueueEvents), "QueueBytes": c.QueueBytes,
		"ReplyTimeout": int64(c.ReplyTimeout), "ReplyTTL": int64(c.ReplyTTL), "HandshakeTimeout": int64(c.HandshakeTimeout),
		"PingInterval": int64(c.PingInterval), "FirstDelay": int64(c.FirstDelay), "MaxDelay": int64(c.MaxDelay),
		"Steady": int64(c.Steady), "ResendAfter": int64(c.ResendAfter), "Drain": int64(c.Drain),
	} {
		if v < 0 {
			return nil, fmt.Errorf("events: config: %s is negative", name)
		}
	}
	return u, nil
}
