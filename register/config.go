package register

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/utils/secret"
)

// DefaultLegacyStateDir is where an agent of Rancher 1.6 keeps its identity.
const DefaultLegacyStateDir = "/var/lib/rancher/state"

// Config is what [Join] needs. Only StateDir is required; what else is missing shows when it is needed.
type Config struct {
	// URL is the registration URL, ".../v1/scripts/<token>". It is a secret: who has it can register a host.
	URL secret.String

	// APIURL, AccessKey and SecretKey are credentials that the operator gives. With all three set there is no
	// registration and nothing is stored; with some of them, [Join] fails.
	APIURL    string
	AccessKey string
	SecretKey secret.String

	// StateDir is created with 0700 where it is missing.
	StateDir string

	// AgentIP is the address that the host reports. It beats what the env script says that the server saw.
	AgentIP string
	// DetectedIP is used where neither AgentIP nor the env script gives an address.
	DetectedIP string

	TLS   TLSConfig
	Proxy ProxyConfig

	Identity IdentityConfig

	// Rejoin makes Join register anew in spite of stored credentials: the server refused them. Without a registration
	// URL, given or stored, Join then returns [ErrRefused].
	Rejoin bool

	// RequestTimeout bounds one HTTP exchange, by default 30 s.
	RequestTimeout time.Duration
	// RetryFor bounds how long a server is waited for that cannot be reached or answers 429 or 5xx, by default
	// 10 minutes. Negative: no retry.
	RetryFor time.Duration
	// RegisterTimeout bounds how long a registration may be on its way on the server, by default 2 minutes.
	RegisterTimeout time.Duration

	// UserAgent goes with every request, by default "drover".
	UserAgent string
	// Log gets what is going on; nil is silence.
	Log logrus.FieldLogger
}

// TLSConfig says how the server's certificate is verified. With neither a checksum nor a file the system's roots decide.
type TLSConfig struct {
	// CAChecksum is the SHA-256 of the PEM of the server's CA, in hex; upper case, colons and a leading "sha256:" are
	// taken too. The CA is downloaded from the server, compared, and is from then on the only root.
	CAChecksum string
	// CAFile names a PEM file of roots that replaces the system's. With a checksum too the file must match it.
	CAFile string
	// Insecure switches the verification off. It excludes the other two.
	Insecure bool
}

// A Source says where the credentials of a [Result] come from.
type Source string

// The sources of credentials.
const (
	SourceGiven      Source = "given"      // from the configuration
	SourceStored     Source = "stored"     // from credentials.json
	SourceRegistered Source = "registered" // from a registration just now
)

// Result is what the agent needs to talk to its server.
type Result struct {
	Source    Source
	APIURL    string // without a trailing slash, e.g. "https://server/v1"
	AccessKey string
	SecretKey secret.String

	// TLS is the client configuration for REST and WebSocket. Clone it before changing it.
	TLS *tls.Config
	// Proxy chooses the proxy of a request, for http.Transport and for the WebSocket dialer. Never nil.
	Proxy func(*http.Request) (*url.URL, error)
	// ProxyUsed describes the proxy towards APIURL without its credentials; "" is none.
	ProxyUsed string

	AgentIP          string // may be empty
	HostUUID         string
	PhysicalHostUUID string

	// APICertFile is the public key of host access tokens. The file is missing if the server had none: see Notices.
	APICertFile string

	// Notices is what the operator should know although nothing failed: a new identity, a takeover, no api.crt.
	// They were logged as warnings too.
	Notices []Notice

	join *joiner
}

// A Notice is a line for the operator. Kind is one of the Notice constants, for programs.
type Notice struct {
	Kind string
	Text string
}

// The kinds of notices.
const (
	NoticeCloned      = "cloned"      // the state directory came from another machine: new identity
	NoticeMigrated    = "migrated"    // the identity of an original agent was taken over
	NoticeIdentity    = "identity"    // something else about the identity files
	NoticeCredentials = "credentials" // stored credentials could not be used
	NoticeAPICert     = "api.crt"     // host access tokens cannot be verified
	NoticeTLS         = "tls"         // the connection is weaker than it could be
)

// ErrRefused means that the server refuses the credentials or the registration token, and that asking again does not
// help: the host needs a new registration URL.
var ErrRefused = errors.New("the server refuses the credentials")

// ErrNotRegistered means that there are neither credentials nor a registration URL.
var ErrNotRegistered = errors.New("no registration URL and no credentials")

const (
	defaultRequestTimeout  = 30 * time.Second
	defaultRetryFor        = 10 * time.Minute
	defaultRegisterTimeout = 2 * time.Minute

	maxBody = 1 << 20 // of any answer
)

func (c Config) withDefaults() Config {
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	if c.RetryFor == 0 {
		c.RetryFor = defaultRetryFor
	}
	if c.RegisterTimeout <= 0 {
		c.RegisterTimeout = defaultRegisterTimeout
	}
	if c.UserAgent == "" {
		c.UserAgent = "drover"
	}
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = silent
	}
	return c
}

// An EngineIDFunc returns an id of the host's container engine that lasts as long as the engine's data.
type EngineIDFunc func(context.Context) (string, error)

// IdentityConfig says how the host's identity is found.
type IdentityConfig struct {
	// HostUUID and PhysicalHostUUID override the stored ones and are stored in their place.
	HostUUID         string
	PhysicalHostUUID string
	// HostUUIDFile and PhysicalHostUUIDFile move the two files out of the state directory.
	HostUUIDFile         string
	PhysicalHostUUIDFile string

	// Rootfs is where the host's root is seen from here, e.g. "/host". In a container it makes the host's machine-id
	// readable; "" or "/" is this process' own root.
	Rootfs string
	// EngineID stands in for the machine-id in a container that does not see the host's root. It may be nil. It is
	// called at most once a Join, and only when no machine-id can be read.
	EngineID EngineIDFunc

	// LegacyStateDir is an original agent's state directory, read once, when there is no identity yet. "" is
	// DefaultLegacyStateDir; "-" is none.
	LegacyStateDir string
}
