package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	imagetypes "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/runtimetest"
)

// library returns the docker client itself, for what tests prepare behind the engine's back.
func library(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.NewClientWithOpts(client.WithHost("unix:///var/run/docker.sock"), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// randomName is a name that nobody else has.
func randomName() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return "drover-rtdocker-" + hex.EncodeToString(b)
}

// startRegistry runs a docker-registry on loopback and returns its address.
func startRegistry(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", dir, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "docker-registry", "serve", config)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need Debian's docker-registry: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	deadline := time.Now().Add(time.Minute)
	for {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry does not come up: %v\n%s", err, output.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// push makes an image of random content and pushes it under every ref; the daemon does not keep it.
func push(t *testing.T, refs ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	_ = w.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: int64(len(content))})
	_, _ = w.Write(content)
	_ = w.Close()
	c := library(t)
	local := randomName() + ":1"
	body, err := c.ImageImport(ctx, imagetypes.ImportSource{Source: &layer, SourceName: "-"}, local, imagetypes.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, body)
	body.Close()
	for _, ref := range refs {
		if err := c.ImageTag(ctx, local, ref); err != nil {
			t.Fatal(err)
		}
		body, err := c.ImagePush(ctx, ref, imagetypes.PushOptions{RegistryAuth: "e30="})
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(body)
		body.Close()
		if strings.Contains(string(said), `"error"`) {
			t.Fatalf("push %s: %s", ref, said)
		}
		if _, err := c.ImageRemove(ctx, ref, imagetypes.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.ImageRemove(ctx, local, imagetypes.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
}

// front is a registry in front of another one that does something to its answers.
func front(t *testing.T, addr string, wrap func(next http.Handler) http.Handler) string {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: addr}
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }}
	server := httptest.NewServer(wrap(proxy))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.Listener.Addr().String()
}

// isLayer reports a request for a blob of some size: the configuration of an image is a blob too.
func isLayer(r *http.Request, addr string) bool {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
		return false
	}
	resp, err := http.Head("http://" + addr + r.URL.Path)
	if err != nil {
		return false
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	return resp.ContentLength > 100_000
}

// half answers with the first half of a layer; then carries on as it was told.
func half(w http.ResponseWriter, r *http.Request, addr string, then func()) {
	resp, err := http.Get("http://" + addr + r.URL.Path)
	if err != nil {
		return
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	w.Header().Set("Content-Length", fmt.Sprint(resp.ContentLength))
	w.WriteHeader(http.StatusOK)
	_, _ = io.CopyN(w, resp.Body, resp.ContentLength/2)
	_ = http.NewResponseController(w).Flush()
	then()
}

// registries makes what the conformance suite pulls.
func registries(t *testing.T) runtimetest.Registry {
	t.Helper()
	addr := startRegistry(t)
	auth := runtime.RegistryAuth{Username: "joe", Password: "secret-5"}
	var mu sync.Mutex
	cut := map[string]bool{}
	broken := front(t, addr, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !isLayer(r, addr) {
				next.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			again := cut[r.URL.Path]
			cut[r.URL.Path] = true
			mu.Unlock()
			if again { // so that the daemon gives up at once
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"the blob is gone"}]}`)
				return
			}
			half(w, r, addr, func() { panic(http.ErrAbortHandler) })
		})
	})
	stalled := front(t, addr, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !isLayer(r, addr) {
				next.ServeHTTP(w, r)
				return
			}
			half(w, r, addr, func() { <-r.Context().Done() })
		})
	})
	private := front(t, addr, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			if user != auth.Username || password != auth.Password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	name := "/" + randomName() + "/app:1"
	push(t, addr+name)
	auth.ServerAddress = private
	return runtimetest.Registry{Good: addr + name, Missing: addr + "/" + randomName() + ":1", Broken: broken + name, Stalled: stalled + name, Private: private + name, Auth: auth}
}
