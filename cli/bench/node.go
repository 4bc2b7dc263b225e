package bench

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/droverhq/drover/service/token"
)

// Node measures exec by pod name at the port of `drover node`, as a client of a kubelet sees it, on a real dockerd.
// Connect, Lines and Cycles of the options are not used.
func Node(ctx context.Context, o StreamsOptions) (report *Report, err error) {
	s := &streamsSuite{StreamsOptions: o, raw: newRawDocker(o.Docker, 64), names: fmt.Sprintf("drover-bench-%d", os.Getpid()), pods: map[string]string{}}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	defer s.raw.close()
	version, err := s.raw.version(ctx)
	if err != nil {
		return nil, fmt.Errorf("dockerd at %s: %w", o.Docker, err)
	}
	report = &Report{Suite: "drover bench node", Machine: machine(), Engine: "dockerd " + version, Rounds: o.Rounds}
	if s.dir, err = os.MkdirTemp("", "drover-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.dir)
	defer func() { err = errors.Join(err, s.raw.removeAll()) }()
	s.Progress("starting the node")
	if err := s.startNode(ctx); err != nil {
		return nil, err
	}
	defer s.stop(ctx)
	return report, s.runParts(ctx, report, []part{{"exec", "exec true", s.execTrue}, {"bulk", "cat of 100 MB", s.bulk}, {"echo", "line echo", s.echo}})
}

// startNode runs "drover node" of this very binary, without a server.
func (s *streamsSuite) startNode(ctx context.Context) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	keyFile, key, err := s.newKey()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "node.log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(s.Executable, "node", "--engine", "docker", "--state-dir", filepath.Join(s.dir, "state"), "--http-token-key-file", keyFile,
		"--http-listen", "127.0.0.1", "--http-port", strconv.Itoa(ports[0]))
	cmd.Env = append(s.environment(), "DOCKER_HOST=unix://"+s.Docker, "DROVER_DEBUG_PORT=0")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.node = &child{cmd: cmd, log: log, started: time.Now(), ended: make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	go func() { s.node.ended <- cmd.Wait() }()
	s.port = fmt.Sprintf("https://127.0.0.1:%d", ports[0])
	if s.bearer, err = key.Sign(token.Claims{Host: token.AnyHost, Verbs: []string{token.VerbPods, token.VerbExec}, User: "bench"}, token.MaxLife); err == nil {
		err = s.get(ctx, "/pods", nil)
	}
	if err != nil {
		s.stop(ctx)
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w; the node said: %.2000s", err, said)
	}
	return nil
}

// pod waits until the node knows the pod of a container.
func (s *streamsSuite) pod(ctx context.Context, id, name string) error {
	s.pods[id] = name
	return s.get(ctx, "/pods/"+url.PathEscape(s.names)+"/"+url.PathEscape(name), func(body []byte) error {
		var pod struct{ Containers []struct{ ID string } }
		if err := json.Unmarshal(body, &pod); err != nil {
			return err
		}
		if len(pod.Containers) != 1 || pod.Containers[0].ID != id {
			return fmt.Errorf("pod %s: %s", name, body)
		}
		return nil
	})
}

// get asks the node until it answers as wanted.
func (s *streamsSuite) get(ctx context.Context, path string, check func(body []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the port of this very process's child, on loopback
	}}
	ask := func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.port+path, nil)
		if err != nil {
			return err
		}
		req.Header = s.header()
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %.200s", path, resp.Status, body)
		}
		if err != nil || check == nil {
			return err
		}
		return check(body)
	}
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case ended := <-s.node.ended:
			s.node.ended <- ended
			return fmt.Errorf("it ended: %w", errors.Join(ended, err))
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
