package register

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/utils/secret"
)

func mustJoin(t *testing.T, cfg Config) *Result {
	t.Helper()
	r, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func noticeKinds(r *Result) []string {
	var kinds []string
	for _, n := range r.Notices {
		if n.Kind != NoticeIdentity { // what the machine of the test does not tell is not the matter here
			kinds = append(kinds, n.Kind)
		}
	}
	return kinds
}

func TestJoinRegistersThenNeedsNoServer(t *testing.T) {
	s := newFakeServer(t)
	s.polls = 2
	cfg := testConfig(t, s)
	r := mustJoin(t, cfg)
	if r.Source != SourceRegistered || r.APIURL != s.URL+"/v1" || r.AccessKey != "ACCESS1" || r.SecretKey.Reveal() != "agent-secret-1" ||
		r.AgentIP != "203.0.113.7" || r.HostUUID == "" || r.PhysicalHostUUID == "" || r.HostUUID == r.PhysicalHostUUID || len(noticeKinds(r)) != 0 {
		t.Errorf("got %+v", r)
	}
	if fi, err := os.Stat(cfg.StateDir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v, %v", fi.Mode(), err)
	}
	for _, name := range []string{".docker_uuid", ".physical_host_uuid", ".machine", ".registration_token", "credentials.json", "api.crt"} {
		if fi, err := os.Stat(filepath.Join(cfg.StateDir, name)); err != nil || fi.Mode() != 0o600 {
			t.Errorf("%s: %v, %v, want a file with 0600", name, fi, err)
		}
	}
	key, _ := os.ReadFile(filepath.Join(cfg.StateDir, ".registration_token"))
	if len(strings.TrimSpace(string(key))) != 128 {
		t.Errorf("registration key %q, want 128 hex digits", key)
	}
	if crt, _ := os.ReadFile(r.APICertFile); string(crt) != testPublicKey {
		t.Errorf("api.crt holds %q, want the key once", crt)
	}
	// The register calls of the original: look up, create, poll itself, list again.
	want := []string{
		"GET /v1/scripts/" + testToken + " ", "GET /v1/register registrationToken", "POST /v1/register registrationToken",
		"GET /v1/register/1r1 registrationToken", "GET /v1/register/1r1 registrationToken", "GET /v1/register registrationToken", "GET /v1/scripts/api.crt ",
	}
	if got := s.seen(); !slices.Equal(got, want) {
		t.Errorf("requests:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	s.Close()
	again := mustJoin(t, cfg)
	if again.Source != SourceStored || again.AccessKey != r.AccessKey || !again.SecretKey.Equal(r.SecretKey) || again.HostUUID != r.HostUUID || again.AgentIP != r.AgentIP || again.APIURL != r.APIURL {
		t.Errorf("with the server gone: got %+v, want what was stored of %+v", again, r)
	}
	cfg.URL = secret.String{} // a start without the URL finds them too
	if again := mustJoin(t, cfg); again.Source != SourceStored {
		t.Errorf("without a URL: %+v", again)
	}
	cfg.AgentIP = "10.1.2.3"
	if again := mustJoin(t, cfg); again.AgentIP != "10.1.2.3" {
		t.Errorf("a given address: got %s", again.AgentIP)
	}
}

func TestAnotherURLRegistersAgainWithTheSameKey(t *testing.T) {
	s, other := newFakeServer(t), newFakeServer(t)
	cfg := testConfig(t, s)
	first := mustJoin(t, cfg)
	cfg.URL = secret.New(other.registrationURL())
	second := mustJoin(t, cfg)
	if second.Source != SourceRegistered || second.APIURL != other.URL+"/v1" || second.HostUUID != first.HostUUID {
		t.Errorf("got %+v", second)
	}
	cfg.URL = secret.New(s.registrationURL())
	if back := mustJoin(t, cfg); back.Source != SourceRegistered || back.AccessKey != first.AccessKey {
		t.Errorf("back: got %+v, want the agent that the key stands for", back)
	}
	if len(s.records) != 1 || len(other.records) != 1 {
		t.Errorf("agents: %d and %d, want one each", len(s.records), len(other.records))
	}
}

func TestGivenCredentialsSkipRegistration(t *testing.T) {
	s := newFakeServer(t)
	cfg := testConfig(t, s)
	cfg.APIURL, cfg.AccessKey, cfg.SecretKey, cfg.DetectedIP = s.URL+"/v1/schemas", "AK", secret.New("given-secret"), "10.9.8.7"
	r := mustJoin(t, cfg)
	if r.Source != SourceGiven || r.APIURL != s.URL+"/v1" || r.AccessKey != "AK" || r.SecretKey.Reveal() != "given-secret" || r.AgentIP != "10.9.8.7" {
		t.Errorf("got %+v", r)
	}
	if got := s.seen(); !slices.Equal(got, []string{"GET /v1/scripts/api.crt "}) {
		t.Errorf("requests: %v", got)
	}
	if _, err := os.Stat(filepath.Join(cfg.StateDir, fileCredentials)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("given credentials were stored: %v", err)
	}
	// Refused ones are replaced by a registration where one is possible.
	cfg.Rejoin, cfg.APIURL = true, ""
	cfg.AccessKey, cfg.SecretKey = "", secret.String{}
	if r := mustJoin(t, cfg); r.Source != SourceRegistered {
		t.Errorf("got %+v", r)
	}
	cfg.AccessKey, cfg.SecretKey, cfg.APIURL, cfg.URL = "AK", secret.New("given-secret"), s.URL+"/v1", secret.String{}
	if _, err := Join(t.Context(), cfg); !errors.Is(err, ErrRefused) {
		t.Errorf("without a registration URL: %v", err)
	}
}

func TestGivenURLReplacesTheServersOwn(t *testing.T) {
	s := newFakeServer(t)
	s.script = func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Replace(strings.Replace(goodScript, "http://server:8080", "http://inside.invalid:8080", 1), "abc:1:dEf==", testToken, 1))
	}
	cfg := testConfig(t, s)
	cfg.APIURL = s.URL + "/v1"
	for range 2 {
		if r := mustJoin(t, cfg); r.APIURL != s.URL+"/v1" {
			t.Errorf("got %s", r.APIURL)
		}
	}
	if n := len(s.records); n != 1 {
		t.Errorf("%d agents", n)
	}
}

func TestBadConfigurations(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"key without secret":   {func(c *Config) { c.AccessKey = "AK" }, "together"},
		"secret without key":   {func(c *Config) { c.SecretKey = secret.New("given-secret") }, "together"},
		"keys without URL":     {func(c *Config) { c.AccessKey, c.SecretKey = "AK", secret.New("given-secret") }, "CATTLE_URL"},
		"API URL":              {func(c *Config) { c.APIURL = "server/v1" }, "CATTLE_URL"},
		"no state directory":   {func(c *Config) { c.StateDir = "" }, "state directory"},
		"state is a file":      {func(c *Config) { c.StateDir = "/dev/null/x" }, "state directory"},
		"checksum":             {func(c *Config) { c.TLS.CAChecksum = "abc" }, "64 hex digits"},
		"proxy":                {func(c *Config) { c.Proxy.HTTP = "ftp://u:hunter2@p" }, "HTTP_PROXY"},
		"uuid of two words":    {func(c *Config) { c.Identity.HostUUID = "a b" }, "uuid"},
		"nothing":              {func(c *Config) { c.URL = secret.String{} }, ErrNotRegistered.Error()},
		"URL is no URL":        {func(c *Config) { c.URL = secret.New("server/v1/scripts/abc:1:token-part") }, "registration URL"},
		"URL with a bad port":  {func(c *Config) { c.URL = secret.New("http://h:x/v1/scripts/token-part") }, "registration URL"},
		"only a URL of an API": {func(c *Config) { c.URL, c.APIURL = secret.String{}, "http://s/v1" }, ErrNotRegistered.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, nil)
			cfg.URL = secret.New("http://127.0.0.1:1/v1/scripts/x")
			c.change(&cfg)
			_, err := Join(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "token-part") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestUnusableScriptAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string
	}{
		"not found":  {http.NotFound, "HTTP 404: the server does not know this registration token"},
		"forbidden":  {func(w http.ResponseWriter, _ *http.Request) { apiError(w, 403, "Forbidden") }, "HTTP 403: the server refuses"},
		"login page": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html><title>Sign in</title>") }, `a web page "Sign in"`},
		"error page": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(502)
			fmt.Fprint(w, "<html><title>502 Bad Gateway</title>")
		}, `HTTP 502: a web page "502 Bad Gateway"`},
		"missing line": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Replace(goodScript, "CATTLE_URL", "X", 1))
		}, "it does not set CATTLE_URL"},
		"wrong port": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			fmt.Fprint(w, "Client sent an HTTP request to an HTTPS server.\n")
		}, "HTTP 400: Client sent an HTTP request"},
		"redirect loop": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, "more than 5 redirects"},
		"too large": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("# comment\n"), 200000))
		}, "larger than"},
		"nothing in it": {func(http.ResponseWriter, *http.Request) {}, "the answer is empty"},
		"cut in the way": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5000")
			fmt.Fprint(w, goodScript)
		}, "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			s.script = c.answer
			cfg := testConfig(t, s)
			_, err := Join(t.Context(), cfg)
			var se *ScriptError
			if !errors.As(err, &se) {
				t.Fatalf("got %T %v, want a ScriptError", err, err)
			}
			text := err.Error()
			if !strings.Contains(text, c.want) || !strings.Contains(text, s.URL+"/v1/scripts/...") || strings.Contains(text, "\n") || strings.Contains(text, "qffKYy") {
				t.Errorf("got %q, want one line with %q and the place without the token", text, c.want)
			}
			if _, err := os.Stat(filepath.Join(cfg.StateDir, fileCredentials)); err == nil {
				t.Error("credentials were stored")
			}
		})
	}
}

