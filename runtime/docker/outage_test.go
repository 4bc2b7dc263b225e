package docker_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

// open returns an engine without asking whether the daemon is there.
func open(t *testing.T, cfg docker.Config) *docker.Engine {
	t.Helper()
	e, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// everything calls every method that needs an answer, and returns the errors by name.
func everything(ctx context.Context, e *docker.Engine) map[string]error {
	errs := map[string]error{}
	keep := func(name string, err error) { errs[name] = err }
	keep("Ping", e.Ping(ctx))
	_, err := e.Info(ctx)
	keep("Info", err)
	_, _, err = e.Create(ctx, &runtime.ContainerSpec{Image: image})
	keep("Create", err)
	keep("Start", e.Start(ctx, "x"))
	keep("Stop", e.Stop(ctx, "x", nil))
	keep("Restart", e.Restart(ctx, "x", nil))
	keep("Kill", e.Kill(ctx, "x", ""))
	keep("Pause", e.Pause(ctx, "x"))
	keep("Unpause", e.Unpause(ctx, "x"))
	keep("Remove", e.Remove(ctx, "x", runtime.RemoveOptions{}))
	_, err = e.Wait(ctx, "x")
	keep("Wait", err)
	_, err = e.Inspect(ctx, "x")
	keep("Inspect", err)
	_, err = e.State(ctx, "x")
	keep("State", err)
	_, err = e.List(ctx, runtime.ListOptions{})
	keep("List", err)
	_, err = e.InspectImage(ctx, "x")
	keep("InspectImage", err)
	_, err = e.ImageConfig(ctx, "x")
	keep("ImageConfig", err)
	keep("Pull", e.Pull(ctx, runtime.PullRequest{Ref: "x"}, nil))
	keep("TagImage", e.TagImage(ctx, "x", "y"))
	keep("RemoveImage", e.RemoveImage(ctx, "x", false))
	_, err = e.ListImages(ctx)
	keep("ListImages", err)
	keep("BuildRemote", e.BuildRemote(ctx, "http://127.0.0.1:1/x", "y", nil))
	_, err = e.CreateVolume(ctx, runtime.VolumeSpec{Name: "x"})
	keep("CreateVolume", err)
	_, err = e.InspectVolume(ctx, "x")
	keep("InspectVolume", err)
	keep("RemoveVolume", e.RemoveVolume(ctx, "x", false))
	_, err = e.ListVolumes(ctx)
	keep("ListVolumes", err)
	for _, err = range e.Watch(ctx, time.Time{}) {
	}
	keep("Watch", err)
	keep("Exec", e.Exec(ctx, "x", runtime.ExecSpec{Cmd: []string{"true"}}, runtime.Streams{}))
	keep("Attach", e.Attach(ctx, "x", runtime.AttachSpec{}, runtime.Streams{}))
	keep("Logs", e.Logs(ctx, "x", runtime.LogOptions{}, io.Discard, io.Discard))
	_, err = e.Stats(ctx, "x")
	keep("Stats", err)
	keep("CopyTo", e.CopyTo(ctx, "x", "/", strings.NewReader("")))
	_, _, err = e.CopyFrom(ctx, "x", "/")
	keep("CopyFrom", err)
	_, err = e.StatPath(ctx, "x", "/")
	keep("StatPath", err)
	_, _, err = e.Top(ctx, "x", nil)
	keep("Top", err)
	return errs
}

// unavailable fails for every call that does not say so.
func unavailable(t *testing.T, errs map[string]error, words string) {
	t.Helper()
	for name, err := range errs {
		if !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("%s: %v, want %v", name, err, runtime.ErrUnavailable)
			continue
		}
		if text := err.Error(); strings.Contains(text, "\n") || strings.Contains(text, "<html") || !strings.Contains(text, words) {
			t.Errorf("%s: the error is no single clear line with %q: %s", name, words, text)
		}
	}
}

func TestDown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sock")
	began := time.Now()
	unavailable(t, everything(t.Context(), open(t, docker.Config{Host: "unix://" + path})), path)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("a daemon that is not there is waited for: %v", took)
	}
}

