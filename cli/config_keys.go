package cli

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/register"
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

// configKeys is the table of all settings, in the order of the documentation.
func configKeys() []configKey {
	return slices.Concat(agentKeys(), hostKeys(), connectionKeys(), engineKeys(), nodeKeys(), serverKeys())
}

func agentKeys() []configKey {
	return []configKey{
		{name: "app.agent.url", env: []string{"CATTLE_REGISTRATION_URL"}, flag: "url", secret: true, show: register.MaskURL,
			usage: "registration URL of the control server", set: hidden(func(c *Config) *secret.String { return &c.Agent.RegistrationURL })},
		{name: "app.agent.api-url", env: []string{"CATTLE_URL"}, usage: "API URL, with keys instead of a registration",
			set: httpURL(func(c *Config) *string { return &c.Agent.APIURL })},
		{name: "app.agent.access-key", env: []string{"CATTLE_ACCESS_KEY"}, usage: "access key of the API",
			set: text(func(c *Config) *string { return &c.Agent.AccessKey })},
		{name: "app.agent.secret-key", env: []string{"CATTLE_SECRET_KEY"}, secret: true, show: mask, usage: "secret key of the API",
			set: hidden(func(c *Config) *secret.String { return &c.Agent.SecretKey })},
		{name: "app.agent.config-url", env: []string{"CATTLE_CONFIG_URL"}, def: "${app.agent.api-url}", usage: "URL that agent instances are given; empty: the API URL",
			set: httpURL(func(c *Config) *string { return &c.Agent.ConfigURL })},
		{name: "app.agent.state-dir", env: []string{"DROVER_STATE_DIR", "CATTLE_STATE_DIR"}, flag: "state-dir", def: defaultStateDir,
			usage: "identity, credentials and journal of the host", set: dir(func(c *Config) *string { return &c.Agent.StateDir })},
		{name: "app.agent.legacy-state-dir", env: []string{"DROVER_LEGACY_STATE_DIR"}, def: register.DefaultLegacyStateDir,
			usage: `state of an original agent, taken over once; "-" is none`, set: text(func(c *Config) *string { return &c.Agent.LegacyStateDir })},
		{name: "app.agent.rootfs", env: []string{"DROVER_ROOTFS"}, flag: "rootfs", usage: "where the host's root is mounted in the agent's container",
			set: dir(func(c *Config) *string { return &c.Agent.Rootfs })},
		{name: "app.agent.ip", env: []string{"CATTLE_AGENT_IP"}, flag: "agent-ip", usage: "address that the host reports; empty: what the server sees",
			set: text(func(c *Config) *string { return &c.Agent.IP })},
		{name: "app.agent.detected-ip", env: []string{"DETECTED_CATTLE_AGENT_IP"}, usage: "address where nobody knows a better one",
			set: text(func(c *Config) *string { return &c.Agent.DetectedIP })},
		{name: "app.agent.host-ip", env: []string{"CATTLE_DOCKER_HOST_IP"}, def: "${app.agent.ip}", usage: "address of published ports; empty: the agent's",
			set: text(func(c *Config) *string { return &c.Agent.HostIP })},
		{name: "app.agent.hostname", env: []string{"CATTLE_HOSTNAME"}, flag: "hostname", usage: "name that the host reports; empty: the machine's",
			set: text(func(c *Config) *string { return &c.Agent.Hostname })},
		{name: "app.agent.labels", env: []string{"CATTLE_HOST_LABELS"}, flag: "labels", kind: kindLabels, usage: "labels of the host, as a=b&c=d",
			set: labels(func(c *Config) *map[string]string { return &c.Agent.Labels })},
		{name: "app.agent.host-uuid", env: []string{"CATTLE_DOCKER_UUID"}, usage: "the host's uuid instead of the stored one",
			set: text(func(c *Config) *string { return &c.Agent.HostUUID })},
		{name: "app.agent.host-uuid-file", env: []string{"CATTLE_DOCKER_UUID_FILE"}, def: "${app.agent.state-dir}/.docker_uuid", usage: "where the host's uuid is stored",
			set: text(func(c *Config) *string { return &c.Agent.HostUUIDFile })},
		{name: "app.agent.physical-host-uuid", env: []string{"CATTLE_PHYSICAL_HOST_UUID"}, usage: "the physical host's uuid instead of the stored one",
			set: text(func(c *Config) *string { return &c.Agent.PhysicalHostUUID })},
		{name: "app.agent.physical-host-uuid-file", env: []string{"CATTLE_PHYSICAL_HOST_UUID_FILE"}, def: "${app.agent.state-dir}/.physical_host_uuid", usage: "where the physical host's uuid is stored",
			set: text(func(c *Config) *string { return &c.Agent.PhysicalHostUUIDFile })},
		{name: "app.agent.host-key-file", env: []string{"CATTLE_HOST_KEY_FILE"}, def: "${app.agent.state-dir}/host.key", usage: "RSA key of the host, made if it is missing",
			set: text(func(c *Config) *string { return &c.Agent.HostKeyFile })},
		{name: "app.agent.health-listen", env: []string{"DROVER_HEALTH_LISTEN"}, flag: "health-listen", def: "127.0.0.1:0", usage: `address of /healthz, /readyz and /metrics; "-" is none`,
			set: listen(func(c *Config) *string { return &c.Agent.HealthListen })},
	}
}

