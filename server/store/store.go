package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
)

// Config says where a store keeps its data. The zero value is not usable: Dir is required.
type Config struct {
	// Dir is the data directory (0700, made if absent): the embedded JetStream's files and the server's keys. One
	// process at a time may use it.
	Dir string
	// URLs are the servers of an external NATS cluster (2.11 or later, JetStream on). Empty: embedded in this process.
	URLs []string
	// Replicas is how many servers of an external cluster keep a copy of each stream. 0 means 1.
	Replicas int
	// SealKey encrypts the server's private keys where they must lie in the external cluster. At least 16 bytes.
	SealKey []byte
	// MaxQueueBytes bounds the stored events. 0 means 1 GiB.
	MaxQueueBytes int64
	// Log gets one line per problem. Nil means none.
	Log logrus.FieldLogger
}

// A Store is the open store of one server process. All methods are safe for concurrent use.
type Store struct {
	Accounts           *Table[Account]
	APIKeys            *Table[APIKey]
	RegistrationTokens *Table[RegistrationToken]
	Registers          *Table[Register]
	Agents             *Table[Agent]
	Hosts              *Table[Host]
	Containers         *Table[Container]
	PullTasks          *Table[PullTask]
	Settings           *Table[Setting]

	cfg    Config
	log    logrus.FieldLogger
	lock   *os.File
	srv    *server.Server // nil with an external cluster
	nc     *nats.Conn
	js     jetstream.JetStream
	kv     jetstream.KeyValue // the records
	events jetstream.Stream
	secret jetstream.KeyValue // nil unless clustered

	tables map[string]watched
	feeds  *feeds
	seqMu  sync.Mutex

	cancel  context.CancelFunc
	wg      sync.WaitGroup
	lost    atomic.Pointer[string] // why the watch ended
	closing sync.Once
}

// watched is what the watch needs of a table.
type watched interface {
	watched(e jetstream.KeyValueEntry, key string) error
}

// Open opens or makes the store and returns when all records are in memory. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("open store: no data directory")
	}
	if len(cfg.SealKey) > 0 && len(cfg.SealKey) < 16 {
		return nil, errors.New("open store: the seal key is shorter than 16 bytes")
	}
	s := &Store{cfg: cfg, log: cfg.Log, tables: make(map[string]watched), feeds: newFeeds()}
	if s.log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		s.log = quiet
	}
	s.makeTables()
	defer func() {
		if err != nil {
			_ = s.Close()
			err = fmt.Errorf("open store: %w", err)
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.lockDir(); err != nil {
		return nil, err
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	if err := s.makeStreams(ctx); err != nil {
		return nil, err
	}
	return s, s.watch(ctx)
}

func (s *Store) makeTables() {
	s.Accounts = newTable(s, TypeAccount, func(r *Account) *Meta { return &r.Meta }, nil)
	s.APIKeys = newTable(s, TypeAPIKey, func(r *APIKey) *Meta { return &r.Meta },
		func(r *APIKey) string { return plainKey(r.AccessKey) })
	s.RegistrationTokens = newTable(s, TypeRegistrationToken, func(r *RegistrationToken) *Meta { return &r.Meta },
		func(r *RegistrationToken) string { return plainKey(r.PublicValue) })
	s.Registers = newTable(s, TypeRegister, func(r *Register) *Meta { return &r.Meta },
		func(r *Register) string { return plainKey(r.KeyDigest) },
		func(r *Register) string { return r.AgentID })
	s.Agents = newTable(s, TypeAgent, func(r *Agent) *Meta { return &r.Meta },
		func(r *Agent) string { return plainKey(r.AccessKey) })
	s.Hosts = newTable(s, TypeHost, func(r *Host) *Meta { return &r.Meta },
		func(r *Host) string { return digestKey(r.UUID) },
		func(r *Host) string { return r.AgentID })
	s.Containers = newTable(s, TypeContainer, func(r *Container) *Meta { return &r.Meta },
		func(r *Container) string { return digestKey(r.UUID) },
		func(r *Container) string { return r.HostID },
		func(r *Container) string { return externalKey(r.HostID, r.ExternalID) })
	s.PullTasks = newTable(s, TypePullTask, func(r *PullTask) *Meta { return &r.Meta }, nil)
	s.Settings = newTable(s, TypeSetting, func(r *Setting) *Meta { return &r.Meta },
		func(r *Setting) string { return digestKey(r.ID) })
}

// lockDir makes sure that no other process uses the data directory: two embedded servers would spoil its files.
func (s *Store) lockDir() error {
	f, err := os.OpenFile(filepath.Join(s.cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := tryLock(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("%s is in use by another server: %w", s.cfg.Dir, err)
	}
	s.lock = f
	return nil
}

// watch loads all records and starts to follow their changes.
func (s *Store) watch(ctx context.Context) error {
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	w, err := s.kv.WatchAll(run)
	if err != nil {
		return fmt.Errorf("watch records: %w", err)
	}
	s.wg.Go(func() {
		<-run.Done()
		_ = w.Stop() // an error means that the connection is gone, which ends it as well
	})
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return errors.New("watch records: ended while loading")
			}
			if e == nil {
				s.wg.Go(func() { s.follow(run, w) })
				return nil
			}
			s.takeIn(e)
		case <-ctx.Done():
			return fmt.Errorf("load records: %w", ctx.Err())
		}
	}
}

func (s *Store) follow(run context.Context, w jetstream.KeyWatcher) {
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				if run.Err() == nil {
					why := "the watch of the records ended"
					s.lost.Store(&why)
					s.log.Error("store: the watch of the records ended; this server no longer sees what others write")
				}
				return
			}
			if e != nil {
				s.takeIn(e)
			}
		case <-run.Done():
			return
		}
	}
}

func (s *Store) takeIn(e jetstream.KeyValueEntry) {
	typ, key, _ := strings.Cut(e.Key(), ".")
	t := s.tables[typ]
	if t == nil {
		return // a counter, or a type of a newer server
	}
	if err := t.watched(e, key); err != nil {
		s.log.WithError(err).Error("store: a record cannot be read and is left out")
	}
}

// Clustered reports whether other replicas may share this store.
func (s *Store) Clustered() bool { return len(s.cfg.URLs) > 0 }

// Ready returns nil while reads and writes work, and otherwise why they do not.
func (s *Store) Ready() error {
	if why := s.lost.Load(); why != nil {
		return errors.New(*why)
	}
	if s.nc == nil || !s.nc.IsConnected() {
		return errors.New("not connected to NATS")
	}
	return nil
}

// Close stops the watches and the embedded server and waits for them. Feeds are closed. Further calls do nothing.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		s.feeds.close()
		if s.cancel != nil {
			s.cancel()
		}
		if s.nc != nil {
			s.nc.Close()
		}
		s.wg.Wait()
		if s.srv != nil {
			s.srv.Shutdown()
			s.srv.WaitForShutdown()
		}
		if s.lock != nil {
			err = s.lock.Close()
		}
	})
	return err
}
