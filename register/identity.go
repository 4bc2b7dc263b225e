package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/utils/atomicfile"
)

// An Identity is who the host is for the server.
type Identity struct {
	HostUUID         string
	PhysicalHostUUID string
}

// binding is the file .machine: what the identity beside it belongs to.
type binding struct {
	Version int `json:"version"`
	facts
	HostUUID string `json:"hostUuid"`
	// Previous is the identity that a copied state directory brought along.
	Previous string    `json:"previousHostUuid,omitempty"`
	Migrated string    `json:"migratedFrom,omitempty"`
	BoundAt  time.Time `json:"boundAt"`
}

// Identify returns the host's identity, making, migrating or renewing it as [IdentityConfig] says, and what the operator
// should know of it. It is the first thing that [Join] does; programs that need no server may call it alone.
//
// The identity stays through restarts of host, container and engine, and through a new container on the same state
// directory. It is renewed if the machine's id says that the state directory was copied from another machine: the
// registration key, the credentials, the journal, the host key and the cloud labels of the other machine go with it.
func Identify(ctx context.Context, stateDir string, cfg IdentityConfig, log logrus.FieldLogger) (Identity, []Notice, error) {
	c := Config{StateDir: stateDir, Identity: cfg, Log: log}.withDefaults()
	j := &joiner{cfg: c, log: c.Log}
	if err := j.prepareDir(); err != nil {
		return Identity{}, j.notices, err
	}
	id, err := j.identify(ctx, machine{self: "/", rootfs: hostRoot(cfg.Rootfs), engineID: cfg.EngineID})
	return id, j.notices, err
}

// hostRoot returns "" where the host's root is our own.
func hostRoot(rootfs string) string {
	if rootfs == "" || filepath.Clean(rootfs) == "/" {
		return ""
	}
	return rootfs
}

func (j *joiner) identify(ctx context.Context, m machine) (Identity, error) {
	id, err := j.identity(ctx, m)
	if err != nil {
		return id, fmt.Errorf("host identity: %w", err)
	}
	return id, nil
}

func (j *joiner) identity(ctx context.Context, m machine) (Identity, error) {
	now, err := m.facts(ctx)
	if err != nil {
		j.log.WithError(err).Warn("the container engine does not tell its id")
	}
	bound, err := j.readBinding()
	if err != nil {
		return Identity{}, err
	}
	if bound == nil {
		bound = &binding{Version: 1}
		if bound.Migrated, err = j.migrate(m.rootfs); err != nil {
			return Identity{}, err
		}
	}
	if what := bound.differs(now); what != "" && !j.keepsOld() {
		if err := j.renew(bound, now, what); err != nil {
			return Identity{}, err
		}
	} else if bound.facts = bound.merge(now); bound.empty() {
		j.notice(NoticeIdentity, "no machine-id can be read: a copy of this disk cannot be told from this host; mount the host's /etc/machine-id, or its root and say so with --rootfs")
	}

	id := Identity{}
	over := j.cfg.Identity
	if id.HostUUID, err = j.uuidFile(j.hostUUIDFile(), over.HostUUID); err != nil {
		return id, err
	}
	if id.PhysicalHostUUID, err = j.uuidFile(j.physicalUUIDFile(), over.PhysicalHostUUID); err != nil {
		return id, err
	}
	return id, j.bind(bound, id)
}

func (j *joiner) hostUUIDFile() string {
	return j.stateFile(j.cfg.Identity.HostUUIDFile, fileHostUUID)
}

func (j *joiner) physicalUUIDFile() string {
	return j.stateFile(j.cfg.Identity.PhysicalHostUUIDFile, filePhysicalUUID)
}

func (j *joiner) stateFile(moved, name string) string {
	if moved != "" {
		return moved
	}
	return filepath.Join(j.cfg.StateDir, name)
}

// keepsOld reports whether the operator gives the very uuid that is stored: then the machine changed around the host.
func (j *joiner) keepsOld() bool {
	old, _, err := readToken(j.hostUUIDFile())
	return err == nil && old != "" && old == strings.TrimSpace(j.cfg.Identity.HostUUID)
}

