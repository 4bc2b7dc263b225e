package bench

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	benchImageBytes  = 64 << 20
	progressMessages = 10_000
	progressFor      = 5 * time.Second
)

// Images measures pushes and pulls through an agent against those of the docker command, to and from registries on
// loopback, and what the progress of one pull costs. It needs docker and docker-registry in the path.
func Images(ctx context.Context, o Options) (report *Report, err error) {
	for _, name := range []string{"docker", "docker-registry"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("this bench needs %s: %w", name, err)
		}
	}
	s := &suite{Options: o, raw: newRawDocker(o.Docker, 4), names: fmt.Sprintf("drover-bench-%d", os.Getpid())}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	defer s.raw.close()
	version, err := s.raw.version(ctx)
	if err != nil {
		return nil, fmt.Errorf("dockerd at %s: %w", o.Docker, err)
	}
	report = &Report{Suite: "drover bench images", Machine: machine(), Engine: "dockerd " + version, Rounds: o.Rounds}
	dir, err := os.MkdirTemp("", "drover-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if s.stub, err = newStub(true); err != nil {
		return nil, err
	}
	serving, stopServing := context.WithCancel(ctx)
	group := errgroup.Group{}
	group.Go(func() error { return s.stub.run(serving) })
	defer func() { stopServing(); _ = group.Wait() }()
	for _, part := range []struct {
		title, docker string
		run           func(context.Context, string, *Report) error
	}{
		{"pushes and pulls", o.Docker, s.transfers},
		{"progress", filepath.Join(dir, "talkative.sock"), s.chatter},
	} {
		s.Progress(part.title)
		if err := s.withAgent(ctx, dir, part.docker, func() error { return part.run(ctx, dir, report) }); err != nil {
			return report, fmt.Errorf("%s: %w", part.title, err)
		}
	}
	return report, nil
}

// withAgent runs f beside an agent on an engine.
func (s *suite) withAgent(ctx context.Context, dir, docker string, f func() error) (err error) {
	if docker != s.Docker {
		l, err := (&net.ListenConfig{}).Listen(ctx, "unix", docker)
		if err != nil {
			return err
		}
		engine := &http.Server{Handler: talkative(s.Docker), ReadHeaderTimeout: time.Minute}
		group := errgroup.Group{}
		group.Go(func() error { return engine.Serve(l) })
		defer func() { _ = engine.Close(); _ = group.Wait() }()
	}
	if s.agent, err = startAgent(s.Executable, dir, s.stub.url(), "unix://"+docker); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_ = s.agent.stop(stopping)
	}()
	if s.se, err = s.stub.next(ctx); err != nil {
		return err
	}
	return f()
}

// talkative is a dockerd whose pulls tell ten thousand times how far they are. All else is the real one's.
func talkative(socket string) http.Handler {
	real := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", "d" },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
		FlushInterval: -1,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/images/create") {
			real.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		const batch = 20
		for i := range progressMessages {
			fmt.Fprintf(w, `{"id":"0123456789ab","status":"Downloading","progressDetail":{"current":%d,"total":%d}}`+"\n", i, progressMessages)
			if i%batch == batch-1 {
				_ = http.NewResponseController(w).Flush()
				if sleep(r.Context(), progressFor*batch/progressMessages) != nil {
					return
				}
			}
		}
		fmt.Fprintln(w, `{"status":"Status: Image is up to date"}`)
	})
}

// chatter counts what one pull with very many messages costs.
func (s *suite) chatter(ctx context.Context, _ string, r *Report) error {
	id := s.id("i")
	s.stub.count(true)
	defer s.stub.count(false)
	if _, err := s.stub.call(ctx, s.se, id, s.imageFrame(id, "image.pull", map[string]any{"image": s.Image})); err != nil {
		return err
	}
	r.atMost(fmt.Sprintf("replies to %d progress messages", progressMessages), float64(s.stub.replies(id)), "", 40, 0, fmt.Sprintf("a pull of %s", progressFor))
	return nil
}

func (s *suite) imageFrame(id, name string, data any) []byte {
	b, _ := json.Marshal(data) // maps of strings always encode
	return frame(id, name, "image", s.id("r"), string(b))
}

