package access_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

// connectBackend connects as the original agent of a host does.
func connectBackend(t *testing.T, r *replica, hostUUID, agentID string) *websocket.Conn {
	t.Helper()
	token, err := r.BackendToken(hostUUID, agentID)
	if err != nil {
		t.Fatal(err)
	}
	ws, resp, err := websocket.DefaultDialer.Dial(socketURL(r, access.WayBackend)+"?token="+token, nil)
	if err != nil {
		t.Fatalf("%v %v", err, resp)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	return ws
}

func socketURL(r *replica, path string) string {
	return "ws" + strings.TrimPrefix(r.http.URL, "http") + "/v1/" + path
}

func viewToken(t *testing.T, r *replica, hostUUID, way string, claims map[string]any) string {
	t.Helper()
	token, err := r.ViewToken(hostUUID, way, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

var execClaims = map[string]any{"exec": map[string]any{"AttachStdin": true, "AttachStdout": true, "Tty": true, "Cmd": []string{"sh"}, "Container": "abc"}}

// view opens a way as a viewer.
func view(t *testing.T, r *replica, path, token string, protocols ...string) *websocket.Conn {
	t.Helper()
	ws, resp, err := (&websocket.Dialer{Subprotocols: protocols}).Dial(socketURL(r, path)+"?token="+token, nil)
	if err != nil {
		t.Fatalf("%s: %v %v", path, err, resp)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	return ws
}

func read(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_, b, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func original(a *store.Agent) { a.Drover = false }

// TestGoldenFrames is one viewer's stream, frame by frame, as an original agent sees it.
func TestGoldenFrames(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	token := viewToken(t, r, "uuid-1", access.WayExec, execClaims)
	ws := view(t, r, "exec/", token)
	first := read(t, back)
	key, rest, _ := strings.Cut(first, "||")
	if len(key) != 36 || rest != "0||/v1/exec/?token="+token {
		t.Fatalf("connect frame %q", first)
	}
	write(t, ws, ":resizeTTY:80,24")
	write(t, ws, "bHMK||x")
	for _, want := range []string{key + "||1||:resizeTTY:80,24", key + "||1||bHMK||x"} {
		if got := read(t, back); got != want {
			t.Errorf("frame %q, want %q", got, want)
		}
	}
	write(t, back, key+"||1||b3V0||put")
	if got := read(t, ws); got != "b3V0||put" {
		t.Errorf("the viewer got %q", got)
	}
	// The viewer leaves.
	ws.Close()
	if got := read(t, back); got != key+"||2||" {
		t.Errorf("close frame %q", got)
	}
	// The agent ends a stream, and what it sent before arrives.
	ws = view(t, r, "exec/", token)
	key, _, _ = strings.Cut(read(t, back), "||")
	write(t, back, key+"||1||bGFzdA==")
	write(t, back, key+"||2||")
	if got := read(t, ws); got != "bGFzdA==" {
		t.Errorf("before the end: %q", got)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("at the end: %v", err)
	}
}

func TestBinaryViewers(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	ws := view(t, r, "dockersocket/", viewToken(t, r, "uuid-1", access.WaySocket, nil), "binary")
	key, _, _ := strings.Cut(read(t, back), "||")
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte{0, 1, 255}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, back); got != key+"||1||AAH/" {
		t.Errorf("frame %q", got)
	}
	write(t, back, key+"||1||/wEA")
	if kind, b, err := ws.ReadMessage(); kind != websocket.BinaryMessage || string(b) != "\xff\x01\x00" || err != nil {
		t.Errorf("the viewer got %d %q %v", kind, b, err)
	}
}

// TestHostileAgent sends frames that are none: each costs itself alone.
func TestHostileAgent(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	ws := view(t, r, "exec/", viewToken(t, r, "uuid-1", access.WayExec, execClaims))
	key, _, _ := strings.Cut(read(t, back), "||")
	for _, text := range []string{"", "x", "||", "||1||a", key, key + "||1", "a||b", strings.Repeat("|", 4096)} {
		write(t, back, text)
	}
	if err := back.WriteMessage(websocket.BinaryMessage, []byte(key+"||1||bm8=")); err != nil {
		t.Fatal(err)
	}
	write(t, back, "unknown||1||body")
	if got := read(t, back); got != "unknown||2||" {
		t.Errorf("a body for nobody is answered with %q", got)
	}
	write(t, back, key+"||1||eWVz")
	if got := read(t, ws); got != "eWVz" {
		t.Errorf("after malformed frames the viewer got %q", got)
	}
	write(t, back, key+"||7||a type that is none")
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("after a type that is none: %v", err)
	}
}

// TestAStuckViewerStopsNobody has one viewer who never reads beside one who does.
func TestAStuckViewerStopsNobody(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	claims := map[string]any{"logs": map[string]any{"Container": "abc"}}
	stuck := view(t, r, "logs/", viewToken(t, r, "uuid-1", access.WayLogs, claims))
	stuckKey, _, _ := strings.Cut(read(t, back), "||")
	good := view(t, r, "logs/", viewToken(t, r, "uuid-1", access.WayLogs, claims))
	goodKey, _, _ := strings.Cut(read(t, back), "||")
	const lines = 300
	line := strings.Repeat("x", 64<<10) // enough to fill the stuck viewer's socket and queue
	sent := make(chan error, 1)
	go func() {
		for i := range lines {
			for _, text := range []string{stuckKey + "||1||" + line, fmt.Sprintf("%s||1||%d", goodKey, i)} {
				if err := back.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
					sent <- err
					return
				}
			}
		}
		sent <- nil
	}()
	closed := make(chan bool, 1)
	go func() { // what the server answers: it closes the stuck stream
		for {
			_, b, err := back.ReadMessage()
			if err != nil || string(b) == stuckKey+"||2||" {
				closed <- err == nil
				return
			}
		}
	}()
	for i := range lines {
		if got := read(t, good); got != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, got)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !<-closed {
		t.Error("the stuck viewer's stream was not closed")
	}
	stuck.Close()
}

func TestTokensOfViewers(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	sign := func(claims jwt.MapClaims) string {
		all := jwt.MapClaims{"hostUuid": "uuid-1", "droverWay": "exec", "exp": time.Now().Add(time.Minute).Unix(), "exec": map[string]any{"Cmd": []string{"sh"}}}
		for k, v := range claims {
			if all[k] = v; v == nil {
				delete(all, k)
			}
		}
		text, err := jwt.NewWithClaims(jwt.SigningMethodRS256, all).SignedString(signingKey())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"hostUuid": "uuid-1", "droverWay": "exec", "exp": time.Now().Add(time.Minute).Unix(), "exec": map[string]any{}}).
		SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := r.BackendToken("uuid-1", agentID)
	if err != nil {
		t.Fatal(err)
	}
	good := sign(nil)
	for what, c := range map[string]struct {
		path, token string
		status      int
	}{
		"none":                            {"exec/", "", 401},
		"garbage":                         {"exec/", "a.b.c", 401},
		"without signature":               {"exec/", none, 401},
		"with a changed signature":        {"exec/", good[:len(good)-4] + "AAAA", 401},
		"expired":                         {"exec/", sign(jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}), 401},
		"without end":                     {"exec/", sign(jwt.MapClaims{"exp": nil}), 401},
		"without host":                    {"exec/", sign(jwt.MapClaims{"hostUuid": nil}), 401},
		"with a host that is a number":    {"exec/", sign(jwt.MapClaims{"hostUuid": 5}), 401},
		"for an unknown host":             {"exec/", sign(jwt.MapClaims{"hostUuid": "uuid-2"}), 404},
		"without claim":                   {"exec/", sign(jwt.MapClaims{"exec": nil}), 401},
		"with a claim that is a text":     {"exec/", sign(jwt.MapClaims{"exec": "sh"}), 401},
		"of another way":                  {"dockersocket/", good, 401},
		"of figures, for a shell":         {"exec/", sign(jwt.MapClaims{"droverWay": "hoststats", "resourceId": "1h1"}), 401},
		"of a backend":                    {"exec/", backend, 401},
		"between replicas":                {"exec/", sign(jwt.MapClaims{"aud": "drover-replica"}), 401},
		"of a viewer, for a backend":      {"connectbackend", good, 401},
		"of a backend of another's agent": {"connectbackend", sign(jwt.MapClaims{"reportedUuid": "uuid-1", "agent": "1a4711"}), 401},
		"of a backend without agent":      {"connectbackend", sign(jwt.MapClaims{"reportedUuid": "uuid-1"}), 401},
		"without a container":             {"containerstats", sign(jwt.MapClaims{"droverWay": "containerstats"}), 401},
		"without a host's id":             {"hoststats", sign(jwt.MapClaims{"droverWay": "hoststats"}), 401},
	} {
		ws, resp, err := websocket.DefaultDialer.Dial(socketURL(r, c.path)+"?token="+url.QueryEscape(c.token), nil)
		if err == nil {
			ws.Close()
		}
		if err == nil || resp == nil || resp.StatusCode != c.status {
			t.Errorf("a token %s: %v %v, want %d", what, resp, err, c.status)
		}
	}
	for _, way := range []string{"exec/", "logs/", "connectbackend"} {
		if status, _, _ := get(t, r.http.URL+"/v1/"+way); status != http.StatusUpgradeRequired {
			t.Errorf("%s without a WebSocket: %d", way, status)
		}
	}
	view(t, r, "exec/", good)
	if got := read(t, back); !strings.Contains(got, "||0||/v1/exec/") {
		t.Errorf("the good token brought %q", got)
	}
}

