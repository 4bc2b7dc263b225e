package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events/tunnel"
	"github.com/droverhq/drover/server/store"
)

// Config is what an [Access] needs. Store and Key are required.
type Config struct {
	Store *store.Store
	// Key signs what replicas show to each other. All replicas have the same.
	Key *rsa.PrivateKey
	// URL is where the other replicas reach this one. It is used only where there are others.
	URL string
	// TLS is for requests to other replicas; may be nil.
	TLS *tls.Config
	// Tunnel has the options of tunnels.
	Tunnel tunnel.Options
	// MaxTunnels bounds the tunnels of this replica: 20,000 if 0.
	MaxTunnels int
	// Wait is how long a request waits for the tunnel of an agent that is connected: 5 s if 0.
	Wait time.Duration
	// Linger is how long the viewer of an upgraded connection may be silent after the host has said everything, before it
	// is closed: a minute if 0.
	Linger time.Duration
	Log    logrus.FieldLogger // nil: nothing is logged
	Now    func() time.Time   // nil: the machine's clock
}

// An Access holds the tunnels of one server replica. Its methods are safe for concurrent use.
type Access struct {
	cfg      Config
	self     string // names this replica among the others
	tunnels  *tunnel.Server
	replicas *http.Transport
	buffers  bufferPool

	mu       sync.Mutex // guards the following fields
	links    map[string]*link
	backends map[string]*heldBackend // of original agents, by host
	arrived  chan struct{}           // closed and replaced when a tunnel comes
	opening  int                     // tunnels that are let in and not yet in links
	closed   bool

	ctx    context.Context //nolint:containedctx // of upgraded connections, which outlive their requests; Close ends it
	cancel context.CancelFunc

	watchers sync.WaitGroup // of tunnels
	active   sync.WaitGroup // requests
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Access, error) {
	if cfg.Store == nil || cfg.Key == nil {
		return nil, errors.New("access: the store and the key are required")
	}
	if cfg.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		cfg.Log = quiet
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.MaxTunnels = cmp.Or(cfg.MaxTunnels, 20_000)
	cfg.Wait = cmp.Or(cfg.Wait, 5*time.Second)
	cfg.Linger = cmp.Or(cfg.Linger, time.Minute)
	cfg.Tunnel.Log = cfg.Log
	tunnels, err := tunnel.NewServer(cfg.Tunnel)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Access{
		ctx: ctx, cancel: cancel, cfg: cfg, self: rand.Text(), tunnels: tunnels, links: make(map[string]*link), backends: make(map[string]*heldBackend), arrived: make(chan struct{}),
		replicas: &http.Transport{
			TLSClientConfig: cfg.TLS, DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10,
		},
	}, nil
}

// begin counts a request in, unless the server shuts down. Each success is followed by one active.Done.
func (a *Access) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return problem(http.StatusServiceUnavailable, CodeClosing, "the server is shutting down")
	}
	a.active.Add(1)
	return nil
}

// Close ends all tunnels and the requests in them, lets no more of either in, and waits for their ends.
func (a *Access) Close() {
	a.mu.Lock()
	a.closed = true
	links := make([]*link, 0, len(a.links))
	for _, l := range a.links {
		links = append(links, l)
	}
	a.mu.Unlock()
	for _, l := range links {
		l.end("the server shuts down")
	}
	a.watchers.Wait()
	a.cancel()
	a.active.Wait()
	a.replicas.CloseIdleConnections()
}

// Tunnels returns how many are open at this replica.
func (a *Access) Tunnels() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.links)
}

// Follow closes the tunnels and backends of agents that are removed, until ctx ends.
func (a *Access) Follow(ctx context.Context) {
	for c := range a.cfg.Store.Subscribe(ctx, store.TypeAgent) {
		if rec, ok := c.Record.(*store.Agent); c.Deleted || ok && rec.State == store.StateRemoved {
			a.Disconnect(c.ID)
		}
	}
}

// Disconnect closes the tunnel and the backend of an agent, if this replica has them.
func (a *Access) Disconnect(agentID string) {
	a.mu.Lock()
	l := a.links[agentID]
	for _, b := range a.backends {
		if b.agent == agentID {
			b.cancel()
		}
	}
	a.mu.Unlock()
	if l != nil {
		l.end("the agent was removed")
	}
}

// A bufferPool lends the buffers that bodies are copied with.
type bufferPool struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }
