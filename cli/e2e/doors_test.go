package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
)

// api is the server of the user's current context, as a program sees it.
type api struct {
	t         *testing.T
	url       string
	user, key string
	roots     []byte
	client    *http.Client
	rest      *rest.Config
}

func (u *user) api() *api {
	u.t.Helper()
	var file struct {
		Current  string
		Contexts []struct {
			Name, Server         string
			AccessKey, SecretKey string `yaml:",omitempty"`
			CAData               string `yaml:"caData"`
		}
	}
	raw, err := os.ReadFile(filepath.Join(u.dir, "config/drover/contexts.yaml"))
	if err != nil {
		u.t.Fatal(err)
	}
	raw = bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("accessKey:"), []byte("accesskey:")), []byte("secretKey:"), []byte("secretkey:"))
	if err := yaml.Unmarshal(raw, &file); err != nil {
		u.t.Fatal(err)
	}
	for _, c := range file.Contexts {
		if c.Name != file.Current {
			continue
		}
		a := &api{t: u.t, url: c.Server, user: c.AccessKey, key: c.SecretKey, roots: []byte(c.CAData)}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(a.roots)
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		a.client = &http.Client{Transport: tr, Timeout: patience}
		u.t.Cleanup(tr.CloseIdleConnections)
		a.rest = &rest.Config{Host: a.url, Username: a.user, Password: a.key, TLSClientConfig: rest.TLSClientConfig{CAData: a.roots}}
		return a
	}
	u.t.Fatalf("no current context in\n%s", raw)
	return nil
}

// get does a request without a body and returns the status and the body.
func (a *api) get(method, path string) (int, string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	req.SetBasicAuth(a.user, a.key)
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(body)
}

// executor is client-go's, "spdy" or "websocket".
func (a *api) executor(kind, path string) remotecommand.Executor {
	a.t.Helper()
	u, err := url.Parse(a.url + path)
	if err != nil {
		a.t.Fatal(err)
	}
	var e remotecommand.Executor
	if kind == "spdy" {
		e, err = remotecommand.NewSPDYExecutor(a.rest, http.MethodPost, u)
	} else {
		e, err = remotecommand.NewWebSocketExecutor(a.rest, http.MethodGet, u.String())
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return e
}

// TestStreamsThroughTheServer reaches a real container through server, tunnel and agent with the client of Kubernetes.
func TestStreamsThroughTheServer(t *testing.T) {
	u, name := newUser(t), prefix(t)
	p := u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data"))
	p.says("In a second terminal")
	h := u.online(1)[0]
	var made container
	u.json(&made, "run", "--name", name, image, "sh", "-c", "echo one; echo two; echo oops >&2; exec sleep 600")
	a := u.api()
	host := "/v1/hosts/" + h.ID + "/proxy"
	random := make([]byte, 1<<20)
	_, _ = rand.Read(random)
	for _, kind := range []string{"spdy", "websocket"} {
		t.Run(kind, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var out, errOut bytes.Buffer
			q := url.Values{"command": {"sh", "-c", "echo here; echo there >&2; exit 7"}, "stdout": {"1"}, "stderr": {"1"}}
			err := a.executor(kind, host+"/v1/exec/"+made.ContainerID+"?"+q.Encode()).StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
			var code utilexec.CodeExitError
			if !errors.As(err, &code) || code.Code != 7 || out.String() != "here\n" || errOut.String() != "there\n" {
				t.Errorf("exec: %v, stdout %q, stderr %q", err, out.String(), errOut.String())
			}
			out.Reset()
			q = url.Values{"command": {"cat"}, "stdin": {"1"}, "stdout": {"1"}}
			err = a.executor(kind, host+"/v1/exec/"+made.ContainerID+"?"+q.Encode()).
				StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: bytes.NewReader(random), Stdout: &out})
			if err != nil || !bytes.Equal(out.Bytes(), random) {
				t.Errorf("1 MiB there and back: %d bytes, %v", out.Len(), err)
			}
		})
	}

	if status, text := a.get(http.MethodGet, host+"/v1/logs/"+made.ContainerID+"?stdout=1"); status != http.StatusOK || text != "one\ntwo\n" {
		t.Errorf("logs: %d %q", status, text)
	}
	var stats struct{ Data []struct{ Type, Name string } }
	if status, text := a.get(http.MethodGet, host+"/v1/stats"); status != http.StatusOK || json.Unmarshal([]byte(text), &stats) != nil || stats.Data[0].Type != "host" {
		t.Errorf("stats: %d %s", status, text)
	}
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		host + "/v1/logs/no-such-thing":       {http.StatusNotFound, "no-such-thing"},
		host + "/no/such/path":                {http.StatusNotFound, "no such path"},
		host + "/../../scripts/api.crt":       {http.StatusNotFound, ""},
		"/v1/hosts/1h4711/proxy/v1/stats":     {http.StatusNotFound, "there is no host 1h4711"},
		"/v1/tunnel":                          {http.StatusNotFound, ""},
		"/v1/replicaproxy/1a1/v1/stats":       {http.StatusUnauthorized, "replicas"},
		"/v1/hosts/..%2f..%2fx/proxy/v1/logs": {http.StatusNotFound, ""},
	} {
		if status, text := a.get(http.MethodGet, path); status != want.status || !strings.Contains(text, want.text) {
			t.Errorf("%s: %d %s; want %d and %q", path, status, text, want.status, want.text)
		}
	}
	p.stop(os.Interrupt)
}