// hostKeys are what the original agent knows beside its registration.
func hostKeys() []configKey {
	return []configKey{
		{name: "app.agent.host-api-proxy", env: []string{"CATTLE_HOST_API_PROXY"}, usage: "reported as the host's apiProxy",
			set: text(func(c *Config) *string { return &c.Agent.HostAPIProxy })},
		{name: "app.agent.api-cert-file", env: []string{"CATTLE_CONSOLE_HOST_API_PUBLIC_KEY"}, usage: "public key of host access tokens; empty: the one that registration stores",
			set: text(func(c *Config) *string { return &c.Agent.APICertFile })},
		{name: "app.agent.scheduler-ips", env: []string{"CATTLE_SCHEDULER_IPS"}, usage: "reported as label io.rancher.scheduler.ips",
			set: text(func(c *Config) *string { return &c.Agent.SchedulerIPs })},
		{name: "app.agent.scheduler-require-any", env: []string{"CATTLE_SCHEDULER_REQUIRE_ANY"}, usage: "reported as label io.rancher.scheduler.require_any",
			set: text(func(c *Config) *string { return &c.Agent.SchedulerRequireAny })},
		{name: "app.agent.image", env: []string{"RANCHER_AGENT_IMAGE"}, usage: "reported as label io.rancher.host.agent_image",
			set: text(func(c *Config) *string { return &c.Agent.AgentImage })},
		{name: "app.agent.home", env: []string{"CATTLE_HOME"}, def: "/var/lib/cattle", usage: "home of what config.update installs",
			set: dir(func(c *Config) *string { return &c.Agent.Home })},
		{name: "app.agent.build-dir", env: []string{"CATTLE_BUILD_DIR"}, def: "${app.agent.home}/builds", usage: "where images are built",
			set: dir(func(c *Config) *string { return &c.Agent.BuildDir })},
		{name: "app.agent.config-script", env: []string{"CATTLE_CONFIG_SCRIPT"}, def: "${app.agent.home}/config.sh", usage: "script of config.update",
			set: text(func(c *Config) *string { return &c.Agent.ConfigScript })},
		{name: "app.agent.config-update-pyagent", env: []string{"CATTLE_CONFIG_UPDATE_PYAGENT"}, kind: kindBool, def: "true", usage: "let config.update have item pyagent",
			set: boolean(func(c *Config) *bool { return &c.Agent.ConfigUpdatePyagent })},
		{name: "app.agent.stamp-file", env: []string{"CATTLE_STAMP_FILE"}, def: "${app.agent.home}/.pyagent-stamp", usage: "file whose change restarts an original agent",
			set: text(func(c *Config) *string { return &c.Agent.StampFile })},
		{name: "app.agent.api-proxy-listen-port", env: []string{"CATTLE_API_PROXY_LISTEN_PORT"}, def: "9342", usage: "told to agent instances",
			set: integer(0, 65535, func(c *Config) *int { return &c.Agent.APIProxyListenPort })},
		{name: "app.agent.ping-enabled", env: []string{"CATTLE_PING_ENABLED"}, kind: kindBool, def: "true", usage: "answer pings",
			set: boolean(func(c *Config) *bool { return &c.Agent.PingEnabled })},
		{name: "app.agent.docker-enabled", env: []string{"CATTLE_DOCKER_ENABLED"}, kind: kindBool, def: "true", usage: "report resources in pings",
			set: boolean(func(c *Config) *bool { return &c.Agent.DockerEnabled })},
		{name: "app.agent.detect-cloud-provider", env: []string{"CATTLE_DETECT_CLOUD_PROVIDER"}, kind: kindBool, def: "true", usage: "ask the cloud's metadata service for labels",
			set: boolean(func(c *Config) *bool { return &c.Agent.DetectCloudProvider })},
		{name: "app.agent.memory", env: []string{"CATTLE_MEMORY_OVERRIDE"}, usage: "reported memory in bytes; empty: measured",
			set: integer(0, int64(1)<<62, func(c *Config) *int64 { return &c.Agent.MemoryOverride })},
		{name: "app.agent.milli-cpu", env: []string{"CATTLE_MILLI_CPU_OVERRIDE"}, usage: "reported thousandths of cores; empty: measured",
			set: integer(0, int64(1)<<40, func(c *Config) *int64 { return &c.Agent.MilliCPUOverride })},
		{name: "app.agent.local-storage-mb", env: []string{"CATTLE_LOCAL_STORAGE_MB_OVERRIDE"}, usage: "reported storage; empty: measured",
			set: integer(0, int64(1)<<62, func(c *Config) *int64 { return &c.Agent.LocalStorageMBOverride })},
	}
}

