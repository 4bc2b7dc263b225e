package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/register"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/hostproxy"
	"github.com/droverhq/drover/utils/secret"
)

// A configKey is one setting: its place in the file, its variables, its flag. Adding a setting is adding a row to
// configKeys and a field to [Config].
type configKey struct {
	name   string   // path in the file
	env    []string // the first that is set wins
	flag   string   // long flag; "" is none
	def    string   // ${name} stands for the text of a key that comes earlier
	usage  string
	kind   kind
	secret bool                // may come from a file named by <env>_FILE
	show   func(string) string // what people see; nil is the text itself
	set    func(*Config, string) error
}

type kind int

const (
	kindText kind = iota
	kindBool
	kindList   // commas in text, a sequence in the file
	kindLabels // a=b&c=d in text, a mapping in the file
	kindUnused // known from other programs and without an effect
)

// key is a row of the table, and the methods below fill in the rest of it.
func key(name, usage string, set func(*Config, string) error) configKey {
	return configKey{name: name, usage: usage, set: set}
}

func (k configKey) vars(names ...string) configKey           { k.env = names; return k }
func (k configKey) flagged(name string) configKey            { k.flag = name; return k }
func (k configKey) defaults(text string) configKey           { k.def = text; return k }
func (k configKey) of(kind kind) configKey                   { k.kind = kind; return k }
func (k configKey) shown(show func(string) string) configKey { k.show = show; return k }
func (k configKey) secretly(show func(string) string) configKey {
	k.secret, k.show = true, show
	return k
}

// configKeys is the table of all settings, in the order of the documentation.
func configKeys() []configKey {
	return slices.Concat(agentKeys(), hostKeys(), connectionKeys(), engineKeys(), imageKeys(), nodeKeys(), portKeys(), podKeys(), doorKeys(), logKeys(), serverKeys())
}

func agentKeys() []configKey {
	return []configKey{
		key("app.agent.url", "registration URL of the control server",
			hidden(func(c *Config) *secret.String { return &c.Agent.RegistrationURL })).vars("CATTLE_REGISTRATION_URL").flagged("url").secretly(register.MaskURL),
		key("app.agent.api-url", "API URL, with keys instead of a registration",
			httpURL(func(c *Config) *string { return &c.Agent.APIURL })).vars("CATTLE_URL"),
		key("app.agent.access-key", "access key of the API",
			text(func(c *Config) *string { return &c.Agent.AccessKey })).vars("CATTLE_ACCESS_KEY"),
		key("app.agent.secret-key", "secret key of the API",
			hidden(func(c *Config) *secret.String { return &c.Agent.SecretKey })).vars("CATTLE_SECRET_KEY").secretly(mask),
		key("app.agent.config-url", "URL that agent instances are given; empty: the API URL",
			httpURL(func(c *Config) *string { return &c.Agent.ConfigURL })).vars("CATTLE_CONFIG_URL").defaults("${app.agent.api-url}"),
		key("app.agent.state-dir", "identity, credentials and journal of the host",
			dir(func(c *Config) *string { return &c.Agent.StateDir })).vars("DROVER_STATE_DIR", "CATTLE_STATE_DIR").flagged("state-dir").defaults(defaultStateDir),
		key("app.agent.legacy-state-dir", `state of an original agent, taken over once; "-" is none`,
			text(func(c *Config) *string { return &c.Agent.LegacyStateDir })).vars("DROVER_LEGACY_STATE_DIR").defaults(register.DefaultLegacyStateDir),
		key("app.agent.rootfs", "where the host's root is mounted in the agent's container",
			dir(func(c *Config) *string { return &c.Agent.Rootfs })).vars("DROVER_ROOTFS").flagged("rootfs"),
		key("app.agent.ip", "address that the host reports; empty: what the server sees",
			text(func(c *Config) *string { return &c.Agent.IP })).vars("CATTLE_AGENT_IP").flagged("agent-ip"),
		key("app.agent.detected-ip", "address where nobody knows a better one",
			text(func(c *Config) *string { return &c.Agent.DetectedIP })).vars("DETECTED_CATTLE_AGENT_IP"),
		key("app.agent.host-ip", "address of published ports; empty: the agent's",
			text(func(c *Config) *string { return &c.Agent.HostIP })).vars("CATTLE_DOCKER_HOST_IP").defaults("${app.agent.ip}"),
		key("app.agent.hostname", "name that the host reports; empty: the machine's",
			text(func(c *Config) *string { return &c.Agent.Hostname })).vars("CATTLE_HOSTNAME").flagged("hostname"),
		key("app.agent.labels", "labels of the host, as a=b&c=d",
			labels(func(c *Config) *map[string]string { return &c.Agent.Labels })).vars("CATTLE_HOST_LABELS").flagged("labels").of(kindLabels),
		key("app.agent.host-uuid", "the host's uuid instead of the stored one",
			text(func(c *Config) *string { return &c.Agent.HostUUID })).vars("CATTLE_DOCKER_UUID"),
		key("app.agent.host-uuid-file", "where the host's uuid is stored",
			text(func(c *Config) *string { return &c.Agent.HostUUIDFile })).vars("CATTLE_DOCKER_UUID_FILE").defaults("${app.agent.state-dir}/.docker_uuid"),
		key("app.agent.physical-host-uuid", "the physical host's uuid instead of the stored one",
			text(func(c *Config) *string { return &c.Agent.PhysicalHostUUID })).vars("CATTLE_PHYSICAL_HOST_UUID"),
		key("app.agent.physical-host-uuid-file", "where the physical host's uuid is stored",
			text(func(c *Config) *string { return &c.Agent.PhysicalHostUUIDFile })).vars("CATTLE_PHYSICAL_HOST_UUID_FILE").defaults("${app.agent.state-dir}/.physical_host_uuid"),
		key("app.agent.host-key-file", "RSA key of the host, made if it is missing",
			text(func(c *Config) *string { return &c.Agent.HostKeyFile })).vars("CATTLE_HOST_KEY_FILE").defaults("${app.agent.state-dir}/host.key"),
		key("app.agent.health-listen", `address of /healthz, /readyz and /metrics; "-" is none`,
			listen(func(c *Config) *string { return &c.Agent.HealthListen })).vars("DROVER_HEALTH_LISTEN").flagged("health-listen").defaults("127.0.0.1:0"),
	}
}

// hostKeys are what the original agent knows beside its registration.
func hostKeys() []configKey {
	return []configKey{
		key("app.agent.host-api-proxy", "reported as the host's apiProxy",
			text(func(c *Config) *string { return &c.Agent.HostAPIProxy })).vars("CATTLE_HOST_API_PROXY"),
		key("app.agent.api-cert-file", "public key of host access tokens; empty: the one that registration stores",
			text(func(c *Config) *string { return &c.Agent.APICertFile })).vars("CATTLE_CONSOLE_HOST_API_PUBLIC_KEY"),
		key("app.agent.scheduler-ips", "reported as label io.rancher.scheduler.ips",
			text(func(c *Config) *string { return &c.Agent.SchedulerIPs })).vars("CATTLE_SCHEDULER_IPS"),
		key("app.agent.scheduler-require-any", "reported as label io.rancher.scheduler.require_any",
			text(func(c *Config) *string { return &c.Agent.SchedulerRequireAny })).vars("CATTLE_SCHEDULER_REQUIRE_ANY"),
		key("app.agent.image", "reported as label io.rancher.host.agent_image",
			text(func(c *Config) *string { return &c.Agent.AgentImage })).vars("RANCHER_AGENT_IMAGE"),
		key("app.agent.home", "home of what config.update installs",
			dir(func(c *Config) *string { return &c.Agent.Home })).vars("CATTLE_HOME").defaults("/var/lib/cattle"),
		key("app.agent.build-dir", "where images are built",
			dir(func(c *Config) *string { return &c.Agent.BuildDir })).vars("CATTLE_BUILD_DIR").defaults("${app.agent.home}/builds"),
		key("app.agent.config-script", "script of config.update",
			text(func(c *Config) *string { return &c.Agent.ConfigScript })).vars("CATTLE_CONFIG_SCRIPT").defaults("${app.agent.home}/config.sh"),
		key("app.agent.config-update-pyagent", "let config.update have item pyagent",
			boolean(func(c *Config) *bool { return &c.Agent.ConfigUpdatePyagent })).vars("CATTLE_CONFIG_UPDATE_PYAGENT").defaults("true").of(kindBool),
		key("app.agent.stamp-file", "file whose change restarts an original agent",
			text(func(c *Config) *string { return &c.Agent.StampFile })).vars("CATTLE_STAMP_FILE").defaults("${app.agent.home}/.pyagent-stamp"),
		key("app.agent.api-proxy-listen-port", "told to agent instances",
			integer(0, 65535, func(c *Config) *int { return &c.Agent.APIProxyListenPort })).vars("CATTLE_API_PROXY_LISTEN_PORT").defaults("9342"),
		key("app.agent.ping-enabled", "answer pings",
			boolean(func(c *Config) *bool { return &c.Agent.PingEnabled })).vars("CATTLE_PING_ENABLED").defaults("true").of(kindBool),
		key("app.agent.docker-enabled", "report resources in pings",
			boolean(func(c *Config) *bool { return &c.Agent.DockerEnabled })).vars("CATTLE_DOCKER_ENABLED").defaults("true").of(kindBool),
		key("app.agent.detect-cloud-provider", "ask the cloud's metadata service for labels",
			boolean(func(c *Config) *bool { return &c.Agent.DetectCloudProvider })).vars("CATTLE_DETECT_CLOUD_PROVIDER").defaults("true").of(kindBool),
		key("app.agent.memory", "reported memory in bytes; empty: measured",
			integer(0, int64(1)<<62, func(c *Config) *int64 { return &c.Agent.MemoryOverride })).vars("CATTLE_MEMORY_OVERRIDE"),
		key("app.agent.milli-cpu", "reported thousandths of cores; empty: measured",
			integer(0, int64(1)<<40, func(c *Config) *int64 { return &c.Agent.MilliCPUOverride })).vars("CATTLE_MILLI_CPU_OVERRIDE"),
		key("app.agent.local-storage-mb", "reported storage; empty: measured",
			integer(0, int64(1)<<62, func(c *Config) *int64 { return &c.Agent.LocalStorageMBOverride })).vars("CATTLE_LOCAL_STORAGE_MB_OVERRIDE"),
	}
}

