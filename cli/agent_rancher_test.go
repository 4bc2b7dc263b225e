package cli

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events/eventstest"
)

// TestAgentServesRanchersProxy runs the whole agent at a server that is Rancher's, and opens streams as its proxy does.
func TestAgentServesRanchersProxy(t *testing.T) {
	s := eventstest.NewServer(t, eventstest.Options{})
	behind, err := url.Parse(strings.TrimSuffix(s.URL(), "/v1"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	hostUUID := make(chan string, 8)
	links := make(chan *websocket.Conn, 4)
	relay := httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(behind); r.Out.Host = r.In.Host }}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/hostapiproxytokens":
			var body struct{ ReportedUUID string }
			_ = json.NewDecoder(r.Body).Decode(&body)
			w.Header().Set("Content-Type", "application/json")
			if asked.Add(1) == 1 { // the host is not known yet
				w.WriteHeader(http.StatusUnprocessableEntity)
				fmt.Fprint(w, `{"type":"error","status":422,"code":"InvalidReference","fieldName":"reportedUuid"}`)
				return
			}
			hostUUID <- body.ReportedUUID
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"type":"hostApiProxyToken","url":"ws://%s/v1/connectbackend","token":"back.end.token"}`, r.Host)
		case "/v1/connectbackend":
			if got := r.Header.Get("Authorization"); got != "Bearer back.end.token" || r.URL.RawQuery != "" {
				t.Errorf("connectbackend with %q and query %q", got, r.URL.RawQuery)
			}
			if ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil); err == nil {
				links <- ws
			}
		case "/v1/tunnel":
			t.Error("the agent opened a tunnel to a server that is Rancher's")
		default:
			relay.ServeHTTP(w, r)
		}
	}))
	defer front.Close()

	dir := t.TempDir()
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "public.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("drover-cli-%06x", mathrand.Uint32N(1<<24))
	out, err := exec.Command("docker", "run", "-d", "--name", name, testImage, "sleep", "600").CombinedOutput()
	if err != nil {
		t.Fatalf("docker run: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", name).Run() }) // gone with the test image otherwise
	env := credentials(s, dir)
	env["CATTLE_URL"] = front.URL + "/v1"
	env["CATTLE_CONSOLE_HOST_API_PUBLIC_KEY"] = file
	env["DROVER_DENY"] = "dockersocket"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var log syncBuffer
	go func() {
		ended <- Main(ctx, Env{Args: []string{"agent"}, Getenv: func(k string) string { return env[k] }, Stdout: &log, Stderr: &log})
	}()
	defer func() {
		cancel()
		select {
		case code := <-ended:
			if code != ExitOK {
				t.Errorf("exit code %d\n%s", code, log.String())
			}
		case <-time.After(patience):
			t.Error("the agent does not end")
		}
		for _, secret := range []string{eventstest.SecretKey, "back.end.token"} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("the log has %q:\n%s", secret, log.String())
			}
		}
	}()
	var ws *websocket.Conn
	select {
	case ws = <-links:
	case <-time.After(patience):
		t.Fatalf("no connection to the proxy\n%s", log.String())
	}
	defer ws.Close()
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	uuid := <-hostUUID
	sign := func(claims jwt.MapClaims) string {
		claims["exp"] = time.Now().Add(time.Minute).Unix()
		text, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	// stream opens a path and returns the bodies until the agent closes it.
	n := 0
	stream := func(path, token string) (bodies []string) {
		t.Helper()
		n++
		k := fmt.Sprintf("viewer-%d", n)
		for _, text := range []string{"no separators", "||", k + "||0||" + path + "?token=" + token} {
			if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		for {
			_, b, err := ws.ReadMessage()
			if err != nil {
				t.Fatalf("%s: %v\n%s", path, err, log.String())
			}
			if string(b) == k+"||2||" {
				return bodies
			}
			if body, ok := strings.CutPrefix(string(b), k+"||1||"); ok {
				bodies = append(bodies, body)
			}
		}
	}
	run := map[string]any{"AttachStdin": false, "AttachStdout": true, "Tty": true, "Cmd": []string{"echo", "through the proxy"}, "Container": strings.TrimSpace(string(out))}
	var said []byte
	for _, body := range stream("/v1/exec/", sign(jwt.MapClaims{"hostUuid": uuid, "exec": run})) {
		b, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			t.Error(err)
		}
		said = append(said, b...)
	}
	if string(said) != "through the proxy\r\n" {
		t.Errorf("exec said %q", said)
	}
	for what, c := range map[string][2]string{
		"no token":             {"/v1/exec/", ""},
		"another host":         {"/v1/exec/", sign(jwt.MapClaims{"hostUuid": "another", "exec": run})},
		"no claim":             {"/v1/exec/", sign(jwt.MapClaims{"hostUuid": uuid})},
		"figures, no token":    {"/v1/stats", ""},
		"a path that is none":  {"/v1/nothing/", sign(jwt.MapClaims{"hostUuid": uuid})},
		"what the host denies": {"/v1/dockersocket/", sign(jwt.MapClaims{"hostUuid": uuid})},
		"an untrusted proxy":   {"/v1/container-proxy/", ""},
	} {
		if got := stream(c[0], c[1]); len(got) != 0 {
			t.Errorf("%s: %q", what, got)
		}
	}
}
