package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A screen is a drover on a terminal of its own.
type screen struct {
	t      *testing.T
	user   *os.File // the side of keyboard and screen
	tty    *os.File // the program's side
	before unix.Termios
	cmd    *exec.Cmd
	out    lockedBuffer
	read   chan struct{} // closed when everything was read
	ended  chan struct{}
	seen   int // of out
}

// terminal runs drover on a terminal of a size.
func (u *user) terminal(t *testing.T, cols, rows uint16, args ...string) *screen {
	t.Helper()
	s := &screen{t: t, cmd: exec.Command("drover", args...), read: make(chan struct{}), ended: make(chan struct{})}
	var err error
	if s.user, s.tty, err = pty.Open(); err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(s.user, &pty.Winsize{Cols: cols, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	s.before = s.mode()
	s.cmd.Env, s.cmd.Dir = append(u.env, "TERM=xterm"), u.dir
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.tty, s.tty, s.tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.read)
		_, _ = io.Copy(&s.out, s.user) // until the last program's side is closed
	}()
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait() // what became of it is in ProcessState
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.ended
		_ = s.tty.Close()
		<-s.read
		_ = s.user.Close()
		if t.Failed() {
			t.Logf("drover %q showed:\n%s", args, s.out.String())
		}
	})
	return s
}

func (s *screen) mode() unix.Termios {
	s.t.Helper()
	m, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return *m
}

// says waits until text is shown, behind what was waited for before.
func (s *screen) says(text string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%q on the screen", text), func() bool {
		shown := s.out.String()
		if i := strings.Index(shown[s.seen:], text); i >= 0 {
			s.seen += i + len(text)
			return true
		}
		select {
		case <-s.ended:
			s.t.Fatalf("it ended with %d before it showed %q", s.cmd.ProcessState.ExitCode(), text)
		default:
		}
		return false
	})
}

func (s *screen) types(keys string) {
	s.t.Helper()
	if _, err := s.user.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) resize(cols, rows uint16) {
	s.t.Helper()
	if err := pty.Setsize(s.user, &pty.Winsize{Cols: cols, Rows: rows}); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the end, with a code, and looks whether the terminal is as it was.
func (s *screen) ends(code int) {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatal("it does not end")
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d", got, code)
	}
	if after := s.mode(); after != s.before {
		s.t.Errorf("the terminal is %+v, and was %+v", after, s.before)
	}
}

func testTerminal(t *testing.T, u *user, name string) {
	t.Parallel()
	u.must("run", "--name", name, "-i", "-t", image, "sh")

	// The size is right at the first prompt; it follows; keys are keys.
	s := u.terminal(t, 132, 43, "exec", "-it", name, "sh")
	s.says("# ")
	s.types("stty size\r")
	s.says("\n43 132")
	s.resize(100, 30)
	s.types("until stty size | grep -x '30 100'; do sleep 0.1; done; echo sized\r")
	s.says("\n30 100")
	s.says("\nsized")
	// The shell has left its own line editing, where ctrl-c is a letter, once a command of the line says something.
	s.types("echo sl''eeps; sleep 1000\r")
	s.says("sleeps")
	s.types("\x03")
	s.says("# ")
	s.types("echo code=$?\r")
	s.says("code=130")
	s.types("sh -c 'exit 7'\r")
	s.says("# ")
	s.types("\x04") // Ctrl-D
	s.ends(7)

	// A signal leaves no raw terminal behind, and no process.
	s = u.terminal(t, 80, 24, "exec", "-it", name, "sh", "-c", "echo here; sleep 7331")
	s.says("here")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.ends(130)
	eventually(t, "the end of the process", func() bool { return !strings.Contains(u.must("top", name), "7331") })

	// Left by the keys, a process that is kept goes on.
	s = u.terminal(t, 80, 24, "exec", "-it", "--keep", "--detach-keys", "ctrl-a,d", name, "sh", "-c", "echo here; sleep 7332")
	s.says("here")
	s.types("\x01d")
	s.says("it goes on in")
	s.ends(0)
	if !strings.Contains(u.must("top", name), "7332") {
		t.Error("the process that was left is gone")
	}

	// The main process, which draws its prompt again, and is left and found again.
	s = u.terminal(t, 80, 24, "attach", name)
	s.types("echo first=$((40+2))\r")
	s.says("first=42")
	s.types("\x10\x11")
	s.says("runs on")
	s.ends(0)
	s = u.terminal(t, 80, 24, "attach", name)
	s.types("echo second=$((40+3))\r")
	s.says("second=43")
	s.types("exit 5\r")
	s.ends(5)
	u.must("rm", "-f", name)
}

// testRecording records a session and plays it.
func testRecording(t *testing.T, u *user, name string) {
	t.Parallel()
	u.must("run", "--name", name, image, "sleep", "600")
	file := filepath.Join(u.dir, "session.cast")
	s := u.terminal(t, 90, 25, "record", "--file", file, "--title", "Hello", name, "sh")
	s.says("# ")
	s.types("echo recorded=$((6*7))\r")
	s.says("recorded=42")
	s.types("exit 3\r")
	s.says("Recorded in " + file)
	s.ends(3)

	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("recording: %v, %v", fi, err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var head struct {
		Version, Width, Height int
		Title, Command         string
	}
	first, events, _ := strings.Cut(string(b), "\n")
	if err := json.Unmarshal([]byte(first), &head); err != nil || head.Version != 2 || head.Width != 90 || head.Height != 25 || head.Title != "Hello" || head.Command != "sh" {
		t.Errorf("header %s: %v", first, err)
	}
	if !strings.Contains(events, `, "o", "`) || strings.Contains(events, `, "i", "`) {
		t.Errorf("events:\n%s", events)
	}
	if out := u.must("play", "--all", file); !strings.Contains(out, "recorded=42") {
		t.Errorf("played at once: %q", out)
	}
	if r := u.run("record", "--file", file, name, "true"); r.code != 2 || !strings.Contains(r.err, "--force") {
		t.Errorf("over the recording: %+v", r)
	}
	if r := u.run("record", "--file", file, "--force", name, "no-such-command"); r.code != 127 || !strings.Contains(r.err, "not found") {
		t.Errorf("without a terminal: %+v", r)
	}

	// On a terminal it can be stopped.
	slow := filepath.Join(u.dir, "slow.cast")
	if err := os.WriteFile(slow, []byte("{\"version\":2,\"width\":80,\"height\":24}\n[0.1,\"o\",\"now\"]\n[9000,\"o\",\"next\"]\n[90000,\"o\",\"never\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = u.terminal(t, 80, 24, "play", slow)
	s.says("now")
	s.types(" .") // pause, and a step
	s.says("next")
	s.types("q")
	s.ends(0)
	u.must("rm", "-f", name)
}
