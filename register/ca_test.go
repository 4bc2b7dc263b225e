package register

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/utils/secret"
)

func TestPinnedCA(t *testing.T) {
	s := newTLSServer(t)
	sum := s.ca.checksum()
	colons := ""
	for i := 0; i < len(sum); i += 2 {
		colons += ":" + strings.ToUpper(sum[i:i+2])
	}
	for _, form := range []string{sum, strings.ToUpper(sum), "sha256:" + sum, colons[1:], " " + sum + "\n"} {
		cfg := testConfig(t, s)
		cfg.TLS.CAChecksum = form
		if r := mustJoin(t, cfg); r.Source != SourceRegistered || r.APIURL != s.URL+"/v1" || r.TLS.RootCAs == nil || r.TLS.InsecureSkipVerify {
			t.Errorf("%s: got %+v", form, r)
		}
	}
	cfg := testConfig(t, s)
	cfg.TLS.CAChecksum = sum
	first := mustJoin(t, cfg)
	if fi, err := os.Stat(filepath.Join(cfg.StateDir, "ca.pem")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("ca.pem: %v, %v", fi, err)
	}
	s.Close()
	if again := mustJoin(t, cfg); again.Source != SourceStored || !again.TLS.RootCAs.Equal(first.TLS.RootCAs) {
		t.Errorf("with the server gone: %+v", again)
	}
}

func TestStoredCAThatIsNotThePinned(t *testing.T) {
	s := newTLSServer(t)
	cfg := testConfig(t, s)
	cfg.TLS.CAChecksum = s.ca.checksum()
	mustJoin(t, cfg)
	for _, content := range [][]byte{newTestCA(t).pem, nil, []byte("<html>")} {
		if err := os.WriteFile(filepath.Join(cfg.StateDir, "ca.pem"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := mustJoin(t, cfg); r.Source != SourceStored {
			t.Errorf("got %+v", r)
		}
		if got, _ := os.ReadFile(filepath.Join(cfg.StateDir, "ca.pem")); string(got) != string(s.ca.pem) {
			t.Errorf("ca.pem holds %q", got)
		}
	}
}

func TestPinThatDoesNotMatchSendsNothingElse(t *testing.T) {
	for name, served := range map[string]func(http.ResponseWriter, *fakeServer){
		"another CA": nil,
		"page":       func(w http.ResponseWriter, _ *fakeServer) { fmt.Fprint(w, "<html><title>Hotel WiFi</title>") },
		"not found":  func(w http.ResponseWriter, _ *fakeServer) { apiError(w, 404, "Not Found") },
		"broken PEM": func(w http.ResponseWriter, _ *fakeServer) {
			fmt.Fprint(w, strings.Repeat("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 2))
		},
		"CA and a half": func(w http.ResponseWriter, s *fakeServer) {
			_, _ = w.Write(append(slices.Clone(s.ca.pem), s.ca.pem[:100]...))
		},
		"a CA and ours": func(w http.ResponseWriter, s *fakeServer) {
			_, _ = w.Write(append(slices.Clone(s.ca.pem), s.ca.pem...))
		},
		"nothing at all": func(http.ResponseWriter, *fakeServer) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTLSServer(t)
			cfg := testConfig(t, s)
			cfg.TLS.CAChecksum = s.ca.checksum()
			if served == nil {
				cfg.TLS.CAChecksum = strings.Repeat("ab", 32)
			} else {
				s.override["GET /v1/scripts/ca.pem"] = func(w http.ResponseWriter, _ *http.Request) { served(w, s) }
			}
			_, err := Join(t.Context(), cfg)
			var ce *CAError
			if !errors.As(err, &ce) || ce.Expected != cfg.TLS.CAChecksum {
				t.Fatalf("got %v, want a CAError", err)
			}
			text := err.Error()
			want := []string{cfg.TLS.CAChecksum, "found ", s.URL + "/v1/scripts/ca.pem", "subject CN=", "issuer CN=Test Root", "names ", "valid 20", "certificate 1 of "}
			if served == nil {
				want = append(want, "subject CN=Test Root", "found "+s.ca.checksum(), "pinned")
			}
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("%q is not in: %s", w, text)
				}
			}
			if strings.Contains(text, "\n") {
				t.Errorf("more than one line: %s", text)
			}
			if got := s.seen(); !slices.Equal(got, []string{"GET /v1/scripts/ca.pem "}) {
				t.Errorf("requests: %v", got)
			}
			if _, err := os.Stat(filepath.Join(cfg.StateDir, "ca.pem")); err == nil {
				t.Error("the wrong CA was stored")
			}
		})
	}
}