func TestRegistrationOutcomes(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, body) }
	}
	for name, c := range map[string]struct {
		set     func(*fakeServer)
		change  func(*Config)
		refused bool
		want    string // "" is success
	}{
		"active at once":    {set: func(s *fakeServer) {}},
		"slow":              {set: func(s *fakeServer) { s.polls = 4 }},
		"no single objects": {set: func(s *fakeServer) { s.polls, s.hideSelf = 3, true }},
		"never active":      {set: func(s *fakeServer) { s.polls = 1 << 20 }, change: func(c *Config) { c.RegisterTimeout = 300 * time.Millisecond }, want: `not active after 300ms (state "activating")`},
		"error":             {set: func(s *fakeServer) { s.polls, s.outcome = 1, "error" }, want: "could not register this host: no agent could be made"},
		"token revoked": {set: func(s *fakeServer) {
			s.override["GET /v1/register"] = answer(401, `{"type":"error","code":"Unauthorized"}`)
		}, refused: true, want: "HTTP 401: Unauthorized"},
		"forbidden":     {set: func(s *fakeServer) { s.override["POST /v1/register"] = answer(403, ``) }, refused: true, want: "HTTP 403"},
		"known already": {set: conflictOnce, want: ""},
		"conflict for good": {set: func(s *fakeServer) {
			s.override["POST /v1/register"] = answer(422, `{"type":"error","code":"NotUnique","message":"x\ny"}`)
		}, want: "HTTP 422: NotUnique: x y"},
		"page for a list": {set: func(s *fakeServer) { s.override["GET /v1/register"] = answer(200, "<html><title>Home</title>") }, want: `not a collection (a web page "Home")`},
		"list of nothing": {set: func(s *fakeServer) { s.override["GET /v1/register"] = answer(200, "{}") }, want: "not a collection"},
		"list of numbers": {set: func(s *fakeServer) {
			s.override["GET /v1/register"] = answer(200, `{"type":"collection","data":[1,2]}`)
		}, want: "not a collection"},
		"object of a kind": {set: func(s *fakeServer) { s.override["POST /v1/register"] = answer(201, `{"type":"host"}`) }, want: `of type "host"`},
		"vanishes":         {set: func(s *fakeServer) { s.override["POST /v1/register"] = answer(201, `{"type":"register","id":"1r9"}`) }, change: func(c *Config) { c.RegisterTimeout = 300 * time.Millisecond }, want: "does not list it"},
		"somebody else's": {set: func(s *fakeServer) {
			s.override["GET /v1/register"] = answer(200, `{"type":"collection","data":[{"type":"register","state":"active","key":"other","accessKey":"A","secretKey":"S"}]}`)
		}, change: func(c *Config) { c.RegisterTimeout = 300 * time.Millisecond }, want: "not active"},
		"removed": {set: func(s *fakeServer) {
			s.override["GET /v1/register"] = answer(200, `{"type":"collection","data":[{"type":"register","id":"1r1","state":"removed","transitioning":"no","transitioningMessage":"by\nadmin"}]}`)
		}, want: "could not register this host: state removed: by admin"},
		"error without a word": {set: func(s *fakeServer) {
			s.override["POST /v1/register"] = answer(201, `{"type":"register","id":"1r1","state":"erroring","transitioning":"error"}`)
		}, want: "could not register this host: state erroring"},
		"redirect of a POST": {set: func(s *fakeServer) {
			s.override["POST /v1/register"] = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://other.invalid/", http.StatusMovedPermanently)
			}
		}, want: "redirects to https://other.invalid: use that address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFakeServer(t)
			c.set(s)
			cfg := testConfig(t, s)
			if c.change != nil {
				c.change(&cfg)
			}
			r, err := Join(t.Context(), cfg)
			if c.want == "" {
				if err != nil || r.AccessKey != "ACCESS1" {
					t.Fatalf("got %+v, %v", r, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrRefused) != c.refused {
				t.Errorf("got %v (refused %v), want %q (%v)", err, errors.Is(err, ErrRefused), c.want, c.refused)
			}
		})
	}
}

