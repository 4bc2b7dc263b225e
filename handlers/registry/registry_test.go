package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/droverhq/drover/runtime"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

// start runs the real registry, with htpasswd where a password is given.
func start(t *testing.T, password string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %s}\n", dir, addr)
	if password != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "htpasswd"), []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		config += "auth:\n  htpasswd: {realm: test, path: " + dir + "/htpasswd}\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", filepath.Join(dir, "config.yml"))
	if err := cmd.Start(); err != nil {
		t.Fatal("docker-registry is needed (scripts/setup test):", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	deadline := time.Now().Add(time.Minute)
	for {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

func push(t *testing.T, c *Client, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img, c.options(t.Context(), r.Context().RegistryStr())...); err != nil {
		t.Fatal(err)
	}
}

func image(t *testing.T, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(2000, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestCatalogGoesToTheLastPage(t *testing.T) {
	addr := start(t, "")
	c := client(t, Config{})
	img := image(t, 1)
	for i := range 250 {
		push(t, c, fmt.Sprintf("%s/team/app-%03d:1", addr, i), img)
	}
	got, err := c.Catalog(t.Context(), addr)
	if err != nil || len(got) != 250 || got[0] != "team/app-000" || got[249] != "team/app-249" {
		t.Errorf("%d repositories, %v", len(got), err)
	}
}

func TestManifestTagsAndDeletion(t *testing.T) {
	addr := start(t, "")
	c := client(t, Config{})
	img := image(t, 3)
	for _, tag := range []string{"1", "1.0", "latest"} {
		push(t, c, addr+"/app:"+tag, img)
	}
	push(t, c, addr+"/app:2", image(t, 1))
	if tags, err := c.Tags(t.Context(), addr+"/app"); err != nil || strings.Join(tags, " ") != "1 1.0 2 latest" {
		t.Errorf("tags: %v, %v", tags, err)
	}
	m, err := c.Manifest(t.Context(), addr+"/app:1")
	if err != nil || len(m.Platforms) != 1 || len(m.Platforms[0].Layers) != 3 || m.Platforms[0].Size < 6000 || m.Platforms[0].Config == nil {
		t.Errorf("manifest: %+v, %v", m, err)
	}
	for _, dry := range []bool{true, false} {
		d, err := c.Delete(t.Context(), addr+"/app:1", dry)
		if err != nil || strings.Join(d.Tags, " ") != "1 1.0 latest" || d.Digest != m.Digest {
			t.Errorf("delete (dry %v): %+v, %v", dry, d, err)
		}
		_, err = c.Manifest(t.Context(), addr+"/app:latest")
		if gone := errors.Is(err, runtime.ErrNotFound); gone == dry {
			t.Errorf("after delete (dry %v): %v", dry, err)
		}
	}
	if _, err := c.Manifest(t.Context(), addr+"/app:2"); err != nil {
		t.Errorf("the other image is gone too: %v", err)
	}
}

func TestCopyKeepsEveryPlatform(t *testing.T) {
	from, to := start(t, ""), start(t, "")
	c := client(t, Config{})
	index := mutate.AppendManifests(mustIndex(t), mutate.IndexAddendum{
		Add: image(t, 2), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}},
	})
	src, err := name.ParseReference(from + "/multi:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(src, index, c.options(t.Context(), from)...); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	if err := c.Copy(t.Context(), from+"/multi:1", to+"/copy/multi:2", func(d, n int64) { done, total = d, n }); err != nil {
		t.Fatal(err)
	}
	if done == 0 || done > total {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	a, err := c.Manifest(t.Context(), from+"/multi:1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Manifest(t.Context(), to+"/copy/multi:2")
	if err != nil || a.Digest != b.Digest || len(b.Platforms) != len(a.Platforms) || len(b.Platforms) < 2 {
		t.Errorf("the copy is %+v, %v; want %+v", b, err, a)
	}
}

func mustIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	index, err := random.Index(1000, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func TestCredentials(t *testing.T) {
	addr := start(t, "right password")
	auth := func(password string) Config {
		return Config{Auth: func(registry string) *runtime.RegistryAuth {
			if registry != addr {
				t.Errorf("asked for the credential of %s", registry)
			}
			return &runtime.RegistryAuth{Username: "ann", Password: password}
		}}
	}
	if err := client(t, auth("right password")).Check(t.Context(), addr); err != nil {
		t.Errorf("the right password: %v", err)
	}
	for what, c := range map[string]*Client{"no password": client(t, Config{}), "a wrong one": client(t, auth("wrong password"))} {
		err := c.Check(t.Context(), addr)
		if !errors.Is(err, runtime.ErrInvalid) || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := c.Catalog(t.Context(), addr); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%s: catalog: %v", what, err)
		}
	}
}

func TestWhatIsNoRegistry(t *testing.T) {
	html := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html><body>Welcome</body></html>"))
	}))
	defer html.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	c := client(t, Config{})
	for _, host := range []string{strings.TrimPrefix(html.URL, "http://"), strings.TrimPrefix(secure.URL, "https://"), dead, "", "a b", "http://x/y"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, cerr := c.Catalog(ctx, host)
		for what, err := range map[string]error{"check": c.Check(ctx, host), "catalog": cerr} {
			if err == nil || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
				t.Errorf("%s of %q: %v", what, host, err)
			}
		}
		cancel()
	}
	for _, ref := range []string{"", "UPPER", "a b", "x:y:z", "app@sha256:12"} {
		if _, err := c.Manifest(t.Context(), ref); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("manifest of %q: %v", ref, err)
		}
	}
}