// The CA that the pin names is served, but it did not sign the certificate: somebody relays the CA.
func TestRightCAButAnotherServer(t *testing.T) {
	s := newTLSServer(t)
	right := newTestCA(t)
	cfg := testConfig(t, s)
	cfg.TLS.CAChecksum = right.checksum()
	s.ca.pem = right.pem
	_, err := Join(t.Context(), cfg)
	var ce *CAError
	if !errors.As(err, &ce) || !strings.Contains(err.Error(), "nobody trusted signed it") || !strings.Contains(err.Error(), "subject CN=drover.test") {
		t.Fatalf("got %v", err)
	}
	if got := s.seen(); !slices.Equal(got, []string{"GET /v1/scripts/ca.pem "}) {
		t.Errorf("requests: %v", got)
	}
}

func TestCAFile(t *testing.T) {
	s := newTLSServer(t)
	file := func(content []byte) string {
		name := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	bundle := append(append([]byte("# comment\n"), newTestCA(t).pem...), s.ca.pem...)
	for name, c := range map[string]struct {
		tls  TLSConfig
		want string
	}{
		"the CA":           {tls: TLSConfig{CAFile: file(s.ca.pem)}},
		"a bundle":         {tls: TLSConfig{CAFile: file(bundle)}},
		"with its digest":  {tls: TLSConfig{CAFile: file(s.ca.pem), CAChecksum: s.ca.checksum()}},
		"newline lost":     {tls: TLSConfig{CAFile: file([]byte(strings.TrimSpace(string(s.ca.pem)))), CAChecksum: s.ca.checksum()}},
		"with another":     {tls: TLSConfig{CAFile: file(bundle), CAChecksum: s.ca.checksum()}, want: "pinned"},
		"another CA":       {tls: TLSConfig{CAFile: file(newTestCA(t).pem)}, want: "nobody trusted signed it"},
		"missing":          {tls: TLSConfig{CAFile: "/nowhere/ca.pem"}, want: "no such file"},
		"a folder":         {tls: TLSConfig{CAFile: t.TempDir()}, want: "not a regular file"},
		"no PEM":           {tls: TLSConfig{CAFile: file([]byte("hello"))}, want: "no PEM certificate in it: hello"},
		"a key":            {tls: TLSConfig{CAFile: file([]byte(testPublicKey))}, want: "no PEM certificate"},
		"empty":            {tls: TLSConfig{CAFile: file(nil)}, want: "no PEM certificate"},
		"and insecure":     {tls: TLSConfig{CAFile: file(s.ca.pem), Insecure: true}, want: "choose one"},
		"pin and insecure": {tls: TLSConfig{CAChecksum: s.ca.checksum(), Insecure: true}, want: "choose one"},
		"none":             {want: "CATTLE_CA_CHECKSUM or --ca-file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, s)
			cfg.TLS = c.tls
			r, err := Join(t.Context(), cfg)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "":
				if len(noticeKinds(r)) != 0 {
					t.Errorf("notices: %+v", r.Notices)
				}
			case err == nil || !strings.Contains(err.Error(), c.want):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestCertificateFailuresAreExplained(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   []string
	}{
		"expired": {
			func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(1e9, 0), time.Unix(1e9+1, 0) },
			[]string{"is the clock right", "valid 2001-09-09T01:46:40Z to 2001-09-09T01:46:41Z"},
		},
		"other name": {
			func(c *x509.Certificate) {
				c.DNSNames, c.IPAddresses = []string{"other.test"}, []net.IP{net.IPv4(192, 0, 2, 1)}
			},
			[]string{"certificate of 127.0.0.1: it is made for other names", "names other.test 192.0.2.1"},
		},
		"no names": {
			func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil },
			[]string{"made for other names", "names none"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTLSServer(t, c.change)
			cfg := testConfig(t, s)
			cfg.TLS.CAChecksum = s.ca.checksum()
			cfg.RetryFor = time.Hour // it is not a matter of time
			_, err := Join(t.Context(), cfg)
			var ce *CAError
			if !errors.As(err, &ce) || len(ce.Certificates) != 1 {
				t.Fatalf("got %v", err)
			}
			for _, want := range append(c.want, "subject CN=drover.test", "issuer CN=Test Root") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestInsecureIsSaid(t *testing.T) {
	s := newTLSServer(t)
	cfg := testConfig(t, s)
	cfg.TLS.Insecure = true
	r := mustJoin(t, cfg)
	if !r.TLS.InsecureSkipVerify || !slices.Equal(noticeKinds(r), []string{NoticeTLS}) {
		t.Errorf("got %+v", r)
	}
}

func TestPinWithoutTLS(t *testing.T) {
	plain := newFakeServer(t)
	cfg := testConfig(t, plain)
	cfg.TLS.CAChecksum = strings.Repeat("ab", 32)
	var ce *CAError
	if _, err := Join(t.Context(), cfg); !errors.As(err, &ce) || len(plain.seen()) != 0 {
		t.Errorf("http registration URL: %v, requests %v", err, plain.seen())
	}

	// The script comes over a verified connection and sends us to an unverified one.
	s := newTLSServer(t)
	s.script = func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Replace(goodScript, "http://server:8080", plain.URL, 1))
	}
	cfg = testConfig(t, s)
	cfg.TLS.CAChecksum = s.ca.checksum()
	if _, err := Join(t.Context(), cfg); !errors.As(err, &ce) || !strings.Contains(err.Error(), "X-Forwarded-Proto") || len(plain.seen()) != 0 {
		t.Errorf("http API: %v, requests %v", err, plain.seen())
	}
}

func TestRedirectToPlainHTTPIsRefused(t *testing.T) {
	plain, s := newFakeServer(t), newTLSServer(t)
	s.script = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
	}
	cfg := testConfig(t, s)
	cfg.TLS.CAChecksum = s.ca.checksum()
	if _, err := Join(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "from https to http://") || len(plain.seen()) != 0 {
		t.Errorf("got %v, requests %v", err, plain.seen())
	}
}

func TestHTTPSToAPlainServer(t *testing.T) {
	s := newFakeServer(t)
	cfg := testConfig(t, s)
	cfg.URL = secret.New(strings.Replace(s.registrationURL(), "http:", "https:", 1))
	cfg.RetryFor = time.Hour
	_, err := Join(t.Context(), cfg)
	var se *ScriptError
	if !errors.As(err, &se) || !strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		t.Errorf("got %v", err)
	}
}

func TestExplainLeavesOthersAlone(t *testing.T) {
	if Explain(nil) != nil {
		t.Error("nil became an error")
	}
	plain := errors.New("x")
	if got := Explain(plain); got != plain {
		t.Errorf("got %v", got)
	}
	wrapped := fmt.Errorf("dial: %w", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}})
	var ce *CAError
	if got := Explain(wrapped); !errors.As(got, &ce) || Explain(got) != got {
		t.Errorf("got %v", got)
	}
}

