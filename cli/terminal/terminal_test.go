package terminal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/creack/pty"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (user, tty *os.File) {
	t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = user.Close()
		_ = tty.Close()
	})
	if err := pty.Setsize(user, &pty.Winsize{Cols: 132, Rows: 43}); err != nil {
		t.Fatal(err)
	}
	return user, tty
}

func mode(t *testing.T, tty *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

func TestTakeAndRelease(t *testing.T) {
	user, tty := open(t)
	before := mode(t, tty)
	seen := make(chan Size, 1)
	term, err := Take(tty, tty, true, func(s Size) { seen <- s })
	if err != nil {
		t.Fatal(err)
	}
	if raw := mode(t, tty); raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Errorf("the terminal is not raw: %+v", raw)
	}
	if term.Size() != (Size{Width: 132, Height: 43}) {
		t.Errorf("size %v", term.Size())
	}
	if err := pty.Setsize(user, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
		t.Fatal(err)
	}
	// The terminal is not this process's own, so the kernel's signal goes to nobody.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	want := Size{Width: 100, Height: 30}
	if s := <-seen; s != want {
		t.Errorf("seen %v", s)
	}
	if s := <-term.Sizes(); s != want {
		t.Errorf("told %v", s)
	}
	// A shell puts its own mode back when the process is stopped.
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); mode(t, tty).Lflag&unix.ICANON != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the terminal is not taken again after a stop")
		}
	}
	term.Release()
	term.Release()
	if after := mode(t, tty); after != before {
		t.Errorf("after release %+v, before %+v", after, before)
	}
	if _, ok := <-term.Sizes(); ok {
		t.Error("sizes go on")
	}
}

func TestNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, in := range []any{r, nil, strings.NewReader("")} {
		if _, err := Take(in, w, true, nil); !errors.Is(err, ErrNoTerminal) {
			t.Errorf("%T: %v", in, err)
		}
	}
	if SizeOf(r) != (Size{}) || SizeOf(nil) != (Size{}) || IsTerminal(r) {
		t.Error("a pipe is a terminal")
	}
}

// TestStopTakesNothing: what is typed after the end of a stream is for whoever reads next.
func TestStopTakesNothing(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	in, err := NewInput(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("first"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := in.Read(buf); err != nil || string(buf[:n]) != "first" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	read := make(chan error)
	go func() {
		_, err := in.Read(make([]byte, 64))
		read <- err
	}()
	stopped := make(chan struct{})
	go func() {
		in.Stop()
		close(stopped)
	}()
	if err := <-read; !errors.Is(err, ErrStopped) {
		t.Errorf("the read that waited: %v", err)
	}
	<-stopped
	if _, err := w.WriteString("second"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(buf); !errors.Is(err, ErrStopped) {
		t.Errorf("a read after the stop: %v", err)
	}
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "second" {
		t.Errorf("left for the next one: %q, %v", buf[:n], err)
	}
}

func TestKeys(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "ctrl-p,ctrl-q": "\x10\x11", "CTRL-A": "\x01", "a": "a", "ctrl-@,x": "\x00x", `ctrl-\`: "\x1c", "ctrl-_": "\x1f", "~,.": "~.",
	} {
		if got, err := ParseKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-1", "ab", "ctrl-p,", ",", "alt-x", "ctrl-pq"} {
		if got, err := ParseKeys(bad); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestDetach(t *testing.T) {
	for _, c := range []struct {
		keys, in, want string
		detached       bool
	}{
		{"pq", "hello", "hello", false},
		{"pq", "pqrest", "", true},
		{"pq", "apqrest", "a", true},
		{"pq", "ppq", "p", true},
		{"pq", "pxpxp", "pxpxp", false},
		{"pq", "p", "p", false},
		{"ppq", "pppq", "p", true},
		{"abab", "aabacabab", "aabac", true},
		{"aab", "aaaab", "aa", true},
		{"", "pq", "pq", false},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with the end": iotest.DataErrReader,
		} {
			got, err := io.ReadAll(Detach(wrap(strings.NewReader(c.in)), []byte(c.keys)))
			if string(got) != c.want || errors.Is(err, ErrDetached) != c.detached {
				t.Errorf("%q of %q %s: %q, %v", c.keys, c.in, name, got, err)
			}
		}
	}
}

func FuzzDetach(f *testing.F) {
	f.Add([]byte("apbpqc"), []byte("pq"))
	f.Fuzz(func(t *testing.T, in, keys []byte) {
		got, err := io.ReadAll(Detach(iotest.HalfReader(bytes.NewReader(in)), keys))
		want := in
		found := len(keys) > 0 && bytes.Contains(in, keys)
		if found {
			want = in[:bytes.Index(in, keys)]
		}
		if !bytes.Equal(got, want) || errors.Is(err, ErrDetached) != found {
			t.Errorf("%q of %q: %q, %v, want %q", keys, in, got, err, want)
		}
	})
}