func connectionKeys() []configKey {
	proxy := func(f func(*Config) *string) func(*Config, string) error { return text(f) }
	return []configKey{
		{name: "app.ca.checksum", env: []string{"CATTLE_CA_CHECKSUM"}, flag: "ca-checksum", usage: "SHA-256 of the PEM of the server's CA, in hex",
			set: text(func(c *Config) *string { return &c.CA.CAChecksum })},
		{name: "app.ca.file", env: []string{"DROVER_CA_FILE"}, flag: "ca-file", usage: "PEM file of the server's CA, instead of the system's roots",
			set: text(func(c *Config) *string { return &c.CA.CAFile })},
		{name: "app.ca.insecure", env: []string{"DROVER_INSECURE"}, flag: "insecure", kind: kindBool, def: "false", usage: "do not verify the server's certificate",
			set: boolean(func(c *Config) *bool { return &c.CA.Insecure })},
		{name: "app.proxy.url", env: []string{"DROVER_PROXY"}, flag: "proxy", secret: true, show: maskURL, usage: "proxy to the server (http, https, socks5, socks5h), before those of the environment",
			set: proxy(func(c *Config) *string { return &c.Proxy.URL })},
		{name: "app.proxy.http", env: []string{"HTTP_PROXY", "http_proxy"}, show: maskURL, usage: "proxy for http and ws",
			set: proxy(func(c *Config) *string { return &c.Proxy.HTTP })},
		{name: "app.proxy.https", env: []string{"HTTPS_PROXY", "https_proxy"}, show: maskURL, usage: "proxy for https and wss",
			set: proxy(func(c *Config) *string { return &c.Proxy.HTTPS })},
		{name: "app.proxy.all", env: []string{"ALL_PROXY", "all_proxy"}, show: maskURL, usage: "proxy where the other two are empty",
			set: proxy(func(c *Config) *string { return &c.Proxy.All })},
		{name: "app.proxy.no", env: []string{"NO_PROXY", "no_proxy"}, kind: kindList, usage: "what is reached without a proxy",
			set: text(func(c *Config) *string { return &c.Proxy.NoProxy })},
		{name: "app.events.workers", env: []string{"DROVER_WORKERS"}, flag: "workers", def: "32", usage: "events in work at once",
			set: integer(1, 4096, func(c *Config) *int { return &c.Events.Workers })},
		{name: "app.events.queue", env: []string{"DROVER_QUEUE"}, def: "16384", usage: "events that wait for a worker",
			set: integer(1, 1<<20, func(c *Config) *int { return &c.Events.Queue })},
		{name: "app.events.timeout", env: []string{"DROVER_EVENT_TIMEOUT"}, def: "45s", usage: "for an event that brings no deadline",
			set: duration(time.Second, time.Second, 24*time.Hour, func(c *Config) *time.Duration { return &c.Events.Timeout })},
		{name: "app.events.drain", env: []string{"DROVER_DRAIN"}, flag: "drain", def: "10s", usage: "for what is in work when the agent ends",
			set: duration(time.Second, 0, time.Hour, func(c *Config) *time.Duration { return &c.Events.Drain })},
		{name: "app.log.level", env: []string{"DROVER_LOG_LEVEL"}, flag: "log-level", def: "info", usage: "trace, debug, info, warn or error",
			set: func(c *Config, s string) error {
				level, err := logrus.ParseLevel(s)
				if err != nil || level < logrus.ErrorLevel {
					return fmt.Errorf("want trace, debug, info, warn or error")
				}
				c.Log.Level = level.String()
				return nil
			}},
		{name: "app.log.format", env: []string{"DROVER_LOG_FORMAT"}, flag: "log-format", def: "auto", usage: "text or json; auto: text on a terminal",
			set: oneOf(func(c *Config) *string { return &c.Log.Format }, "auto", "text", "json")},
	}
}

