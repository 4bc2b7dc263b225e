package server_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server"
	"github.com/droverhq/drover/server/store/storetest"
)

func TestARestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	tls := server.TLS{Mode: server.TLSOwn}
	first := start(t, server.Config{DataDir: dir, TLS: tls})
	agent, hostID := withHost(t, first)
	token := first.token()
	c := first.must("POST", "/v2-beta/containers", first.key, map[string]any{"name": "web", "imageUuid": "docker:nginx"})
	eventually(t, "the container runs", func() bool {
		return first.must("GET", "/v2-beta/containers/"+c.str("id"), first.key, nil).str("state") == "running"
	})
	first.must("PUT", "/v2-beta/hosts/"+hostID, first.key, map[string]any{"name": "rack7", "labels": map[string]any{"a": "b"}})
	first.must("PUT", "/v2-beta/settings/agent.image", first.key, map[string]any{"value": "mine/drover:2"})
	ca := string(first.srv.CAPEM())
	agent.stop()
	first.stop()

	second := start(t, server.Config{DataDir: dir, TLS: tls})
	if second.key != "" {
		t.Error("a second start made another admin key")
	}
	if string(second.srv.CAPEM()) != ca {
		t.Error("a second start made another authority: every agent would refuse it")
	}
	h := second.must("GET", "/v2-beta/hosts/"+hostID, first.key, nil)
	if h.str("name") != "rack7" || h.body["labels"].(map[string]any)["a"] != "b" || h.str("engine") == "" {
		t.Errorf("host %s", h.text)
	}
	if got := second.must("GET", "/v2-beta/containers/"+c.str("id"), first.key, nil); got.str("state") != "running" || got.str("name") != "web" {
		t.Errorf("container %s", got.text)
	}
	if got := second.do("GET", "/v1", agent.as, nil); got.status != 200 {
		t.Errorf("the agent's key: %d", got.status)
	}
	if got := second.do("GET", "/v1/scripts/"+token, "", nil); got.status != 200 {
		t.Errorf("the registration token: %d", got.status)
	}
	if got := second.must("GET", "/v2-beta/settings/agent.image", first.key, nil); got.str("value") != "mine/drover:2" {
		t.Errorf("setting %s", got.text)
	}
	again := second.connect(agent.as, "host-uuid-1", nil)
	eventually(t, "the same host is online again", func() bool {
		list := second.must("GET", "/v2-beta/hosts", first.key, nil).data()
		return len(list) == 1 && list[0]["id"] == hostID && list[0]["connection"] == "online"
	})
	again.stop()
}

// An operation that a restart of the server interrupts is finished by the next process, with the agent's answer.
func TestARestartFinishesWhatWasInProgress(t *testing.T) {
	dir := t.TempDir()
	first := start(t, server.Config{DataDir: dir})
	begun := make(chan struct{}, 8)
	held := make(chan struct{})
	as := first.join(first.token(), strings.Repeat("ab", 64))
	slow := first.connect(as, "host-uuid-1", func(ev *wire.Event, _ func(*wire.Reply)) (any, error) {
		begun <- struct{}{}
		<-held
		return nil, nil
	})
	eventually(t, "the host is online", func() bool {
		return len(first.must("GET", "/v2-beta/hosts?connection=online", first.key, nil).data()) == 1
	})
	c := first.must("POST", "/v2-beta/containers", first.key, map[string]any{"imageUuid": "docker:nginx"})
	<-begun
	first.stop()
	close(held)
	slow.cancel()
	_ = slow.conn.Close()

	second := start(t, server.Config{DataDir: dir})
	second.key = first.key
	if got := second.must("GET", "/v2-beta/containers/"+c.str("id"), second.key, nil); got.str("transitioning") != "yes" {
		t.Errorf("after the restart: %s", got.text)
	}
	second.connect(as, "host-uuid-1", nil)
	eventually(t, "the container runs", func() bool {
		return second.must("GET", "/v2-beta/containers/"+c.str("id"), second.key, nil).str("state") == "running"
	})
	slow.wg.Wait()
}

