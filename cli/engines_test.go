package cli

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/cri/critest"
)

// probedEngine returns the kind of engine that an agent takes with these settings.
func probedEngine(t *testing.T, given map[string]string) string {
	t.Helper()
	given["state-dir"] = t.TempDir()
	cfg, err := LoadConfig(func(string) string { return "" }, "", given)
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	engine, err := newEngine(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	return engine.Type()
}

func TestEngineAutoTakesListeningDockerUnasked(t *testing.T) {
	// Short names: the path of a unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "eng")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, cri := filepath.Join(dir, "d.sock"), filepath.Join(dir, "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			written <- -1
			return
		}
		b, _ := io.ReadAll(c)
		_ = c.Close()
		written <- len(b)
	}()
	for _, kind := range []string{"auto", "docker"} {
		if got := probedEngine(t, map[string]string{"engine": kind, "docker-sock": "unix://" + socket, "cri-sock": cri}); got != engineDocker {
			t.Errorf("--engine %s beside a dockerd that listens takes %s", kind, got)
		}
	}
	if n := <-written; n != 0 {
		t.Errorf("dockerd was sent %d bytes before it was wanted", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := probedEngine(t, map[string]string{"engine": "auto", "docker-sock": "unix://" + socket, "cri-sock": cri}); got != engineDocker {
		t.Errorf("where nothing answers, the dockerd that the configuration names is waited for; got %s", got)
	}
	if got := probedEngine(t, map[string]string{"engine": "cri", "docker-sock": "unix://" + socket, "cri-sock": cri}); got == engineDocker {
		t.Error("--engine cri takes dockerd")
	}
}

// engineSockets makes stubs of engines in a folder: a dockerd, a CRI runtime of a name, or one that takes connections and
// says nothing.
type engineSockets struct {
	t   *testing.T
	dir string
}

func newEngineSockets(t *testing.T) engineSockets {
	dir, err := os.MkdirTemp("", "eng") // short: the path of a unix socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return engineSockets{t, dir}
}

func (s engineSockets) path(name string) string { return filepath.Join(s.dir, name) }

func (s engineSockets) listen(name string) net.Listener {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o700); err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("unix", s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s engineSockets) docker(name string) {
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		_, _ = io.WriteString(w, "OK")
	})}
	l := s.listen(name)
	go func() { _ = srv.Serve(l) }()
	s.t.Cleanup(func() { _ = srv.Close() })
}

func (s engineSockets) cri(name, runtime string) { critest.Stub(s.t, s.listen(name), runtime) }

// TestEngineProbe finds engines at several sockets.
func TestEngineProbe(t *testing.T) {
	s := newEngineSockets(t)
	s.docker("d.sock")
	// Where they are looked for unasked, below app.agent.rootfs.
	s.cri("root/run/containerd/containerd.sock", "containerd")
	s.cri("root/run/crio/crio.sock", "cri-o")
	s.cri("root/run/cri-dockerd.sock", "docker")
	s.cri("own.sock", "containerd")
	dead := s.listen("dead.sock") // its file stays, as that of an engine that was killed
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"file.sock", "bad/run/crio/crio.sock"} {
		if err := os.MkdirAll(filepath.Dir(s.path(file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path(file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	up, down := "unix://"+s.path("d.sock"), "unix://"+s.path("none.sock")
	for name, c := range map[string]struct {
		given map[string]string
		first bool   // an agent takes one
		want  string // types of the engines, or what the error says
	}{
		"all that answer":                      {given: map[string]string{"docker-sock": up, "rootfs": s.path("root")}, want: "docker containerd cri-o"},
		"cri-dockerd without dockerd":          {given: map[string]string{"engine": "cri", "rootfs": s.path("root")}, want: "containerd cri-o docker"},
		"dockerd alone":                        {given: map[string]string{"engine": "docker", "docker-sock": up, "rootfs": s.path("root")}, want: "docker"},
		"a named CRI runtime beside it":        {given: map[string]string{"docker-sock": up, "cri-sock": s.path("own.sock")}, want: "docker containerd"},
		"two named":                            {given: map[string]string{"engine": "cri", "cri-sock": "unix://" + s.path("own.sock") + "," + s.path("root/run/crio/crio.sock")}, want: "containerd cri-o"},
		"a named one that is dead is kept":     {given: map[string]string{"engine": "cri", "cri-sock": s.path("dead.sock") + "," + s.path("own.sock")}, want: "cri containerd"},
		"a named dockerd that is dead is kept": {given: map[string]string{"docker-sock": down, "rootfs": s.path("root")}, want: "docker containerd cri-o"},
		"a file that is no socket":             {given: map[string]string{"engine": "cri", "rootfs": s.path("bad")}, want: "no CRI runtime"},
		"nothing is there":                     {given: map[string]string{"engine": "cri", "rootfs": s.path("empty")}, want: "no CRI runtime"},
		"an agent takes dockerd":               {given: map[string]string{"docker-sock": up, "rootfs": s.path("root")}, first: true, want: "docker"},
		"an agent takes what answers":          {given: map[string]string{"docker-sock": down, "rootfs": s.path("root")}, first: true, want: "containerd"},
		"an agent takes the first that does":   {given: map[string]string{"engine": "cri", "cri-sock": s.path("dead.sock") + "," + s.path("own.sock")}, first: true, want: "containerd"},
	} {
		c.given["state-dir"] = t.TempDir()
		cfg := mustLoad(t, nil, "", c.given)
		log := logrus.New()
		log.SetOutput(io.Discard)
		var engines []runtime.Engine
		var err error
		if c.first {
			var e runtime.Engine
			if e, err = newEngine(t.Context(), cfg, log); err == nil {
				engines = append(engines, e)
			}
		} else {
			engines, err = newProbe(cfg, log).find(t.Context())
		}
		var types []string
		for _, e := range engines {
			types = append(types, e.Type())
		}
		got := strings.Join(types, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if err := closeEngines(engines); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
