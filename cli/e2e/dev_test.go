package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestDev is the main job: one command, and in a second terminal everything works without a flag.
func TestDev(t *testing.T) {
	u := newUser(t)
	args := []string{"dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")}
	began := time.Now()
	p := u.start(args...)
	screen := p.says("In a second terminal")
	u.screenInTime(time.Since(began))
	t.Logf("the screen:\n%s", screen)
	for _, want := range []string{"Server", "https://127.0.0.1:", "Admin key", "ak_", "docker run ", "/v1/scripts/", "CATTLE_CA_CHECKSUM=", "Data", u.dir} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen has no %q", want)
		}
	}
	if fi, err := os.Stat(filepath.Join(u.dir, "config/drover/contexts.yaml")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("context file: %v, %v", fi, err)
	}
	var first host
	eventually(t, "what the agent tells of its engine", func() bool {
		first = u.online(1)[0]
		return first.Engine != ""
	})
	if first.Name == "" || !strings.HasPrefix(first.Engine, "docker ") || first.Version == "" {
		t.Errorf("host %+v", first)
	}
	if r := u.run("health", "--state-dir", filepath.Join(u.dir, "data")); r.code != 0 || !strings.HasPrefix(r.out, "ok: server: connected; engine: answers") {
		t.Errorf("health: %+v", r)
	}

	name := prefix(t)
	// The scripts run side by side, and this waits for all of them.
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:  "testdata",
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": exitCode},
			Setup: func(e *testscript.Env) error {
				e.Setenv("XDG_CONFIG_HOME", filepath.Join(u.dir, "config"))
				e.Setenv("HOME", e.WorkDir)
				e.Setenv("GORACE", raceOptions)
				e.Setenv("IMAGE", image)
				e.Setenv("NAME", fmt.Sprintf("%s-%s", name, filepath.Base(e.WorkDir)))
				e.Setenv("HOST", first.Name)
				e.Setenv("SERVER", strings.TrimRight("https://"+args[2], "/"))
				return nil
			},
		})
	})
	if t.Failed() {
		return
	}

	p.stop(os.Interrupt)
	if strings.Contains(p.log.String(), "panic") {
		t.Errorf("log:\n%s", p.log.String())
	}
	if r := u.run("hosts"); r.code != 1 || !strings.Contains(r.err, "is it running?") {
		t.Errorf("hosts without a server: %+v", r)
	}

	// A second start finds the same host, and does not show the key again.
	p = u.start(args...)
	screen = p.says("In a second terminal")
	if strings.Contains(screen, "ak_") || !strings.Contains(screen, "--new-admin-key") {
		t.Errorf("second screen:\n%s", screen)
	}
	if again := u.online(1); len(again) != 1 || again[0].ID != first.ID || again[0].UUID != first.UUID {
		t.Errorf("second start: %+v, first %+v", again, first)
	}
	p.stop(syscall.SIGTERM)

	// A lost context file is no lost server: the key is replaced.
	if err := os.RemoveAll(filepath.Join(u.dir, "config")); err != nil {
		t.Fatal(err)
	}
	p = u.start(args...)
	if screen := p.says("In a second terminal"); !strings.Contains(screen, "ak_") {
		t.Errorf("third screen:\n%s", screen)
	}
	u.online(1)
	p.stop(os.Interrupt)
}

// screenInTime checks the 3 s in which the screen is promised. On a busy machine everything takes longer: how much shows
// the time of a command that does nothing, which is some 20 ms on an idle one.
func (u *user) screenInTime(took time.Duration) {
	u.t.Helper()
	var nothing time.Duration
	for range 3 {
		began := time.Now()
		u.must("version")
		nothing = max(nothing, time.Since(began))
	}
	limit := 3*time.Second + 50*nothing
	u.t.Logf("screen after %v; allowed %v, as a command that does nothing takes %v", took, limit, nothing)
	if took > limit {
		u.t.Errorf("the screen came after %v, more than %v", took, limit)
	}
}

