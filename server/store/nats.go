package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
)

// Names in JetStream. They carry our name because an external cluster may serve others too.
const (
	bucketRecords  = "drover"
	bucketSecrets  = "drover-secrets"
	bucketSessions = "drover-sessions"
	bucketReplicas = "drover-replicas"
	streamEvents   = "DROVER_EVENTS"
	subjectEvents  = "drover.ev" // drover.ev.<agent>.<event>
)

const (
	markerTTL     = time.Hour      // how long a deleted key leaves a marker behind
	eventsMaxAge  = 24 * time.Hour // nothing waits for longer, whatever its deadline
	maxPayload    = 8 << 20        // of the embedded server: one event or record
	startTimeout  = 30 * time.Second
	reconnectWait = 500 * time.Millisecond
)

func (s *Store) connect(ctx context.Context) error {
	opts := []nats.Option{
		nats.Name("drover"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			entry := s.log.WithError(err)
			if sub != nil {
				entry = entry.WithField("subject", sub.Subject)
			}
			entry.Warn("store: NATS")
		}),
	}
	url := strings.Join(s.cfg.URLs, ",")
	if s.Clustered() {
		opts = append(opts,
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					s.log.WithError(err).Warn("store: lost the NATS cluster")
				}
			}),
			nats.ReconnectHandler(func(*nats.Conn) { s.log.Info("store: back at the NATS cluster") }))
	} else {
		if err := s.startServer(); err != nil {
			return err
		}
		opts = append(opts, nats.InProcessServer(s.srv))
	}
	if deadline, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(time.Until(deadline)))
	}
	var err error
	if s.nc, err = nats.Connect(url, opts...); err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	s.js, err = jetstream.New(s.nc, jetstream.WithPublishAsyncMaxPending(maxAsync))
	return err
}

// startServer runs JetStream in this process, without a port.
func (s *Store) startServer() error {
	srv, err := server.NewServer(&server.Options{
		ServerName:             "drover",
		DontListen:             true,
		JetStream:              true,
		StoreDir:               filepath.Join(s.cfg.Dir, "jetstream"),
		MaxPayload:             maxPayload,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return fmt.Errorf("embedded NATS: %w", err)
	}
	srv.SetLoggerV2(&serverLog{s.log}, false, false, false)
	s.srv = srv
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		return errors.New("embedded NATS did not start")
	}
	if !srv.JetStreamEnabled() {
		return errors.New("embedded NATS has no JetStream: see the log")
	}
	return nil
}

// makeStreams makes the buckets and the queue, or checks the ones that are there.
func (s *Store) makeStreams(ctx context.Context) error {
	replicas := max(s.cfg.Replicas, 1)
	var err error
	s.kv, err = s.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: bucketRecords, Description: "records of the Drover control server",
		History: 1, Replicas: replicas, LimitMarkerTTL: markerTTL,
	})
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucketRecords, err)
	}
	maxBytes := s.cfg.MaxQueueBytes
	if maxBytes <= 0 {
		maxBytes = 1 << 30
	}
	s.events, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamEvents, Description: "events that wait for their final reply",
		Subjects:          []string{subjectEvents + ".>"},
		MaxMsgsPerSubject: 1, MaxBytes: maxBytes, MaxAge: eventsMaxAge, Discard: jetstream.DiscardNew,
		Replicas: replicas, AllowMsgTTL: true, AllowDirect: true,
		Duplicates: time.Second, // ids are unique already, so the server need not remember them
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", streamEvents, err)
	}
	if !s.Clustered() {
		return nil
	}
	s.secret, err = s.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: bucketSecrets, Description: "private keys of the Drover control server", History: 1, Replicas: replicas,
	})
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucketSecrets, err)
	}
	return nil
}

// serverLog passes the embedded server's warnings on; its notices are of no use to our operator.
type serverLog struct{ log logrus.FieldLogger }

func (l *serverLog) Noticef(string, ...any)         {}
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}
func (l *serverLog) Warnf(format string, v ...any)  { l.log.Warnf("store: NATS: "+format, v...) }
func (l *serverLog) Errorf(format string, v ...any) { l.log.Errorf("store: NATS: "+format, v...) }
func (l *serverLog) Fatalf(format string, v ...any) { l.log.Errorf("store: NATS: "+format, v...) }
