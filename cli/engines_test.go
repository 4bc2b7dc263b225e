package cli

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
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