// transfers pushes one image to a fresh registry a side, and pulls it from there.
func (s *suite) transfers(ctx context.Context, dir string, r *Report) (err error) {
	var push, pull [3][]Series // docker, the agent through the engine, the agent itself
	for round := range s.Rounds {
		for side := range 3 {
			pushed, pulled, err := s.transfer(ctx, dir, side)
			if err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
			push[side] = append(push[side], Series{Latencies: []time.Duration{pushed}, Elapsed: pushed})
			pull[side] = append(pull[side], Series{Latencies: []time.Duration{pulled}, Elapsed: pulled})
		}
	}
	speed := func(x Series) float64 { return x.Rate() }
	detail := func(x []Series) string {
		return fmt.Sprintf("%.0f MB/s", benchImageBytes/1e6*median(each(x, Series.Rate)))
	}
	r.note("docker push", benchImageBytes/1e6*median(each(push[0], speed)), "MB/s", "64 MiB to a registry on loopback")
	r.atLeast("image push, through the engine", ratio(push[1], push[0], speed), "x docker", 0.95, noise(push[0], speed), detail(push[1]))
	r.atLeast("image push --via agent", ratio(push[2], push[0], speed), "x docker", 0.95, noise(push[0], speed), detail(push[2]))
	r.note("docker pull", benchImageBytes/1e6*median(each(pull[0], speed)), "MB/s", "")
	r.atLeast("image pull", ratio(pull[1], pull[0], speed), "x docker", 0.95, noise(pull[0], speed), detail(pull[1]))
	return nil
}

// transfer measures one side once. Each has an image and a registry of its own, so that nothing is there already.
func (s *suite) transfer(ctx context.Context, dir string, side int) (pushed, pulled time.Duration, err error) {
	addr, stop, err := benchRegistry(ctx, dir)
	if err != nil {
		return 0, 0, err
	}
	defer stop()
	ref := addr + "/" + s.names + ":1"
	docker := func(stdin io.Reader, args ...string) error {
		cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + s.Docker}, args...)...)
		cmd.Stdin = stdin
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		return nil
	}
	if err := docker(randomRoot(), "import", "-", ref); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, docker(nil, "rmi", "-f", ref)) }()
	ask := func(name string, data map[string]any) (time.Duration, error) {
		id := s.id("i")
		return s.stub.call(ctx, s.se, id, s.imageFrame(id, name, data))
	}
	timeDocker := func(args ...string) (time.Duration, error) {
		begin := time.Now()
		err := docker(nil, args...)
		return time.Since(begin), err
	}
	switch side {
	case 0:
		pushed, err = timeDocker("push", "-q", ref)
	case 1:
		pushed, err = ask("image.push", map[string]any{"image": ref})
	default:
		pushed, err = ask("image.push", map[string]any{"image": ref, "via": "agent"})
	}
	if err != nil {
		return 0, 0, err
	}
	if err := docker(nil, "rmi", ref); err != nil {
		return 0, 0, err
	}
	if side == 0 {
		pulled, err = timeDocker("pull", "-q", ref)
	} else {
		pulled, err = ask("image.pull", map[string]any{"image": ref})
	}
	return pushed, pulled, err
}

// randomRoot is a root file system that no compression makes smaller.
func randomRoot() io.Reader {
	r, w := io.Pipe()
	go func() {
		out := tar.NewWriter(w)
		err := out.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: benchImageBytes})
		if err == nil {
			_, err = io.CopyN(out, rand.Reader, benchImageBytes)
		}
		w.CloseWithError(errors.Join(err, out.Close()))
	}()
	return r
}

// benchRegistry runs an empty docker-registry on loopback.
func benchRegistry(ctx context.Context, dir string) (addr string, stop func(), err error) {
	data, err := os.MkdirTemp(dir, "registry-")
	if err != nil {
		return "", nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	config := filepath.Join(data, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\nhttp: {addr: %s}\n", data, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, "docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		_ = os.RemoveAll(data)
	}
	waiting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(waiting, "tcp", addr)
		if err == nil {
			return addr, stop, conn.Close()
		}
		if sleep(waiting, 20*time.Millisecond) != nil {
			stop()
			return "", nil, fmt.Errorf("docker-registry does not listen: %w", err)
		}
	}
}
