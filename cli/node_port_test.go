package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/fake"
	"github.com/droverhq/drover/service/token"
)

// portRig is an agent's node port over an engine in memory with one container.
type portRig struct {
	addr      string
	container string
	key       *token.Key
	dir       string
}

func openPort(t *testing.T, change func(cfg *Config, dir string)) *portRig {
	t.Helper()
	dir := t.TempDir()
	r := &portRig{dir: dir}
	secret := strings.Repeat("0123456789abcdef", 4)
	keyFile := filepath.Join(dir, "token.key")
	if err := os.WriteFile(keyFile, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(func(string) string { return "" }, "", map[string]string{
		"state-dir": dir, "http-listen": "127.0.0.1", "http-token-key-file": keyFile, "hostname": "n1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(cfg, dir)
	}
	if r.key, err = token.ReadKey(keyFile); err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	engine := fake.New(fake.WithImages("busybox"))
	t.Cleanup(func() { engine.Close() })
	r.container, _, err = engine.Create(t.Context(), &runtime.ContainerSpec{Name: "web", Image: "busybox", Cmd: []string{"sleep", "600"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Start(t.Context(), r.container); err != nil {
		t.Fatal(err)
	}
	streams, err := newNodeService(cfg, engine, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	port, err := newAgentPort(cfg, "host-uuid", engine, streams, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	port.address = "127.0.0.1:0"
	addr, err := port.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.addr = addr.String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- port.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := streams.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// get asks the port. conf is the client's TLS; nil is plain HTTP.
func (r *portRig) get(t *testing.T, conf *tls.Config, path, bearer string) (int, string, error) {
	t.Helper()
	scheme := "http"
	if conf != nil {
		scheme = "https"
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+r.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func (r *portRig) token(t *testing.T, c token.Claims) string {
	t.Helper()
	text, err := r.key.Sign(c, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// authority reads the port's own.
func (r *portRig) authority(t *testing.T) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(r.dir, "port/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("ca.crt holds no certificate:\n%s", ca)
	}
	return &tls.Config{RootCAs: pool}
}

func TestNodePortWithTokens(t *testing.T) {
	r := openPort(t, nil)
	conf := r.authority(t)
	for _, name := range []string{"ca.pem", "ca.crt"} {
		fi, err := os.Stat(filepath.Join(r.dir, "port", name))
		if want := map[string]os.FileMode{"ca.pem": 0o600, "ca.crt": 0o644}[name]; err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want mode %v", name, fi, err, want)
		}
	}
	all := r.token(t, token.Claims{Host: "host-uuid", Verbs: []string{token.VerbStreams}})
	for _, c := range []struct {
		what, path, token string
		status            int
	}{
		{"stats of the host", "/v1/stats", all, http.StatusOK},
		{"processes by name", "/v1/top/web", r.token(t, token.Claims{Host: "n1", Verbs: []string{token.VerbStreams}}), http.StatusOK},
		{"no token", "/v1/stats", "", http.StatusUnauthorized},
		{"a token that is none", "/v1/stats", "x.y.z", http.StatusUnauthorized},
		{"a token for another host", "/v1/stats", r.token(t, token.Claims{Host: "n2", Verbs: []string{token.VerbStreams}}), http.StatusUnauthorized},
		{"a verb that the token lacks", "/v1/exec/web?command=id&stdout=1", all, http.StatusForbidden},
		{"another container", "/v1/top/web", r.token(t, token.Claims{Host: "n1", Verbs: []string{token.VerbStreams}, Container: "db"}), http.StatusForbidden},
		{"no such container", "/v1/top/none", all, http.StatusNotFound},
		{"no such path", "/debug/pprof/", all, http.StatusNotFound},
	} {
		status, body, err := r.get(t, conf, c.path, c.token)
		if err != nil || status != c.status {
			t.Errorf("%s: %d %s %v, want %d", c.what, status, body, err, c.status)
		}
	}
	if _, _, err := r.get(t, &tls.Config{RootCAs: x509.NewCertPool()}, "/v1/stats", all); err == nil {
		t.Error("a client that knows another authority was served")
	}
	if status, _, err := r.get(t, nil, "/v1/stats", all); err == nil && status != http.StatusBadRequest {
		t.Errorf("plain HTTP: %d", status)
	}
}

// issue makes an authority in dir/NAME.crt and returns a certificate of it for a client called who.
func issue(t *testing.T, file, who string) tls.Certificate {
	t.Helper()
	make := func(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: parent == nil,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	ca, caKey := make("authority", nil, nil)
	leaf, key := make(who, ca, caKey)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
}

func TestNodePortWithClientCertificates(t *testing.T) {
	var good, stranger tls.Certificate
	r := openPort(t, func(cfg *Config, dir string) {
		cfg.Port.ClientCA = filepath.Join(dir, "clients.crt")
		good = issue(t, cfg.Port.ClientCA, "apiserver")
		stranger = issue(t, filepath.Join(dir, "other.crt"), "apiserver")
		cfg.Port.ClientNames = []string{"apiserver"}
	})
	as := func(c ...tls.Certificate) *tls.Config {
		conf := r.authority(t)
		// Sent also where the server's list of authorities has none of them.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(c) == 0 {
				return &tls.Certificate{}, nil
			}
			return &c[0], nil
		}
		return conf
	}
	if status, body, err := r.get(t, as(good), "/v1/stats", ""); err != nil || status != http.StatusOK {
		t.Errorf("with a certificate: %d %s %v", status, body, err)
	}
	if _, _, err := r.get(t, as(stranger), "/v1/stats", ""); err == nil {
		t.Error("a certificate of another authority was let in")
	}
	if status, _, err := r.get(t, as(), "/v1/stats", ""); err != nil || status != http.StatusUnauthorized {
		t.Errorf("without: %d %v", status, err)
	}
	all := r.token(t, token.Claims{Host: "n1", Verbs: []string{token.VerbStreams}})
	if status, _, err := r.get(t, as(), "/v1/stats", all); err != nil || status != http.StatusOK {
		t.Errorf("with a token instead: %d %v", status, err)
	}
	other := openPort(t, func(cfg *Config, dir string) {
		cfg.Port.ClientCA, cfg.Port.TokenKey = filepath.Join(dir, "clients.crt"), ""
		good = issue(t, cfg.Port.ClientCA, "somebody")
		cfg.Port.ClientNames = []string{"apiserver"}
	})
	r = other
	if status, _, err := r.get(t, as(good), "/v1/stats", ""); err != nil || status != http.StatusUnauthorized {
		t.Errorf("a certificate with another name: %d %v", status, err)
	}
	if _, _, err := r.get(t, as(), "/v1/stats", all); err == nil {
		t.Error("no certificate and no tokens configured, and the handshake went through")
	}
}

func TestNodePortDeniesWhatTheHostForbids(t *testing.T) {
	r := openPort(t, func(cfg *Config, _ string) { cfg.Doors.Deny, cfg.Port.TLS = []string{"top"}, "off" })
	all := r.token(t, token.Claims{Host: "n1", Verbs: []string{token.VerbStreams}})
	if status, body, err := r.get(t, nil, "/v1/top/web", all); err != nil || status != http.StatusForbidden || !strings.Contains(body, "app.doors.deny") {
		t.Errorf("top: %d %s %v", status, body, err)
	}
	if status, _, err := r.get(t, nil, "/v1/stats", all); err != nil || status != http.StatusOK {
		t.Errorf("stats: %d %v", status, err)
	}
}

func TestNodePortConfiguration(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		given map[string]string
		want  string // "" opens, "-" stays shut
	}{
		{"nothing", nil, "-"},
		{"port 0", map[string]string{"http-port": "0", "http-token-key-file": key}, "-"},
		{"a key", map[string]string{"http-token-key-file": key}, ""},
		{"plain HTTP for everybody", map[string]string{"http-token-key-file": key, "http-tls": "off"}, "loopback alone"},
		{"plain HTTP on loopback", map[string]string{"http-token-key-file": key, "http-tls": "off", "http-listen": "::1"}, ""},
		{"half a pair", map[string]string{"http-token-key-file": key, "http-tls": "files", "http-cert": "/x"}, "app.http.key-file"},
		{"files without saying so", map[string]string{"http-token-key-file": key, "http-cert": "/x", "http-key": "/y"}, "app.http.tls=files"},
		{"certificates over plain HTTP", map[string]string{"http-client-ca": "/x", "http-tls": "off", "http-listen": "127.0.0.1"}, "needs TLS"},
		{"a key that is not there", map[string]string{"http-token-key-file": "/no/such/key"}, "/no/such/key"},
	} {
		cfg, err := LoadConfig(func(string) string { return "" }, "", c.given)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		log := logrus.New()
		log.SetOutput(io.Discard)
		engine := fake.New()
		streams, err := newNodeService(cfg, engine, nil, log)
		if err != nil {
			t.Fatal(err)
		}
		port, err := newAgentPort(cfg, "u", engine, streams, nil, log)
		switch {
		case c.want == "-" && (port != nil || err != nil), c.want == "" && (port == nil || err != nil),
			len(c.want) > 1 && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, %v; want %q", c.what, port, err, c.want)
		}
		if err := streams.Close(); err != nil {
			t.Error(err)
		}
		engine.Close()
	}
}