// TestANewBackendReplacesTheOld, also where they are at different replicas, and viewers find it from both.
func TestANewBackendReplacesTheOld(t *testing.T) {
	nats := storetest.NATS(t)
	one := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{nats}}), nil)
	other := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{nats}}), nil)
	id, agentID := host(t, one.store, "uuid-1", original)
	eventually(t, "the host at both", func() bool {
		_, err := other.store.Hosts.Get(id)
		_, err2 := other.store.Agents.Get(agentID)
		return err == nil && err2 == nil
	})
	logsOf := func(r *replica) *websocket.Conn {
		return view(t, r, "logs/", viewToken(t, r, "uuid-1", access.WayLogs, map[string]any{"logs": map[string]any{"Container": "abc"}}))
	}
	first := connectBackend(t, one, "uuid-1", agentID)
	logsOf(one)
	read(t, first) // only now is it known to be the one in use, and the other the newer one
	second := connectBackend(t, other, "uuid-1", agentID)
	for { // until it is closed; the end of its viewer may come before
		if _, _, err := first.ReadMessage(); err != nil {
			break
		}
	}
	for name, r := range map[string]*replica{"at the backend's replica": other, "at another": one} {
		ws := logsOf(r)
		key, _, _ := strings.Cut(read(t, second), "||")
		write(t, second, key+"||1||01 line\n")
		if got := read(t, ws); got != "01 line\n" {
			t.Errorf("%s: %q", name, got)
		}
		write(t, second, key+"||2||")
	}
}