func engineKeys() []configKey {
	return []configKey{
		{name: "app.engine", env: []string{"DROVER_ENGINE"}, flag: "engine", def: "auto", usage: "auto, docker or cri",
			set: oneOf(func(c *Config) *string { return &c.Engine.Kind }, "auto", "docker", "cri")},
		{name: "app.docker.sock", env: []string{"DROVER_DOCKER_SOCK", "DOCKER_HOST"}, flag: "docker-sock", def: "unix:///var/run/docker.sock", usage: "dockerd",
			set: endpoint(func(c *Config) *string { return &c.Engine.DockerHost }, "unix", "tcp", "http", "https")},
		{name: "app.docker.cert-path", env: []string{"DOCKER_CERT_PATH"}, usage: "folder with ca.pem, cert.pem and key.pem",
			set: dir(func(c *Config) *string { return &c.Engine.DockerCertPath })},
		{name: "app.docker.tls-verify", env: []string{"DOCKER_TLS_VERIFY"}, usage: "verify dockerd's certificate: anything is yes, as docker does it",
			set: func(c *Config, s string) error { c.Engine.DockerTLSVerify = s != ""; return nil }},
		{name: "app.docker.api-version", env: []string{"DOCKER_API_VERSION"}, usage: "empty: negotiated",
			set: text(func(c *Config) *string { return &c.Engine.DockerAPIVersion })},
		{name: "app.cri.sock", env: []string{"DROVER_CRI_SOCK", "CONTAINER_RUNTIME_ENDPOINT"}, flag: "cri-sock", usage: "CRI runtime; empty: looked for",
			set: endpoint(func(c *Config) *string { return &c.Engine.CRISocket }, "unix")},
	}
}

// nodeKeys are the keys of the node agents before Drover, with their units.
func nodeKeys() []configKey {
	unused := func(name string) configKey {
		return configKey{name: name, kind: kindUnused, usage: "has no effect", set: func(*Config, string) error { return nil }}
	}
	return []configKey{
		{name: "app.http.port", env: []string{"DROVER_HTTP_PORT"}, flag: "http-port", def: "8085", usage: "port of the node's streams; 0 is none",
			set: integer(0, 65535, func(c *Config) *int { return &c.Node.HTTPPort })},
		{name: "app.debug.port", env: []string{"DROVER_DEBUG_PORT"}, def: "10102", usage: "port of pprof and metrics on loopback; 0 is none",
			set: integer(0, 65535, func(c *Config) *int { return &c.Node.DebugPort })},
		{name: "app.container.ticker", env: []string{"DROVER_CONTAINER_TICKER"}, def: "30", usage: "seconds between two comparisons of the pod map",
			set: duration(time.Second, time.Second, 24*time.Hour, func(c *Config) *time.Duration { return &c.Node.ContainerTicker })},
		{name: "app.rm.api", env: []string{"DROVER_RM_API"}, usage: "base URL of a resource manager",
			set: httpURL(func(c *Config) *string { return &c.Node.RMAPI })},
		{name: "app.qos.path", env: []string{"DROVER_QOS_PATH"}, def: "/sys/fs/cgroup", usage: "root of the cgroup trees",
			set: dir(func(c *Config) *string { return &c.Node.QoSPath })},
		{name: "app.logs.cmd-white-list", env: []string{"DROVER_LOGS_COMMANDS"}, kind: kindList, def: "grep,zgrep,cat,head,tail,awk,uniq,sort,ls", usage: "commands for log files",
			set: list(func(c *Config) *[]string { return &c.Node.LogCommands })},
		{name: "app.logs.cmd-timeout", env: []string{"DROVER_LOGS_TIMEOUT"}, def: "5000", usage: "milliseconds for a command that does not follow",
			set: duration(time.Millisecond, time.Millisecond, 24*time.Hour, func(c *Config) *time.Duration { return &c.Node.LogTimeout })},
		{name: "app.logs.max-file-size", env: []string{"DROVER_LOGS_MAX_FILE_SIZE"}, def: "3000", usage: "largest log file in MB",
			set: integer(1, 1<<30, func(c *Config) *int { return &c.Node.LogMaxFileSize })},
		{name: "app.logs.max-line", env: []string{"DROVER_LOGS_MAX_LINE"}, def: "1000", usage: "most lines of an answer",
			set: integer(1, 1<<30, func(c *Config) *int { return &c.Node.LogMaxLine })},
		{name: "app.logs.root", env: []string{"DROVER_LOGS_ROOT"}, def: "/data/logs/", usage: "folder of the log files",
			set: dir(func(c *Config) *string { return &c.Node.LogRoot })},
		unused("app.ims.logroot"), unused("app.oom-kmsg-path"), unused("app.kubedebug.user"), unused("app.kubedebug.passwd"),
	}
}