func TestHung(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "hung.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { // takes all, says nothing
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			})
		}
	})
	e := open(t, docker.Config{Host: "unix://" + listener.Addr().String(), Timeout: 50 * time.Millisecond})
	unavailable(t, everything(t.Context(), e), "no answer in time")

	// The caller's own deadline counts where there is one.
	e = open(t, docker.Config{Host: "unix://" + listener.Addr().String()})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = e.Inspect(ctx, "x")
	if !errors.Is(err, runtime.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// And its cancel is no fault of the engine's.
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = e.Inspect(ctx, "x")
	if errors.Is(err, runtime.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// Many callers wait for one negotiation; each still ends in its own time.
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			began := time.Now()
			if _, err := e.Inspect(ctx, "x"); !errors.Is(err, runtime.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	wait.Wait()
	e.Close()
	listener.Close()
	conns.Wait()
}

func TestHTML(t *testing.T) {
	page := "<html><head><title>Welcome</title></head><body>nginx</body></html>"
	for _, status := range []int{http.StatusOK, http.StatusBadGateway, http.StatusForbidden} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, page)
		}))
		unavailable(t, everything(t.Context(), open(t, docker.Config{Host: "tcp://" + server.Listener.Addr().String()})), "Docker daemon")
		server.Close()
	}
	// One that looks like a daemon at first.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if r.URL.Path == "/_ping" {
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, page)
	}))
	defer server.Close()
	e := open(t, docker.Config{Host: "tcp://" + server.Listener.Addr().String()})
	errs := everything(t.Context(), e)
	for _, name := range []string{"Ping", "Start", "Stop", "Restart", "Kill", "Pause", "Unpause", "Remove", "TagImage", "RemoveVolume", "CopyTo"} {
		delete(errs, name) // need no more than the status
	}
	unavailable(t, errs, server.Listener.Addr().String())
}

func TestRestart(t *testing.T) {
	p := newProxy(t)
	e := open(t, docker.Config{Host: p.host()})
	id := sleeper(t)
	if _, err := e.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrUnavailable) {
		t.Fatalf("before the first start: %v", err)
	}
	for range 3 {
		p.start()
		for range 3 {
			if _, err := e.Inspect(t.Context(), id); err != nil {
				t.Fatalf("after a start: %v", err)
			}
		}
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatalf("after a start: %v", err)
		}
		p.stop()
		if _, err := e.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrUnavailable) {
			t.Fatalf("after a stop: %v", err)
		}
		if err := e.Start(t.Context(), id); !errors.Is(err, runtime.ErrUnavailable) {
			t.Fatalf("after a stop: %v", err)
		}
	}
	p.start()
	// Connections are kept: many calls, few dials.
	before := p.accepted()
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for range 20 {
				if _, err := e.Inspect(t.Context(), id); err != nil {
					t.Errorf("Inspect: %v", err)
				}
			}
		})
	}
	wait.Wait()
	if dials := p.accepted() - before; dials > 40 {
		t.Errorf("%d connections for 320 calls of 16 callers", dials)
	}
}

// A change is not sent to a dead connection and then believed lost: a restart between two calls is not noticed at all.
func TestRestartBetweenCalls(t *testing.T) {
	p := newProxy(t)
	e := open(t, docker.Config{Host: p.host()})
	id := sleeper(t)
	for range 5 {
		p.start()
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatalf("Start: %v", err)
		}
		p.stop()
		p.start()
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatalf("Start after a restart: %v", err)
		}
		p.stop()
	}
}

func TestHangAndRecover(t *testing.T) {
	p := newProxy(t)
	p.start()
	e := open(t, docker.Config{Host: p.host(), Timeout: 300 * time.Millisecond})
	id := sleeper(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := e.Inspect(ctx, id); err != nil {
		t.Fatal(err)
	}
	p.hang(true)
	if _, err := e.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrUnavailable) {
		t.Fatalf("while it hangs: %v", err)
	}
	if err := e.Ping(t.Context()); !errors.Is(err, runtime.ErrUnavailable) {
		t.Fatalf("while it hangs: %v", err)
	}
	p.hang(false)
	if _, err := e.Inspect(ctx, id); err != nil {
		t.Fatalf("after it hung: %v", err)
	}
}

