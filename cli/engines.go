package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/cri"
	"github.com/droverhq/drover/runtime/docker"
)

const (
	engineDocker = "docker"
	engineCRI    = "cri"
)

// criSockets are where CRI runtimes listen, the most usual first.
func criSockets() []string {
	return []string{
		"/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock",
	}
}

// probeTime is how long an engine may take to say that it is there.
const probeTime = 3 * time.Second

// An engineProbe looks for the container engines of this machine.
type engineProbe struct {
	cfg  *Config
	cri  []string                                          // candidates
	stat func(string) error                                // whether a socket is there
	ping func(ctx context.Context, e runtime.Engine) error // whether something answers
	log  logrus.FieldLogger

	first bool // one engine is enough
}

func newProbe(cfg *Config, log logrus.FieldLogger) *engineProbe {
	p := &engineProbe{cfg: cfg, cri: cfg.Engine.CRISockets, log: log}
	p.stat = func(name string) error {
		fi, err := os.Stat(name)
		if err == nil && fi.Mode()&fs.ModeSocket == 0 {
			err = fmt.Errorf("%s is no socket", name)
		}
		return err
	}
	p.ping = func(ctx context.Context, e runtime.Engine) error {
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		return e.Ping(ctx)
	}
	if len(p.cri) == 0 {
		p.cri = criSockets()
	}
	return p
}

// newEngine returns the one engine that an agent drives: dockerd where it listens on its socket or answers, else a CRI
// runtime. The caller closes it. Where nothing answers it is the one whose socket is there, and it recovers when the
// engine comes.
//
// A dockerd that listens is taken unasked: an agent that waited for an answer would connect later, and one that met a
// dockerd busy with its own start would drive its containerd for the rest of its life.
func newEngine(ctx context.Context, cfg *Config, log logrus.FieldLogger) (runtime.Engine, error) {
	p := newProbe(cfg, log)
	if cfg.Engine.Kind != engineCRI && listens(ctx, firstOf(cfg.Engine.DockerHost, docker.DefaultHost)) {
		return p.docker()
	}
	p.first = true
	engines, err := p.find(ctx)
	if err != nil {
		return nil, err
	}
	i := 0
	if len(engines) > 1 {
		i = max(0, slices.IndexFunc(engines, func(e runtime.Engine) bool { return p.ping(ctx, e) == nil }))
	}
	for j, e := range engines {
		if j != i {
			log.WithField("engine", e.Type()).Info("an agent drives one engine: this one is left alone")
			_ = e.Close()
		}
	}
	return engines[i], nil
}

// listens reports whether something listens on the unix socket of a docker host. It does not wait for a full backlog.
func listens(ctx context.Context, host string) bool {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return false
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// A candidate is an engine that may be there.
type candidate struct {
	engine  runtime.Engine
	wanted  bool // the configuration names it
	answers bool
}

// find returns the engines of this machine, at least one: those that answer, and those that the configuration names. The
// caller closes them.
func (p *engineProbe) find(ctx context.Context) ([]runtime.Engine, error) {
	kind := p.cfg.Engine.Kind
	var all []candidate
	if kind != engineCRI {
		e, err := p.docker()
		if err != nil {
			return nil, err
		}
		if kind == engineDocker {
			return []runtime.Engine{e}, nil
		}
		all = append(all, candidate{engine: e, wanted: !p.cfg.IsDefault("app.docker.sock"), answers: p.ping(ctx, e) == nil})
	}
	for _, socket := range p.cri {
		if p.first && slices.ContainsFunc(all, func(c candidate) bool { return c.answers }) {
			break
		}
		wanted := len(p.cfg.Engine.CRISockets) > 0
		if !wanted && p.stat(hostPath(p.cfg, socket)) != nil {
			continue
		}
		path := strings.TrimPrefix(socket, "unix://")
		if !wanted {
			path = hostPath(p.cfg, socket)
		}
		e, err := cri.New(cri.Config{Socket: path, HostFS: strings.TrimSuffix(p.cfg.Agent.Rootfs, "/")})
		if err != nil {
			closeCandidates(all)
			return nil, err
		}
		err = p.ping(ctx, e)
		if err != nil {
			p.log.WithError(err).WithField("socket", path).Debug("no answer")
		}
		if err == nil && e.Type() == engineDocker && len(all) > 0 && all[0].engine.Type() == engineDocker && (all[0].answers || all[0].wanted && !wanted) {
			_ = e.Close() // cri-dockerd: the containers of dockerd, which is here itself, or will be
			continue
		}
		all = append(all, candidate{engine: e, wanted: wanted, answers: err == nil})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no CRI runtime: none of %s is there; set app.cri.sock", strings.Join(p.cri, ", "))
	}
	found := slices.ContainsFunc(all, func(c candidate) bool { return c.answers })
	if !found {
		p.log.WithField("engine", all[0].engine.Type()).Warn("no container engine answers yet")
	}
	var kept []runtime.Engine
	for i, c := range all {
		if c.answers || c.wanted || i == 0 && !found {
			kept = append(kept, c.engine)
		} else {
			_ = c.engine.Close()
		}
	}
	return kept, nil
}

func closeCandidates(all []candidate) {
	for _, c := range all {
		_ = c.engine.Close()
	}
}

func (p *engineProbe) docker() (runtime.Engine, error) {
	cfg := &p.cfg.Engine
	var tc *tls.Config
	if cfg.DockerCertPath != "" && strings.HasPrefix(cfg.DockerHost, "tcp") || cfg.DockerTLSVerify {
		var err error
		if tc, err = engineTLS(cfg); err != nil {
			return nil, err
		}
	}
	return docker.New(docker.Config{Host: cfg.DockerHost, TLS: tc, APIVersion: cfg.DockerAPIVersion, Workers: p.cfg.Events.Workers, Records: filepath.Join(p.cfg.Agent.StateDir, "execs")})
}

// hostPath is where a path of the host is seen from here.
func hostPath(cfg *Config, path string) string { return filepath.Join("/", cfg.Agent.Rootfs, path) }
