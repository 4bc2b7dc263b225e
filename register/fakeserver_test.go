package register

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/utils/secret"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testToken = "0123456789ABCDEF0123:1703980800000:qffKYyH0hj98fI43bfcjdRRTtF8"

// fakeServer answers as a Rancher 1.6 server does. Its fields are set before the first request, or under mu.
type fakeServer struct {
	*httptest.Server
	ca *testCA // nil for plain HTTP

	mu       sync.Mutex
	script   func(w http.ResponseWriter, r *http.Request) // nil is the proper one
	override map[string]http.HandlerFunc                  // by "METHOD /path"
	records  map[string]*fakeRecord                       // by registration key
	polls    int                                          // how many looks a registration stays activating
	outcome  string                                       // "" is active, else the state with transitioning=error
	hideSelf bool                                         // GET /register/<id> is 404
	refuse   map[string]bool                              // access keys that are not taken
	requests []string                                     // "METHOD path user"
	serial   int
}

type fakeRecord struct {
	id, key, access, secret string
	left                    int
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	s := unstarted()
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// newTLSServer serves with a certificate of its own CA for 127.0.0.1 and drover.test.
func newTLSServer(t *testing.T, change ...func(*x509.Certificate)) *fakeServer {
	t.Helper()
	s := unstarted()
	s.ca = newTestCA(t)
	s.Server = httptest.NewUnstartedServer(s)
	s.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Server.TLS = &tls.Config{Certificates: []tls.Certificate{s.ca.issue(t, change...)}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func unstarted() *fakeServer {
	return &fakeServer{records: map[string]*fakeRecord{}, override: map[string]http.HandlerFunc{}, refuse: map[string]bool{}}
}

func (s *fakeServer) registrationURL() string { return s.URL + "/v1/scripts/" + testToken }

func (s *fakeServer) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

func (s *fakeServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, pass, _ := r.BasicAuth()
	s.mu.Lock()
	s.requests = append(s.requests, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, user))
	special, script := s.override[r.Method+" "+r.URL.Path], s.script
	s.mu.Unlock()
	if special != nil {
		special(w, r)
		return
	}
	switch p := r.URL.Path; {
	case p == "/v1/scripts/"+testToken:
		if script != nil {
			script(w, r)
			return
		}
		fmt.Fprintf(w, "#!/bin/sh\n\nexport CATTLE_REGISTRATION_ACCESS_KEY=\"registrationToken\"\nexport CATTLE_REGISTRATION_SECRET_KEY=\"%s\"\nexport CATTLE_URL=\"http%s://%s/v1\"\nexport DETECTED_CATTLE_AGENT_IP=\"203.0.113.7\"\n",
			testToken, map[bool]string{true: "s"}[r.TLS != nil], r.Host)
	case p == "/v1/scripts/ca.pem" && s.ca != nil:
		_, _ = w.Write(s.ca.pem)
	case p == "/v1/scripts/api.crt":
		_, _ = io.WriteString(w, testPublicKey+testPublicKey) // as the Java code does
	case strings.HasPrefix(p, "/v1/register"):
		if user != "registrationToken" || pass != testToken {
			apiError(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		s.register(w, r)
	case p == "/v1" || p == "/v1/":
		s.mu.Lock()
		ok := false
		for _, rec := range s.records {
			ok = ok || rec.access == user && rec.secret == pass && !s.refuse[user]
		}
		s.mu.Unlock()
		if !ok {
			apiError(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{"type": "apiVersion", "id": "v1"})
	default:
		apiError(w, http.StatusNotFound, "Not Found")
	}
}

func (s *fakeServer) register(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, single := strings.CutPrefix(r.URL.Path, "/v1/register/")
	switch {
	case r.Method == http.MethodPost:
		var in struct{ Key string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Key == "" {
			apiError(w, http.StatusUnprocessableEntity, "MissingRequired")
			return
		}
		s.serial++
		rec := &fakeRecord{id: fmt.Sprintf("1r%d", s.serial), key: in.Key, access: fmt.Sprintf("ACCESS%d", s.serial), secret: fmt.Sprintf("agent-secret-%d", s.serial), left: s.polls}
		s.records[in.Key] = rec
		writeJSON(w, http.StatusCreated, s.show(rec, ""))
	case single:
		for _, rec := range s.records {
			if rec.id == id && !s.hideSelf {
				rec.left--
				writeJSON(w, http.StatusOK, s.show(rec, ""))
				return
			}
		}
		apiError(w, http.StatusNotFound, "Not Found")
	default:
		data := []any{}
		if rec := s.records[r.URL.Query().Get("key")]; rec != nil {
			if s.hideSelf {
				rec.left--
			}
			data = append(data, s.show(rec, r.URL.Query().Get("key")))
		}
		writeJSON(w, http.StatusOK, map[string]any{"type": "collection", "resourceType": "register", "data": data, "pagination": map[string]any{"limit": 100, "total": nil}})
	}
}

// show hides the keys as RegisterOutputFilter does.
func (s *fakeServer) show(rec *fakeRecord, asked string) map[string]any {
	out := map[string]any{
		"id": rec.id, "type": "register", "kind": "register", "links": map[string]string{"self": "http://elsewhere.invalid/v1/register/" + rec.id}, "actions": map[string]string{},
		"state": "active", "transitioning": "no", "transitioningMessage": nil, "transitioningProgress": nil,
	}
	switch {
	case rec.left > 0:
		out["state"], out["transitioning"] = "activating", "yes"
	case s.outcome != "":
		out["state"], out["transitioning"], out["transitioningMessage"] = s.outcome, "error", "no agent could be made"
	case asked == rec.key:
		out["key"], out["accessKey"], out["secretKey"] = rec.key, rec.access, rec.secret
	}
	return out
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func apiError(w http.ResponseWriter, status int, code string) {
	writeJSON(w, status, map[string]any{"id": "e", "type": "error", "status": status, "code": code, "message": code, "detail": nil})
}

// testCA is a certificate authority.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func (ca *testCA) checksum() string {
	sum := sha256.Sum256(ca.pem)
	return hex.EncodeToString(sum[:])
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (ca *testCA) issue(t *testing.T, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "drover.test"}, DNSNames: []string{"drover.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// testPublicKey is a 2048-bit RSA key whose private half nobody kept.
const testPublicKey = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApSpzbQ3XQa9SOU+xesgZ
6GpT5zAIy4yNXibgWsrbhjWkiKUYXZWB+FN2pUkLx3ZF7CMkUchS2YBzHYhy94c5
Tt17g4wXBpguEYIHrbwLmuJ0QeihdqdKTHwKA7HmGXFp+d6JTmwfBpp+Asul4LX4
ALQ00j9ssL8y8sWI/zEG7LunX1mT2GKSADMxd86cCGIpz05usrTtqO3cIplmByIj
h4WkMPGDmIWK4UWh+vfoKaRHlFgjLnIAl5vYCcRx5roSPAJwrzBskJAVwp9OgcoJ
y/4ETt5QMJwB7E5SBNjvKgVyUXQ4xZg2xzaxfH3+SYY6y4Fzdx51JJDtuZm5oD6F
IwIDAQAB
-----END PUBLIC KEY-----
`

// testConfig joins the fake server with a state directory of its own.
func testConfig(t *testing.T, s *fakeServer) Config {
	t.Helper()
	cfg := Config{
		StateDir: t.TempDir() + "/state", RequestTimeout: 20 * time.Second, RetryFor: -1, RegisterTimeout: 20 * time.Second,
		Identity: IdentityConfig{LegacyStateDir: "-"},
	}
	if s != nil {
		cfg.URL = secret.New(s.registrationURL())
	}
	return cfg
}
