package cli

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/register"
	"github.com/droverhq/drover/utils/secret"
)

// defaultConfigFile is read if it exists and no other is given.
const defaultConfigFile = "/etc/drover/application.yaml"

// Config is the configuration of the long-running roles, from flags, environment, file and defaults, in this order of
// precedence. It is plain data: nobody else reads flags or environment.
type Config struct {
	Agent  AgentConfig
	CA     register.TLSConfig
	Proxy  register.ProxyConfig
	Engine EngineConfig
	Images ImagesConfig
	Events EventsConfig
	Node   NodeConfig
	Port   PortConfig
	Pods   PodsConfig
	Doors  DoorsConfig
	Logs   LogsConfig
	Server ServerConfig
	Log    LogConfig

	// File is the configuration file that was read; "" is none.
	File string
	// Warnings are for the operator: keys without an effect, a file with secrets that others can read.
	Warnings []string

	values map[string]ConfigValue
}

// AgentConfig is what concerns the host and its place at the server. Comments name the variable of the original agent.
type AgentConfig struct {
	RegistrationURL secret.String // CATTLE_REGISTRATION_URL
	APIURL          string        // CATTLE_URL
	AccessKey       string        // CATTLE_ACCESS_KEY
	SecretKey       secret.String // CATTLE_SECRET_KEY
	ConfigURL       string        // CATTLE_CONFIG_URL, for agent-instance containers; default APIURL

	StateDir       string
	LegacyStateDir string // of an original agent; "-" is none
	Rootfs         string // where the host's root is seen from here

	IP           string // CATTLE_AGENT_IP
	DetectedIP   string // DETECTED_CATTLE_AGENT_IP
	HostIP       string // CATTLE_DOCKER_HOST_IP; "" means the agent's IP
	Hostname     string // CATTLE_HOSTNAME; "" means the machine's
	HostAPIProxy string // CATTLE_HOST_API_PROXY

	HostUUID             string // CATTLE_DOCKER_UUID
	HostUUIDFile         string // CATTLE_DOCKER_UUID_FILE; default in StateDir
	PhysicalHostUUID     string // CATTLE_PHYSICAL_HOST_UUID
	PhysicalHostUUIDFile string // CATTLE_PHYSICAL_HOST_UUID_FILE; default in StateDir
	HostKeyFile          string // CATTLE_HOST_KEY_FILE
	APICertFile          string // CATTLE_CONSOLE_HOST_API_PUBLIC_KEY; "" means the one that registration stores

	Labels              map[string]string // CATTLE_HOST_LABELS
	SchedulerIPs        string            // CATTLE_SCHEDULER_IPS
	SchedulerRequireAny string            // CATTLE_SCHEDULER_REQUIRE_ANY
	AgentImage          string            // RANCHER_AGENT_IMAGE

	Home                string // CATTLE_HOME
	BuildDir            string // CATTLE_BUILD_DIR
	ConfigScript        string // CATTLE_CONFIG_SCRIPT
	ConfigUpdatePyagent bool   // CATTLE_CONFIG_UPDATE_PYAGENT
	StampFile           string // CATTLE_STAMP_FILE
	APIProxyListenPort  int    // CATTLE_API_PROXY_LISTEN_PORT

	PingEnabled         bool // CATTLE_PING_ENABLED
	DockerEnabled       bool // CATTLE_DOCKER_ENABLED: false answers pings without resources
	DetectCloudProvider bool // CATTLE_DETECT_CLOUD_PROVIDER

	MemoryOverride         int64 // CATTLE_MEMORY_OVERRIDE, bytes; 0 is none
	MilliCPUOverride       int64 // CATTLE_MILLI_CPU_OVERRIDE; 0 is none
	LocalStorageMBOverride int64 // CATTLE_LOCAL_STORAGE_MB_OVERRIDE; 0 is none

	HealthListen string // host:port of /healthz, /readyz and /metrics; "" is none
}

// EngineConfig says which container engine the agent drives.
type EngineConfig struct {
	Kind             string   // auto, docker or cri
	DockerHost       string   // unix:///..., tcp://host:port; DOCKER_HOST
	DockerCertPath   string   // DOCKER_CERT_PATH
	DockerTLSVerify  bool     // DOCKER_TLS_VERIFY: set to anything
	DockerAPIVersion string   // DOCKER_API_VERSION; "" is negotiated
	CRISockets       []string // unix:///...; none: looked for
}

