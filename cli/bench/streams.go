package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/service/streamclient"
	"github.com/droverhq/drover/service/token"
)

// StreamsOptions says what of the streams to measure.
type StreamsOptions struct {
	Executable string // the drover binary whose server and agent are measured
	Docker     string // unix socket path of dockerd
	Image      string // a local image with busybox's commands
	Rounds     int    // interleaved rounds, at least 2 for an A/A error
	Scale      float64
	Lines      int      // of the history
	Cycles     int      // opened and closed streams; 0 leaves them out
	Only       []string // names of the parts to measure, of StreamsParts; empty is all
	// Connect returns a client of the server in a context file.
	Connect  func(contextFile string) (*client.Client, error)
	Progress func(string)
}

func (o *StreamsOptions) n(count int) int {
	if o.Scale <= 0 {
		return count
	}
	return max(int(float64(count)*o.Scale), 4)
}

// streamsSuite is one run's shared state: a server and an agent in one process, reached through the tunnel and at the
// node port, and dockerd itself.
type streamsSuite struct {
	StreamsOptions
	raw    *rawDocker
	dir    string
	node   *child
	port   string // URL of the node port
	health string // URL of the agent's figures
	bearer string
	through,
	direct *streamclient.Client // the tunnel, the node port
	names string
	host  string // name of the host at the server

	pods map[string]string // of `bench node` alone, which has no tunnel: pods by the id of their container
}

// A part is one subject of a suite.
type part struct {
	name, title string // name is what --only takes
	run         func(context.Context, *Report) error
}

func (s *streamsSuite) runParts(ctx context.Context, report *Report, parts []part) error {
	for _, p := range parts {
		if len(s.Only) > 0 && !slices.Contains(s.Only, p.name) {
			continue
		}
		s.Progress(p.title)
		if err := p.run(ctx, report); err != nil {
			return fmt.Errorf("%s: %w", p.title, err)
		}
	}
	return nil
}

// stop ends the measured process.
func (s *streamsSuite) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_ = s.node.stop(ctx)
}

// Streams measures exec, logs and files of containers through real processes on a real dockerd.
func Streams(ctx context.Context, o StreamsOptions) (report *Report, err error) {
	s := &streamsSuite{StreamsOptions: o, raw: newRawDocker(o.Docker, 64), names: fmt.Sprintf("drover-bench-%d", os.Getpid())}
	if s.Progress == nil {
		s.Progress = func(string) {}
	}
	defer s.raw.close()
	version, err := s.raw.version(ctx)
	if err != nil {
		return nil, fmt.Errorf("dockerd at %s: %w", o.Docker, err)
	}
	report = &Report{Suite: "drover bench streams", Machine: machine(), Engine: "dockerd " + version, Rounds: o.Rounds}
	if s.dir, err = os.MkdirTemp("", "drover-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.dir)
	defer func() { err = errors.Join(err, s.raw.removeAll()) }()
	s.Progress("starting server and agent")
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	defer s.stop(ctx)
	defer s.through.Close()
	defer s.direct.Close()
	return report, s.runParts(ctx, report, s.parts())
}

// freePorts returns ports of loopback that nobody listens on.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// newKey writes a key for tokens to a file.
func (s *streamsSuite) newKey() (file string, key *token.Key, err error) {
	secret := make([]byte, token.MinKey)
	_, _ = rand.Read(secret)
	if key, err = token.NewKey(secret, nil); err != nil {
		return "", nil, err
	}
	file = filepath.Join(s.dir, "key")
	return file, key, os.WriteFile(file, []byte(hex.EncodeToString(secret)), 0o600)
}

func (s *streamsSuite) parts() []part {
	return []part{
		{"exec", "exec true", s.execTrue},
		{"eight", "exec in eight containers", s.execEight},
		{"bulk", "cat of 100 MB", s.bulk},
		{"echo", "line echo", s.echo},
		{"file", "tail of a file", s.fileTail},
		{"follow", "follow", s.follow},
		{"history", "history", s.history},
		{"cycles", "open and close", s.cycles},
	}
}

// StreamsParts are the names of what [Streams] measures, in order.
func StreamsParts() []string {
	var names []string
	for _, p := range (&streamsSuite{}).parts() {
		names = append(names, p.name)
	}
	return names
}

// start runs "drover dev" of this very binary, with the node port open, and makes the clients.
func (s *streamsSuite) start(ctx context.Context) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	keyFile, key, err := s.newKey()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "dev.log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(s.Executable, "dev", "--listen", fmt.Sprintf("127.0.0.1:%d", ports[0]), "--data", filepath.Join(s.dir, "data"),
		"--health-listen", fmt.Sprintf("127.0.0.1:%d", ports[2]))
	cmd.Env = append(s.environment(), "DOCKER_HOST=unix://"+s.Docker, "DROVER_HTTP_PORT="+strconv.Itoa(ports[1]),
		"DROVER_HTTP_LISTEN=127.0.0.1", "DROVER_HTTP_TOKEN_KEY_FILE="+keyFile)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.node = &child{cmd: cmd, log: log, started: time.Now(), ended: make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	go func() { s.node.ended <- cmd.Wait() }()
	if err := s.connect(ctx); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w; the server said: %.2000s", err, said)
	}
	if s.bearer, err = key.Sign(token.Claims{Host: token.AnyHost, Verbs: []string{token.VerbStreams, token.VerbExec, token.VerbAttach}, User: "bench"}, token.MaxLife); err != nil {
		return err
	}
	s.health = fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	s.port = fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	s.direct, err = streamclient.New(streamclient.Config{
		Base: s.port, Header: s.header,
		TLS: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the port of this very process's child, on loopback
	})
	return err
}