// TestDevWithASlowEngine: the screen does not wait for an engine that hangs, and what was missing is told when it comes.
func TestDevWithASlowEngine(t *testing.T) {
	u := newUser(t)
	engine := newHeldSocket(t, filepath.Join(u.dir, "slow.sock"), "/var/run/docker.sock")
	began := time.Now()
	p := u.start("dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(u.dir, "data"), "--docker-sock", "unix://"+engine.path)
	screen := p.says("In a second terminal")
	u.screenInTime(time.Since(began))
	if strings.Contains(screen, "docker 2") || !strings.Contains(screen, "Host ") {
		t.Errorf("the screen while the engine hangs:\n%s", screen)
	}
	engine.release()
	eventually(t, "the host is told when its engine answers", func() bool {
		_, told, found := strings.Cut(p.log.String()+p.out.String(), "The host ")
		return found && strings.Contains(told, "is online, with docker ")
	})
	p.stop(os.Interrupt)
}

// A heldSocket is an engine's socket that takes connections and answers nothing until it is released.
type heldSocket struct {
	path     string
	released chan struct{}
	release  func()
}

func newHeldSocket(t *testing.T, path, target string) *heldSocket {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := &heldSocket{path: path, released: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.released) })
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer in.Close()
				select {
				case <-h.released:
				case <-ctx.Done():
					return
				}
				out, err := net.Dial("unix", target)
				if err != nil {
					t.Error(err)
					return
				}
				defer out.Close()
				defer context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })()
				group.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
				_, _ = io.Copy(in, out)
			})
		}
	})
	t.Cleanup(func() { stop(); _ = l.Close(); group.Wait() })
	return h
}

// exitCode is the script command "code N PROGRAM ARG...": the program has to end with N.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}

// TestDevWithoutEngine starts where no dockerd is.
func TestDevWithoutEngine(t *testing.T) {
	u := newUser(t)
	p := u.start("dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(u.dir, "data"), "--docker-sock", "unix://"+filepath.Join(u.dir, "none.sock"))
	screen := p.says("In a second terminal")
	if !strings.Contains(screen, "dockerd does not answer at unix://"+u.dir) {
		t.Errorf("the screen does not say that there is no engine:\n%s", screen)
	}
	if r := u.run("health", "--state-dir", filepath.Join(u.dir, "data")); r.code != 1 {
		t.Errorf("health without an engine: %+v", r)
	}
	if r := u.run("health", "--live", "--state-dir", filepath.Join(u.dir, "data")); r.code != 0 {
		t.Errorf("health --live: %+v", r)
	}
	p.stop(os.Interrupt)
}

// TestDevJSON gives a program what a person sees.
func TestDevJSON(t *testing.T) {
	u := newUser(t)
	p := u.start("dev", "--output", "json", "--listen", "127.0.0.1:0", "--data", filepath.Join(u.dir, "data"))
	var screen struct {
		Server, AdminKey, Join, Data, Context string
		Host                                  *host
	}
	eventually(t, "a JSON object", func() bool { return json.Unmarshal([]byte(p.out.String()), &screen) == nil })
	if screen.Server == "" || screen.AdminKey == "" || screen.Join == "" || screen.Context != "dev" {
		t.Errorf("got %+v", screen)
	}
	p.stop(os.Interrupt)
}

// TestContainersOutliveDev: what runs is not the agent's.
func TestContainersOutliveDev(t *testing.T) {
	u, name := newUser(t), prefix(t)
	args := []string{"dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")}
	p := u.start(args...)
	p.says("In a second terminal")
	u.online(1)
	id := strings.TrimSpace(u.must("run", "--name", name, image, "sleep", "600"))
	p.stop(os.Interrupt)
	out, err := exec.Command("docker", "inspect", "-f", "{{.State.Running}}", id).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "true" {
		t.Errorf("after the end: %s %v", out, err)
	}
	p = u.start(args...)
	p.says("In a second terminal")
	u.online(1)
	eventually(t, "the container in the list", func() bool {
		var list []container
		u.json(&list, "ps")
		for _, c := range list {
			if c.Name == name && c.State == "running" && c.ContainerID == id {
				return true
			}
		}
		return false
	})
	u.must("rm", "-f", name)
	p.stop(os.Interrupt)
}