// EventsConfig bounds the work on events.
type EventsConfig struct {
	Workers int           // events in work at once
	Queue   int           // events that wait
	Timeout time.Duration // of an event that brings none of its own
	Drain   time.Duration // for what is in work when the agent ends
}

// NodeConfig is the doors of a node. The names in the file are those of the node agents before Drover.
type NodeConfig struct {
	HTTPPort        int           // app.http.port; 0 is none
	DebugPort       int           // app.debug.port; 0 is none
	DebugListen     string        // address without a port
	ContainerTicker time.Duration // how often the pod map is compared with the engine
	RMAPI           string        // base URL of a resource manager
	QoSPath         string        // root of the cgroup trees
}

// DoorsConfig is what holds for every door to this host's streams.
type DoorsConfig struct {
	Deny       []string // verbs that nobody may use here
	TrustProxy bool     // container-proxy without a token of its own
}

// ServerConfig is the control server's.
type ServerConfig struct {
	Listen         string
	Data           string // "" means the place that suits the user
	URL            string // what agents are told; "" follows from Listen
	Hosts          []string
	NATS           []string
	NATSReplicas   int
	ReplicaURL     string // where other replicas reach this one; "" follows from Listen
	SealKey        secret.String
	TLSMode        string // own, files or off
	CertFile       string
	KeyFile        string
	CAFile         string
	TrustedProxies []string
	Image          string
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string // trace, debug, info, warn or error
	Format string // auto, text or json
}

// A ConfigValue is one setting and where it comes from.
type ConfigValue struct {
	Key    string `json:"key" yaml:"key"`
	Value  string `json:"value" yaml:"value"`   // secrets are masked
	Source string `json:"source" yaml:"source"` // "flag --url", "env CATTLE_URL", "file /etc/drover/application.yaml:7", "default"
	Env    string `json:"env,omitempty" yaml:"env,omitempty"`
	Flag   string `json:"flag,omitempty" yaml:"flag,omitempty"`
	Usage  string `json:"usage" yaml:"usage"`
}

// Values returns every setting in the order of the documentation. Nothing in it is secret.
func (c *Config) Values() []ConfigValue {
	out := make([]ConfigValue, 0, len(c.values))
	for _, k := range configKeys() {
		out = append(out, c.values[k.name])
	}
	return out
}

// Source says where the setting of a key comes from, or "" for an unknown key.
func (c *Config) Source(key string) string { return c.values[key].Source }

// IsDefault reports whether nobody set the key.
func (c *Config) IsDefault(key string) bool { return c.Source(key) == sourceDefault }

// Register returns the configuration of the first contact with the server.
func (c *Config) Register(log logrus.FieldLogger) register.Config {
	a := &c.Agent
	return register.Config{
		URL: a.RegistrationURL, APIURL: a.APIURL, AccessKey: a.AccessKey, SecretKey: a.SecretKey,
		StateDir: a.StateDir, AgentIP: a.IP, DetectedIP: a.DetectedIP,
		TLS: c.CA, Proxy: c.Proxy,
		Identity: register.IdentityConfig{
			HostUUID: a.HostUUID, HostUUIDFile: a.HostUUIDFile,
			PhysicalHostUUID: a.PhysicalHostUUID, PhysicalHostUUIDFile: a.PhysicalHostUUIDFile,
			Rootfs: a.Rootfs, LegacyStateDir: a.LegacyStateDir,
		},
		Log: log,
	}
}

// ConfigError says what is wrong with a configuration: every problem at once, each with its place.
type ConfigError struct{ Problems []string }

// Error returns one line a problem.
func (e *ConfigError) Error() string {
	return "configuration: " + strings.Join(e.Problems, "\nconfiguration: ")
}

const sourceDefault = "default"

