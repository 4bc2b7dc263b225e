package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	goruntime "runtime"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/cli/observe"
	"github.com/droverhq/drover/service/logs"
)

// newNodeDoors composes the doors of a node without a server, and the streams that they lead to, which the caller closes
// when the doors are shut; nil where none lead there.
func newNodeDoors(cfg *Config, host *nodeHost, log logrus.FieldLogger) (map[string]nodeDoor, io.Closer, error) {
	name := nodeName(cfg)
	names := []string{name, cfg.Agent.Hostname, cfg.Agent.IP, cfg.Pods.NodeIP}
	doors := map[string]nodeDoor{}
	if cfg.Logs.Port != 0 {
		d, err := newLogDoor(cfg, name, names, host.logs(), log)
		if err != nil {
			return nil, nil, err
		}
		doors["logs"] = d
	}
	if host == nil || !cfg.portConfigured() {
		if cfg.portConfigured() {
			log.Warn("app.pods.map is off: app.http.port stays closed")
		}
		return doors, nil, nil
	}
	auth, err := portAuth(&cfg.Port, names...)
	if err != nil {
		return nil, nil, err
	}
	streams, err := newNodeService(cfg, host.engine, nil, log)
	if err != nil {
		return nil, nil, err
	}
	h, err := host.handler(streams.Service, auth)
	if err == nil {
		var port *nodePort
		if port, err = newNodePort(cfg, names, h, log); err == nil {
			doors["node"] = port
			return doors, streams, nil
		}
	}
	return nil, nil, errors.Join(err, streams.Close())
}

// logs is the pod map as the log service sees it; nil where there is none.
func (h *nodeHost) logs() logs.Pods {
	if h == nil {
		return nil
	}
	return podLogs{meta: h.store, hostFS: h.hostFS()}
}

// A plainDoor is a port for the machine itself: plain HTTP, without tokens.
type plainDoor struct {
	address  string
	handler  http.Handler
	publish  func(addr string) (remove func() error, err error) // may be nil
	listener net.Listener
	remove   func() error
}

func (d *plainDoor) listen(ctx context.Context) (net.Addr, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	d.listener = l
	if d.publish != nil {
		if d.remove, err = d.publish(l.Addr().String()); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l.Addr(), nil
}

func (d *plainDoor) run(ctx context.Context) error {
	if d.remove != nil {
		defer func() { _ = d.remove() }() // the next start writes it again
	}
	srv := &http.Server{
		Handler: d.handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(d.listener); ctx.Err() == nil || !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (d *plainDoor) reload(*Config) error { return nil }

// newDebugDoor serves pprof; nil where there is none.
func newDebugDoor(cfg *Config) (nodeDoor, error) {
	if cfg.Node.DebugPort == 0 {
		return nil, nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &plainDoor{address: net.JoinHostPort(cfg.Node.DebugListen, strconv.Itoa(cfg.Node.DebugPort)), handler: mux}, nil
}

// newHealthDoor serves /healthz, /readyz and /metrics of a node.
func newHealthDoor(cfg *Config, host *nodeHost, log logrus.FieldLogger) nodeDoor {
	health := observe.New(observe.Config{
		Version: version, Commit: commit, GoVersion: goruntime.Version(),
		Sources: func() observe.Sources { return observe.Sources{Standalone: true, Pods: host.health} },
	})
	return &plainDoor{
		address: cfg.Agent.HealthListen, handler: health.Handler(),
		publish: func(addr string) (func() error, error) {
			if err := os.MkdirAll(cfg.Agent.StateDir, 0o700); err != nil {
				log.WithError(fmt.Errorf("state directory: %w", err)).Warn("'drover health' needs --address: where to ask was not written")
				return nil, nil
			}
			return publishHealth(cfg.Agent.StateDir, addr)
		},
	}
}