// Without TLS only what is named, and this machine, is spoken to; a certificate that is refused stays the reason.
func TestWithoutTLSOnlyWhatIsNamed(t *testing.T) {
	plain := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the credential went out without TLS")
		}
		_, _ = w.Write([]byte("{}"))
	}))
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	plain.Listener.Close()
	plain.Listener = l
	plain.Start()
	defer plain.Close()
	host := net.JoinHostPort(privateAddress(t), fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	auth := func(string) *runtime.RegistryAuth { return &runtime.RegistryAuth{Username: "ann", Password: "x"} }
	if err := client(t, Config{Auth: auth}).Check(t.Context(), host); err == nil || !strings.Contains(err.Error(), "name it as insecure") {
		t.Errorf("a private address without TLS: %v", err)
	}
	if err := client(t, Config{Insecure: []string{host}}).Check(t.Context(), host); err != nil {
		t.Errorf("one that is named: %v", err)
	}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	addr := strings.TrimPrefix(secure.URL, "https://")
	for _, insecure := range [][]string{nil, {addr}} {
		if err := client(t, Config{Insecure: insecure}).Check(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "give its CA") {
			t.Errorf("an unknown authority, insecure %q: %v", insecure, err)
		}
	}
}

// A slowListener hands each connection out late: longer than the library waits before it tries without TLS.
type slowListener struct{ net.Listener }

func (l slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	time.Sleep(400 * time.Millisecond)
	return conn, err
}

func TestASlowHandshakeIsWaitedFor(t *testing.T) {
	asked := make(chan string, 8)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	secure.Listener = slowListener{secure.Listener}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that end early
	secure.StartTLS()
	defer secure.Close()
	addr := strings.TrimPrefix(secure.URL, "https://")
	if err := client(t, Config{}).Check(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "give its CA") {
		t.Errorf("an unknown authority: %v", err)
	}
	if len(asked) > 0 {
		t.Errorf("a request got through: %s", <-asked)
	}
}

// privateAddress is one of this machine that is not loopback.
func privateAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsPrivate() {
			return n.IP.String()
		}
	}
	t.Fatal("this machine has no private address; the bridge of dockerd is one")
	return ""
}
