package handlers

import (
	"io"
	"time"

	"github.com/sirupsen/logrus"
)

// LabelUUID is the label that holds the server's uuid of a container.
const LabelUUID = "io.rancher.container.uuid"

// handlers holds what all handlers share.
type handlers struct {
	engine Engine
	opts   Options
	log    logrus.FieldLogger
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
	if opts.Log == nil {
		opts.Log = discard()
	}
	return &handlers{engine: e, opts: opts, log: opts.Log}
}

// discard returns a logger that writes nowhere.
func discard() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}
