package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
)

// environment is a Getenv over a map.
func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// configFile writes an application.yaml of its own folder.
func configFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "application.yaml")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, vars map[string]string, path string, flags map[string]string) *Config {
	t.Helper()
	if path == "" {
		path = configFile(t, "", 0o600) // not the machine's own
	}
	c, err := LoadConfig(environment(vars), path, flags)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfigDefaults(t *testing.T) {
	c := mustLoad(t, nil, "", nil)
	for _, x := range []struct{ name, got, want any }{
		{"state", c.Agent.StateDir, "/var/lib/drover"},
		{"uuid file", c.Agent.HostUUIDFile, "/var/lib/drover/.docker_uuid"},
		{"legacy", c.Agent.LegacyStateDir, "/var/lib/rancher/state"},
		{"docker", c.Engine.DockerHost, "unix:///var/run/docker.sock"},
		{"drain", c.Events.Drain, 10 * time.Second},
		{"timeout", c.Events.Timeout, 45 * time.Second},
		{"ticker", c.Node.ContainerTicker, 30 * time.Second},
		{"http", c.Node.HTTPPort, 8085},
		{"debug", c.Node.DebugPort, 10102},
		{"log timeout", c.Logs.Limits.Timeout, 5 * time.Second},
		{"size", c.Logs.Limits.MaxRead, 3000},
		{"lines", c.Logs.Limits.MaxLines, 1000},
		{"root", c.Logs.Root, "/data/logs/"},
		{"commands", strings.Join(c.Logs.Commands, " "), "grep zgrep cat head tail awk uniq sort ls"},
		{"level", c.Log.Level, "info"},
		{"ping", c.Agent.PingEnabled, true},
		{"build", c.Agent.BuildDir, "/var/lib/cattle/builds"},
		{"script", c.Agent.ConfigScript, "/var/lib/cattle/config.sh"},
		{"insecure", c.CA.Insecure, false},
		{"memory", c.Agent.MemoryOverride, int64(0)},
		{"keys", c.Agent.AccessKey + c.Agent.SecretKey.Reveal(), ""}, // the original's admin:adminpass is nobody's default here
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("%s: got %v, want %v", x.name, x.got, x.want)
		}
	}
	for _, v := range c.Values() {
		if v.Source != "default" {
			t.Errorf("%s comes from %q", v.Key, v.Source)
		}
	}
}

// TestConfigPrecedence sets one key in more and more places; the strongest wins and is named.
func TestConfigPrecedence(t *testing.T) {
	path := configFile(t, "# ours\napp:\n  agent:\n    state-dir: /from/file\n", 0o600)
	for _, c := range []struct {
		vars, flags  map[string]string
		want, source string
	}{
		{nil, nil, "/from/file", "file " + path + ":4"},
		{map[string]string{"CATTLE_STATE_DIR": ""}, nil, "/from/file", "file " + path + ":4"},
		{map[string]string{"CATTLE_STATE_DIR": "/cattle"}, nil, "/cattle", "env CATTLE_STATE_DIR"},
		{map[string]string{"CATTLE_STATE_DIR": "/cattle", "DROVER_STATE_DIR": "/env"}, nil, "/env", "env DROVER_STATE_DIR"},
		{map[string]string{"DROVER_STATE_DIR": "/env"}, map[string]string{"state-dir": "/flag"}, "/flag", "flag --state-dir"},
	} {
		got := mustLoad(t, c.vars, path, c.flags)
		if got.Agent.StateDir != c.want || got.Source("app.agent.state-dir") != c.source || got.IsDefault("app.agent.state-dir") {
			t.Errorf("got %s from %s, want %s from %s", got.Agent.StateDir, got.Source("app.agent.state-dir"), c.want, c.source)
		}
		if want := c.want + "/.docker_uuid"; got.Agent.HostUUIDFile != want || !got.IsDefault("app.agent.host-uuid-file") {
			t.Errorf("what follows from it: got %s, want %s", got.Agent.HostUUIDFile, want)
		}
		if got.File != path {
			t.Errorf("file %q", got.File)
		}
	}
}