// TestContainerProxyMessages is one HTTP request through the frames.
func TestContainerProxyMessages(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	token := viewToken(t, r, "uuid-1", access.WayProxy, map[string]any{"proxy": map[string]any{"Container": "abc", "scheme": "http", "address": "10.42.0.5:8080"}})
	type result struct {
		status int
		header http.Header
		body   string
		err    error
	}
	answers := make(chan result, 1)
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http.URL+"/v1/container-proxy/a/b?token="+token+"&q=1", strings.NewReader("in"))
		req.Header.Set("X-Own", "kept")
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			answers <- result{err: err}
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		answers <- result{resp.StatusCode, resp.Header, string(b), err}
	}()
	key, rest, _ := strings.Cut(read(t, back), "||")
	if !strings.HasPrefix(rest, "0||/v1/container-proxy/?token=") {
		t.Errorf("connect frame %q", rest)
	}
	var body string
	for n := 0; ; n++ {
		var m struct {
			Host, Method, URL string
			Headers           map[string][]string
			Body              []byte
			EOF, Hijack       bool
		}
		text, ok := strings.CutPrefix(read(t, back), key+"||1||")
		if err := json.Unmarshal([]byte(text), &m); err != nil || !ok {
			t.Fatalf("message %q: %v", text, err)
		}
		if n == 0 && (m.Method != "POST" || m.URL != "http://10.42.0.5:8080/a/b?q=1" || m.Host != "10.42.0.5:8080" || m.Hijack || m.Headers["X-Own"][0] != "kept" || m.Headers["Authorization"] != nil) {
			t.Errorf("head %s", text)
		}
		body += string(m.Body)
		if m.EOF {
			break
		}
	}
	if body != "in" {
		t.Errorf("body %q", body)
	}
	write(t, back, key+`||1||{"code":418,"headers":{"X-Tea":["yes"],"Connection":["close"]}}`)
	write(t, back, key+`||1||{"body":"`+base64.StdEncoding.EncodeToString([]byte("pot"))+`"}`)
	write(t, back, key+`||1||{"eof":true}`)
	if got := <-answers; got.status != http.StatusTeapot || got.body != "pot" || got.header.Get("X-Tea") != "yes" || got.err != nil {
		t.Errorf("answer %+v", got)
	}
	// An agent that ends in the middle leaves no answer that looks whole.
	go func() {
		resp, err := http.Get(r.http.URL + "/v1/container-proxy/?token=" + token)
		if err != nil {
			answers <- result{err: err}
			return
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		answers <- result{err: err}
	}()
	key = ""
	for key == "" {
		if k, rest, _ := strings.Cut(read(t, back), "||"); strings.HasPrefix(rest, "0||") {
			key = k
		}
	}
	write(t, back, key+`||1||{"code":200,"body":"YQ=="}`)
	write(t, back, key+"||2||")
	if got := <-answers; got.err == nil {
		t.Error("an answer that was cut off looked whole")
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestContainerProxyUpgrades carries bytes both ways between a viewer and a container's port that agreed on a protocol of
// their own, to the end of each half.
func TestContainerProxyUpgrades(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	token := viewToken(t, r, "uuid-1", access.WayProxy, map[string]any{"proxy": map[string]any{"Container": "abc", "scheme": "http", "address": "10.42.0.5:8080"}})
	var conn *net.TCPConn
	var in *bufio.Reader
	open := func(code int) (key string) {
		t.Helper()
		upgraded := make(chan struct{})
		go func() {
			defer close(upgraded)
			plain, err := net.Dial("tcp", r.http.Listener.Addr().String())
			if err != nil {
				return
			}
			conn, in = plain.(*net.TCPConn), bufio.NewReader(plain)
			_ = conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(conn, "GET /v1/container-proxy/chat?token=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", token)
		}()
		for kind := ""; !strings.HasPrefix(kind, "0||"); { // the end of the one before may come first
			key, kind, _ = strings.Cut(read(t, back), "||")
		}
		<-upgraded
		t.Cleanup(func() { conn.Close() })
		var head struct {
			Hijack  bool
			Headers map[string][]string
		}
		text := strings.TrimPrefix(read(t, back), key+"||1||")
		if err := json.Unmarshal([]byte(text), &head); err != nil || !head.Hijack || strings.Join(head.Headers["Upgrade"], "") != "tcp" || strings.Join(head.Headers["Connection"], "") != "Upgrade" {
			t.Fatalf("head %q, %v", text, err)
		}
		write(t, back, fmt.Sprintf(`%s||1||{"code":%d,"headers":{"Connection":["Upgrade"],"Upgrade":["tcp"]}}`, key, code))
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != code || code == 101 && resp.Header.Get("Upgrade") != "tcp" {
			t.Fatalf("answer %+v, %v", resp, err)
		}
		return key
	}
	body := func(text string) string {
		return `{"body":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"}`
	}
	key := open(http.StatusSwitchingProtocols)
	fmt.Fprint(conn, "\x00in\xff")
	_ = conn.CloseWrite()
	var said []byte
	for over := false; !over; {
		var m struct {
			Body []byte
			EOF  bool
		}
		text := strings.TrimPrefix(read(t, back), key+"||1||")
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("to the container: %q", text)
		}
		said, over = append(said, m.Body...), m.EOF
	}
	if string(said) != "\x00in\xff" {
		t.Errorf("to the container: %q", said)
	}
	write(t, back, key+"||1||"+body("out\xfe\x00"))
	write(t, back, key+`||1||{"eof":true}`)
	if b, err := io.ReadAll(in); string(b) != "out\xfe\x00" || err != nil {
		t.Errorf("from the container: %q %v", b, err)
	}

	// An agent that goes away ends the viewer's connection.
	key = open(http.StatusSwitchingProtocols)
	write(t, back, key+"||2||")
	if b, err := io.ReadAll(in); len(b) != 0 || err != nil {
		t.Errorf("after the agent's end: %q %v", b, err)
	}
}

// TestTheConnectionServesTheNextRequest sends a second request over the connection of one that went to a container.
func TestTheConnectionServesTheNextRequest(t *testing.T) {
	s := storetest.Open(t)
	r := start(t, s, nil)
	r.linger = 20 * time.Millisecond
	_, agentID := host(t, s, "uuid-1", original)
	back := connectBackend(t, r, "uuid-1", agentID)
	token := viewToken(t, r, "uuid-1", access.WayProxy, map[string]any{"proxy": map[string]any{"Container": "abc", "scheme": "http", "address": "10.42.0.5:8080"}})
	stuck, unstick := io.Pipe()
	defer unstick.Close()
	for name, c := range map[string]struct {
		body   io.Reader
		whole  bool
		reused bool
	}{
		"no body":           {nil, true, true},
		"a whole body":      {strings.NewReader("in"), true, true},
		"a body that lasts": {stuck, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 2}, Timeout: patience}
			defer client.CloseIdleConnections()
			answered := make(chan error, 1)
			go func() {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.http.URL+"/v1/container-proxy/?token="+token, c.body)
				resp, err := client.Do(req)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				answered <- err
			}()
			var key string
			for whole := false; key == "" || whole != c.whole; {
				k, rest, _ := strings.Cut(read(t, back), "||")
				if strings.HasPrefix(rest, "0||") {
					key = k
				}
				whole = k == key && strings.Contains(rest, `"eof":true`)
			}
			write(t, back, key+`||1||{"code":200}`)
			write(t, back, key+`||1||{"eof":true}`)
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			reused := false
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
			req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, r.http.URL+"/v1/alive", nil)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := resp.Header.Get("X-Alive"); got != "<nil>" || reused != c.reused {
				t.Errorf("reused: %t, the context of the next request: %s", reused, got)
			}
		})
	}
}