// conflictOnce makes the server have the key by the time it is posted, as after an answer that got lost.
func conflictOnce(s *fakeServer) {
	s.override["POST /v1/register"] = func(w http.ResponseWriter, r *http.Request) {
		s.change(func() { delete(s.override, "POST /v1/register") })
		s.register(discardWriter{}, r)
		apiError(w, http.StatusConflict, "Conflict")
	}
}

type discardWriter struct{}

func (discardWriter) Header() http.Header         { return http.Header{} }
func (discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (discardWriter) WriteHeader(int)             {}

func TestServerThatIsNotReadyIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	failures := 0
	s.script = func(w http.ResponseWriter, _ *http.Request) {
		failures++
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		if failures == 3 {
			s.change(func() { s.script = nil })
		}
	}
	// The first POST is lost on its way back.
	s.override["POST /v1/register"] = func(w http.ResponseWriter, r *http.Request) {
		s.change(func() { delete(s.override, "POST /v1/register") })
		panic(http.ErrAbortHandler)
	}
	cfg := testConfig(t, s)
	cfg.RetryFor = time.Minute
	if r := mustJoin(t, cfg); r.Source != SourceRegistered || failures != 3 {
		t.Errorf("got %+v after %d failures", r, failures)
	}
}

func TestServerThatIsAbsent(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	cfg := testConfig(t, s)
	s.Close()
	cfg.RetryFor = 700 * time.Millisecond
	_, err := Join(t.Context(), cfg)
	var se *ScriptError
	if err == nil || errors.As(err, &se) || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "qffKYy") {
		t.Errorf("got %v, want a plain error that the connection is refused", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg.RetryFor = time.Hour
	if _, err := Join(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	arrived := make(chan struct{}, 1)
	s.script = func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-arrived; cancel(errors.New("shutting down")) }()
	if _, err := Join(ctx, testConfig(t, s)); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("got %v", err)
	}
}

