package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
)

// TestExec is what a kubelet's client does, over both protocols, in a container of dockerd and in a pod of containerd.
func TestExec(t *testing.T) {
	r := newRig(t, true)
	t.Run("exit code and streams", func(t *testing.T) {
		(&rig{t: t}).everyWay(func(t *testing.T, pod, kind string) {
			var out, errOut bytes.Buffer
			var protocol string
			upgraded := func(resp *http.Response) {
				protocol = resp.Header.Get(map[string]string{"spdy": "X-Stream-Protocol-Version", "websocket": "Sec-Websocket-Protocol"}[kind])
			}
			err := r.observed(kind, r.path(pod, "output=1&error=1", "sh", "-c", "echo out; echo err >&2; exit 3"), r.all(), upgraded).
				StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
			var code utilexec.CodeExitError
			if !errors.As(err, &code) || code.Code != 3 || out.String() != "out\n" || errOut.String() != "err\n" {
				t.Errorf("stdout %q, stderr %q, %v", out.String(), errOut.String(), err)
			}
			if protocol != "v5.channel.k8s.io" {
				t.Errorf("they speak %q", protocol)
			}
		})
	})
	t.Run("by id as the clients of before", func(t *testing.T) {
		(&rig{t: t}).everyWay(func(t *testing.T, pod, kind string) {
			for _, id := range []string{r.ids[pod], r.ids[pod][:12], r.ns + "/" + pod + "/app", r.ns + "/" + pod} {
				var out bytes.Buffer
				// The token in the query, as they do it.
				path := "/dockin/opagent/exec/serverexec?containerId=" + id + "&command=sh&command=-c&command=echo+$A&output=1&error=1&env=A%3Db&user=&workDir=&access-token=" + r.all()
				err := r.executor(kind, path, "").StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: &out, Stderr: io.Discard})
				if err != nil || out.String() != "b\n" {
					t.Errorf("%s: %q, %v", id, out.String(), err)
				}
			}
		})
		if strings.Contains(r.log.String(), "eyJ") {
			t.Error("a token is in the log")
		}
	})
	t.Run("stdin ends", func(t *testing.T) {
		(&rig{t: t}).everyWay(func(t *testing.T, pod, kind string) {
			var out bytes.Buffer
			err := r.executor(kind, r.path(pod, "input=1&output=1", "wc", "-c"), r.all()).
				StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdin: strings.NewReader("12345"), Stdout: &out})
			if err != nil || strings.TrimSpace(out.String()) != "5" {
				t.Errorf("%q, %v", out.String(), err)
			}
		})
	})
	t.Run("terminal", func(t *testing.T) {
		(&rig{t: t}).everyWay(func(t *testing.T, pod, kind string) {
			sizes := &sizeQueue{c: make(chan remotecommand.TerminalSize, 2)}
			sizes.c <- remotecommand.TerminalSize{Width: 99, Height: 33}
			in, w := io.Pipe()
			out := &lockedBuffer{}
			done := make(chan error, 1)
			go func() {
				done <- r.executor(kind, r.path(pod, "input=1&output=1&tty=1", "sh"), r.all()).
					StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdin: in, Stdout: out, Tty: true, TerminalSizeQueue: sizes})
			}()
			say := func(line string) { _, _ = io.WriteString(w, line+"\n") } // the pipe ends with the session
			ask := func(want string) {
				eventually(t, "the size is "+want+" in "+out.String(), func() bool {
					say("stty size")
					time.Sleep(50 * time.Millisecond)
					return strings.Contains(out.String(), want)
				})
			}
			ask("33 99")
			sizes.c <- remotecommand.TerminalSize{Width: 140, Height: 51}
			ask("51 140")
			say("exit 5")
			err := <-done
			_ = w.Close()
			close(sizes.c)
			var code utilexec.CodeExitError
			if !errors.As(err, &code) || code.Code != 5 {
				t.Error(err)
			}
		})
	})
	t.Run("100 MB both ways", func(t *testing.T) {
		(&rig{t: t}).everyWay(func(t *testing.T, pod, kind string) {
			const size = 100 << 20
			sent, got := sha256.New(), sha256.New()
			data := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent)
			err := r.executor(kind, r.path(pod, "input=1&output=1", "cat"), r.all()).
				StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdin: data, Stdout: got})
			if err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				t.Errorf("digests %x and %x, %v", sent.Sum(nil), got.Sum(nil), err)
			}
		})
	})
	t.Run("50 at once", func(t *testing.T) {
		var wait sync.WaitGroup
		for i := range 50 {
			pod, kind := []string{"docker", "containerd"}[i%2], []string{"spdy", "websocket"}[i/2%2]
			wait.Go(func() {
				var out bytes.Buffer
				err := r.executor(kind, r.path(pod, "input=1&output=1", "sh", "-c", "cat; exit 7"), r.all()).
					StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdin: strings.NewReader(fmt.Sprint("number ", i)), Stdout: &out})
				var code utilexec.CodeExitError
				if !errors.As(err, &code) || code.Code != 7 || out.String() != fmt.Sprint("number ", i) {
					t.Errorf("%d in %s by %s: %q, %v", i, pod, kind, out.String(), err)
				}
			})
		}
		wait.Wait()
	})
	t.Run("a slow client", func(t *testing.T) {
		(&rig{t: t}).everyWay(func(t *testing.T, pod, kind string) {
			// It takes nothing for a while and then everything; meanwhile others are served.
			slow := &slowWriter{gate: make(chan struct{})}
			done := make(chan error, 1)
			go func() {
				done <- r.executor(kind, r.path(pod, "output=1", "sh", "-c", "head -c 8000000 /dev/zero"), r.all()).
					StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: slow})
			}()
			var out bytes.Buffer
			err := r.executor(kind, r.path(pod, "output=1", "echo", "quick"), r.all()).
				StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: &out})
			if err != nil || out.String() != "quick\n" {
				t.Errorf("beside a slow one: %q, %v", out.String(), err)
			}
			select {
			case err := <-done:
				t.Errorf("it ended before it was read: %v", err)
			default:
			}
			close(slow.gate)
			if err := <-done; err != nil || slow.n != 8000000 {
				t.Errorf("%d bytes, %v", slow.n, err)
			}
		})
	})
	t.Run("a client that vanishes", func(t *testing.T) {
		(&rig{t: t}).everyWay(func(t *testing.T, pod, kind string) {
			mark := fmt.Sprint("77", rand.IntN(1e6))
			ctx, cancel := context.WithCancel(bounded(t))
			out := &lockedBuffer{}
			done := make(chan error, 1)
			go func() {
				done <- r.executor(kind, r.path(pod, "output=1", "sh", "-c", `trap "" HUP TERM; echo up; sleep `+mark+`; sleep `+mark), r.all()).
					StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out})
			}()
			eventually(t, "it runs", func() bool { return strings.Contains(out.String(), "up") })
			cancel()
			<-done
			gone := time.Now()
			eventually(t, "its process is gone", func() bool { return r.processes(t, pod, mark) == 0 })
			if took := time.Since(gone); took > 10*time.Second {
				t.Errorf("its process was there for %s", took)
			}
		})
	})
}

type sizeQueue struct {
	c chan remotecommand.TerminalSize
}

func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	s, ok := <-q.c
	if !ok {
		return nil
	}
	return &s
}

type slowWriter struct {
	gate chan struct{}
	n    int
}

func (s *slowWriter) Write(p []byte) (int, error) {
	<-s.gate
	s.n += len(p)
	return len(p), nil
}