func TestConfigFileIsFound(t *testing.T) {
	path := configFile(t, "app: {http: {port: 1}}\n", 0o600)
	c, err := LoadConfig(environment(map[string]string{"DROVER_CONFIG": path}), "", nil)
	if err != nil || c.Node.HTTPPort != 1 {
		t.Errorf("DROVER_CONFIG: %+v, %v", c, err)
	}
	for name, path := range map[string]string{"missing": "/nowhere/application.yaml", "folder": t.TempDir(), "device": "/dev/zero", "large": configFile(t, strings.Repeat("# x\n", maxConfigFile/3), 0o600)} {
		var ce *ConfigError
		if _, err := LoadConfig(environment(nil), path, nil); !errors.As(err, &ce) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := LoadConfig(environment(map[string]string{"DROVER_CONFIG": path}), "", nil); !errors.As(err, &ce) {
			t.Errorf("%s by DROVER_CONFIG: %v", name, err)
		}
	}
}

// The file that comes with the node agents before Drover is taken as it is.
func TestConfigOfOlderAgents(t *testing.T) {
	path := configFile(t, `app:
  rm:
    api: http://127.0.0.1:10002/rmController
  container:
    ticker: 60
  http:
    port: 8086
  debug:
    port: 10103
  docker:
    sock: unix:///run/docker.sock
  qos:
    path: /data/cgroup
  logs:
    cmd-white-list: grep zgrep cat
    cmd-timeout: 2500
    max-file-size: 10
    max-line: 20
    root: /logs/
  ims:
    logroot: /data/logs/
  oom-kmsg-path: /dev/kmsg
  kubedebug:
    user: u
    passwd: hunter2
`, 0o644)
	c := mustLoad(t, nil, path, nil)
	want := NodeConfig{
		HTTPPort: 8086, DebugPort: 10103, DebugListen: "127.0.0.1", ContainerTicker: time.Minute, RMAPI: "http://127.0.0.1:10002/rmController", QoSPath: "/data/cgroup",
	}
	l := &c.Logs
	if !slices.Equal(l.Commands, []string{"grep", "zgrep", "cat"}) || l.Limits.Timeout != 2500*time.Millisecond || l.Limits.MaxRead != 10 ||
		l.Limits.MaxLines != 20 || l.Root != "/logs/" || l.Auth != "token" || l.Port != 0 {
		t.Errorf("logs: %+v", c.Logs)
	}
	if !reflect.DeepEqual(c.Node, want) || c.Engine.DockerHost != "unix:///run/docker.sock" {
		t.Errorf("got %+v, %+v", c.Node, c.Engine)
	}
	if len(c.Warnings) != 3 || !strings.Contains(c.Warnings[0], path+":21: app.ims.logroot has no effect") {
		t.Errorf("warnings: %q", c.Warnings)
	}
	for _, v := range c.Values() {
		if strings.Contains(v.Value, "hunter2") {
			t.Errorf("%s shows the password", v.Key)
		}
	}
}

// TestConfigOfTheManifest loads what the DaemonSet brings.
func TestConfigOfTheManifest(t *testing.T) {
	text, err := os.ReadFile("../deploy/kubernetes/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc struct {
			Kind string
			Data map[string]string
		}
		if err := dec.Decode(&doc); err != nil {
			t.Fatalf("no configuration: %v", err)
		}
		if doc.Kind != "ConfigMap" {
			continue
		}
		c := mustLoad(t, nil, configFile(t, doc.Data["application.yaml"], 0o644), nil)
		if len(c.Warnings) > 0 || c.Engine.Kind != "cri" || !slices.Equal(c.Engine.CRISockets, []string{"unix:///run/containerd/containerd.sock"}) || !c.portConfigured() ||
			c.Node.QoSPath != "/data/cgroup" || c.Pods.PrestopDir != "/data/dockin_prestop_info" || !c.Pods.APIServer {
			t.Errorf("%+v, %q", c, c.Warnings)
		}
		return
	}
}

