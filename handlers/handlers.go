package handlers

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
)

// LabelUUID is the label that holds the server's uuid of a container.
const LabelUUID = "io.rancher.container.uuid"

// factsFor is how long the engine's facts are believed.
const factsFor = 5 * time.Minute

// handlers holds what all handlers share.
type handlers struct {
	engine     Engine
	opts       Options
	log        logrus.FieldLogger
	pulls      *pulls
	plugins    plugins
	configRuns chan struct{} // holds a token while the configuration script runs

	// mu guards what follows.
	mu    sync.Mutex
	facts runtime.Info
	asked time.Time
}

func newHandlers(e Engine, opts Options) *handlers {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&opts.CNIDir, "/var/lib/rancher/state/cni")
	def(&opts.Proc, "/proc")
	def(&opts.ResolvConf, "/etc/resolv.conf")
	def(&opts.VolumePlugins, "/var/run/rancher/storage")
	if opts.IPWait <= 0 {
		opts.IPWait = 30 * time.Second
	}
	if opts.Config.Timeout <= 0 {
		opts.Config.Timeout = 5 * time.Minute
	}
	if opts.MaxImport <= 0 {
		opts.MaxImport = 64 << 30
	}
	if opts.Log == nil {
		opts.Log = discard()
	}
	return &handlers{
		engine: e, opts: opts, log: opts.Log,
		pulls:      &pulls{images: e, inactivity: opts.PullInactivity, log: opts.Log, jobs: make(map[pullKey]*pullJob)},
		plugins:    plugins{dir: opts.VolumePlugins},
		configRuns: make(chan struct{}, 1),
	}
}

// info returns the engine's facts, no older than factsFor; zero if the engine does not tell.
func (h *handlers) info(ctx context.Context) runtime.Info {
	h.mu.Lock()
	facts, fresh := h.facts, time.Since(h.asked) < factsFor && !h.asked.IsZero()
	h.mu.Unlock()
	infoer, ok := h.engine.(runtime.Infoer)
	if fresh || !ok {
		return facts
	}
	now, err := infoer.Info(ctx)
	if err != nil {
		h.log.WithError(err).Debug("engine does not tell about itself")
		return facts
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.facts, h.asked = now, time.Now()
	return now
}

// dockerRoot returns the engine's root directory on the host, "" if it is unknown.
func (h *handlers) dockerRoot(ctx context.Context) string {
	if h.opts.DockerRoot != "" {
		return h.opts.DockerRoot
	}
	return h.info(ctx).RootDir
}

// discard returns a logger that writes nowhere.
func discard() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}