func TestAPICert(t *testing.T) {
	rsaPrivate := "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"
	ec := "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEoyfxQ7Psy5XmdJ8oJzXiU9SkYuPR\nAAAA\n-----END PUBLIC KEY-----\n"
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string // "" is a good key
	}{
		"once":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, testPublicKey) }, ""},
		"twice": {nil, ""},
		"crlf": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.ReplaceAll(testPublicKey, "\n", "\r\n"))
		}, ""},
		"error page":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html><title>Oops</title>") }, `a web page "Oops"`},
		"not found":   {http.NotFound, "HTTP 404"},
		"unavailable": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "HTTP 503"},
		"private key": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, rsaPrivate) }, "PEM type"},
		"broken key":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, ec) }, "not a public key"},
		"empty":       {func(http.ResponseWriter, *http.Request) {}, "no PEM"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "900")
			fmt.Fprint(w, testPublicKey)
		}, "unexpected EOF"},
		"hangs up":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"binary bytes": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0, 1, 2}) }, "no PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			if c.answer != nil {
				s.override["GET /v1/scripts/api.crt"] = c.answer
			}
			cfg := testConfig(t, s)
			r := mustJoin(t, cfg)
			got, _ := os.ReadFile(r.APICertFile)
			if c.want == "" {
				if string(got) != testPublicKey || len(noticeKinds(r)) != 0 {
					t.Errorf("got %q, notices %+v", got, r.Notices)
				}
				return
			}
			if len(got) != 0 || len(r.Notices) == 0 || !strings.Contains(r.Notices[len(r.Notices)-1].Text, c.want) {
				t.Errorf("file %q, notices %+v, want none and %q", got, r.Notices, c.want)
			}
			// The next start tries again, and a good key stays when a later answer is bad.
			s.change(func() { delete(s.override, "GET /v1/scripts/api.crt") })
			if r := mustJoin(t, cfg); r.Source != SourceStored || len(noticeKinds(r)) != 0 {
				t.Errorf("next start: %+v", r)
			}
			s.change(func() { s.override["GET /v1/scripts/api.crt"] = c.answer })
			if _, err := r.Refresh(t.Context()); err == nil {
				t.Error("Refresh took it")
			}
			if got, _ := os.ReadFile(r.APICertFile); string(got) != testPublicKey {
				t.Errorf("the good key became %q", got)
			}
		})
	}
}