func (s *streamsSuite) header() http.Header {
	return http.Header{"Authorization": {"Bearer " + s.bearer}}
}

// environment is that of this run's user.
func (s *streamsSuite) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir}
}

// connect waits for the host to be online.
func (s *streamsSuite) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := s.tryConnect(ctx)
		if err == nil {
			return nil
		}
		select {
		case ended := <-s.node.ended:
			s.node.ended <- ended
			return fmt.Errorf("it ended: %w", ended)
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *streamsSuite) tryConnect(ctx context.Context) error {
	c, err := s.Connect(filepath.Join(s.dir, "drover", "contexts.yaml"))
	if err != nil {
		return err
	}
	defer c.Close()
	var hosts struct {
		Data []struct{ ID, Name, Hostname, Connection string }
	}
	if err := c.Do(ctx, http.MethodGet, "hosts", nil, &hosts); err != nil {
		return err
	}
	for _, h := range hosts.Data {
		if h.Connection != "online" {
			continue
		}
		s.host = h.ID
		if s.through, err = c.Streams(h.ID); err != nil {
			return err
		}
		_, err = s.through.Stats(ctx, "")
		return err
	}
	return errors.New("no host is online")
}

// container starts a container that runs until the suite ends.
func (s *streamsSuite) container(ctx context.Context, name string, cmd ...string) (string, error) {
	labels := map[string]string{}
	if s.pods != nil {
		labels = map[string]string{
			"io.kubernetes.pod.namespace": s.names, "io.kubernetes.pod.name": name, "io.kubernetes.pod.uid": s.names + "-" + name,
			"io.kubernetes.container.name": "app",
		}
	}
	id, err := s.raw.createLabelled(ctx, s.names+"-"+name, s.Image, labels, cmd...)
	if err == nil {
		err = s.raw.start(ctx, id)
	}
	if err == nil && s.pods != nil {
		err = s.pod(ctx, id, name)
	}
	return id, err
}

// A side is one way of doing a thing.
type side struct {
	name string
	run  func(context.Context) error
}

// rounds runs the sides in turn, n times each a round, c at a time, after one round that does not count.
func (s *streamsSuite) rounds(ctx context.Context, n, c int, sides []side) (map[string][]Series, error) {
	out := map[string][]Series{}
	for round := range s.Rounds + 1 {
		for _, side := range sides {
			series, err := inFlight(ctx, n, c, timed(side.run))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", side.name, err)
			}
			if round > 0 {
				out[side.name] = append(out[side.name], series)
			}
		}
	}
	return out, nil
}
