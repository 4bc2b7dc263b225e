package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// fakeHosts is a server whose hosts answer events with what answers has for them.
func fakeHosts(t *testing.T, hosts string, answers map[string]string) (env map[string]string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var events []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/hosts"):
			_, _ = io.WriteString(w, `{"data":[`+hosts+`]}`)
		case r.URL.Query().Get("action") == "event":
			var in struct {
				Name string
				Data json.RawMessage
			}
			b, _ := io.ReadAll(r.Body)
			_ = json.Unmarshal(b, &in)
			id := strings.Split(r.URL.Path, "/")[3]
			mu.Lock()
			data := regexp.MustCompile(`,?"work":"[a-z2-7]{26}"`).ReplaceAllString(string(in.Data), "") // another each time
			events = append(events, fmt.Sprintf("%s %s %s", id, in.Name, data))
			mu.Unlock()
			_, _ = io.WriteString(w, `{"transitioning":"yes","transitioningMessage":"under way","transitioningProgress":40}`+"\n"+answers[in.Name]+"\n")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return map[string]string{"DROVER_SERVER": s.URL, "DROVER_KEY": "a:b", "XDG_CONFIG_HOME": t.TempDir()}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return events
	}
}

const oneHost = `{"id":"1h1","name":"web-1","connection":"online"}`

func TestImageCommands(t *testing.T) {
	env, asked := fakeHosts(t, oneHost+`,{"id":"1h2","name":"web-2","connection":"disconnected"}`, map[string]string{
		"image.list":      `{"data":{"images":[{"id":"sha256:0123456789abcdef","repoTags":["a:1","b:1"],"size":1500000,"inUse":2},{"id":"sha256:fedcba9876543210","repoTags":[]}]}}`,
		"image.history":   `{"data":{"history":[{"id":"","createdBy":"COPY x","size":5}]}}`,
		"image.inspect":   `{"data":{"image":{"Id":"sha256:1","Big":12345678901234567890}}}`,
		"image.push":      `{"data":{"image":{"name":"r:5000/a:1","digest":"sha256:d"}}}`,
		"image.remove":    `{"data":{"removed":{"untagged":["a:1"],"deleted":["sha256:1"]}}}`,
		"image.prune":     `{"data":{"prune":{"images":[{"id":"sha256:0123456789abcdef","repoTags":["old:1"],"size":7000000,"unique":5000000}],"deleted":[],"bytes":5000000}}}`,
		"image.pull":      `{"transitioning":"error","transitioningMessage":"manifest unknown","code":"notFound"}`,
		"registry.delete": `{"data":{"deletion":{"digest":"sha256:d","tags":["1","2"]}}}`,
		"registry.check":  `{"data":{"registry":{"name":"r:5000","ok":true}}}`,
		"registry.copy":   `{"data":{"image":{"name":"two/a:1","digest":"sha256:d"}}}`,
	})
	for _, c := range []struct {
		args  string
		code  int
		event string // what was asked, "" for nothing
		want  string // in the output or the errors
	}{
		{"image ls", ExitOK, `1h1 image.list null`, "0123456789ab   b:1"},
		{"image ls -q", ExitOK, `1h1 image.list null`, "fedcba987654"},
		{"image ls -o yaml --host web-2", ExitOK, `1h2 image.list null`, "inUse: 2"},
		{"image inspect a:1", ExitOK, `1h1 image.inspect {"image":"a:1"}`, `"Big": 12345678901234567890`},
		{"image history a:1", ExitOK, `1h1 image.history {"image":"a:1"}`, "COPY x"},
		{"image push r:5000/a:1", ExitOK, `1h1 image.push {"image":"r:5000/a:1","via":"engine"}`, "r:5000/a:1  sha256:d"},
		{"image push -q --via agent --insecure r:5000/a:1 --username ann", ExitOK, `1h1 image.push {"credential":{"password":"pw","serverAddress":"r:5000","username":"ann"},"image":"r:5000/a:1","insecure":["r:5000"],"via":"agent"}`, "sha256:d"},
		{"image push --insecure r:5000/a:1", ExitUsage, "", "are for --via agent"},
		{"image push --via pigeon a", ExitUsage, "", "neither engine nor agent"},
		{"image pull a:1", ExitFailed, `1h1 image.pull {"image":"a:1","platform":""}`, "drover: manifest unknown"},
		{"image pull A:1:2", ExitUsage, "", "is no image"},
		{"image rm a:1 -f", ExitOK, `1h1 image.remove {"force":true,"image":"a:1"}`, "sha256:1"},
		{"image prune --all --filter label=x --filter label!=keep", ExitOK, `1h1 image.prune {"all":true,"dryRun":true,"labels":["x"],"notLabels":["keep"],"until":""}`, "1 images would go and free at least 5MB; --yes removes them"},
		{"image prune --yes --until 1h", ExitOK, `1h1 image.prune {"all":false,"dryRun":false,"labels":[],"notLabels":[],"until":"1h"}`, "1 images removed, 5MB freed"},
		{"image prune --filter x", ExitUsage, "", "is none of label="},
		{"image nothing", ExitUsage, "", `no command "nothing"`},
		{"registry rm r:5000/a:1", ExitOK, `1h1 registry.delete {"dryRun":true,"image":"r:5000/a:1"}`, "sha256:d  1, 2"},
		{"registry delete r:5000/a:1 --yes", ExitOK, `1h1 registry.delete {"dryRun":false,"image":"r:5000/a:1"}`, "sha256:d"},
		{"registry check --insecure r:5000", ExitOK, `1h1 registry.check {"insecure":["r:5000"],"registry":"r:5000"}`, "r:5000  ok"},
		{"registry copy one:5000/a:1 two/a:1 --source-username bob", ExitOK, `1h1 registry.copy {"source":"one:5000/a:1","sourceCredential":{"password":"pw2","serverAddress":"one:5000","username":"bob"},"target":"two/a:1"}`, "two/a:1  sha256:d"},
		{"registry tags r/a --password-stdin", ExitUsage, "", "needs --username"},
	} {
		env[registryPasswordEnv], env[sourcePasswordEnv] = "pw", "pw2"
		before := len(asked())
		code, out, errOut := call(t.Context(), env, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("%s: code %d\n%s%s", c.args, code, out, errOut)
		}
		got := strings.Join(asked()[before:], "; ")
		if got != c.event {
			t.Errorf("%s asked\n%s, want\n%s", c.args, got, c.event)
		}
	}
	delete(env, registryPasswordEnv)
	if code, _, errOut := call(t.Context(), env, "registry", "tags", "r:5000/a", "--username", "ann"); code != ExitUsage || !strings.Contains(errOut, "there is no password") {
		t.Errorf("without a password: %d %s", code, errOut)
	}
}

func TestWhichHost(t *testing.T) {
	for hosts, want := range map[string]string{
		"": "no host has joined yet",
		oneHost + `,{"id":"1h2","name":"web-2","connection":"online"}`:                                            "2 hosts are online: name one with --host",
		`{"id":"1h1","name":"a","connection":"disconnected"},{"id":"1h2","name":"b","connection":"disconnected"}`: "none of the 2 hosts is online",
	} {
		env, _ := fakeHosts(t, hosts, nil)
		if code, _, errOut := call(t.Context(), env, "image", "ls"); code == ExitOK || !strings.Contains(errOut, want) {
			t.Errorf("%s: %d %s", hosts, code, errOut)
		}
	}
}