func TestSecretsAreNotAtRest(t *testing.T) {
	dir := t.TempDir()
	s := start(t, server.Config{DataDir: dir, TLS: server.TLS{Mode: server.TLSOwn}})
	token := s.token()
	key := strings.Repeat("5e", 64)
	agentKey := s.join(token, key)
	user := s.must("POST", "/v2-beta/apikeys", s.key, nil)
	line, err := s.srv.OneLiner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.do("GET", "/v1", agentKey, nil); got.status != 200 { // the first use is written down, too
		t.Fatal(got.text)
	}
	s.stop()
	secret := func(pair string) string { _, after, _ := strings.Cut(pair, ":"); return after }
	secrets := map[string]string{
		"admin key": secret(s.key), "agent secret": secret(agentKey), "user secret": user.str("secretValue"), "registration key": key,
		"registration token":    token[strings.LastIndex(token, ":")+1:],
		"one-liner's own token": line[strings.LastIndex(line, ":")+1:],
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		files++
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, value := range secrets {
			if len(value) < 20 {
				t.Fatalf("%s is %q: the test looks for nothing", name, value)
			}
			if bytes.Contains(raw, []byte(value)) {
				t.Errorf("%s holds the %s", path, name)
			}
		}
		if bytes.Contains(raw, []byte("PRIVATE KEY")) && info.Mode().Perm() != 0o600 {
			t.Errorf("%s holds a private key and has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files: %v", files, err)
	}
	for name, value := range secrets {
		if strings.Contains(s.log.String(), value) {
			t.Errorf("the log holds the %s", name)
		}
	}
}

func TestTwoServersOfOneCluster(t *testing.T) {
	nats := []string{storetest.NATS(t)}
	a := start(t, server.Config{NATS: nats, SealKey: []byte("0123456789abcdef0123")})
	b := start(t, server.Config{NATS: nats, SealKey: []byte("0123456789abcdef0123")})
	if a.key == "" || b.key != "" {
		t.Fatalf("admin keys %q and %q: want one, of the first", a.key, b.key)
	}
	b.key = a.key
	agent, hostID := withHost(t, a)
	eventually(t, "the other server knows the host", func() bool { return b.do("GET", "/v2-beta/hosts/"+hostID, b.key, nil).status == 200 })
	c := b.must("POST", "/v2-beta/containers", b.key, map[string]any{"imageUuid": "docker:nginx", "requestedHostId": hostID})
	eventually(t, "the agent of one server did what the other was asked", func() bool {
		return b.must("GET", "/v2-beta/containers/"+c.str("id"), b.key, nil).str("state") == "running"
	})
	agent.stop()
	a.stop()
	agent = b.connect(agent.as, "host-uuid-1", nil)
	if got := b.must("POST", "/v2-beta/containers/"+c.str("id")+"?action=stop", b.key, nil); got.str("state") != "stopping" {
		t.Errorf("stop: %s", got.text)
	}
	eventually(t, "the agent works with the server that is left", func() bool {
		return b.must("GET", "/v2-beta/containers/"+c.str("id"), b.key, nil).str("state") == "stopped"
	})
	agent.stop()
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]server.Config{
		"no data":         {},
		"listen":          {DataDir: "/x", Listen: "8443"},
		"port":            {DataDir: "/x", Listen: ":http8"},
		"mode":            {DataDir: "/x", TLS: server.TLS{Mode: "maybe"}},
		"no files":        {DataDir: "/x", TLS: server.TLS{Mode: server.TLSFiles}},
		"files too much":  {DataDir: "/x", TLS: server.TLS{CertFile: "/c"}},
		"url":             {DataDir: "/x", URL: "drover.example"},
		"url with a path": {DataDir: "/x", URL: "https://drover.example/x"},
		"seal":            {DataDir: "/x", SealKey: []byte("short")},
	} {
		if _, err := server.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "server: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat("/x"); err == nil {
		t.Error("New does I/O")
	}
}

func TestRunEndsInTime(t *testing.T) {
	s := start(t, server.Config{Drain: 300 * time.Millisecond})
	agent := s.connect(s.join(s.token(), strings.Repeat("ab", 64)), "host-uuid-1", func(*wire.Event, func(*wire.Reply)) (any, error) {
		return nil, nil
	})
	conn, _, err := s.dial("/v2-beta/subscribe?eventNames=resource.change", s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.stop() // fails the test if it takes too long
	agent.wg.Wait()
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			if !strings.Contains(err.Error(), "1001") {
				t.Errorf("the feed ended with %v, want going away", err)
			}
			break
		}
	}
	if s.srv.URL() != "" || s.srv.CAPEM() != nil {
		t.Error("a server that ended says that it runs")
	}
	if _, err := s.srv.OneLiner(t.Context()); err == nil {
		t.Error("a server that ended makes a token")
	}
	if err := s.srv.Run(t.Context()); err == nil {
		t.Error("Run can be called twice")
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	s := start(t, server.Config{})
	srv, err := server.New(server.Config{DataDir: t.TempDir(), Listen: strings.TrimPrefix(s.url, "http://"), TLS: server.TLS{Mode: server.TLSOff}})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Run: %v", err)
	}
}