func serverKeys() []configKey {
	return []configKey{
		{name: "app.server.listen", env: []string{"DROVER_LISTEN"}, flag: "listen", usage: "address of the server",
			set: listen(func(c *Config) *string { return &c.Server.Listen })},
		{name: "app.server.data", env: []string{"DROVER_DATA"}, flag: "data", usage: "folder of the server's state",
			set: dir(func(c *Config) *string { return &c.Server.Data })},
		{name: "app.server.url", env: []string{"DROVER_SERVER_URL"}, flag: "server-url", usage: "URL that agents are told",
			set: httpURL(func(c *Config) *string { return &c.Server.URL })},
		{name: "app.server.hosts", env: []string{"DROVER_SERVER_HOSTS"}, flag: "host", kind: kindList, usage: "names and addresses in the server's certificate",
			set: list(func(c *Config) *[]string { return &c.Server.Hosts })},
		{name: "app.server.nats", env: []string{"DROVER_NATS"}, flag: "nats", kind: kindList, secret: true, show: maskURLs, usage: "external NATS servers; empty: one in the process",
			set: list(func(c *Config) *[]string { return &c.Server.NATS })},
		{name: "app.server.nats-replicas", env: []string{"DROVER_NATS_REPLICAS"}, flag: "nats-replicas", def: "1", usage: "copies of each record",
			set: integer(1, 5, func(c *Config) *int { return &c.Server.NATSReplicas })},
		{name: "app.server.seal-key", env: []string{"DROVER_SEAL_KEY"}, secret: true, show: mask, usage: "encrypts the server's keys in an external NATS",
			set: hidden(func(c *Config) *secret.String { return &c.Server.SealKey })},
		{name: "app.server.tls", env: []string{"DROVER_TLS"}, flag: "tls", def: "own", usage: "own: a CA of the server's own; files; off: plain HTTP",
			set: oneOf(func(c *Config) *string { return &c.Server.TLSMode }, "own", "files", "off")},
		{name: "app.server.cert-file", env: []string{"DROVER_TLS_CERT_FILE"}, flag: "tls-cert", usage: "server certificate with tls=files",
			set: text(func(c *Config) *string { return &c.Server.CertFile })},
		{name: "app.server.key-file", env: []string{"DROVER_TLS_KEY_FILE"}, flag: "tls-key", usage: "its key",
			set: text(func(c *Config) *string { return &c.Server.KeyFile })},
		{name: "app.server.ca-file", env: []string{"DROVER_TLS_CA_FILE"}, flag: "tls-ca", usage: "private CA behind it, which agents pin",
			set: text(func(c *Config) *string { return &c.Server.CAFile })},
		{name: "app.server.trusted-proxies", env: []string{"DROVER_TRUSTED_PROXIES"}, flag: "trusted-proxies", kind: kindList, usage: "CIDR ranges that may set X-Forwarded headers",
			set: prefixes(func(c *Config) *[]string { return &c.Server.TrustedProxies })},
		{name: "app.server.image", env: []string{"DROVER_IMAGE"}, flag: "image", usage: "agent image of the one-liner",
			set: text(func(c *Config) *string { return &c.Server.Image })},
	}
}

func mask(text string) string { return secret.New(text).String() }

func maskURLs(text string) string {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = maskURL(parts[i])
	}
	return strings.Join(parts, ",")
}

