package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/droverhq/drover/cli/client"
)

// A slowRegistry takes ten seconds and more for the layer of one image, either way.
type slowRegistry struct {
	http.Handler
	layer atomic.Value // its digest; until it is known everything is fast
	fast  atomic.Bool
	begun chan string // a transfer of the layer began
	gone  chan string // the one who asked for it went away in the middle
}

func (s *slowRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	layer, known := s.layer.Load().(string)
	mine := known && strings.HasSuffix(r.URL.Path, "/blobs/"+layer)
	switch {
	case mine && r.Method == http.MethodHead: // who pushes shall push
		w.WriteHeader(http.StatusNotFound)
	case known && r.Method == http.MethodPost:
		r.URL.RawQuery = "" // no layer is taken over from another repository
		s.Handler.ServeHTTP(w, r)
	case known && r.Method == http.MethodPatch:
		s.begun <- r.URL.Path
		r.Body = io.NopCloser(&slowReader{s, r.Body, r.URL.Path})
		s.Handler.ServeHTTP(w, r)
	case mine:
		s.begun <- r.URL.Path
		s.Handler.ServeHTTP(&slowWriter{s, w, r}, r)
	default:
		s.Handler.ServeHTTP(w, r)
	}
}

const slowPart = 32 << 10

func (s *slowRegistry) pause() {
	if !s.fast.Load() {
		time.Sleep(20 * time.Millisecond)
	}
}

type slowReader struct {
	s    *slowRegistry
	r    io.Reader
	path string
}

func (r *slowReader) Read(p []byte) (int, error) {
	r.s.pause()
	n, err := r.r.Read(p[:min(len(p), slowPart)])
	if err != nil && err != io.EOF {
		r.s.gone <- r.path
	}
	return n, err
}

type slowWriter struct {
	s *slowRegistry
	http.ResponseWriter
	r *http.Request
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		w.s.pause()
		var m int
		m, err = w.ResponseWriter.Write(p[n:min(len(p), n+slowPart)])
		n += m
	}
	if err != nil {
		w.s.gone <- w.r.URL.Path
	}
	return n, err
}

// TestInterruptEndsTheWork: Ctrl-C at a pull, a push or a build ends it on the host too, but for what others wait for.
func TestInterruptEndsTheWork(t *testing.T) {
	u, prefixed := newUser(t), prefix(t)
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	u.start("dev", "--listen", listen, "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	h := u.online(1)[0]

	slow := &slowRegistry{Handler: memory.New(), begun: make(chan string, 100), gone: make(chan string, 100)}
	server := httptest.NewServer(slow)
	defer server.Close()
	repo := strings.TrimPrefix(server.URL, "http://") + "/" + prefixed
	ref, other := repo+"/app:1", repo+"/other:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", ref, other).Run() }) // they may not be there
	upload(t, slow, ref)

	await := func(what chan string, p *process) {
		t.Helper()
		select {
		case <-what:
		case <-time.After(patience):
			t.Fatalf("%q: waited in vain\n%s", p.cmd.Args, p.log.String())
		}
	}
	interrupt := func(p *process) {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		<-p.ended
		if code := p.cmd.ProcessState.ExitCode(); code != 1 || strings.Contains(p.log.String(), "go on") {
			t.Errorf("%q: exit code %d\n%s", p.cmd.Args, code, p.log.String())
		}
	}
	p := u.start("image", "pull", ref)
	await(slow.begun, p)
	interrupt(p)
	await(slow.gone, p)

	// Two who want the same: one leaves, and the other gets it from the one transfer there is.
	access, secret, _ := strings.Cut(devKey(t, u), ":")
	c, err := client.New(client.Config{Server: "https://" + listen, AccessKey: access, SecretKey: secret, Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p = u.start("image", "pull", ref)
	await(slow.begun, p)
	joined, pulled := make(chan string, 1), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		pulled <- c.Event(ctx, h.ID, "image.pull", map[string]any{"image": ref}, time.Minute, func(*client.Answer) {
			select {
			case joined <- "":
			default:
			}
		}, nil)
	}()
	await(joined, p)
	interrupt(p)
	slow.fast.Store(true)
	if err := <-pulled; err != nil {
		t.Errorf("who waited on got %v", err)
	}
	if len(slow.begun) > 0 || len(slow.gone) > 0 {
		t.Errorf("the pull did not go on: %d more began, %d broke off", len(slow.begun), len(slow.gone))
	}

	slow.fast.Store(false)
	docker(t, "tag", ref, other)
	for _, via := range []string{"agent", "engine"} {
		p := u.start("image", "push", "--via", via, other)
		await(slow.begun, p)
		interrupt(p)
		await(slow.gone, p)
	}

	dir := filepath.Join(u.dir, "slow")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+image+"\nRUN echo be''gun; sh -c 'sleep 6000; echo "+prefixed+"'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := func() bool { return exec.Command("pgrep", "-f", "sleep 6000; echo "+prefixed).Run() == nil }
	p = u.start("image", "build", dir)
	eventually(t, "what the step says, and not only its command", func() bool { return strings.Contains(p.log.String(), "begun") })
	eventually(t, "the step's process", running)
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the step's process", func() bool { return !running() })
	<-p.ended
}

// upload gives the registry an image with a layer of 16 MiB that no engine has.
func upload(t *testing.T, s *slowRegistry, ref string) {
	t.Helper()
	img, err := random.Image(16<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	s.layer.Store(digest.String())
}