func connectionKeys() []configKey {
	return []configKey{
		key("app.ca.checksum", "SHA-256 of the PEM of the server's CA, in hex",
			text(func(c *Config) *string { return &c.CA.CAChecksum })).vars("CATTLE_CA_CHECKSUM").flagged("ca-checksum"),
		key("app.ca.file", "PEM file of the server's CA, instead of the system's roots",
			text(func(c *Config) *string { return &c.CA.CAFile })).vars("DROVER_CA_FILE").flagged("ca-file"),
		key("app.ca.insecure", "do not verify the server's certificate",
			boolean(func(c *Config) *bool { return &c.CA.Insecure })).vars("DROVER_INSECURE").flagged("insecure").defaults("false").of(kindBool),
		key("app.proxy.url", "proxy to the server (http, https, socks5, socks5h), before those of the environment",
			text(func(c *Config) *string { return &c.Proxy.URL })).vars("DROVER_PROXY").flagged("proxy").secretly(maskURL),
		key("app.proxy.http", "proxy for http and ws",
			text(func(c *Config) *string { return &c.Proxy.HTTP })).vars("HTTP_PROXY", "http_proxy").shown(maskURL),
		key("app.proxy.https", "proxy for https and wss",
			text(func(c *Config) *string { return &c.Proxy.HTTPS })).vars("HTTPS_PROXY", "https_proxy").shown(maskURL),
		key("app.proxy.all", "proxy where the other two are empty",
			text(func(c *Config) *string { return &c.Proxy.All })).vars("ALL_PROXY", "all_proxy").shown(maskURL),
		key("app.proxy.no", "what is reached without a proxy",
			text(func(c *Config) *string { return &c.Proxy.NoProxy })).vars("NO_PROXY", "no_proxy").of(kindList),
		key("app.events.workers", "events in work at once",
			integer(1, 4096, func(c *Config) *int { return &c.Events.Workers })).vars("DROVER_WORKERS").flagged("workers").defaults("32"),
		key("app.events.queue", "events that wait for a worker",
			integer(1, 1<<20, func(c *Config) *int { return &c.Events.Queue })).vars("DROVER_QUEUE").defaults("16384"),
		key("app.events.timeout", "for an event that brings no deadline",
			duration(time.Second, time.Second, 24*time.Hour, func(c *Config) *time.Duration { return &c.Events.Timeout })).vars("DROVER_EVENT_TIMEOUT").defaults("45s"),
		key("app.events.drain", "for what is in work when the agent ends",
			duration(time.Second, 0, time.Hour, func(c *Config) *time.Duration { return &c.Events.Drain })).vars("DROVER_DRAIN").flagged("drain").defaults("10s"),
		key("app.log.level", "trace, debug, info, warn or error",
			func(c *Config, s string) error {
				level, err := logrus.ParseLevel(s)
				if err != nil || level < logrus.ErrorLevel {
					return fmt.Errorf("want trace, debug, info, warn or error")
				}
				c.Log.Level = level.String()
				return nil
			}).vars("DROVER_LOG_LEVEL").flagged("log-level").defaults("info"),
		key("app.log.format", "text or json; auto: text on a terminal",
			oneOf(func(c *Config) *string { return &c.Log.Format }, "auto", "text", "json")).vars("DROVER_LOG_FORMAT").flagged("log-format").defaults("auto"),
	}
}

