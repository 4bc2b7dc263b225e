package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/hostinfo"
	"github.com/droverhq/drover/ping"
	"github.com/droverhq/drover/server/access"
	serverlogs "github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/service/logs"
	"github.com/droverhq/drover/service/token"
)

// A logDoor is the log service of this machine on a port.
type logDoor struct {
	service *logs.Service
	door    *logs.Door
	address string
	tls     doorTLS
	tlsDir  string   // of an authority of the node's own
	names   []string // for its certificate
	log     logrus.FieldLogger

	cert atomic.Pointer[doorCertificate] // nil: plain HTTP, or not listening yet

	listener net.Listener
	active   sync.WaitGroup // requests, for which http.Server.Close does not wait
}

// newLogDoor composes the log service. names are what tokens may call this host; pods, which may be nil, serves names
// that begin with pod:.
func newLogDoor(cfg *Config, node string, names []string, pods logs.Pods, log logrus.FieldLogger) (*logDoor, error) {
	l := &cfg.Logs
	service, err := logs.New(logs.Config{
		Prefix: strings.TrimSuffix(cfg.Agent.Rootfs, "/"), Roots: append([]string{l.Root}, l.Roots...), StdinRoots: l.StdinRoots,
		Commands: l.Commands, Limits: l.Limits.limits(), SpillDir: l.SpillDir, Pods: pods,
		Awk: logs.AwkCommand{Path: ownBinary(), Args: []string{"drover", awkWorker}},
	})
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	var authorize func(*http.Request) (logs.Caller, error) // nobody
	if l.Port != 0 {
		if authorize, err = logAuthorizer(l, names); err != nil {
			return nil, err
		}
	}
	if l.Port != 0 && l.Auth == "none" {
		log.WithField("roots", strings.Join(append([]string{l.Root}, l.Roots...), " ")).Warn(
			"app.logs.auth is none: whoever reaches the port of the log service reads every file below its roots, and appends below app.logs.stdin-roots")
	}
	lookup, err := taskLookup(l)
	if err != nil {
		return nil, err
	}
	door, err := logs.NewDoor(logs.DoorConfig{
		Service: service, Authorize: authorize, Origins: l.Origins, Lookup: lookup, Node: node, Addresses: names, Log: log,
		PerClient: l.PerClient, PerNode: l.PerNode,
	})
	if err != nil {
		return nil, err
	}
	return &logDoor{
		service: service, door: door, address: net.JoinHostPort(l.Listen, strconv.Itoa(l.Port)), log: log,
		tls: l.TLS, tlsDir: filepath.Join(cfg.Agent.StateDir, "logs-tls"), names: append([]string{"localhost", node}, names...),
	}, nil
}

// ownBinary is what this process runs, though its file may have been replaced since. "" is a system without /proc.
func ownBinary() string {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self
	}
	exe, _ := os.Executable() // the log service says that it has none
	return exe
}

// ServeHTTP implements http.Handler.
func (d *logDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.active.Add(1)
	defer d.active.Done()
	d.door.ServeHTTP(w, r)
}

// throughTunnel is the log service for what the server lets in, until ctx ends: it says for whom a request is.
func (d *logDoor) throughTunnel(ctx context.Context) http.Handler {
	door := d.door.Trusted(ctx, func(r *http.Request) (logs.Caller, string) {
		return logs.Caller{Name: r.Header.Get(access.HeaderUser)}, r.Header.Get("X-Forwarded-For")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.active.Add(1)
		defer d.active.Done()
		door.ServeHTTP(w, r)
	})
}

// limits turns the units of the file into those of the service.
func (l *LogLimits) limits() logs.Limits {
	return logs.Limits{
		Timeout: l.Timeout, Idle: l.Idle, MaxRead: int64(l.MaxRead) << 20, MaxLines: l.MaxLines, ByteRate: l.ByteRate,
		SortMemory: int64(l.SortMemory) << 20, SortDisk: int64(l.SortDisk) << 20, MaxFiles: l.MaxFiles,
	}
}

// logAuthorizer is what the door asks about a caller.
func logAuthorizer(l *LogsConfig, names []string) (func(*http.Request) (logs.Caller, error), error) {
	if l.Auth == "none" {
		return logs.AllowAll, nil
	}
	if l.KeyFile == "" {
		return nil, errors.New("app.logs.auth is token, and app.logs.token-key-file is not set: make one with 'openssl rand -hex 32 > FILE; chmod 600 FILE', or set app.logs.auth to none")
	}
	key, err := token.ReadKey(l.KeyFile)
	if err != nil {
		return nil, err
	}
	return func(r *http.Request) (logs.Caller, error) {
		claims, err := key.Check(token.FromRequest(r), names...)
		if err != nil {
			return logs.Caller{}, fmt.Errorf("%w: %w", logs.ErrUnauthorized, err)
		}
		if !claims.Allows(token.VerbLogs) {
			return logs.Caller{}, fmt.Errorf("%w: the token is not for logs", logs.ErrUnauthorized)
		}
		return logs.Caller{Name: claims.User, ReadOnly: !claims.Allows(token.VerbStdin)}, nil
	}, nil
}

