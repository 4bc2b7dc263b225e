package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

const (
	testImage = "drover-test/busybox:1"
	patience  = 60 * time.Second
)

// call runs one command to its end.
func call(ctx context.Context, getenv map[string]string, args ...string) (code int, out, errOut string) {
	var o, e syncBuffer
	code = Main(ctx, Env{Args: args, Getenv: func(k string) string { return getenv[k] }, Stdin: strings.NewReader(""), Stdout: &o, Stderr: &e})
	return code, o.String(), e.String()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// credentials is the environment of an agent that was registered long ago, as an original one has it.
func credentials(s *eventstest.Server, dir string) map[string]string {
	return map[string]string{
		"CATTLE_URL": s.URL(), "CATTLE_ACCESS_KEY": eventstest.AccessKey, "CATTLE_SECRET_KEY": eventstest.SecretKey,
		"DROVER_STATE_DIR": dir, "DROVER_LEGACY_STATE_DIR": "-",
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestAgentAnswersBothKindsOfServer drives a real container through the whole composition.
func TestAgentAnswersBothKindsOfServer(t *testing.T) {
	for _, drover := range []bool{true, false} {
		t.Run(fmt.Sprintf("drover=%v", drover), func(t *testing.T) {
			s := eventstest.NewServer(t, eventstest.Options{Drover: drover})
			env := credentials(s, t.TempDir())
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan int, 1)
			var log syncBuffer
			go func() {
				ended <- Main(ctx, Env{Args: []string{"agent"}, Getenv: func(k string) string { return env[k] }, Stdout: &log, Stderr: &log})
			}()
			defer func() {
				cancel()
				select {
				case code := <-ended:
					if code != ExitOK {
						t.Errorf("exit code %d\n%s", code, log.String())
					}
				case <-time.After(patience):
					t.Error("the agent does not end")
				}
				if strings.Contains(log.String(), eventstest.SecretKey) {
					t.Errorf("the log has the secret key:\n%s", log.String())
				}
			}()

			name := fmt.Sprintf("drover-cli-%06x", rand.Uint32N(1<<24))
			if out, err := exec.Command("docker", "run", "-d", "--name", name, testImage, "sleep", "600").CombinedOutput(); err != nil {
				t.Fatalf("docker run: %v\n%s", err, out)
			}
			t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", name).Run() }) // gone with the test image otherwise

			callCtx, done := context.WithTimeout(t.Context(), patience)
			defer done()
			data, err := json.Marshal(map[string]any{"instanceInspect": map[string]any{"kind": "docker", "name": name}})
			if err != nil {
				t.Fatal(err)
			}
			reply, err := s.Call(callCtx, &wire.Event{
				ID: "inspect-1", Name: "compute.instance.inspect", ReplyTo: "reply.1", ResourceType: "container", ResourceID: "1i1", Data: data,
			})
			if err != nil {
				t.Fatal(err)
			}
			if !reply.Final() || reply.Transitioning == wire.TransitioningError || !strings.Contains(string(reply.Data), name) {
				t.Errorf("reply %+v with %s", reply, reply.Data)
			}
			reply, err = s.Call(callCtx, &wire.Event{
				ID: "ping-1", Name: "ping", ReplyTo: "reply.2", ResourceType: "agent", ResourceID: "1a1",
				Data: json.RawMessage(`{"options":{"resources":true,"stats":true,"instances":true}}`),
			})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(reply.Data), `"resources"`) {
				t.Errorf("ping answers %s", reply.Data)
			}
			reply, err = s.Call(callCtx, &wire.Event{ID: "bad-1", Name: "compute.instance.inspect", ReplyTo: "reply.3", Data: json.RawMessage(`{"instanceInspect":[1]}`)})
			if err != nil || reply.Transitioning != wire.TransitioningError {
				t.Errorf("a bad event: %+v, %v", reply, err)
			}

			wait(t, "a healthy agent", func() bool {
				code, _, _ := call(t.Context(), env, "health")
				return code == ExitOK
			})
		})
	}
}

// TestAgentExitCodes says by its code whether trying again helps.
func TestAgentExitCodes(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<html><body>Welcome to the proxy</body></html>")
	}))
	defer page.Close()
	refusing := eventstest.NewServer(t, eventstest.Options{})
	refusing.Refuse(http.StatusUnauthorized, -1, "")
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		code int
		says string
	}{
		"a page for a script":  {nil, []string{page.URL + "/v1/scripts/s3cr3t"}, ExitConfig, "web page"},
		"refused credentials":  {credentials(refusing, t.TempDir()), []string{"agent"}, ExitAuth, "refuse"},
		"half of the keys":     {map[string]string{"CATTLE_URL": page.URL, "CATTLE_ACCESS_KEY": "x"}, []string{"agent"}, ExitFailed, "CATTLE_SECRET_KEY"},
		"nothing to join":      {nil, []string{"agent"}, ExitConfig, "no registration URL"},
		"a wrong setting":      {map[string]string{"DROVER_WORKERS": "many"}, []string{"agent"}, ExitConfig, "DROVER_WORKERS"},
		"two URLs":             {nil, []string{"agent", "http://a", "--url", "http://b"}, ExitUsage, "twice"},
		"an unknown engine":    {map[string]string{"DROVER_ENGINE": "podman"}, []string{"agent"}, ExitConfig, "auto, docker, cri"},
		"TLS without its keys": {map[string]string{"DOCKER_TLS_VERIFY": "1"}, []string{"agent"}, ExitConfig, "DOCKER_CERT_PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"DROVER_STATE_DIR": t.TempDir(), "DROVER_LEGACY_STATE_DIR": "-"}
			for k, v := range c.env {
				env[k] = v
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			code, _, errOut := call(ctx, env, c.args...)
			if code != c.code || !strings.Contains(errOut, c.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, c.code, c.says, errOut)
			}
			if strings.Contains(errOut, "s3cr3t") {
				t.Errorf("the token was printed:\n%s", errOut)
			}
			if _, err := os.Stat(filepath.Join(env["DROVER_STATE_DIR"], healthFile)); err == nil {
				t.Error("the health file was left behind")
			}
		})
	}
}

