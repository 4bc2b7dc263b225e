package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/droverhq/drover/cli"
)

// image is made by scripts/test-image.
const image = "drover-test/busybox:1"

// patience bounds every wait: a busy machine makes a test slow, not wrong.
const patience = 90 * time.Second

// TestMain makes this test binary the command drover too, in processes of its own and with the race detector.
func TestMain(m *testing.M) {
	_ = os.Setenv("GORACE", raceOptions) // cannot fail: the name is well-formed
	testscript.Main(m, map[string]func(){"drover": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(cli.Main(ctx, cli.Env{
			Args: os.Args[1:], Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		}))
	}})
}

// raceOptions keeps the race detector from sleeping for a second at the end of each of the hundreds of commands.
const raceOptions = "atexit_sleep_ms=0"

// prefix names what a test makes in the engine, so that it can be removed and is nobody else's.
func prefix(t *testing.T) string {
	t.Helper()
	p := fmt.Sprintf("drover-e2e-%06x", rand.Uint32N(1<<24))
	t.Cleanup(func() { removeContainers(t, p) })
	return p
}

// removeContainers removes every container whose name begins with p.
func removeContainers(t *testing.T, p string) {
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "name="+p).CombinedOutput()
	if err != nil {
		t.Errorf("docker ps: %v\n%s", err, out)
	}
	if ids := strings.Fields(string(out)); len(ids) > 0 {
		if out, err := exec.Command("docker", append([]string{"rm", "-fv"}, ids...)...).CombinedOutput(); err != nil {
			t.Errorf("docker rm: %v\n%s", err, out)
		}
	}
}

// freePort returns a port of loopback that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A user is somebody with a context file and a terminal.
type user struct {
	t   *testing.T
	dir string
	env []string
	// stdin is what commands read.
	stdin string
}

func newUser(t *testing.T) *user {
	t.Helper()
	dir := t.TempDir()
	u := &user{t: t, dir: dir}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "DROVER_") && !strings.HasPrefix(name, "CATTLE_") && !strings.HasPrefix(name, "XDG_") {
			u.env = append(u.env, e)
		}
	}
	u.env = append(u.env, "HOME="+dir, "XDG_CONFIG_HOME="+filepath.Join(dir, "config"))
	return u
}

// A result is what a command left behind.
type result struct {
	out, err string
	code     int
}

// run runs drover to its end.
func (u *user) run(args ...string) result {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "drover", args...)
	cmd.Env, cmd.Dir = u.env, u.dir
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(u.stdin), &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		u.t.Fatalf("drover %q: %v", args, err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// must runs drover, which has to succeed, and returns its output.
func (u *user) must(args ...string) string {
	u.t.Helper()
	r := u.run(args...)
	if r.code != 0 {
		u.t.Fatalf("drover %q: exit code %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// json runs drover with --output json and decodes what it says.
func (u *user) json(into any, args ...string) {
	u.t.Helper()
	out := u.must(append([]string{"--output", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		u.t.Fatalf("drover %q: %v in\n%s", args, err, out)
	}
}

// A process is a drover that runs on.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}
	out   lockedBuffer // standard output
	log   lockedBuffer // standard error
}

// start runs drover until the test ends.
func (u *user) start(args ...string) *process {
	u.t.Helper()
	p := &process{t: u.t, cmd: exec.Command("drover", args...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = u.env, u.dir, &p.out, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // what became of it is in ProcessState
	}()
	u.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if u.t.Failed() {
			u.t.Logf("drover %q printed:\n%s\nand logged:\n%s", args, p.out.String(), p.log.String())
		}
	})
	return p
}

// stop sends the signal and waits for the end; the exit code must be 0.
func (p *process) stop(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("it does not end")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Errorf("exit code %d after %v\n%s", code, sig, p.log.String())
	}
}

// says waits until standard output holds text.
func (p *process) says(text string) string {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%q on standard output", text), func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("it ended with %d before it said %q", p.cmd.ProcessState.ExitCode(), text)
		default:
		}
		return strings.Contains(p.out.String(), text)
	})
	return p.out.String()
}

// eventually polls ok until it is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// lockedBuffer is written by a child's copier and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// host is what `drover hosts --output json` says of one.
type host struct {
	ID, Name, UUID, State, Engine, Version string
	Labels                                 map[string]string
}

// container is what `drover ps --output json` says of one.
type container struct {
	ID, ContainerID, Name, Image, State, Host, HostID, Message string
	Labels                                                     map[string]string
	Ports                                                      []string
	Native                                                     bool
}

// online waits for n hosts that are online.
func (u *user) online(n int) []host {
	u.t.Helper()
	var hosts []host
	eventually(u.t, fmt.Sprintf("%d hosts online", n), func() bool {
		hosts = nil
		u.json(&hosts, "hosts")
		up := 0
		for _, h := range hosts {
			if h.State == "online" {
				up++
			}
		}
		return up == n
	})
	return hosts
}

// dockerNames returns the names of the engine's containers that begin with p.
func dockerNames(t *testing.T, p string) []string {
	t.Helper()
	out, err := exec.Command("docker", "ps", "-a", "--format", "{{.Names}}", "--filter", "name="+p).CombinedOutput()
	if err != nil {
		t.Fatalf("docker ps: %v\n%s", err, out)
	}
	return strings.Fields(string(out))
}

// inspectField returns what docker inspect says of a container.
func inspectField(t *testing.T, id, format string) string {
	t.Helper()
	out, err := exec.Command("docker", "inspect", "--format", format, id).CombinedOutput()
	if err != nil {
		t.Fatalf("docker inspect: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}
