package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/sirupsen/logrus"
)

// logger makes the logger of a long-running role. It writes to standard error: text on a terminal, JSON elsewhere.
func (a *app) logger(level, format string) (*logrus.Logger, error) {
	log := logrus.New()
	log.SetOutput(a.env.Stderr)
	if err := setLevel(log, level); err != nil {
		return nil, err
	}
	switch format {
	case "", "auto":
		if !isTerminal(a.env.Stderr) {
			log.SetFormatter(jsonFormat())
			break
		}
		fallthrough
	case "text":
		log.SetFormatter(&logrus.TextFormatter{
			DisableColors: !a.colored() || !isTerminal(a.env.Stderr), FullTimestamp: true, TimestampFormat: "15:04:05.000",
		})
	case "json":
		log.SetFormatter(jsonFormat())
	default:
		return nil, usagef("--log-format %q is neither text nor json", format)
	}
	if a.env.SetKlog != nil {
		a.env.SetKlog(klogTo(log))
	}
	return log, nil
}

// klogTo passes on what Kubernetes' libraries say of single streams, for who looks for it: they would write to standard
// error, whatever the format.
func klogTo(log logrus.FieldLogger) logr.Logger {
	return funcr.New(func(_, args string) { log.WithField("klog", args).Debug("said by a library of Kubernetes") }, funcr.Options{})
}

func jsonFormat() *logrus.JSONFormatter {
	return &logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano, FieldMap: logrus.FieldMap{logrus.FieldKeyMsg: "message"}}
}

// configLogger makes the logger that the configuration asks for.
func (a *app) configLogger(cfg *Config) (*logrus.Logger, error) {
	return a.logger(cfg.Log.Level, cfg.Log.Format)
}

// setLevel takes logrus' names; "" is info.
func setLevel(log *logrus.Logger, level string) error {
	if level == "" {
		level = "info"
	}
	l, err := logrus.ParseLevel(level)
	if err != nil {
		return usagef("log level %q is none of debug, info, warn, error", level)
	}
	log.SetLevel(l)
	return nil
}

// onHangup calls reload for each SIGHUP until ctx ends.
func onHangup(ctx context.Context, reload func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			reload()
		}
	}
}