func TestWatchBreaks(t *testing.T) {
	p := newProxy(t)
	p.start()
	e := open(t, docker.Config{Host: p.host(), WatchInterval: 100 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch := func(since time.Time) (<-chan runtime.Notice, <-chan error) {
		notices, failed := make(chan runtime.Notice, 1000), make(chan error, 1)
		go func() {
			defer close(failed)
			for n, err := range e.Watch(ctx, since) {
				if err != nil {
					failed <- err
					return
				}
				notices <- n
			}
		}()
		return notices, failed
	}
	expect := func(notices <-chan runtime.Notice, id, action string) time.Time {
		t.Helper()
		for {
			select {
			case n := <-notices:
				if n.ID == id && n.Action == action {
					return n.Time
				}
			case <-ctx.Done():
				t.Fatalf("no notice of %s", action)
			}
		}
	}
	began := time.Now()
	notices, failed := watch(began)
	id := sleeper(t)
	last := expect(notices, id, "start")

	p.stop() // the daemon goes away
	if err := <-failed; !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("a stream that broke: %v", err)
	}
	direct := engine(t, docker.Config{})
	if err := direct.Kill(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
	p.start()
	notices, failed = watch(last.Add(1))
	expect(notices, id, "die") // happened in the gap

	p.hang(true) // the daemon falls silent
	if err := <-failed; !errors.Is(err, runtime.ErrUnavailable) || !strings.Contains(err.Error(), "silent") {
		t.Errorf("a stream that fell silent: %v", err)
	}
	p.hang(false)
}

func TestVersionChanges(t *testing.T) {
	v, host := startVersionProxy(t, "1.24", "1.41")
	e := open(t, docker.Config{Host: host})
	id := sleeper(t)
	use := func(want string) {
		t.Helper()
		if _, err := e.Inspect(t.Context(), id); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		if err := e.Start(t.Context(), id); err != nil {
			t.Errorf("Start: %v", err)
		}
		paths := v.taken()
		if last := paths[len(paths)-1]; !strings.HasPrefix(last, "/v"+want+"/") {
			t.Errorf("want version %s, got %v", want, paths)
		}
	}
	use("1.41")
	info, err := e.Info(t.Context())
	if err != nil || info.APIVersion != "1.41" {
		t.Errorf("Info: version %s, %v", info.APIVersion, err)
	}
	v.set("1.24", "1.30") // downgraded, on a connection that stays
	use("1.30")
	v.set("1.40", "1.47") // upgraded, and the old version is refused
	use("1.47")
	v.set("1.24", "1.99") // more than the client knows
	e2 := open(t, docker.Config{Host: host})
	if _, err := e2.Inspect(t.Context(), id); err != nil {
		t.Errorf("a daemon from the future: %v", err)
	}
	fixed := open(t, docker.Config{Host: host, APIVersion: "v1.40"})
	v.taken()
	if _, err := fixed.Inspect(t.Context(), id); err != nil {
		t.Errorf("a fixed version: %v", err)
	}
	if paths := v.taken(); len(paths) != 1 || !strings.HasPrefix(paths[0], "/v1.40/") {
		t.Errorf("a fixed version: %v", paths)
	}
	v.set("1.44", "1.50")
	if _, err := fixed.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("a fixed version that is refused: %v", err)
	}
}

func TestClosed(t *testing.T) {
	e := engine(t, docker.Config{})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Inspect(t.Context(), "x"); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]error{
		"": nil, "unix:///x.sock": nil, "tcp://127.0.0.1:2375": nil, "tcp://127.0.0.1:2375/base": nil, "http://127.0.0.1:2375": nil,
		"https://127.0.0.1:2376": nil, "npipe:////./pipe/docker": runtime.ErrUnsupported, "ssh://x": runtime.ErrUnsupported,
		"docker.sock": runtime.ErrInvalid, "tcp://": runtime.ErrInvalid,
	} {
		e, err := docker.New(docker.Config{Host: host})
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", host, err, want)
		}
		if e != nil {
			e.Close()
		}
	}
}

func TestTLS(t *testing.T) {
	id := sleeper(t)
	_, plain := startVersionProxy(t, "1.24", "1.41")
	target := strings.TrimPrefix(plain, "unix://")
	// TLS in front of the socket, as dockerd's own.
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	cert := server.TLS.Certificates[0]
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := docker.LoadTLS(dir)
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName = "example.com"
	server.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				d, err := net.Dial("unix", target)
				if err != nil {
					return
				}
				defer d.Close()
				var both sync.WaitGroup
				both.Go(func() { _, _ = io.Copy(d, c); _ = d.(*net.UnixConn).CloseWrite() })
				both.Go(func() { _, _ = io.Copy(c, d); _ = c.(*tls.Conn).CloseWrite() })
				both.Wait()
			})
		}
	})
	host := listener.Addr().String()
	e := open(t, docker.Config{Host: "tcp://" + host, TLS: config})
	if _, err := e.Inspect(t.Context(), id); err != nil {
		t.Errorf("Inspect: %v", err)
	}
	var out strings.Builder
	err = e.Exec(t.Context(), id, runtime.ExecSpec{Cmd: []string{"cat"}}, runtime.Streams{In: strings.NewReader("over TLS"), Out: &out})
	if err != nil || out.String() != "over TLS" {
		t.Errorf("Exec: %q, %v", out.String(), err)
	}
	stranger := open(t, docker.Config{Host: "https://" + host})
	if _, err := stranger.Inspect(t.Context(), id); !errors.Is(err, runtime.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}
	e.Close()
	stranger.Close()
	listener.Close()
	conns.Wait()
}

func TestLoadTLS(t *testing.T) {
	dir := t.TempDir()
	if config, err := docker.LoadTLS(dir); err != nil || config.RootCAs != nil || config.InsecureSkipVerify {
		t.Errorf("an empty directory: %+v, %v", config, err)
	}
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "cert.pem" {
			continue // half a pair is none
		}
		if _, err := docker.LoadTLS(dir); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("rubbish in %s: %v", name, err)
		}
		if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
