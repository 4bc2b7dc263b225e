package pki

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a vault in memory.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (v *memory) Secret(_ context.Context, name string, create func() ([]byte, error)) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if data, ok := v.m[name]; ok {
		return data, nil
	}
	data, err := create()
	if err == nil {
		v.m[name] = data
	}
	return data, err
}

func vault() *memory { return &memory{m: map[string][]byte{}} }

func open(t *testing.T, v Vault) *Keys {
	t.Helper()
	k, err := Open(t.Context(), v, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysOutliveTheProcess(t *testing.T) {
	v := vault()
	a, b := open(t, v), open(t, v)
	if !bytes.Equal(a.CAPEM(), b.CAPEM()) || !bytes.Equal(a.APIPublicPEM(), b.APIPublicPEM()) {
		t.Error("a second start made new keys")
	}
	if strings.Contains(string(a.CAPEM()), "PRIVATE") {
		t.Error("ca.pem holds the private key")
	}
}

func TestPublicForms(t *testing.T) {
	k := open(t, vault())
	sum := sha256.Sum256(k.CAPEM())
	if got := Checksum(k.CAPEM()); got != hex.EncodeToString(sum[:]) {
		t.Errorf("checksum %s", got)
	}
	block, rest := pem.Decode(k.APIPublicPEM())
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		t.Fatalf("api.crt is %q", k.APIPublicPEM())
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		t.Error(err)
	}
	if k.APIKey().N.BitLen() != 2048 {
		t.Errorf("api key has %d bits", k.APIKey().N.BitLen())
	}
}

func TestOpenRefusesWhatIsBroken(t *testing.T) {
	good, other := vault(), vault()
	open(t, good)
	open(t, other)
	for name, spoil := range map[string]func(m map[string][]byte){
		"empty authority": func(m map[string][]byte) { m[nameCA] = nil },
		"html":            func(m map[string][]byte) { m[nameAPIKey] = []byte("<html>") },
		"no RSA key":      func(m map[string][]byte) { _, m[nameAPIKey] = pem.Decode(good.m[nameCA]) },
		"foreign key": func(m map[string][]byte) {
			cert, _ := pem.Decode(good.m[nameCA])
			_, key := pem.Decode(other.m[nameCA])
			m[nameCA] = append(pem.EncodeToMemory(cert), key...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := &memory{m: maps.Clone(good.m)}
			spoil(v.m)
			_, err := Open(t.Context(), v, nil)
			if err == nil || !strings.HasPrefix(err.Error(), "pki: secret ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serve answers over TLS on loopback and returns the address.
func serve(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

func dial(t *testing.T, addr, name string, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		t.Fatalf("dial %s as %s: %v", addr, name, err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func pool(t *testing.T, pemBytes []byte) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pemBytes) {
		t.Fatal("no certificate in the PEM")
	}
	return p
}

func TestIssuerServesEveryNameAndTheAddressReached(t *testing.T) {
	k := open(t, vault())
	iss, err := NewIssuer(k, []string{"drover.example", "10.1.2.3", "", "drover.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := iss.Names(); len(got) != 2 {
		t.Errorf("names %v", got)
	}
	addr := serve(t, iss.TLSConfig())
	dial(t, addr, "drover.example", pool(t, k.CAPEM()))
	dial(t, addr, "10.1.2.3", pool(t, k.CAPEM()))
	host, _, _ := net.SplitHostPort(addr)
	dial(t, addr, host, pool(t, k.CAPEM()))
	if conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool(t, k.CAPEM()), ServerName: "evil.example"}); err == nil {
		conn.Close()
		t.Error("the certificate names a host that nobody asked for")
	}
}

func TestIssuerRenewsInTime(t *testing.T) {
	now := time.Now()
	k := open(t, vault())
	iss, err := NewIssuer(k, []string{"a.example"}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	leaf := func() *x509.Certificate {
		c, err := iss.TLSConfig().GetCertificate(&tls.ClientHelloInfo{ServerName: "a.example"})
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := leaf()
	now = now.Add(leafLife - leafRenew - time.Minute)
	if leaf().SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("renewed too early")
	}
	now = now.Add(2 * time.Minute)
	second := leaf()
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("not renewed")
	}
	if !second.NotAfter.After(now.Add(leafLife - time.Hour)) {
		t.Errorf("the new certificate ends %v", second.NotAfter)
	}
}

func TestFilesTakesUpANewPair(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	k := open(t, vault())
	put := func(name string, mod time.Time) {
		cert, err := k.issue([]string{name}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
		write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		for _, f := range []string{certFile, keyFile} {
			if err := os.Chtimes(f, mod, mod); err != nil {
				t.Fatal(err)
			}
		}
	}
	now := time.Now()
	put("one.example", now)
	f, err := NewFiles(certFile, keyFile, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, f.TLSConfig())
	dial(t, addr, "one.example", pool(t, k.CAPEM()))

	now = now.Add(recheck)
	write(t, keyFile, "half written")
	dial(t, addr, "one.example", pool(t, k.CAPEM()))

	now = now.Add(recheck)
	put("two.example", now)
	dial(t, addr, "two.example", pool(t, k.CAPEM()))

	if _, err := NewFiles(certFile, filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing key: %v", err)
	}
}
