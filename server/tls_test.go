package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/server"
	"github.com/droverhq/drover/server/pki"
)

func pemFile(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The operator's own certificate is served, and the operator's authority is what the one-liner pins.
func TestCertificateOfTheOperator(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "operator"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert := pemFile(t, dir, "tls.crt", "CERTIFICATE", der)
	files := server.TLS{Mode: server.TLSFiles, CertFile: cert, KeyFile: pemFile(t, dir, "tls.key", "PRIVATE KEY", keyDER), CAFile: cert}

	s := start(t, server.Config{TLS: files})
	ca, _ := os.ReadFile(cert)
	line, err := s.srv.OneLiner(t.Context())
	if err != nil || !strings.Contains(line, "CATTLE_CA_CHECKSUM="+pki.Checksum(ca)+" ") {
		t.Errorf("one-liner %s %v", line, err)
	}
	if got := s.must("GET", "/v1/scripts/ca.pem", "", nil).text; got != string(ca) {
		t.Errorf("ca.pem %s", got)
	}
	files.CAFile = "" // of an authority that agents know anyway
	public := start(t, server.Config{TLS: files})
	if line, err := public.srv.OneLiner(t.Context()); err != nil || strings.Contains(line, "CHECKSUM") || public.srv.CAPEM() != nil {
		t.Errorf("one-liner %s %v", line, err)
	}
}

func TestPlainHTTPOnATLSPort(t *testing.T) {
	s := start(t, server.Config{TLS: server.TLS{Mode: server.TLSOwn}})
	res, err := http.Get("http" + strings.TrimPrefix(s.url, "https") + "/v1")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 400 {
		t.Errorf("plain HTTP is answered with %d", res.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
	_, err = (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(s.url + "/healthz")
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client that does not know the authority: %v", err)
	}
}