func TestConfigForms(t *testing.T) {
	path := configFile(t, `
app.http.port: 1          # short for nested keys
app:
  logs:
    cmd-white-list: [cat, tail]
  agent:
    labels:
      rack: 4
      name: a&b=c
      "io.x/y": ""
      empty:
    ping-enabled: no
    url:
  proxy:
    no:
      - a.test
      - .b.test
  events: {drain: 1m30s}
---
`, 0o600)
	_, problems := parseConfigFile([]byte("a: 1\n---\nb: 2\n"))
	if len(problems) != 2 || problems[1].text != "a second document" || problems[1].line != 2 && problems[1].line != 3 {
		t.Errorf("two documents: %+v", problems)
	}
	_, err := LoadConfig(environment(nil), path, nil)
	if err == nil || !strings.Contains(err.Error(), "a second document") {
		t.Fatalf("got %v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, nil, configFile(t, strings.Replace(string(b), "---\n", "", 1), 0o600), nil)
	if !reflect.DeepEqual(c.Agent.Labels, map[string]string{"rack": "4", "name": "a&b=c", "io.x/y": "", "empty": ""}) || c.Agent.PingEnabled ||
		!slices.Equal(c.Logs.Commands, []string{"cat", "tail"}) || c.Proxy.NoProxy != "a.test,.b.test" || c.Events.Drain != 90*time.Second ||
		c.Node.HTTPPort != 1 || !c.Agent.RegistrationURL.IsZero() || !c.IsDefault("app.agent.url") {
		t.Errorf("got %+v", c)
	}
	if c := mustLoad(t, map[string]string{"CATTLE_HOST_LABELS": " a = b &c&a=x&=y"}, "", nil); !reflect.DeepEqual(c.Agent.Labels, map[string]string{"a": "b", "c": ""}) {
		t.Errorf("labels: %q", c.Agent.Labels)
	}
}

func TestConfigMistakesNameTheirPlace(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"unknown":        {"app:\n  docker:\n    sok: x\n", []string{`:3: unknown key "app.docker.sok"; did you mean app.docker.sock?`}},
		"unknown top":    {"application:\n  x: 1\n", []string{`:1: unknown key "application"`}},
		"all of them":    {"app:\n  x1: 1\n  http: {port: zzz}\n  x2: 1\n", []string{`:2: unknown key "app.x1"`, `:4: unknown key "app.x2"`, ":3: app.http.port: want a whole number from 0 to 65535"}},
		"port":           {"app: {http: {port: 65536}}", []string{":1: app.http.port: want a whole number"}},
		"ticker of 0":    {"app:\n  container: {ticker: 0}", []string{":2: app.container.ticker: want a duration from 1s"}},
		"ticker":         {"app:\n  container: {ticker: [30]}", []string{":2: app.container.ticker: want one value"}},
		"mapping":        {"app:\n  http:\n    port:\n      x: 1\n", []string{":4: app.http.port: want one value"}},
		"scalar":         {"app: 5\n", []string{":1: app: want a mapping"}},
		"list":           {"- app\n", []string{":1: the file: want a mapping"}},
		"twice":          {"app:\n  http:\n    port: 1\napp.http.port: 2\n", []string{":4: app.http.port is set twice, first in line 3"}},
		"twice nested":   {"app:\n  http: {port: 1}\n  http: {port: 1}\n", []string{":3: app.http.port is set twice"}},
		"bool":           {"app: {ca: {insecure: maybe}}", []string{":1: app.ca.insecure: want true or false"}},
		"relative":       {"app: {agent: {state-dir: state}}", []string{":1: app.agent.state-dir: want an absolute path"}},
		"alias":          {"app:\n  agent: {ip: &x 1.2.3.4, hostname: *x}\n", []string{":2: app.agent.hostname: aliases are not followed"}},
		"merge":          {"app:\n  <<: {http: {port: 1}}\n", []string{":2: a key that is not a plain word"}},
		"number as key":  {"app:\n  1: x\n", []string{":2: a key that is not a plain word"}},
		"binary":         {"app: {agent: {ip: !!binary aGk=}}", []string{"app.agent.ip: want a plain value"}},
		"tabs":           {"app:\n\thttp: x\n", []string{":2: not YAML"}},
		"unclosed":       {"app: {http: {port: 1}\n", []string{"not YAML"}},
		"words in list":  {"app: {logs: {cmd-white-list: [a, 'b c']}}", []string{"an element that is not one word"}},
		"label lists":    {"app: {agent: {labels: {a: [1]}}}", []string{"app.agent.labels: want one value"}},
		"labels as list": {"app: {agent: {labels: [a]}}", []string{"app.agent.labels: want a mapping of labels"}},
		"engine":         {"app: {engine: podman}", []string{"app.engine: want one of auto, docker, cri"}},
		"docker":         {"app: {docker: {sock: 'ssh://x'}}", []string{"app.docker.sock: want an address that begins with unix://"}},
		"level":          {"app: {log: {level: loud}}", []string{"app.log.level: want trace, debug, info, warn or error"}},
		"two lines":      {"app: {agent: {ip: \"1\\n2\"}}", []string{"app.agent.ip: more than one line"}},
		"range":          {"app: {server: {trusted-proxies: [10.0.0.0/8, x]}}", []string{"app.server.trusted-proxies: want ranges"}},
		"listen":         {"app: {server: {listen: '8443'}}", []string{"app.server.listen: want host:port"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := configFile(t, c.text, 0o600)
			_, err := LoadConfig(environment(nil), path, nil)
			var ce *ConfigError
			if !errors.As(err, &ce) || len(ce.Problems) != len(c.want) {
				t.Fatalf("got %v, want %d problems", err, len(c.want))
			}
			for i, want := range c.want {
				if !strings.HasPrefix(ce.Problems[i], "file "+path) || !strings.Contains(ce.Problems[i], want) {
					t.Errorf("got %q, want %q", ce.Problems[i], want)
				}
			}
		})
	}
}

func TestConfigMistakesElsewhere(t *testing.T) {
	vars := map[string]string{"CATTLE_URL": "server:8080", "CATTLE_MEMORY_OVERRIDE": "8g", "CATTLE_HOST_LABELS": "%zz", "CATTLE_SECRET_KEY": "hunter2\nhunter2"}
	_, err := LoadConfig(environment(vars), configFile(t, "", 0o600), map[string]string{"drain": "soon", "no-such": "x"})
	var ce *ConfigError
	if !errors.As(err, &ce) {
		t.Fatal(err)
	}
	for _, want := range []string{
		"env CATTLE_URL: app.agent.api-url: want a URL", "env CATTLE_MEMORY_OVERRIDE: ", "env CATTLE_HOST_LABELS: ", "env CATTLE_SECRET_KEY: app.agent.secret-key: more than one line",
		"flag --drain: app.events.drain: want a duration", "flag --no-such sets nothing",
	} {
		if !slices.ContainsFunc(ce.Problems, func(p string) bool { return strings.HasPrefix(p, want) }) {
			t.Errorf("%q is not in %q", want, ce.Problems)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the secret is quoted: %v", err)
	}
}

func TestSecretsFromFiles(t *testing.T) {
	file := func(text string) string { return configFile(t, text, 0o600) }
	c := mustLoad(t, map[string]string{"CATTLE_SECRET_KEY_FILE": file("file-secret\r\n"), "CATTLE_REGISTRATION_URL_FILE": file("https://h:8443/v1/scripts/url-token\n")}, "", nil)
	if c.Agent.SecretKey.Reveal() != "file-secret" || c.Agent.RegistrationURL.Reveal() != "https://h:8443/v1/scripts/url-token" {
		t.Errorf("got %q, %q", c.Agent.SecretKey.Reveal(), c.Agent.RegistrationURL.Reveal())
	}
	if s := c.Source("app.agent.secret-key"); !strings.HasPrefix(s, "env CATTLE_SECRET_KEY_FILE (") {
		t.Errorf("source %q", s)
	}
	for name, c := range map[string]struct {
		vars map[string]string
		want string
	}{
		"both":    {map[string]string{"CATTLE_SECRET_KEY": "x", "CATTLE_SECRET_KEY_FILE": file("y")}, "both set"},
		"missing": {map[string]string{"CATTLE_SECRET_KEY_FILE": "/nowhere"}, "no such file"},
		"empty":   {map[string]string{"CATTLE_SECRET_KEY_FILE": file(" \n")}, "is empty"},
		"folder":  {map[string]string{"CATTLE_SECRET_KEY_FILE": t.TempDir()}, "not a regular file"},
		"large":   {map[string]string{"CATTLE_SECRET_KEY_FILE": file(strings.Repeat("x", 70000))}, "larger than"},
	} {
		if _, err := LoadConfig(environment(c.vars), file(""), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	// Where the name of a file is the setting itself, it is not taken for a secret's.
	c = mustLoad(t, map[string]string{"CATTLE_DOCKER_UUID_FILE": "/x/uuid"}, "", nil)
	if c.Agent.HostUUIDFile != "/x/uuid" || c.Agent.HostUUID != "" {
		t.Errorf("got %+v", c.Agent)
	}
}

func TestConfigShowsNoSecrets(t *testing.T) {
	const word = "hunter2"
	vars := map[string]string{
		"CATTLE_REGISTRATION_URL": "https://h:8443/v1/scripts/pub:1:" + word, "CATTLE_SECRET_KEY": word, "DROVER_SEAL_KEY": word,
		"HTTP_PROXY": "http://u:" + word + "@p:1", "HTTPS_PROXY": "u:" + word + "@p:1", "ALL_PROXY": "socks5://u:" + word + "@p:1", "DROVER_PROXY": "http://u:" + word + "@p:1",
		"DROVER_NATS": "nats://u:" + word + "@n1:4222,nats://u:" + word + "@n2:4222",
	}
	c := mustLoad(t, vars, "", nil)
	want := map[string]string{
		"app.agent.url": "https://h:8443/v1/scripts/...", "app.agent.secret-key": "[redacted]", "app.server.seal-key": "[redacted]",
		"app.proxy.http": "http://[redacted]@p:1", "app.proxy.https": "[redacted]@p:1", "app.proxy.all": "socks5://[redacted]@p:1",
		"app.server.nats": "nats://[redacted]@n1:4222,nats://[redacted]@n2:4222",
	}
	for _, v := range c.Values() {
		if strings.Contains(v.Value, word) {
			t.Errorf("%s shows %q", v.Key, v.Value)
		}
		if w, ok := want[v.Key]; ok && v.Value != w {
			t.Errorf("%s: got %q, want %q", v.Key, v.Value, w)
		}
	}
	if len(c.Server.NATS) != 2 || !strings.Contains(c.Server.NATS[1], word) {
		t.Errorf("NATS: %q", c.Server.NATS)
	}
	rc := c.Register(nil)
	if rc.Proxy.URL != vars["DROVER_PROXY"] || rc.URL.Reveal() != vars["CATTLE_REGISTRATION_URL"] || strings.Contains(fmt.Sprintf("%+v %#v", rc.URL, rc.SecretKey), word) {
		t.Errorf("register configuration: %v", rc.URL)
	}
	open := configFile(t, "app:\n  agent:\n    secret-key: "+word+"\n", 0o644)
	if c := mustLoad(t, nil, open, nil); len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], ":3: others can read app.agent.secret-key") || strings.Contains(c.Warnings[0], word) {
		t.Errorf("warnings %q", c.Warnings)
	}
}

func TestEnvironmentOfTheOriginalAgent(t *testing.T) {
	c := mustLoad(t, map[string]string{
		"CATTLE_URL": "http://s:8080/v1", "CATTLE_ACCESS_KEY": "AK", "CATTLE_SECRET_KEY": "SK", "CATTLE_AGENT_IP": "10.0.0.1", "CATTLE_DOCKER_UUID": "u",
		"CATTLE_PHYSICAL_HOST_UUID": "p", "CATTLE_HOST_API_PROXY": "h:1", "CATTLE_HOME": "/h", "RANCHER_DEBUG": "1", "no_proxy": "x", "http_proxy": "p:1", "DOCKER_TLS_VERIFY": "0",
		"DOCKER_HOST": "tcp://d:2376", "CATTLE_MEMORY_OVERRIDE": "1024", "CATTLE_DETECT_CLOUD_PROVIDER": "false", "RANCHER_AGENT_IMAGE": "rancher/agent:v1.2.11",
	}, "", nil)
	if c.Agent.APIURL != "http://s:8080/v1" || c.Agent.ConfigURL != "http://s:8080/v1" || c.Agent.HostIP != "10.0.0.1" || c.Agent.ConfigScript != "/h/config.sh" ||
		c.Agent.StampFile != "/h/.pyagent-stamp" || c.Log.Level != "debug" || c.Source("app.log.level") != "env RANCHER_DEBUG" || c.Proxy.NoProxy != "x" || c.Proxy.HTTP != "p:1" ||
		!c.Engine.DockerTLSVerify || c.Engine.DockerHost != "tcp://d:2376" || c.Agent.MemoryOverride != 1024 || c.Agent.DetectCloudProvider || c.Agent.AgentImage != "rancher/agent:v1.2.11" {
		t.Errorf("got %+v", c)
	}
	if c := mustLoad(t, map[string]string{"RANCHER_DEBUG": "1", "DROVER_LOG_LEVEL": "warn"}, "", nil); c.Log.Level != "warning" {
		t.Errorf("level %s", c.Log.Level)
	}
}

func TestConfigFlags(t *testing.T) {
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	addConfigFlags(f, "url", "insecure", "drain", "labels", "trusted-proxies")
	f.String("other", "", "")
	if err := f.Parse([]string{"--insecure", "--drain", "5s", "--other", "x", "--labels=a=b&c=d"}); err != nil {
		t.Fatal(err)
	}
	given := changedConfigFlags(f)
	if want := map[string]string{"insecure": "true", "drain": "5s", "labels": "a=b&c=d"}; !reflect.DeepEqual(given, want) {
		t.Fatalf("got %v, want %v", given, want)
	}
	c := mustLoad(t, map[string]string{"DROVER_DRAIN": "1s"}, "", given)
	if !c.CA.Insecure || c.Events.Drain != 5*time.Second || c.Agent.Labels["c"] != "d" {
		t.Errorf("got %+v", c)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	paths := pflag.NewFlagSet("node", pflag.ContinueOnError)
	addConfigFlags(paths, "http-token-key-file")
	if err := paths.Parse([]string{"--http-token-key-file", "../key.pem"}); err != nil || changedConfigFlags(paths)["http-token-key-file"] != filepath.Join(filepath.Dir(here), "key.pem") {
		t.Errorf("a path from here: %v, %v", changedConfigFlags(paths), err)
	}
	if err := f.Parse([]string{"--drain", "soon"}); err == nil || !strings.Contains(err.Error(), "want a duration") {
		t.Errorf("got %v", err)
	}
	if help := f.FlagUsages(); !strings.Contains(help, "CATTLE_REGISTRATION_URL") || !strings.Contains(help, "10s") {
		t.Errorf("help:\n%s", help)
	}
	defer func() {
		if recover() == nil {
			t.Error("an unknown flag was added")
		}
	}()
	addConfigFlags(f, "no-such")
}

// TestConfigTable checks what the rows of the table must have in common.
func TestConfigTable(t *testing.T) {
	names, envs, flags := map[string]bool{}, map[string]string{}, map[string]bool{}
	for _, k := range configKeys() {
		if names[k.name] || k.usage == "" || !strings.HasPrefix(k.name, "app.") {
			t.Errorf("%s: twice, without usage, or outside app", k.name)
		}
		for other := range names {
			if strings.HasPrefix(k.name, other+".") || strings.HasPrefix(other, k.name+".") {
				t.Errorf("%s and %s cannot both be in a file", k.name, other)
			}
		}
		names[k.name] = true
		for _, e := range k.env {
			if envs[e] != "" {
				t.Errorf("%s is of %s and %s", e, envs[e], k.name)
			}
			envs[e] = k.name
			if k.secret {
				envs[e+"_FILE"] = k.name + " from a file"
			}
		}
		if k.flag != "" && flags[k.flag] {
			t.Errorf("flag --%s twice", k.flag)
		}
		flags[k.flag] = true
		if k.secret && k.show == nil {
			t.Errorf("%s is secret and shown", k.name)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	for _, s := range []string{
		"", "app:\n  http: {port: 1}\n", "app.http.port: 1\n", "app: &a {x: *a}\n", "- 1\n", "app:\n  agent:\n    labels: {a: b}\n", "a: !!binary x\n", "? [1]\n: 2\n", "---\n---\n", "app: {logs: {cmd-white-list: [a,b]}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		values, problems := parseConfigFile(b)
		lines := strings.Count(string(b), "\n") + strings.Count(string(b), "\r") + 2
		for key, v := range values {
			if v.line < 1 || v.line > lines || !slices.ContainsFunc(configKeys(), func(k configKey) bool { return k.name == key }) {
				t.Errorf("%s at line %d of %d", key, v.line, lines)
			}
		}
		for _, p := range problems {
			if p.text == "" || len(p.text) > 4096 {
				t.Errorf("problem %+v", p)
			}
		}
		l := &loader{getenv: environment(nil), c: &Config{values: map[string]ConfigValue{}}, text: map[string]string{}, file: values}
		for _, k := range configKeys() {
			l.load(k) // a text out of the file is a mistake or a value, never a panic
		}
	})
}