func engineKeys() []configKey {
	return []configKey{
		key("app.engine", "auto, docker or cri",
			oneOf(func(c *Config) *string { return &c.Engine.Kind }, "auto", "docker", "cri")).vars("DROVER_ENGINE").flagged("engine").defaults("auto"),
		key("app.docker.sock", "dockerd",
			endpoint(func(c *Config) *string { return &c.Engine.DockerHost }, "unix", "tcp", "http", "https")).vars("DROVER_DOCKER_SOCK", "DOCKER_HOST").flagged("docker-sock").defaults("unix:///var/run/docker.sock"),
		key("app.docker.cert-path", "folder with ca.pem, cert.pem and key.pem",
			dir(func(c *Config) *string { return &c.Engine.DockerCertPath })).vars("DOCKER_CERT_PATH"),
		key("app.docker.tls-verify", "verify dockerd's certificate: anything is yes, as docker does it",
			func(c *Config, s string) error { c.Engine.DockerTLSVerify = s != ""; return nil }).vars("DOCKER_TLS_VERIFY"),
		key("app.docker.api-version", "empty: negotiated",
			text(func(c *Config) *string { return &c.Engine.DockerAPIVersion })).vars("DOCKER_API_VERSION"),
		key("app.cri.sock", "CRI runtimes; empty: looked for",
			endpoints(func(c *Config) *[]string { return &c.Engine.CRISockets }, "unix")).vars("DROVER_CRI_SOCK", "CONTAINER_RUNTIME_ENDPOINT").flagged("cri-sock").of(kindList),
	}
}

// nodeKeys are the keys of the node agents before Drover, with their units.
func nodeKeys() []configKey {
	unused := func(name string) configKey {
		return key(name, "has no effect", func(*Config, string) error { return nil }).of(kindUnused).shown(func(string) string { return "" })
	}
	return []configKey{
		key("app.http.port", "port of the node's streams, which opens where app.http.token-key-file or app.http.client-ca-file says who may come; 0 is none",
			integer(0, 65535, func(c *Config) *int { return &c.Node.HTTPPort })).vars("DROVER_HTTP_PORT").flagged("http-port").defaults("8085"),
		key("app.debug.port", "port of pprof of 'drover node'; 0 is none",
			integer(0, 65535, func(c *Config) *int { return &c.Node.DebugPort })).vars("DROVER_DEBUG_PORT").defaults("10102"),
		key("app.debug.listen", "address of that port, without a port; whoever reaches it reads the memory of this process",
			text(func(c *Config) *string { return &c.Node.DebugListen })).vars("DROVER_DEBUG_LISTEN").defaults("127.0.0.1"),
		key("app.container.ticker", "seconds between two comparisons of the pod map",
			duration(time.Second, time.Second, 24*time.Hour, func(c *Config) *time.Duration { return &c.Node.ContainerTicker })).vars("DROVER_CONTAINER_TICKER").defaults("30"),
		key("app.rm.api", "base URL of a resource manager",
			httpURL(func(c *Config) *string { return &c.Node.RMAPI })).vars("DROVER_RM_API"),
		key("app.qos.path", "root of the cgroup trees",
			dir(func(c *Config) *string { return &c.Node.QoSPath })).vars("DROVER_QOS_PATH").defaults("/sys/fs/cgroup"),
		unused("app.ims.logroot"), unused("app.kubedebug.user"), unused("app.kubedebug.passwd"),
	}
}

