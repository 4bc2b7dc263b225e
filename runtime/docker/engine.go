package docker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"

	"github.com/droverhq/drover/runtime"
)

// DefaultHost is where a daemon listens unless it was told otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// Config says which daemon an [Engine] drives. The zero value is the local daemon.
type Config struct {
	// Host is unix:///path, tcp://host:port[/path], http:// or https://; "" is [DefaultHost].
	Host string
	// TLS is used for tcp and https hosts; nil is plain TCP, or the system's roots for https.
	TLS *tls.Config
	// APIVersion fixes the API version ("1.41"); "" negotiates it.
	APIVersion string
	// Workers is how many calls run at once in steady state; so many connections are kept open. 0 is 16.
	Workers int
	// Timeout bounds a call whose ctx has no deadline; 0 is 30 s. Calls that change something get four times that.
	Timeout time.Duration
	// WatchInterval is how long Watch accepts silence before it asks whether the daemon is alive; 0 is 30 s.
	WatchInterval time.Duration
	// Records is the folder that says which processes are under way, for [Engine.Sweep] to end them if this process is
	// killed; "" keeps none. It is made when it is needed.
	Records string
}

// An Engine drives one Docker daemon. Its methods are those of the interfaces of package runtime.
type Engine struct {
	cfg  Config
	host *url.URL // scheme unix or tcp, and what to dial
	base url.URL  // scheme http or https, and the path before the version

	bounded *http.Transport // for calls that answer at once
	long    *http.Transport // for streams and for calls that wait
	header  http.Header     // of every hand-made request; never written after New

	// epoch counts the reasons to believe that the daemon is another one than before; a session of an older epoch is
	// negotiated again. open counts the connections of bounded.
	epoch atomic.Uint64
	open  atomic.Int64

	current     atomic.Pointer[session]
	negotiating chan struct{} // holds a token while one caller negotiates

	bodies sync.Pool // *bytes.Buffer
	closed atomic.Bool

	proc string       // our own /proc
	seen atomic.Int32 // whether it shows the daemon's containers
}

// The interfaces that an Engine offers.
var (
	_ runtime.Engine    = (*Engine)(nil)
	_ runtime.Volumes   = (*Engine)(nil)
	_ runtime.Builder   = (*Engine)(nil)
	_ runtime.Execer    = (*Engine)(nil)
	_ runtime.Attacher  = (*Engine)(nil)
	_ runtime.LogReader = (*Engine)(nil)
	_ runtime.Statser   = (*Engine)(nil)
	_ runtime.Copier    = (*Engine)(nil)
	_ runtime.Toper     = (*Engine)(nil)
	_ runtime.Restarter = (*Engine)(nil)
	_ runtime.Pauser    = (*Engine)(nil)
	_ runtime.Waiter    = (*Engine)(nil)
)

// New returns an engine for the daemon of cfg. It checks cfg and contacts nobody.
func New(cfg Config) (*Engine, error) {
	if cfg.Host == "" {
		cfg.Host = DefaultHost
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 16
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.WatchInterval <= 0 {
		cfg.WatchInterval = 30 * time.Second
	}
	cfg.APIVersion = strings.TrimPrefix(cfg.APIVersion, "v")

	host, err := client.ParseHostURL(cfg.Host)
	if err != nil {
		return nil, fmt.Errorf("docker host %q: %w: want unix:///path or tcp://host:port", cfg.Host, runtime.ErrInvalid)
	}
	base := url.URL{Scheme: "http", Host: host.Host}
	switch host.Scheme {
	case "unix":
		base.Host = client.DummyHost
	case "tcp":
		base.Path = strings.TrimSuffix(host.Path, "/")
	case "http", "https":
		if host.Scheme == "https" && cfg.TLS == nil {
			cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		host.Scheme = "tcp"
		host.Host, base.Path, _ = strings.Cut(host.Host, "/")
		if base.Path = strings.TrimSuffix(base.Path, "/"); base.Path != "" {
			base.Path = "/" + base.Path
		}
		host.Path = base.Path
		base.Host = host.Host
	default:
		return nil, fmt.Errorf("docker host %q: %w: scheme %s", cfg.Host, runtime.ErrUnsupported, host.Scheme)
	}
	if host.Scheme == "unix" {
		cfg.TLS = nil
	}
	if cfg.TLS != nil {
		base.Scheme = "https"
	}

	e := &Engine{cfg: cfg, host: host, base: base, proc: "/proc", negotiating: make(chan struct{}, 1)}
	e.header = http.Header{"User-Agent": {"drover"}}
	e.bounded = e.transport(cfg.Workers, true)
	e.long = e.transport(4, false)
	return e, nil
}

// Type returns "docker".
func (e *Engine) Type() string { return "docker" }

// Ping asks the daemon whether it answers, and negotiates the API version if that is due.
func (e *Engine) Ping(ctx context.Context) error {
	ctx, cancel := e.limit(ctx, e.cfg.Timeout)
	defer cancel()
	s, err := e.session(ctx)
	if err == nil {
		_, err = s.api.Ping(ctx)
	}
	return e.wrap(ctx, "ping", err)
}

// Close releases the idle connections. Calls under way go on; later ones fail with runtime.ErrUnavailable.
func (e *Engine) Close() error {
	e.closed.Store(true)
	e.bounded.CloseIdleConnections()
	e.long.CloseIdleConnections()
	return nil
}
