package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/droverhq/drover/service/logs"
)

// LogsConfig is the log service of a node. The first names in the file are those of the node agents before Drover.
type LogsConfig struct {
	Port       int    // app.logs.port; 0 is none
	Tunnel     bool   // serve through the tunnel to the server, also without a port
	Listen     string // address without a port; "" is all
	Root       string // app.logs.root
	Roots      []string
	StdinRoots []string
	Commands   []string // what may be run on log files
	Auth       string   // token or none
	KeyFile    string   // signs and checks tokens
	TLS        doorTLS
	Origins    []string
	Lookup     string                // base URL of a task lookup
	Tasks      map[string]logs.Place // a table instead of it
	SpillDir   string
	PerClient  int
	PerNode    int
	Limits     LogLimits
}

// LogLimits are the limits of a command, in the units of the file; -1 is none where a limit can be switched off.
type LogLimits struct {
	Timeout    time.Duration
	Idle       time.Duration
	MaxRead    int // MB
	MaxLines   int
	ByteRate   int64 // bytes a second
	SortMemory int   // MB
	SortDisk   int   // MB
	MaxFiles   int
}

// logKeys are the keys of the log service.
func logKeys() []configKey {
	return []configKey{
		key("app.logs.port", "port of the log service; 0 is none, and 8080 for 'drover node'",
			integer(0, 65535, func(c *Config) *int { return &c.Logs.Port })).vars("DROVER_LOGS_PORT").flagged("logs-port"),
		key("app.logs.tunnel", "serve log files through the agent's tunnel to its server too where there is no port",
			boolean(func(c *Config) *bool { return &c.Logs.Tunnel })).vars("DROVER_LOGS_TUNNEL").defaults("false"),
		key("app.logs.listen", "address of the log service, without a port; empty: all of the host's",
			text(func(c *Config) *string { return &c.Logs.Listen })).vars("DROVER_LOGS_LISTEN").flagged("logs-listen"),
		key("app.logs.root", "folder of the log files, and where names without a leading / begin",
			dir(func(c *Config) *string { return &c.Logs.Root })).vars("DROVER_LOGS_ROOT").flagged("logs-root").defaults("/data/logs/"),
		key("app.logs.roots", "further folders of log files",
			dirs(func(c *Config) *[]string { return &c.Logs.Roots })).vars("DROVER_LOGS_ROOTS").of(kindList),
		key("app.logs.stdin-roots", "folders with files that may be appended to; empty: nowhere",
			dirs(func(c *Config) *[]string { return &c.Logs.StdinRoots })).vars("DROVER_LOGS_STDIN_ROOTS").of(kindList),
		key("app.logs.auth", "token: a signed token a request; none: everybody who reaches the port reads",
			oneOf(func(c *Config) *string { return &c.Logs.Auth }, "token", "none")).vars("DROVER_LOGS_AUTH").flagged("logs-auth").defaults("token"),
		key("app.logs.token-key-file", "key of the tokens, the same file on nodes and server: 32 bytes in hex, mode 0600",
			dir(func(c *Config) *string { return &c.Logs.KeyFile })).vars("DROVER_LOGS_TOKEN_KEY_FILE").flagged("logs-token-key-file"),
		key("app.logs.tls", "off: plain HTTP; own: an authority of the node's own; files: app.logs.cert-file and key-file",
			oneOf(func(c *Config) *string { return &c.Logs.TLS.Mode }, "off", "own", "files")).vars("DROVER_LOGS_TLS").flagged("logs-tls").defaults("off"),
		key("app.logs.cert-file", "certificate of the log service with tls files; read again when it changes",
			dir(func(c *Config) *string { return &c.Logs.TLS.CertFile })).vars("DROVER_LOGS_CERT_FILE").flagged("logs-cert"),
		key("app.logs.key-file", "its key",
			dir(func(c *Config) *string { return &c.Logs.TLS.KeyFile })).vars("DROVER_LOGS_KEY_FILE").flagged("logs-key"),
		key("app.logs.origins", "web origins whose pages may connect, like https://host; * is any",
			list(func(c *Config) *[]string { return &c.Logs.Origins })).vars("DROVER_LOGS_ORIGINS").of(kindList),
		key("app.logs.cmd-white-list", "commands for log files",
			list(func(c *Config) *[]string { return &c.Logs.Commands })).vars("DROVER_LOGS_COMMANDS").defaults("grep,zgrep,cat,head,tail,awk,uniq,sort,ls").of(kindList),
		key("app.logs.cmd-timeout", "milliseconds for a command that does not follow",
			duration(time.Millisecond, time.Millisecond, 24*time.Hour, func(c *Config) *time.Duration { return &c.Logs.Limits.Timeout })).vars("DROVER_LOGS_TIMEOUT").defaults("5000"),
		key("app.logs.idle-timeout", "seconds that a follow may be without a new line",
			duration(time.Second, time.Second, 24*time.Hour, func(c *Config) *time.Duration { return &c.Logs.Limits.Idle })).vars("DROVER_LOGS_IDLE_TIMEOUT").defaults("1800"),
		key("app.logs.max-file-size", "MB that a command may read from files",
			integer(1, 1<<30, func(c *Config) *int { return &c.Logs.Limits.MaxRead })).vars("DROVER_LOGS_MAX_FILE_SIZE").defaults("3000"),
		key("app.logs.max-line", "most lines that tail and head give",
			integer(1, 1<<30, func(c *Config) *int { return &c.Logs.Limits.MaxLines })).vars("DROVER_LOGS_MAX_LINE").defaults("1000"),
		key("app.logs.byte-rate", "bytes a second that a command may send; -1: as fast as it goes",
			integer(-1, int64(1)<<40, func(c *Config) *int64 { return &c.Logs.Limits.ByteRate })).vars("DROVER_LOGS_BYTE_RATE").defaults("-1"),
		key("app.logs.sort-memory", "MB that a command may hold in memory",
			integer(1, 1<<20, func(c *Config) *int { return &c.Logs.Limits.SortMemory })).vars("DROVER_LOGS_SORT_MEMORY").defaults("64"),
		key("app.logs.sort-disk", "MB that sort may put on disk",
			integer(1, 1<<20, func(c *Config) *int { return &c.Logs.Limits.SortDisk })).vars("DROVER_LOGS_SORT_DISK").defaults("1024"),
		key("app.logs.spill-dir", "where sort puts them; empty: the folder for temporary files",
			dir(func(c *Config) *string { return &c.Logs.SpillDir })).vars("DROVER_LOGS_SPILL_DIR"),
		key("app.logs.max-files", "files that a command may name",
			integer(1, 1<<20, func(c *Config) *int { return &c.Logs.Limits.MaxFiles })).vars("DROVER_LOGS_MAX_FILES").defaults("256"),
		key("app.logs.max-per-client", "commands at once of one user at one address",
			integer(1, 1<<20, func(c *Config) *int { return &c.Logs.PerClient })).vars("DROVER_LOGS_MAX_PER_CLIENT").defaults("8"),
		key("app.logs.max-per-node", "commands at once on the node",
			integer(1, 1<<20, func(c *Config) *int { return &c.Logs.PerNode })).vars("DROVER_LOGS_MAX_PER_NODE").defaults("256"),
		key("app.logs.lookup", "URL that knows the file and host of a task: it is asked with ?taskId= or ?requestId=",
			httpURL(func(c *Config) *string { return &c.Logs.Lookup })).vars("DROVER_LOGS_LOOKUP"),
		key("app.logs.tasks", "the same as a table: id to [host:]path; * stands for all other ids, which fill in {id}",
			places(func(c *Config) *map[string]logs.Place { return &c.Logs.Tasks })).vars("DROVER_LOGS_TASKS").of(kindLabels),
	}
}

// dirs takes absolute paths.
func dirs(f func(*Config) *[]string) func(*Config, string) error {
	split := list(f)
	return func(c *Config, s string) error {
		if err := split(c, s); err != nil {
			return err
		}
		for _, d := range *f(c) {
			if !strings.HasPrefix(d, "/") {
				return fmt.Errorf("want absolute paths")
			}
		}
		return nil
	}
}

// places takes a mapping to "/path" or "host:/path".
func places(f func(*Config) *map[string]logs.Place) func(*Config, string) error {
	return func(c *Config, s string) error {
		var plain map[string]string
		read := labels(func(*Config) *map[string]string { return &plain })
		if err := read(c, s); err != nil {
			return err
		}
		table := map[string]logs.Place{}
		for id, text := range plain {
			node, path, ok := strings.Cut(text, ":/")
			if strings.HasPrefix(text, "/") {
				node, path, ok = "", text[1:], true
			}
			if !ok {
				return fmt.Errorf("want /path or host:/path for %q", id)
			}
			table[id] = logs.Place{Path: "/" + path, Node: node}
		}
		*f(c) = table
		return nil
	}
}