func TestSlowServerIsNotWaitedForForever(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.script = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	cfg := testConfig(t, s)
	cfg.RequestTimeout = 300 * time.Millisecond
	if _, err := Join(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("got %v", err)
	}
}

func TestRejoin(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*fakeServer, *Config)
		refused bool
		access  string
	}{
		"agent was removed":        {change: func(s *fakeServer, _ *Config) { clear(s.records) }, access: "ACCESS2"},
		"with the stored URL":      {change: func(s *fakeServer, c *Config) { clear(s.records); c.URL = secret.String{} }, access: "ACCESS2"},
		"same agent, still good":   {change: func(*fakeServer, *Config) {}, access: "ACCESS1"},
		"same agent, still bad":    {change: func(s *fakeServer, _ *Config) { s.refuse["ACCESS1"] = true }, refused: true},
		"token was revoked":        {change: func(s *fakeServer, _ *Config) { s.override["GET /v1/register"] = unauthorized }, refused: true},
		"token is unknown":         {change: func(s *fakeServer, _ *Config) { s.script = http.NotFound }, refused: true},
		"token is gone":            {change: func(s *fakeServer, _ *Config) { s.script = unauthorized }, refused: true},
		"credentials without URL":  {change: func(_ *fakeServer, c *Config) { forgetURL(c); c.URL = secret.String{} }, refused: true},
		"neither URL nor anything": {change: func(_ *fakeServer, c *Config) { c.StateDir += "2"; c.URL = secret.String{} }, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			cfg := testConfig(t, s)
			first := mustJoin(t, cfg)
			c.change(s, &cfg)
			cfg.Rejoin = true
			r, err := Join(t.Context(), cfg)
			if c.refused {
				var se *ScriptError
				if !errors.Is(err, ErrRefused) || errors.As(err, &se) {
					t.Errorf("got %+v, %v, want ErrRefused and nothing that is the script's fault", r, err)
				}
				return
			}
			if err != nil || r.AccessKey != c.access || r.HostUUID != first.HostUUID || r.Source != SourceRegistered {
				t.Fatalf("got %+v, %v", r, err)
			}
			cfg.Rejoin = false
			if again := mustJoin(t, cfg); again.Source != SourceStored || again.AccessKey != c.access {
				t.Errorf("afterwards: %+v", again)
			}
		})
	}
}