// taskLookup is nil where none is configured.
func taskLookup(l *LogsConfig) (logs.Lookup, error) {
	switch {
	case l.Lookup != "":
		return logs.HTTPLookup(l.Lookup, nil)
	case len(l.Tasks) > 0:
		return logs.TableLookup(l.Tasks), nil
	}
	return nil, nil
}

// listen opens the port, if there is one.
func (d *logDoor) listen(ctx context.Context) (net.Addr, error) {
	cert, err := d.tls.open(ctx, d.tlsDir, d.names)
	if err != nil {
		return nil, fmt.Errorf("app.logs.tls: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	if cert != nil {
		d.log.WithFields(logrus.Fields{"sha256": cert.pin(), "ca": cert.caFile}).Info("the log service speaks TLS")
		l = tls.NewListener(l, cert.config)
	}
	d.cert.Store(cert)
	d.listener = l
	return l.Addr(), nil
}

func (d *logDoor) run(ctx context.Context) error {
	srv := &http.Server{
		Handler: d, ReadHeaderTimeout: 15 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // its end ends commands
		ErrorLog:    stdlog.New(io.Discard, "", 0),                     // port scans
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	var err error
	if d.listener != nil {
		err = srv.Serve(d.listener)
	} else {
		<-ctx.Done()
		err = http.ErrServerClosed
	}
	stop()
	_ = srv.Close() // again at most
	d.door.Close()
	if cerr := d.service.Close(); cerr != nil {
		d.log.WithError(cerr).Warn("log service: not closed cleanly")
	}
	d.active.Wait()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (d *logDoor) reload(cfg *Config) error {
	return d.service.Reload(cfg.Logs.Commands, cfg.Logs.Limits.limits())
}

// startLogDoor serves the log service beside an agent until ctx ends. It returns nil where none is configured.
func startLogDoor(ctx context.Context, group *errgroup.Group, cfg *Config, hostUUID string, o agentOptions) (*logDoor, error) {
	if cfg.Logs.Port == 0 && !cfg.Logs.Tunnel {
		return nil, nil
	}
	name := cfg.Agent.Hostname
	if name == "" {
		name, _ = os.Hostname()
	}
	d, err := newLogDoor(cfg, name, []string{hostUUID, name, cfg.Agent.IP}, o.host.logs(), o.log)
	if err != nil {
		return nil, withExit(ExitConfig, err)
	}
	if cfg.Logs.Port != 0 {
		addr, err := d.listen(ctx)
		if err != nil {
			return nil, fmt.Errorf("log service: %w", err)
		}
		o.log.WithField("address", addr.String()).Info("the log service is ready")
	}
	group.Go(func() error { return d.run(ctx) })
	if o.load != nil {
		group.Go(func() error {
			onHangup(ctx, func() {
				next, err := o.load()
				if err == nil {
					err = d.reload(next)
				}
				if err != nil {
					o.log.WithError(err).Warn("the limits of the log service were not read again")
				}
			})
			return nil
		})
	}
	return d, nil
}

// labels are how a server knows this host's log service; nil for a host without one.
func (d *logDoor) labels() map[string]string {
	if d == nil {
		return nil
	}
	out := map[string]string{serverlogs.LabelTunnel: "true"}
	if addr, ok := d.listening().(*net.TCPAddr); ok {
		out[serverlogs.LabelPort] = strconv.Itoa(addr.Port)
	}
	if pin := d.cert.Load().pin(); pin != "" {
		out[serverlogs.LabelTLS] = pin
	}
	return out
}

func (d *logDoor) listening() net.Addr {
	if d.listener == nil {
		return nil
	}
	return d.listener.Addr()
}

// announced adds labels to what a host tells about itself.
type announced struct {
	ping.Sampler
	labels func() map[string]string
	last   atomic.Pointer[[2]*hostinfo.Sample] // without and with them: a sample is the same until there is a new one
}

// Sample returns the last sample with the labels.
func (s *announced) Sample() *hostinfo.Sample {
	last := s.Sampler.Sample()
	if last == nil {
		return nil
	}
	if have := s.last.Load(); have != nil && have[0] == last {
		return have[1]
	}
	more := s.labels()
	if len(more) == 0 {
		return last
	}
	with := *last
	with.Labels = maps.Clone(last.Labels)
	if with.Labels == nil {
		with.Labels = map[string]string{}
	}
	maps.Copy(with.Labels, more)
	s.last.Store(&[2]*hostinfo.Sample{last, &with})
	return &with
}

// logTokens makes the server's tokens for hosts; nil where no key is configured.
func logTokens(l *LogsConfig) (func(host *store.Host, user string) (string, error), error) {
	if l.KeyFile == "" {
		return nil, nil
	}
	key, err := token.ReadKey(l.KeyFile)
	if err != nil {
		return nil, err
	}
	return func(host *store.Host, user string) (string, error) {
		return key.Sign(token.Claims{Host: host.UUID, Verbs: []string{token.VerbLogs, token.VerbStdin}, User: user}, 2*time.Minute)
	}, nil
}

// logLocate tells the server where a task is; nil where no lookup is configured.
func logLocate(l *LogsConfig) (func(ctx context.Context, task, request string) (string, error), error) {
	lookup, err := taskLookup(l)
	if lookup == nil || err != nil {
		return nil, err
	}
	return func(ctx context.Context, task, request string) (string, error) {
		_, node, err := lookup(ctx, task, request)
		return node, err
	}, nil
}
