package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	logrustest "github.com/sirupsen/logrus/hooks/test"

	serverlogs "github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/server/store"
)

// onlyHost is the only host that a server knows.
type onlyHost struct{ host *store.Host }

func (h onlyHost) Hosts() []*store.Host { return []*store.Host{h.host} }
func (h onlyHost) Agent(string) (*store.Agent, error) {
	return &store.Agent{RemoteAddr: "127.0.0.1:1"}, nil
}

// serveLogDoor runs a log door of a configuration until the test ends.
func serveLogDoor(t *testing.T, settings string) (d *logDoor, address string) {
	t.Helper()
	log, _ := logrustest.NewNullLogger()
	c := mustLoad(t, nil, configFile(t, settings, 0o600), nil)
	d, err := newLogDoor(c, "n1", []string{"n1"}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	d.address = "127.0.0.1:0"
	ctx, cancel := context.WithCancel(context.Background())
	addr, err := d.listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d, addr.String()
}

func TestTheLogPortSpeaksTLS(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.log"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("app: {agent: {state-dir: %s/state}, logs: {port: 1, auth: none, root: %s, tls: own}}", dir, dir)
	d, address := serveLogDoor(t, own)
	ca, err := os.ReadFile(filepath.Join(dir, "state/logs-tls/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	get := func(url string, pool *x509.CertPool) (string, error) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		resp, err := client.Get(url)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if got, err := get("https://"+address+"/download/app.log", roots); err != nil || got != "hello\n" {
		t.Errorf("with the node's authority: %q, %v", got, err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := get("https://"+address+"/download/app.log", x509.NewCertPool()); !errors.As(err, &unknown) {
		t.Errorf("without it: %v", err)
	}
	for _, private := range []string{"ca.pem"} {
		if fi, err := os.Stat(filepath.Join(dir, "state/logs-tls", private)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", private, fi, err)
		}
	}

	// A server reaches it by what the host announces.
	through := func(d *logDoor) string {
		h := &store.Host{Name: "n1", State: store.StateActive, AgentIPAddress: "127.0.0.1", Labels: d.labels()}
		p, err := serverlogs.New(serverlogs.Config{Hosts: onlyHost{h}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Wait()
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := p.Serve(w, r, h, "ada", netip.MustParseAddr("192.0.2.1"), r.URL.Path); err != nil {
				http.Error(w, err.Error(), http.StatusTeapot)
			}
		}))
		defer front.Close()
		got, err := get(front.URL+"/download/app.log", nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := through(d); got != "hello\n" {
		t.Errorf("through a server: %q", got)
	}
	pin := d.labels()[serverlogs.LabelTLS]

	// The authority stays the same over a restart, and with files of the operator's the pin is that of the certificate.
	again, _ := serveLogDoor(t, own)
	if got := again.labels()[serverlogs.LabelTLS]; got != pin || len(pin) != 64 {
		t.Errorf("after a restart the pin is %q, it was %q", got, pin)
	}
	cert, key := pair(t, dir)
	files, _ := serveLogDoor(t, fmt.Sprintf("app: {logs: {port: 1, auth: none, root: %s, tls: files, cert-file: %s, key-file: %s}}", dir, cert, key))
	if got := through(files); got != "hello\n" {
		t.Errorf("with files, through a server: %q", got)
	}
	c := mustLoad(t, nil, configFile(t, "app: {logs: {port: 1, auth: none, tls: files}}", 0o600), nil)
	log, _ := logrustest.NewNullLogger()
	bad, err := newLogDoor(c, "n1", nil, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.listen(t.Context()); err == nil || !strings.Contains(err.Error(), "app.logs.tls") {
		t.Errorf("files without files: %v", err)
	}
}

// pair writes a certificate for loopback and its key into dir.
func pair(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	made, err := (doorTLS{Mode: "own"}).open(t.Context(), filepath.Join(dir, "other"), []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := made.config.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// What comes through a tunnel has been let in by the server: it needs no key, and is named in the audit.
func TestLogsThroughTheTunnelNeedNoPort(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.log"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, hook := logrustest.NewNullLogger()
	c := mustLoad(t, nil, configFile(t, "app: {logs: {tunnel: true, root: "+dir+"}}", 0o600), nil)
	d, err := newLogDoor(c, "n1", nil, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ask := func(h http.Handler) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/download/app.log", nil)
		r.Header.Set("Drover-User", "1a7")
		r.Header.Set("X-Forwarded-For", "192.0.2.9")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	if w := ask(d.throughTunnel(ctx)); w.Body.String() != "hello\n" {
		t.Errorf("through the tunnel: %d %s", w.Code, w.Body)
	}
	if e := hook.LastEntry(); e == nil || e.Data["who"] != "1a7" || e.Data["client"] != "192.0.2.9" {
		t.Errorf("the audit says %+v", e)
	}
	if w := ask(d); w.Code != http.StatusUnauthorized {
		t.Errorf("at the door without a key: %d %s", w.Code, w.Body)
	}
	if l := d.labels(); l[serverlogs.LabelTunnel] == "" || l[serverlogs.LabelPort] != "" || l[serverlogs.LabelTLS] != "" {
		t.Errorf("announced %v", l)
	}
	var none net.Addr
	if d.listening() != none {
		t.Error("it listens")
	}
}

// A node without tokens says at its start what that means.
func TestANodeWithoutTokensSaysWhatThatMeans(t *testing.T) {
	log, hook := logrustest.NewNullLogger()
	for auth, want := range map[string]bool{"none": true, "token": false} {
		hook.Reset()
		c := mustLoad(t, nil, configFile(t, "app: {logs: {port: 1, root: /var/log, auth: "+auth+"}}", 0o600), nil)
		c.Logs.KeyFile = filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(c.Logs.KeyFile, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newLogDoor(c, "n1", nil, nil, log); err != nil {
			t.Fatal(err)
		}
		e := hook.LastEntry()
		if (e != nil) != want || want && (e.Level.String() != "warning" || !strings.Contains(e.Message, "app.logs.auth is none") || !strings.Contains(e.Message, "reads every file")) {
			t.Errorf("auth %s: %+v", auth, e)
		}
	}
}