func unauthorized(w http.ResponseWriter, _ *http.Request) {
	apiError(w, http.StatusUnauthorized, "Unauthorized")
}

func forgetURL(cfg *Config) {
	have, err := loadStored(cfg.StateDir)
	if err != nil {
		panic(err)
	}
	have.RegistrationURL = ""
	if err := saveStored(cfg.StateDir, have); err != nil {
		panic(err)
	}
}

func TestStoredCredentialsThatAreBroken(t *testing.T) {
	good := map[string]any{"version": 1, "apiUrl": "http://s/v1", "accessKey": "A", "secretKey": "broken-secret"}
	for name, change := range map[string]func(map[string]any) []byte{
		"empty": func(map[string]any) []byte { return nil },
		"cut":   func(m map[string]any) []byte { b, _ := json.Marshal(m); return b[:len(b)-3] },
		"wrong types": func(m map[string]any) []byte {
			m["secretKey"] = []string{"broken-secret"}
			b, _ := json.Marshal(m)
			return b
		},
		"no secret":    func(m map[string]any) []byte { delete(m, "secretKey"); b, _ := json.Marshal(m); return b },
		"no URL":       func(m map[string]any) []byte { delete(m, "apiUrl"); b, _ := json.Marshal(m); return b },
		"from later":   func(m map[string]any) []byte { m["version"] = 99; b, _ := json.Marshal(m); return b },
		"binary":       func(map[string]any) []byte { return []byte{0, 1, 2, 3} },
		"much too big": func(map[string]any) []byte { return make([]byte, maxBody+1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			cfg := testConfig(t, s)
			mustJoin(t, cfg)
			m := map[string]any{}
			for k, v := range good {
				m[k] = v
			}
			if err := os.WriteFile(filepath.Join(cfg.StateDir, fileCredentials), change(m), 0o600); err != nil {
				t.Fatal(err)
			}
			r := mustJoin(t, cfg)
			if r.Source != SourceRegistered || r.AccessKey != "ACCESS1" || !slices.Equal(noticeKinds(r), []string{NoticeCredentials}) {
				t.Errorf("got %+v", r)
			}
			for _, n := range r.Notices {
				if strings.Contains(n.Text, "broken-secret") {
					t.Errorf("the secret is quoted: %s", n.Text)
				}
			}
			if again := mustJoin(t, cfg); again.Source != SourceStored {
				t.Errorf("afterwards: %+v", again)
			}
		})
	}
}

