package store

import (
	"encoding/json"
	"time"
)

// The type names of records, as Rancher's API spells them. They name the types of a [Change] and of [Store.NextID].
const (
	TypeAccount           = "account"
	TypeAPIKey            = "apiKey"
	TypeRegistrationToken = "registrationToken"
	TypeRegister          = "register"
	TypeAgent             = "agent"
	TypeHost              = "host"
	TypeContainer         = "container"
	TypePullTask          = "pullTask"
	TypeSetting           = "setting"
	TypeInstanceHostMap   = "instanceHostMap" // has ids only, no records
)

// The values of Agent.Connection and Host.Connection.
const (
	ConnectionOnline       = "online"       // the control channel made a round trip recently
	ConnectionReconnecting = "reconnecting" // lost a short while ago, or pings go unanswered
	ConnectionDisconnected = "disconnected" // lost for longer than the server waits
)

// The values of Agent.State, Agent.AgentState of hosts, and Host.State that this server uses.
const (
	StateRegistering  = "registering"
	StateActivating   = "activating"
	StateActive       = "active"
	StateInactive     = "inactive"
	StateReconnecting = "reconnecting"
	StateDisconnected = "disconnected"
	StateRemoved      = "removed"
)

// The values of Container.State. Removed ones are listed for a while and then purged.
const (
	ContainerCreating = "creating"
	ContainerStarting = "starting"
	ContainerRunning  = "running"
	ContainerStopping = "stopping"
	ContainerStopped  = "stopped"
	ContainerRemoving = "removing"
	ContainerRemoved  = "removed"
	ContainerError    = "error"
)

// Meta is what every record has. The store sets all of it but ID, which a creator may choose.
type Meta struct {
	ID       string    `json:"id"`               // "1h1"
	Created  time.Time `json:"created,omitzero"` // when the record was first written
	Updated  time.Time `json:"updated,omitzero"` // when it was last written
	Revision uint64    `json:"-"`                // of the stored value; rises with every write
}

// An Account owns keys, tokens, hosts and containers.
type Account struct {
	Meta
	Name  string `json:"name"`
	Kind  string `json:"kind"` // "admin", "user"
	State string `json:"state"`
}

// An APIKey is the key pair of a person or a program.
type APIKey struct {
	Meta
	Name      string     `json:"name,omitempty"`
	AccountID string     `json:"accountId"`
	AccessKey string     `json:"accessKey"`
	Secret    Credential `json:"secret"`
	State     string     `json:"state"`
}

// A RegistrationToken lets a host register. Only its digest is kept.
type RegistrationToken struct {
	Meta
	AccountID   string     `json:"accountId"`
	Description string     `json:"description,omitempty"`
	PublicValue string     `json:"publicValue"`
	Secret      Credential `json:"secret"`
	Expires     time.Time  `json:"expires,omitzero"` // zero: never
	Revoked     time.Time  `json:"revoked,omitzero"` // zero: not revoked
}

// A Register binds a registration key, the secret that an agent made up for itself, to an agent. The key is kept as a
// digest, so a caller must give it to see the credentials.
type Register struct {
	Meta
	UUID      string `json:"uuid"`
	KeyDigest string `json:"keyDigest"` // hex SHA-256 of the key
	AgentID   string `json:"agentId"`
	AccountID string `json:"accountId"`
	TokenID   string `json:"tokenId"`
	State     string `json:"state"`
}

// An Agent is one registered host agent.
type Agent struct {
	Meta
	UUID       string       `json:"uuid"`
	AccountID  string       `json:"accountId"` // owner of what the agent reports
	RegisterID string       `json:"registerId,omitempty"`
	AccessKey  string       `json:"accessKey"`
	Secrets    []Credential `json:"secrets"` // any of them is valid; the first use of one drops the others
	State      string       `json:"state"`   // State constants
	Connection string       `json:"connection"`
	Since      time.Time    `json:"since,omitzero"`    // of the connection state
	LastSeen   time.Time    `json:"lastSeen,omitzero"` // last round trip when the connection state changed
	Version    string       `json:"version,omitempty"` // Drover-Version; "" for an original agent
	Drover     bool         `json:"drover,omitempty"`  // speaks the socket extension
	RemoteAddr string       `json:"remoteAddr,omitempty"`
	Quarantine string       `json:"quarantine,omitempty"` // why its host is refused; "" if it is not
}