// LoadConfig merges flags, environment, file and defaults. getenv is the only source of environment variables; an empty
// variable counts as not set. configPath is the file, which must exist then; "" means DROVER_CONFIG, else
// /etc/drover/application.yaml if that exists. flags maps names of flags, without dashes, to the text that was given, and
// holds those alone that were given. A secret may also be in a file which a variable of its name and _FILE names. The
// error is a *[ConfigError].
func LoadConfig(getenv func(string) string, configPath string, flags map[string]string) (*Config, error) {
	l := &loader{
		getenv: getenv, flags: flags,
		c: &Config{values: map[string]ConfigValue{}}, text: map[string]string{},
	}
	l.readFile(configPath)
	for _, k := range configKeys() {
		l.load(k)
	}
	l.debugAsked()
	for name := range flags {
		if !slices.ContainsFunc(configKeys(), func(k configKey) bool { return k.flag == name }) {
			l.problem("flag --%s sets nothing", name)
		}
	}
	if len(l.problems) > 0 {
		return nil, &ConfigError{Problems: l.problems}
	}
	return l.c, nil
}

// loader is one LoadConfig.
type loader struct {
	getenv   func(string) string
	flags    map[string]string
	file     map[string]fileValue
	c        *Config
	text     map[string]string // by key, for the defaults of others
	problems []string
}

func (l *loader) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// load finds the text of a key, sets it and notes where it came from.
func (l *loader) load(k configKey) {
	text, source := l.find(k)
	l.text[k.name] = text
	// A default that follows from a wrong setting is wrong as well, and that setting was reported.
	if err := k.set(l.c, text); err != nil && source != sourceDefault {
		// The value is not quoted: it may be secret, and whoever set it can look at the place.
		l.problem("%s: %s: %v", source, k.name, err)
	}
	shown := text
	if k.show != nil && text != "" {
		shown = k.show(text)
	}
	v := ConfigValue{Key: k.name, Value: shown, Source: source, Env: strings.Join(k.env, ", "), Usage: k.usage}
	if k.flag != "" {
		v.Flag = "--" + k.flag
	}
	l.c.values[k.name] = v
}

func (l *loader) find(k configKey) (text, source string) {
	if text, ok := l.flags[k.flag]; ok && k.flag != "" {
		return text, "flag --" + k.flag
	}
	for _, name := range k.env {
		text := l.getenv(name)
		if !k.secret {
			if text != "" {
				return text, "env " + name
			}
			continue
		}
		file := l.getenv(name + "_FILE")
		switch {
		case text != "" && file != "":
			l.problem("env %s and env %s_FILE are both set", name, name)
			return text, "env " + name
		case text != "":
			return text, "env " + name
		case file != "":
			text, err := secretFile(file)
			if err != nil {
				l.problem("env %s_FILE: %v", name, err)
			}
			return text, fmt.Sprintf("env %s_FILE (%s)", name, file)
		}
	}
	if v, ok := l.file[k.name]; ok && v.text != "" {
		return v.text, fmt.Sprintf("file %s:%d", l.c.File, v.line)
	}
	return os.Expand(k.def, func(name string) string { return l.text[name] }), sourceDefault
}

// debugAsked honours the switches of the original agent, which know only on.
func (l *loader) debugAsked() {
	const key = "app.log.level"
	if !l.c.IsDefault(key) {
		return
	}
	for _, name := range []string{"CATTLE_SCRIPT_DEBUG", "RANCHER_DEBUG"} {
		if l.getenv(name) != "" {
			v := l.c.values[key]
			v.Value, v.Source = "debug", "env "+name
			l.c.values[key], l.c.Log.Level = v, "debug"
			return
		}
	}
}

// secretFile reads a secret that is alone in a file. The newline that editors add is not part of it.
func secretFile(file string) (string, error) {
	b, err := readLimited(file, 64<<10)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return text, nil
}

// readLimited reads a regular file of at most limit bytes.
func readLimited(file string, limit int64) ([]byte, error) {
	fi, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", file)
	case fi.Size() > limit:
		return nil, fmt.Errorf("%s is larger than %d bytes", file, limit)
	}
	return os.ReadFile(file)
}

// maskURL shows a URL, or a host and port with a user in front, without the user and the password.
func maskURL(text string) string {
	at := strings.LastIndex(text, "@")
	if at < 0 {
		return text
	}
	scheme := ""
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		scheme = u.Scheme + "://"
	}
	return scheme + secret.Redacted + text[at:]
}