func TestOpenFilesAreClosed(t *testing.T) {
	s := newFakeServer(t)
	cfg := testConfig(t, s)
	mustJoin(t, cfg)
	for _, name := range []string{fileCredentials, fileKey} {
		if err := os.Chmod(filepath.Join(cfg.StateDir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mustJoin(t, cfg)
	cfg.Rejoin = true // reads the key
	mustJoin(t, cfg)
	for _, name := range []string{fileCredentials, fileKey} {
		if fi, err := os.Stat(filepath.Join(cfg.StateDir, name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	if err := os.Chmod(cfg.StateDir, 0o777); err != nil {
		t.Fatal(err)
	}
	r := mustJoin(t, cfg)
	if !slices.ContainsFunc(r.Notices, func(n Notice) bool { return strings.Contains(n.Text, "others may write") }) {
		t.Errorf("no notice of a state directory for everyone: %+v", r.Notices)
	}
}

func TestRegistrationKeyThatIsBroken(t *testing.T) {
	s := newFakeServer(t)
	cfg := testConfig(t, s)
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.StateDir, fileKey), []byte("<html> no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustJoin(t, cfg)
	key, err := os.ReadFile(filepath.Join(cfg.StateDir, fileKey))
	if err != nil || len(strings.TrimSpace(string(key))) != 128 {
		t.Errorf("got %q, %v", key, err)
	}
}

// A key that an original agent of Windows left has no newline, one of Linux has; both are the same key.
func TestRegistrationKeyIsTrimmed(t *testing.T) {
	s := newFakeServer(t)
	cfg := testConfig(t, s)
	mustJoin(t, cfg)
	var key string
	for key = range s.records {
	}
	for _, form := range []string{key, key + "\r\n", " " + key + "\n\n", "\ufeff" + key} {
		if err := os.WriteFile(filepath.Join(cfg.StateDir, fileKey), []byte(form), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Rejoin = true
		if r := mustJoin(t, cfg); r.AccessKey != "ACCESS1" {
			t.Errorf("key %q became another agent: %s", form, r.AccessKey)
		}
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	s := newTLSServer(t)
	s.polls = 1
	var out bytes.Buffer
	log := logrus.New()
	log.SetOutput(&out)
	log.SetLevel(logrus.TraceLevel)
	log.SetFormatter(&logrus.JSONFormatter{})
	cfg := testConfig(t, s)
	cfg.Log, cfg.TLS.CAChecksum, cfg.RetryFor = log, s.ca.checksum(), time.Minute
	failed := false
	s.override["GET /v1/register"] = func(w http.ResponseWriter, r *http.Request) {
		s.change(func() { delete(s.override, "GET /v1/register") })
		failed = true
		panic(http.ErrAbortHandler)
	}
	r := mustJoin(t, cfg)
	log.WithField("result", fmt.Sprintf("%+v %#v", r, r)).WithField("raw", r.SecretKey).Info("joined")
	var key string
	for key = range s.records {
	}
	for what, value := range map[string]string{"token": "qffKYyH0hj98fI43bfcjdRRTtF8", "secret": "agent-secret-1", "key": key} {
		if strings.Contains(out.String(), value) {
			t.Errorf("the %s is in the log:\n%s", what, out.String())
		}
	}
	if !failed || !strings.Contains(out.String(), "retryIn") || !strings.Contains(out.String(), "registered") {
		t.Errorf("log:\n%s", out.String())
	}
}

func TestRefresh(t *testing.T) {
	s := newFakeServer(t)
	cfg := testConfig(t, s)
	mustJoin(t, cfg)
	cfg.URL = secret.String{}
	r := mustJoin(t, cfg)
	if err := os.Remove(r.APICertFile); err != nil {
		t.Fatal(err)
	}
	s.change(func() {
		s.script = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Replace(goodScript, "203.0.113.7", "203.0.113.8", 1))
		}
	})
	ip, err := r.Refresh(t.Context())
	if err != nil || ip != "203.0.113.8" {
		t.Errorf("got %q, %v", ip, err)
	}
	if crt, _ := os.ReadFile(r.APICertFile); string(crt) != testPublicKey {
		t.Errorf("api.crt: %q", crt)
	}
	s.Close()
	if _, err := r.Refresh(t.Context()); err == nil {
		t.Error("no error with the server gone")
	}
}

// BenchmarkJoinStored is what a start costs that needs no server.
func BenchmarkJoinStored(b *testing.B) {
	s := unstarted()
	s.Server = httptest.NewServer(s)
	defer s.Close()
	cfg := Config{URL: secret.New(s.registrationURL()), StateDir: b.TempDir(), RetryFor: -1, Identity: IdentityConfig{LegacyStateDir: "-"}}
	if _, err := Join(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r, err := Join(b.Context(), cfg); err != nil || r.Source != SourceStored {
			b.Fatal(r, err)
		}
	}
}