// renew takes the identity of another machine away. The files of this machine are written after it, and the binding last
// of all, so that a crash in between does it once more.
func (j *joiner) renew(bound *binding, now facts, what string) error {
	old, _, err := readToken(j.hostUUIDFile())
	if err != nil {
		return err
	}
	files := []string{j.hostUUIDFile(), j.physicalUUIDFile()}
	for _, name := range []string{fileCredentials, fileKey, fileJournal, fileHostKey, fileInfo} {
		files = append(files, filepath.Join(j.cfg.StateDir, name))
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if old == "" {
		old = bound.HostUUID
	}
	*bound = binding{Version: 1, facts: now, Previous: old}
	j.notice(NoticeCloned, fmt.Sprintf("this state directory was made on another machine (%s differs): this host gets a new identity and registers anew; if it is the same host, set CATTLE_DOCKER_UUID=%s before the first start", what, old))
	return nil
}

// uuidFile returns the uuid in a file, or the one that overrides it, or a new one; the file holds it afterwards.
func (j *joiner) uuidFile(file, override string) (string, error) {
	id, found, err := readToken(file)
	if err != nil {
		return "", err
	}
	switch override = strings.TrimSpace(override); {
	case override != "" && !isToken(override):
		return "", fmt.Errorf("the given host uuid %q is not one printable word", cut(override, 60))
	case override == "" && id != "":
		return id, nil
	case override != "" && override == id:
		return id, nil
	case override != "":
		id = override
	default:
		if found {
			j.notice(NoticeIdentity, fmt.Sprintf("%s does not hold a uuid: made a new one", file))
		}
		id = uuid.NewString()
	}
	return id, atomicfile.Write(file, []byte(id), 0o600)
}

// readBinding returns nil where the identity was never bound.
func (j *joiner) readBinding() (*binding, error) {
	file := filepath.Join(j.cfg.StateDir, fileMachine)
	text, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var b binding
	if json.Unmarshal(text, &b) != nil || b.Version != 1 {
		j.notice(NoticeIdentity, fmt.Sprintf("%s cannot be read: the identity is bound to this machine anew", file))
		return &binding{Version: 1}, nil
	}
	return &b, nil
}

// bind writes the binding if it says something new.
func (j *joiner) bind(b *binding, id Identity) error {
	file := filepath.Join(j.cfg.StateDir, fileMachine)
	b.HostUUID = id.HostUUID
	var was binding
	if text, err := readBounded(file); err == nil && json.Unmarshal(text, &was) == nil && was == *b {
		return nil
	}
	b.BoundAt = time.Now().UTC().Truncate(time.Second)
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(file, append(text, '\n'), 0o600)
}

// migrate copies an original agent's identity where there is none of ours yet, and returns where from. The
// original's files are only read: the original agent can be started again.
func (j *joiner) migrate(rootfs string) (string, error) {
	legacy := j.cfg.Identity.LegacyStateDir
	if legacy == "-" {
		return "", nil
	}
	if legacy == "" {
		legacy = DefaultLegacyStateDir
	}
	for _, own := range []string{j.hostUUIDFile(), filepath.Join(j.cfg.StateDir, fileKey)} {
		if _, err := os.Stat(own); err == nil {
			return "", nil
		}
	}
	places := []string{legacy}
	if rootfs != "" {
		places = append(places, filepath.Join(rootfs, legacy))
	}
	for _, from := range places {
		taken, err := j.takeOver(from)
		if err != nil {
			return "", fmt.Errorf("take over %s: %w", from, err)
		}
		if len(taken) > 0 {
			j.notice(NoticeMigrated, fmt.Sprintf("took over the identity of an original agent from %s: %s", from, strings.Join(taken, ", ")))
			return from, nil
		}
	}
	return "", nil
}

// takeOver copies what there is, and the host's uuid last: it marks the takeover as done.
func (j *joiner) takeOver(from string) ([]string, error) {
	if id, _, err := readToken(filepath.Join(from, fileHostUUID)); err != nil || id == "" {
		return nil, err
	}
	var taken []string
	for _, f := range []struct {
		src, dst string
		word     bool // one word, checked and trimmed; else copied as it is
	}{
		{filepath.Join(from, filePhysicalUUID), j.physicalUUIDFile(), true},
		{filepath.Join(from, fileKey), filepath.Join(j.cfg.StateDir, fileKey), true},
		{filepath.Join(from, fileInfo), filepath.Join(j.cfg.StateDir, fileInfo), false},
		{filepath.Join(from, "../etc/ssl/host.key"), filepath.Join(j.cfg.StateDir, fileHostKey), false},
		{filepath.Join(from, fileHostUUID), j.hostUUIDFile(), true},
	} {
		content, err := readBounded(f.src)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if f.word {
			if content = []byte(strings.TrimSpace(string(content))); !isToken(string(content)) {
				continue
			}
		}
		if err := atomicfile.Write(f.dst, content, 0o600); err != nil {
			return nil, err
		}
		taken = append(taken, filepath.Base(f.dst))
	}
	return taken, nil
}
