package cli

import (
	"strings"
	"testing"

	"github.com/droverhq/drover/runtime"
)

// TestStreamUsage: a command line that makes no sense is told before anything is asked.
func TestStreamUsage(t *testing.T) {
	env := map[string]string{"XDG_CONFIG_HOME": t.TempDir(), "DROVER_SERVER": "http://127.0.0.1:1", "DROVER_KEY": "a:b"}
	for line, want := range map[string]string{
		"exec":                               "drover exec needs CONTAINER",
		"exec web":                           "drover exec needs COMMAND",
		"exec web --":                        "there is no command to run",
		"exec -d -i web true":                "exclude each other",
		"exec --detach-keys ctrl-1 web true": `"ctrl-1" is no key`,
		"exec -e =x web true":                "has no name",
		"exec --env-file /none web true":     "--env-file",
		"exec --grace 2m web true":           "not between 0 and 1m",
		"exec --grace x web true":            "invalid argument",
		"attach":                             "drover attach needs CONTAINER",
		"attach a b":                         `takes no argument "b"`,
		"attach --detach-keys ab web":        "is no key",
		"logs --grep ( web":                  "missing closing",
		"logs --since someday web":           `--since "someday" is no time`,
		"logs --until 1x web":                `--until "1x" is no time`,
		"logs -n many web":                   "neither a number of lines nor all",
		"logs -n -5 web":                     "neither a number of lines nor all",
		"stats --sort size":                  "none of name, cpu, memory",
		"stats --interval 1ms":               "not between 100ms and 1h",
		"stats --hosts web":                  "--hosts takes no containers",
		"top":                                "drover top needs CONTAINER",
		"cp one":                             "drover cp needs DESTINATION",
		"cp one two":                         `neither "one" nor "two" is in a container`,
		"cp ./a:b /c:d":                      "is in a container",
		"cp web: two":                        "a path is missing",
		"port-forward web":                   "drover port-forward needs PORT",
		"port-forward web 0":                 "no port from 1 to 65535",
		"port-forward web 1:70000":           "no port from 1 to 65535",
		"port-forward web x:80":              "no port from 0 to 65535",
		"port-forward web 1:2:3":             "no port from 1 to 65535",
		"record":                             "drover record needs CONTAINER",
		"record --idle-limit -1s web":        "is negative",
		"play":                               "drover play needs FILE",
		"play --speed 0 x":                   "is not above 0",
		"play --speed nan x":                 "is not above 0",
		"play --idle-limit -1s x":            "is negative",
	} {
		code, out, errOut := call(t.Context(), env, strings.Fields(line)...)
		if code != ExitUsage || !strings.Contains(errOut, want) || !strings.Contains(errOut, "--help' for usage") || out != "" {
			t.Errorf("%s: code %d, %q, %q, want %q", line, code, out, errOut, want)
		}
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"exec web true":       {ExitRun, "is it running?"},
		"attach web":          {ExitRun, "is it running?"},
		"record web":          {ExitRun, "is it running?"},
		"exec -it web sh":     {ExitRun, "the input device is not a TTY"},
		"logs web":            {ExitFailed, "is it running?"},
		"stats":               {ExitFailed, "is it running?"},
		"cp web:/a .":         {ExitFailed, "is it running?"},
		"port-forward web 80": {ExitFailed, "is it running?"},
		"play /none":          {ExitFailed, "no such file"},
	} {
		if code, _, errOut := call(t.Context(), env, strings.Fields(line)...); code != want.code || !strings.Contains(errOut, want.says) {
			t.Errorf("%s: code %d, %q, want %+v", line, code, errOut, want)
		}
	}
}

func TestSplitPlace(t *testing.T) {
	for arg, want := range map[string][2]string{
		"web:/etc": {"web", "/etc"}, "web-1/web:etc/x": {"web-1/web", "etc/x"}, "web:a:b": {"web", "a:b"}, "web:": {"web", ""},
		"file": {"", "file"}, "./a:b": {"", "./a:b"}, "/a:b": {"", "/a:b"}, "../a:b": {"", "../a:b"}, ":x": {"", ":x"}, "-": {"", "-"},
	} {
		ref, name, inside := splitPlace(arg)
		if ref != want[0] || name != want[1] || inside != (want[0] != "") {
			t.Errorf("%q: %q %q %v, want %q", arg, ref, name, inside, want)
		}
	}
}

// TestStartFailure tells why a process could not be started from its output that begins alike.
func TestStartFailure(t *testing.T) {
	const mark = startMark
	for _, c := range []struct {
		pieces []string
		code   int // of the process
		want   string
		exit   int
		says   string
	}{
		{[]string{"hello"}, 0, "hello", 0, ""},
		{[]string{mark + "exec failed: unable to start container process: exec: \"x\": executable file not found in $PATH: unknown\r\n"}, 126, "", 127, `exec: "x": executable file not found in $PATH`},
		{[]string{mark[:5], mark[5:], "exec failed: exec: \"/etc\": permission denied: unknown\r\n"}, 126, "", 126, `exec: "/etc": permission denied`},
		{[]string{mark, "is what I print"}, 0, mark + "is what I print", 0, ""},
		{[]string{mark, "is what I print"}, 3, mark + "is what I print", 3, ""},
		{[]string{"OCI", " other"}, 126, "OCI other", 126, ""},
		{[]string{mark[:7]}, 0, mark[:7], 0, ""},
		{[]string{mark + strings.Repeat("x", startMost), "y"}, 126, mark + strings.Repeat("x", startMost) + "y", 126, ""},
		{nil, 126, "", 126, ""},
	} {
		var out strings.Builder
		f := &startFailure{w: &out}
		for _, p := range c.pieces {
			if n, err := f.Write([]byte(p)); n != len(p) || err != nil {
				t.Errorf("%q: %d, %v", p, n, err)
			}
		}
		var end error
		if c.code != 0 {
			end = &runtime.ExitError{Code: c.code}
		}
		err := exitOf(f.end(end))
		if out.String() != c.want || err != nil && code(err, true) != c.exit || err == nil && c.exit != 0 || c.says != "" && err.Error() != c.says {
			t.Errorf("%.60q: wrote %.60q, %v, want code %d %q", c.pieces, out.String(), err, c.exit, c.says)
		}
	}
}