// The setters: each turns a text into a field, or says what it wants.

func text(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if strings.ContainsAny(s, "\x00\r\n") {
			return fmt.Errorf("more than one line")
		}
		*f(c) = strings.TrimSpace(s)
		return nil
	}
}

func hidden(f func(*Config) *secret.String) func(*Config, string) error {
	return func(c *Config, s string) error {
		if strings.ContainsAny(s, "\x00\r\n") {
			return fmt.Errorf("more than one line")
		}
		*f(c) = secret.New(strings.TrimSpace(s))
		return nil
	}
}

func dir(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s != "" && !filepath.IsAbs(s) {
			return fmt.Errorf("want an absolute path")
		}
		*f(c) = s
		return nil
	}
}

func httpURL(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s != "" {
			u, err := url.Parse(s)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
				return fmt.Errorf("want a URL like https://host:port/path, without a user")
			}
		}
		*f(c) = s
		return nil
	}
}

func endpoint(f func(*Config) *string, schemes ...string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if strings.HasPrefix(s, "/") {
			s = "unix://" + s
		}
		if s != "" {
			u, err := url.Parse(s)
			if err != nil || !slices.Contains(schemes, u.Scheme) || u.Scheme == "unix" && u.Path == "" || u.Scheme != "unix" && u.Host == "" {
				return fmt.Errorf("want %s://...", strings.Join(schemes, ":// or "))
			}
		}
		*f(c) = s
		return nil
	}
}

// listen takes host:port, :port, or "-" for none.
func listen(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s == "" || s == "-" {
			*f(c) = ""
			return nil
		}
		_, port, err := net.SplitHostPort(s)
		if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || n > 65535 {
			return fmt.Errorf("want host:port")
		}
		*f(c) = s
		return nil
	}
}

func oneOf(f func(*Config) *string, allowed ...string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if !slices.Contains(allowed, s) {
			return fmt.Errorf("want one of %s", strings.Join(allowed, ", "))
		}
		*f(c) = s
		return nil
	}
}

func boolean(f func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, s string) error {
		switch strings.ToLower(s) {
		case "true", "yes", "on", "1":
			*f(c) = true
		case "false", "no", "off", "0":
			*f(c) = false
		default:
			return fmt.Errorf("want true or false")
		}
		return nil
	}
}

func integer[T int | int64](least, most T, f func(*Config) *T) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s == "" {
			*f(c) = 0
			return nil
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < int64(least) || n > int64(most) {
			return fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		*f(c) = T(n)
		return nil
	}
}

// duration takes "1m30s", or a number in unit.
func duration(unit, least, most time.Duration, f func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, s string) error {
		d, err := time.ParseDuration(s)
		if n, convErr := strconv.ParseInt(s, 10, 32); convErr == nil {
			d, err = time.Duration(n)*unit, nil
		}
		if err != nil || d < least || d > most {
			return fmt.Errorf("want a duration from %s to %s, like 90s, or a number of %s", least, most, unitName(unit))
		}
		*f(c) = d
		return nil
	}
}

func unitName(unit time.Duration) string {
	if unit == time.Millisecond {
		return "milliseconds"
	}
	return "seconds"
}

// list takes words between commas or spaces.
func list(f func(*Config) *[]string) func(*Config, string) error {
	return func(c *Config, s string) error {
		*f(c) = strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
		return nil
	}
}

func prefixes(f func(*Config) *[]string) func(*Config, string) error {
	split := list(f)
	return func(c *Config, s string) error {
		if err := split(c, s); err != nil {
			return err
		}
		for _, p := range *f(c) {
			if _, err := netip.ParsePrefix(p); err != nil {
				return fmt.Errorf("want ranges like 10.0.0.0/8")
			}
		}
		return nil
	}
}

// labels reads a query string as the original agent does: keys and values are trimmed, the first value of a key counts,
// and a key alone has an empty value.
func labels(f func(*Config) *map[string]string) func(*Config, string) error {
	return func(c *Config, s string) error {
		q, err := url.ParseQuery(s)
		if err != nil {
			return fmt.Errorf("want a=b&c=d")
		}
		m := make(map[string]string, len(q))
		for k, v := range q {
			if k = strings.TrimSpace(k); k != "" {
				m[k] = strings.TrimSpace(v[0])
			}
		}
		*f(c) = m
		return nil
	}
}
