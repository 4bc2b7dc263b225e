package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/droverhq/drover/service/logs"
)

// TestMain makes this test binary the process that the log service starts for awk, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == awkWorker {
		os.Exit(logs.AwkWorker())
	}
	goleak.VerifyTestMain(m)
}

func TestRewrite(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"http://s/v1/scripts/t":     "agent http://s/v1/scripts/t",
		"https://s --labels a=b":    "agent https://s --labels a=b",
		"-url http://s":             "agent --url http://s",
		"-url=http://s":             "agent --url=http://s",
		"--url http://s":            "agent --url http://s",
		"agent -url http://s":       "agent --url http://s",
		"-version":                  "version",
		"ps -a":                     "ps -a",
		"run img http://s -url x":   "run img http://s -url x",
		"agent --url=http://s -q":   "agent --url=http://s -q",
		"agent http://s -url=x --h": "agent http://s --url=x --h",
	} {
		if got := strings.Join(rewrite(strings.Fields(in)), " "); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// TestEveryCommandIsDocumented holds the help text to what it promises.
func TestEveryCommandIsDocumented(t *testing.T) {
	a := &app{env: Env{Getenv: func(string) string { return "" }}}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && c.Parent() == c.Root() && c.Name() != "version" && c.Name() != "help" && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if len(strings.TrimRight(line, "\n")) > 125 {
				t.Errorf("%s: help is wider than a terminal: %s", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	root := a.root(false)
	walk(root)
	names := make([]string, 0, len(root.Commands()))
	for _, c := range root.Commands() {
		names = append(names, c.Name())
	}
	for _, want := range strings.Fields("agent server dev hosts ps run start stop restart rm inspect pull events context token health version config completion man doctor") {
		if !slices.Contains(names, want) {
			t.Errorf("there is no command %s", want)
		}
	}
}

func TestContextsKeepTheirSecrets(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"XDG_CONFIG_HOME": dir, "DROVER_KEY": "AK:s3cr3t:with:colons"}
	if code, _, errOut := call(t.Context(), env, "context", "add", "one", "--server", "http://127.0.0.1:1"); code != ExitOK {
		t.Fatalf("add: %d %s", code, errOut)
	}
	delete(env, "DROVER_KEY")
	if code, _, errOut := call(t.Context(), env, "context", "add", "two", "--server", "http://127.0.0.1:2"); code != ExitOK {
		t.Fatalf("add: %d %s", code, errOut)
	}
	path := filepath.Join(dir, "drover", "contexts.yaml")
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("context file: %v %v", fi.Mode(), err)
	}
	for _, format := range []string{"table", "json", "yaml"} {
		if _, out, _ := call(t.Context(), env, "context", "list", "-o", format); strings.Contains(out, "s3cr3t") || !strings.Contains(out, "AK") {
			t.Errorf("context list -o %s:\n%s", format, out)
		}
	}
	a := &app{env: Env{Getenv: func(k string) string { return env[k] }}}
	got, err := a.target()
	if err != nil || got.Name != "one" || got.AccessKey != "AK" || got.SecretKey != "s3cr3t:with:colons" {
		t.Errorf("current: %+v, %v", got, err)
	}
	a.flags.server = "http://127.0.0.1:1/" // the same server by its URL has the same key
	if got, err := a.target(); err != nil || got.AccessKey != "AK" {
		t.Errorf("by URL: %+v, %v", got, err)
	}
	env["DROVER_SERVER"], a.flags.server = "http://127.0.0.1:9", "" // another one must not get it
	if got, err := a.target(); err != nil || got.SecretKey != "" {
		t.Errorf("another server: %+v, %v", got, err)
	}
	delete(env, "DROVER_SERVER")

	if code, _, _ := call(t.Context(), env, "context", "use", "two"); code != ExitOK {
		t.Errorf("use: %d", code)
	}
	if code, _, errOut := call(t.Context(), env, "context", "use", "three"); code != ExitFailed || !strings.Contains(errOut, "one, two") {
		t.Errorf("use of none: %d %s", code, errOut)
	}
	if code, _, errOut := call(t.Context(), env, "context", "remove", "two"); code != ExitOK || !strings.Contains(errOut, "was the current") {
		t.Errorf("remove: %d %s", code, errOut)
	}
	if code, _, errOut := call(t.Context(), env, "hosts"); code != ExitConfig || !strings.Contains(errOut, "no server is known") {
		t.Errorf("without a current one: %d %s", code, errOut)
	}
	for _, bad := range []string{"", "../x", "a b", "-x"} {
		if code, _, _ := call(t.Context(), env, "context", "add", "--server", "http://127.0.0.1:1", "--", bad); code != ExitUsage {
			t.Errorf("the name %q was taken", bad)
		}
	}
	if err := os.WriteFile(path, []byte("current: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := call(t.Context(), env, "hosts"); code != ExitConfig || !strings.Contains(errOut, path) {
		t.Errorf("a broken file: %d %s", code, errOut)
	}
}

func TestRunInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# comment\n\nA=1\nB=two=2\r\nHERE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := runFlags{
		name: "web", restart: "on-failure:3", memory: "256m", cpus: "1.5", pull: "always", entrypoint: "/bin/e", network: "host",
		env: []string{"A=over", "HERE", "EMPTY="}, envFiles: []string{file}, labels: []string{"app=shop", "flag", "eq=a=b"},
		ports: []string{"127.0.0.1:8080:80/tcp"}, volumes: []string{"/a:/b:ro"},
	}
	in, err := o.input([]string{"img:1", "-x", "y"}, func(k string) string { return map[string]string{"HERE": "there"}[k] })
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"web","imageUuid":"docker:img:1","command":["-x","y"],"entryPoint":["/bin/e"],
		"environment":{"A":"over","B":"two=2","EMPTY":"","HERE":"there"},"labels":{"app":"shop","eq":"a=b","flag":""},
		"ports":["127.0.0.1:8080:80/tcp"],"dataVolumes":["/a:/b:ro"],"startOnCreate":true,"networkMode":"host",
		"restartPolicy":{"name":"on-failure","maximumRetryCount":3},"memory":268435456,"cpuPeriod":100000,"cpuQuota":150000,"pull":"always"}`
	var g, w any
	if json.Unmarshal(got, &g) != nil || json.Unmarshal([]byte(want), &w) != nil || !reflect.DeepEqual(g, w) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, bad := range []runFlags{
		{restart: "sometimes"},
		{restart: "always:3"},
		{restart: "on-failure:x"},
		{restart: "on-failure:-1"},
		{memory: "lots"},
		{memory: "-1"},
		{cpus: "0"},
		{cpus: "NaN"},
		{cpus: "two"},
		{labels: []string{"=x"}},
		{env: []string{"=x"}},
		{pull: "maybe"},
		{envFiles: []string{"/none"}},
	} {
		if bad.pull == "" {
			bad.pull = "missing"
		}
		if _, err := bad.input([]string{"img"}, func(string) string { return "" }); err == nil || code(err, true) != ExitUsage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestLocalURL(t *testing.T) {
	for _, c := range [][3]string{
		{"https://192.0.2.1:8443", "", "https://127.0.0.1:8443"},
		{"https://192.0.2.1:8443", "0.0.0.0:8443", "https://127.0.0.1:8443"},
		{"https://[2001:db8::1]:8443", "[::]:8443", "https://127.0.0.1:8443"},
		{"https://drover.example:9000", "127.0.0.1:9000", "https://127.0.0.1:9000"},
		{"https://drover.example:9000", "drover.example:9000", "https://drover.example:9000"},
	} {
		if got, err := localURL(c[0], c[1]); err != nil || got != c[2] {
			t.Errorf("%s on %s: %s, %v, want %s", c[0], c[1], got, err, c[2])
		}
	}
}