// A Host is one machine, made from an agent's ping replies.
type Host struct {
	Meta
	UUID             string            `json:"uuid"` // as the agent reports it
	Name             string            `json:"name,omitempty"`
	Description      string            `json:"description,omitempty"`
	Hostname         string            `json:"hostname"`
	AccountID        string            `json:"accountId"`
	AgentID          string            `json:"agentId"`
	State            string            `json:"state"`      // active, inactive, removed
	AgentState       string            `json:"agentState"` // the agent's State
	Connection       string            `json:"connection"` // Connection constants
	LastSeen         time.Time         `json:"lastSeen,omitzero"`
	AgentVersion     string            `json:"agentVersion,omitempty"`
	AgentIPAddress   string            `json:"agentIpAddress,omitempty"`
	PhysicalHostUUID string            `json:"physicalHostUuid,omitempty"`
	StoragePoolUUID  string            `json:"storagePoolUuid,omitempty"`
	StoragePoolName  string            `json:"storagePoolName,omitempty"`
	Engine           string            `json:"engine,omitempty"` // "docker 20.10.24"
	Labels           map[string]string `json:"labels,omitempty"`
	Info             json.RawMessage   `json:"info,omitempty"` // as reported, keys merged
	APIProxy         string            `json:"apiProxy,omitempty"`
	Memory           int64             `json:"memory,omitempty"` // bytes
	MilliCPU         int64             `json:"milliCpu,omitempty"`
	LocalStorageMB   int64             `json:"localStorageMb,omitempty"`
}

// DisplayName returns the name people gave the host, or else its host name.
func (h *Host) DisplayName() string {
	if h.Name != "" {
		return h.Name
	}
	return h.Hostname
}

// A Container is one container on a host, made through the server or found there.
type Container struct {
	Meta
	UUID                  string            `json:"uuid"`
	Name                  string            `json:"name"`
	Description           string            `json:"description,omitempty"`
	AccountID             string            `json:"accountId"`
	HostID                string            `json:"hostId,omitempty"`
	MapID                 string            `json:"mapId,omitempty"` // id of the instanceHostMap, "1ihm3"
	ExternalID            string            `json:"externalId,omitempty"`
	ImageUUID             string            `json:"imageUuid,omitempty"` // "docker:nginx"
	State                 string            `json:"state"`               // Container constants
	Transitioning         string            `json:"transitioning,omitempty"`
	TransitioningMessage  string            `json:"transitioningMessage,omitempty"`
	TransitioningProgress int               `json:"transitioningProgress,omitempty"`
	Native                bool              `json:"native,omitempty"` // found on a host, not made by the server
	Labels                map[string]string `json:"labels,omitempty"`
	Ports                 []string          `json:"ports,omitempty"` // as asked for: "8080:80/tcp"
	DockerPorts           []string          `json:"dockerPorts,omitempty"`
	PrimaryIPAddress      string            `json:"primaryIpAddress,omitempty"`
	ExternalCreated       time.Time         `json:"externalCreated,omitzero"` // when the engine made it
	Removed               time.Time         `json:"removed,omitzero"`
	Fields                json.RawMessage   `json:"fields,omitempty"` // the create request's fields, as given
	Work                  json.RawMessage   `json:"work,omitempty"`   // the operation in progress; package compute's alone
}

// A PullTask pulls one image onto some hosts.
type PullTask struct {
	Meta
	AccountID             string            `json:"accountId"`
	Image                 string            `json:"image"`
	HostIDs               []string          `json:"hostIds,omitempty"`
	State                 string            `json:"state"`
	Transitioning         string            `json:"transitioning,omitempty"`
	TransitioningMessage  string            `json:"transitioningMessage,omitempty"`
	TransitioningProgress int               `json:"transitioningProgress,omitempty"`
	Status                map[string]string `json:"status,omitempty"` // by host id
	Work                  json.RawMessage   `json:"work,omitempty"`   // the operation in progress; package compute's alone
}

// A Setting is one named value; its ID is its name.
type Setting struct {
	Meta
	Value string `json:"value"`
}
