package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/server"
	"github.com/droverhq/drover/web"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// site is a running server, and a client that trusts it.
type site struct {
	t      *testing.T
	srv    *server.Server
	url    string
	key    string // "ak_...:secret"; "" where the data directory was used before
	client *http.Client
	log    *lockedBuffer
	stop   func()
}

// start runs a server on a free loopback port, over plain HTTP unless cfg says otherwise.
func start(t *testing.T, cfg server.Config) *site {
	t.Helper()
	s := &site{t: t, log: &lockedBuffer{}}
	log := logrus.New()
	log.SetOutput(s.log)
	log.SetLevel(logrus.DebugLevel)
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.TLS.Mode == "" {
		cfg.TLS.Mode = server.TLSOff
	}
	cfg.Log, cfg.Version, cfg.Web = log, "1.2.3-test", web.Files()
	cfg.OnAdminKey = func(key string) { s.key = key }
	srv, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.srv = srv
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
		s.client.CloseIdleConnections()
	}
	s.client = &http.Client{Transport: &http.Transport{}, Timeout: patience}
	select {
	case <-srv.Ready():
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	case <-time.After(patience):
		t.Fatal("the server does not start")
	}
	t.Cleanup(s.stop)
	s.url = srv.URL()
	if ca := srv.CAPEM(); ca != nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		s.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return s
}

// answer is what came back for a request.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any // nil where text is no JSON object
}

// str returns a field of the body.
func (a *answer) str(name string) string { s, _ := a.body[name].(string); return s }

// data returns the resources of a collection.
func (a *answer) data() []map[string]any {
	var out []map[string]any
	list, _ := a.body["data"].([]any)
	for _, d := range list {
		out = append(out, d.(map[string]any))
	}
	return out
}

// as is a user and secret joined by a colon; "" sends none.
func (s *site) do(method, path, as string, body any, headers ...string) *answer {
	s.t.Helper()
	a, err := s.try(method, path, as, body, headers...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (s *site) try(method, path, as string, body any, headers ...string) (*answer, error) {
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	case []byte:
		in = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(raw)
	}
	if !strings.HasPrefix(path, "http") {
		path = s.url + path
	}
	r, err := http.NewRequest(method, path, in)
	if err != nil {
		return nil, err
	}
	if as != "" {
		user, secret, _ := strings.Cut(as, ":")
		r.SetBasicAuth(user, secret)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	noRedirects := *s.client
	noRedirects.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := noRedirects.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: res.StatusCode, header: res.Header, text: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a, nil
}

// must is do for requests that have to succeed.
func (s *site) must(method, path, as string, body any, headers ...string) *answer {
	s.t.Helper()
	a := s.do(method, path, as, body, headers...)
	if a.status >= 300 {
		s.t.Fatalf("%s %s: %d %s", method, path, a.status, a.text)
	}
	return a
}

// token makes a registration token.
func (s *site) token() string {
	s.t.Helper()
	return s.must("POST", "/v2-beta/registrationtokens", s.key, map[string]any{"description": "test"}).str("token")
}