// TestAgentWithoutEngine stays up, answers that the engine is away, and is not ready.
func TestAgentWithoutEngine(t *testing.T) {
	s := eventstest.NewServer(t, eventstest.Options{Drover: true})
	dir := t.TempDir()
	env := credentials(s, dir)
	env["DOCKER_HOST"] = "unix://" + filepath.Join(dir, "none.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		code, _, _ := call(ctx, env, "agent")
		ended <- code
	}()
	callCtx, done := context.WithTimeout(t.Context(), patience)
	defer done()
	reply, err := s.Call(callCtx, &wire.Event{
		ID: "1", Name: "compute.instance.inspect", ReplyTo: "reply.1", Data: json.RawMessage(`{"instanceInspect":{"kind":"docker","name":"x"}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if reply.Transitioning != wire.TransitioningError || reply.Code != wire.CodeUnavailable {
		t.Errorf("reply %+v", reply)
	}
	if code, _, errOut := call(t.Context(), env, "health"); code != ExitFailed || !strings.Contains(errOut, "not ready: server: connected") {
		t.Errorf("health: %d %s", code, errOut)
	}
	if code, _, errOut := call(t.Context(), env, "health", "--live"); code != ExitOK {
		t.Errorf("health --live: %d %s", code, errOut)
	}
	cancel()
	if code := <-ended; code != ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestSystemdIsTold speaks sd_notify.
func TestSystemdIsTold(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := eventstest.NewServer(t, eventstest.Options{Drover: true})
	env := credentials(s, t.TempDir())
	env["NOTIFY_SOCKET"], env["WATCHDOG_USEC"] = socket, "20000"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		code, _, _ := call(ctx, env, "agent")
		ended <- code
	}()
	if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	missing := []string{"READY=1", "WATCHDOG=1", "STATUS=connected to " + s.URL(), "STOPPING=1"}
	buf := make([]byte, 4096)
	for len(missing) > 0 {
		n, err := l.Read(buf)
		if err != nil {
			t.Fatalf("no word of %q: %v", missing, err)
		}
		missing = slices.DeleteFunc(missing, func(want string) bool { return strings.Contains(string(buf[:n]), want) })
		if len(missing) == 1 {
			cancel()
		}
	}
	if code := <-ended; code != ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestSystemdThatDoesNotRead must not hold the agent: the queue of its socket is short.
func TestSystemdThatDoesNotRead(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := &notifier{socket: socket, watchdog: 2 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	beats, ended := make(chan struct{}, 1<<16), make(chan struct{})
	go func() {
		defer close(ended)
		n.run(ctx, func() bool { beats <- struct{}{}; return true })
	}()
	for range 50 { // far more than the queue takes
		select {
		case <-beats:
		case <-time.After(patience):
			t.Fatal("the watchdog is stuck in a send")
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}

func TestSelfContainer(t *testing.T) {
	id := strings.Repeat("0a", 32)
	inside := fstest.MapFS{"proc/self/mountinfo": &fstest.MapFile{Data: []byte(
		"22 21 0:20 / /proc rw - proc proc rw\n" +
			"710 701 254:1 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n")}}
	if got := selfContainer(inside); len(got) != 1 || got[0] != id {
		t.Errorf("inside a container: %q", got)
	}
	outside := fstest.MapFS{"proc/self/mountinfo": &fstest.MapFile{Data: []byte("22 21 0:20 / /proc rw - proc proc rw\n")}}
	if got := selfContainer(outside); got != nil {
		t.Errorf("outside: %q", got)
	}
	if got := selfContainer(fstest.MapFS{}); got != nil {
		t.Errorf("without /proc: %q", got)
	}
}

// TestReleaseImage must give pages back and leave a program that runs.
func TestReleaseImage(t *testing.T) {
	if err := releaseImage(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", []byte(strings.ToUpper("still here"))); got != "5354494c4c2048455245" {
		t.Errorf("got %s", got)
	}
}