// TestFiguresOfSeveralHosts has one socket for hosts whose ends are at different replicas.
func TestFiguresOfSeveralHosts(t *testing.T) {
	url := storetest.NATS(t)
	here := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}), nil)
	there := start(t, storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}}), nil)
	backends := map[string]*websocket.Conn{}
	var parts []access.Part
	for key, r := range map[string]*replica{"uuid-1": here, "uuid-2": there, "uuid-3": nil} {
		_, agentID := host(t, here.store, key, func(a *store.Agent) {
			original(a)
			if r == nil {
				a.Connection = store.ConnectionDisconnected
			}
		})
		for _, other := range []*replica{here, there} {
			eventually(t, "the host at both", func() bool { _, err := other.store.HostByUUID(key); return err == nil })
		}
		if r != nil {
			backends[key] = connectBackend(t, r, key, agentID)
		}
		if key == "uuid-1" {
			parts = append(parts, access.Part{Host: key}, access.Part{Host: "removed"})
			continue
		}
		parts = append(parts, access.Part{Token: viewToken(t, here, key, access.WayHostStats, map[string]any{"resourceId": key})})
	}
	token, err := here.MergedToken(access.WayHostStats, "project", parts)
	if err != nil {
		t.Fatal(err)
	}
	viewer := view(t, here, "hoststats/project/", token)
	keys := map[string]string{}
	for name, back := range backends {
		key, rest, _ := strings.Cut(read(t, back), "||")
		if !strings.HasPrefix(rest, "0||/v1/hoststats/?token=") {
			t.Errorf("%s was asked for %q", name, rest)
		}
		keys[name] = key
	}
	say := func(name, what string) {
		t.Helper()
		write(t, backends[name], keys[name]+"||1||"+what)
		if got := read(t, viewer); got != what {
			t.Errorf("%s said %q, and the viewer got %q", name, what, got)
		}
	}
	say("uuid-1", `[{"id":"one"}]`)
	say("uuid-2", `[{"id":"two"}]`)
	// The end of one is not that of the others.
	write(t, backends["uuid-1"], keys["uuid-1"]+"||2||")
	say("uuid-2", `[{"id":"two"}]`)
	write(t, backends["uuid-2"], keys["uuid-2"]+"||2||")
	if _, _, err := viewer.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("after the last one: %v", err)
	}

	// Each token opens its own door alone.
	alone, err := here.MergedToken(access.WayHostStats, "project", []access.Part{{Token: viewToken(t, here, "uuid-1", access.WayExec, execClaims)}})
	if err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"of several hosts for one":  "hoststats/?token=" + token,
		"of one host for several":   "hoststats/project/?token=" + viewToken(t, here, "uuid-1", access.WayHostStats, map[string]any{"resourceId": "x"}),
		"of another kind":           "containerstats/service/?token=" + token,
		"around one of another way": "hoststats/project/?token=" + alone,
		"that is none":              "hoststats/project/?token=x",
		"that is missing":           "hoststats/project/",
	} {
		ws, resp, err := websocket.DefaultDialer.Dial(socketURL(here, path), nil)
		if err == nil {
			ws.Close()
		}
		if resp == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a token %s: %v %v", what, resp, err)
		}
	}
}
