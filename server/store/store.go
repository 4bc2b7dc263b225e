package store

import (
	"context"
	"errors"

	"github.com/sirupsen/logrus"
)

// Config says where a store keeps its data. The zero value is not usable: Dir is required.
type Config struct {
	// Dir is the data directory (0700, made if absent): the embedded JetStream's files and the server's keys.
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
}

var errStub = errors.New("store: under construction")

// Open opens or makes the store and returns when all records are in memory. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Store, error) { return nil, errStub }

// Close stops the watches and the embedded server and waits for them. Feeds are closed.
func (s *Store) Close() error { return errStub }

// Clustered reports whether other replicas may share this store.
func (s *Store) Clustered() bool { return false }

// Ready returns nil while reads and writes work, and otherwise why they do not.
func (s *Store) Ready() error { return errStub }

// NextID returns a fresh id of the type, "1ihm7", and its number. Numbers rise and are never used twice.
func (s *Store) NextID(ctx context.Context, typ string) (id string, n int64, err error) {
	return "", 0, errStub
}

// Secret returns the named secret of the server (a private key), made by create if there is none. All replicas get
// the same one. Names are letters, digits, dots and dashes.
func (s *Store) Secret(ctx context.Context, name string, create func() ([]byte, error)) ([]byte, error) {
	return nil, errStub
}

// Change is one change of a record. Record is a *Host, *Container and so on, shared and read-only; nil if Deleted.
type Change struct {
	Type     string
	ID       string
	Revision uint64
	Deleted  bool
	Record   any
}

// Subscribe returns a feed of the changes of the given types (none: all), from now on, until ctx ends; then, and when
// the store closes, the channel is closed. Changes come in order; where the reader is slow, the states of one record
// are coalesced to the last. Nothing else waits for the reader.
func (s *Store) Subscribe(ctx context.Context, types ...string) <-chan Change { return nil }

// --- look-ups by something other than the id; all from memory -----------------------------------------------------

// AgentByAccessKey returns the agent of an access key, or ErrNotFound.
func (s *Store) AgentByAccessKey(accessKey string) (*Agent, error) { return nil, errStub }

// HostByUUID returns the host that reports itself with uuid, or ErrNotFound.
func (s *Store) HostByUUID(uuid string) (*Host, error) { return nil, errStub }

// HostsOfAgent returns the hosts of an agent: usually one.
func (s *Store) HostsOfAgent(agentID string) []*Host { return nil }

// ContainersOfHost returns the containers of a host, removed ones included, by id.
func (s *Store) ContainersOfHost(hostID string) []*Container { return nil }

// ContainerByExternalID returns the container of a host that has the engine's id, or ErrNotFound.
func (s *Store) ContainerByExternalID(hostID, externalID string) (*Container, error) {
	return nil, errStub
}

// ContainerByUUID returns the container with uuid, or ErrNotFound.
func (s *Store) ContainerByUUID(uuid string) (*Container, error) { return nil, errStub }

// RegisterByKey returns the register of a registration key, or ErrNotFound.
func (s *Store) RegisterByKey(ctx context.Context, key string) (*Register, error) { return nil, errStub }

// --- credentials ---------------------------------------------------------------------------------------------------

// CreateAPIKey makes a key pair for an account. The secret is returned here and never again.
func (s *Store) CreateAPIKey(ctx context.Context, accountID, name string) (key *APIKey, secret string, err error) {
	return nil, "", errStub
}

// AuthenticateAPIKey returns the key of the pair, or ErrCredentials.
func (s *Store) AuthenticateAPIKey(ctx context.Context, accessKey, secret string) (*APIKey, error) { return nil, errStub }

// CreateRegistrationToken makes a token, "<public>:<milliseconds>:<secret>", which is returned here and never again.
// A zero expires means never.
func (s *Store) CreateRegistrationToken(ctx context.Context, t RegistrationToken) (rec *RegistrationToken, token string, err error) {
	return nil, "", errStub
}

// CheckRegistrationToken returns the record of a valid token, or ErrCredentials, ErrExpired or ErrRevoked.
func (s *Store) CheckRegistrationToken(ctx context.Context, token string) (*RegistrationToken, error) { return nil, errStub }

// RegisterAgent binds key to a new agent owned by the token's account, or returns what it is bound to already:
// registering twice is no error and makes no second agent. The agent has no secret yet: see IssueAgentSecret.
func (s *Store) RegisterAgent(ctx context.Context, key string, token *RegistrationToken) (*Register, *Agent, error) {
	return nil, nil, errStub
}

// IssueAgentSecret makes a fresh secret for an agent. Secrets issued before stay valid until one of them is first
// used; then the others are dropped. At most four wait at a time.
func (s *Store) IssueAgentSecret(ctx context.Context, agentID string) (accessKey, secret string, err error) {
	return "", "", errStub
}

// AuthenticateAgent returns the agent of the key pair, or ErrCredentials. The first use of a secret is written down,
// so ctx bounds a write then.
func (s *Store) AuthenticateAgent(ctx context.Context, accessKey, secret string) (*Agent, error) {
	return nil, errStub
}

// RemoveAgent removes an agent with its register, hosts and containers: its key stops working.
func (s *Store) RemoveAgent(ctx context.Context, agentID string) error { return errStub }