// doorKeys concern what comes through the tunnel, the node port and Rancher's proxy alike.
func doorKeys() []configKey {
	return []configKey{
		key("app.doors.deny", "what nobody may do on this host: exec, attach, logs, stats, files.read, files.write, top, events, forward, dockersocket, console, container-proxy",
			listOf(func(c *Config) *[]string { return &c.Doors.Deny }, service.VerbExec, service.VerbAttach, service.VerbLogs, service.VerbStats,
				service.VerbRead, service.VerbWrite, service.VerbTop, service.VerbEvents, service.VerbForward,
				hostproxy.VerbSocket, hostproxy.VerbConsole, hostproxy.VerbProxy)).vars("DROVER_DENY").flagged("deny").of(kindList),
		key("app.doors.trust-proxy", "let Rancher's proxy reach ports of containers for its users: its requests bring no token that could be checked here",
			boolean(func(c *Config) *bool { return &c.Doors.TrustProxy })).vars("DROVER_TRUST_PROXY").defaults("false").of(kindBool),
	}
}

func serverKeys() []configKey {
	return []configKey{
		key("app.server.listen", "address of the server",
			listen(func(c *Config) *string { return &c.Server.Listen })).vars("DROVER_LISTEN").flagged("listen"),
		key("app.server.data", "folder of the server's state",
			dir(func(c *Config) *string { return &c.Server.Data })).vars("DROVER_DATA").flagged("data"),
		key("app.server.url", "URL that agents are told",
			httpURL(func(c *Config) *string { return &c.Server.URL })).vars("DROVER_SERVER_URL").flagged("server-url"),
		key("app.server.hosts", "names and addresses in the server's certificate",
			list(func(c *Config) *[]string { return &c.Server.Hosts })).vars("DROVER_SERVER_HOSTS").flagged("host").of(kindList),
		key("app.server.nats", "external NATS servers; empty: one in the process",
			list(func(c *Config) *[]string { return &c.Server.NATS })).vars("DROVER_NATS").flagged("nats").of(kindList).secretly(maskURLs),
		key("app.server.nats-replicas", "copies of each record",
			integer(1, 5, func(c *Config) *int { return &c.Server.NATSReplicas })).vars("DROVER_NATS_REPLICAS").flagged("nats-replicas").defaults("1"),
		key("app.server.replica-url", "where the other replicas reach this one; empty: this machine's address",
			httpURL(func(c *Config) *string { return &c.Server.ReplicaURL })).vars("DROVER_REPLICA_URL").flagged("replica-url"),
		key("app.server.seal-key", "encrypts the server's keys in an external NATS",
			hidden(func(c *Config) *secret.String { return &c.Server.SealKey })).vars("DROVER_SEAL_KEY").secretly(mask),
		key("app.server.tls", "own: a CA of the server's own; files; off: plain HTTP",
			oneOf(func(c *Config) *string { return &c.Server.TLSMode }, "own", "files", "off")).vars("DROVER_TLS").flagged("tls").defaults("own"),
		key("app.server.cert-file", "server certificate with tls=files",
			text(func(c *Config) *string { return &c.Server.CertFile })).vars("DROVER_TLS_CERT_FILE").flagged("tls-cert"),
		key("app.server.key-file", "its key",
			text(func(c *Config) *string { return &c.Server.KeyFile })).vars("DROVER_TLS_KEY_FILE").flagged("tls-key"),
		key("app.server.ca-file", "private CA behind it, which agents pin",
			text(func(c *Config) *string { return &c.Server.CAFile })).vars("DROVER_TLS_CA_FILE").flagged("tls-ca"),
		key("app.server.trusted-proxies", "CIDR ranges that may set X-Forwarded headers",
			prefixes(func(c *Config) *[]string { return &c.Server.TrustedProxies })).vars("DROVER_TRUSTED_PROXIES").flagged("trusted-proxies").of(kindList),
		key("app.server.image", "agent image of the one-liner",
			text(func(c *Config) *string { return &c.Server.Image })).vars("DROVER_IMAGE").flagged("image"),
	}
}
