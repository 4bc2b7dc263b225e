package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/droverhq/drover/events/wire"
	"github.com/gorilla/websocket"
)

// lockedBuffer is a log that is written and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// scriptValues reads the export lines of a registration script.
func scriptValues(script string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(script) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			out[name] = strings.Trim(value, `"`)
		}
	}
	return out
}

// join goes through the real door, as an agent does, and returns its credentials "access:secret".
func (s *site) join(token, key string) string {
	s.t.Helper()
	env := scriptValues(s.must("GET", "/v1/scripts/"+token, "", nil).text)
	as := env["CATTLE_REGISTRATION_ACCESS_KEY"] + ":" + env["CATTLE_REGISTRATION_SECRET_KEY"]
	made := s.must("POST", env["CATTLE_URL"]+"/register", as, map[string]any{"key": key})
	if made.status != 201 || made.str("state") != "activating" || made.body["secretKey"] != nil || made.body["key"] != nil {
		s.t.Fatalf("register: %d %s", made.status, made.text)
	}
	list := s.must("GET", env["CATTLE_URL"]+"/register?key="+url.QueryEscape(key), as, nil).data()
	if len(list) != 1 || list[0]["state"] != "active" || list[0]["key"] != key {
		s.t.Fatalf("register list: %v", list)
	}
	return fmt.Sprintf("%s:%s", list[0]["accessKey"], list[0]["secretKey"])
}

// fakeAgent holds a socket and answers events over POST, as an original agent does.
type fakeAgent struct {
	site *site
	as   string
	uuid string

	// handle answers an event that is no ping; nil data and nil error answer with success and nothing.
	handle func(ev *wire.Event, post func(*wire.Reply)) (any, error)

	cancel context.CancelFunc
	wg     sync.WaitGroup
	conn   *websocket.Conn

	mu     sync.Mutex
	events []*wire.Event
	state  map[string]bool // running, by instance uuid
}

var agentEvents = []string{
	"ping", "config.update", "compute.instance.activate", "compute.instance.deactivate", "compute.instance.force.stop",
	"compute.instance.inspect", "compute.instance.pull", "compute.instance.remove", "storage.image.activate",
	"storage.volume.activate", "storage.volume.remove",
}

// connect opens the socket of an agent whose host is uuid.
func (s *site) connect(as, uuid string, handle func(*wire.Event, func(*wire.Reply)) (any, error)) *fakeAgent {
	s.t.Helper()
	a := &fakeAgent{site: s, as: as, uuid: uuid, handle: handle, state: map[string]bool{}}
	if handle == nil {
		a.handle = a.obey
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	q := url.Values{"eventNames": agentEvents}
	conn, res, err := s.dial("/v1/subscribe?"+q.Encode(), as)
	if err != nil {
		s.t.Fatalf("subscribe: %v %v", err, res)
	}
	a.conn = conn
	a.wg.Go(func() { a.read(ctx) })
	s.t.Cleanup(a.stop)
	return a
}

func (s *site) dial(path, as string, headers ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	if as != "" {
		r, _ := http.NewRequest("GET", s.url, nil)
		user, secret, _ := strings.Cut(as, ":")
		r.SetBasicAuth(user, secret)
		h.Set("Authorization", r.Header.Get("Authorization"))
	}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	d := websocket.Dialer{HandshakeTimeout: patience, TLSClientConfig: s.client.Transport.(*http.Transport).TLSClientConfig}
	conn, res, err := d.Dial("ws"+strings.TrimPrefix(s.url, "http")+path, h)
	if res != nil && err != nil {
		_ = res.Body.Close()
	}
	return conn, res, err
}

func (a *fakeAgent) stop() {
	a.cancel()
	_ = a.conn.Close()
	a.wg.Wait()
}

func (a *fakeAgent) read(ctx context.Context) {
	for {
		_, frame, err := a.conn.ReadMessage()
		if err != nil {
			return
		}
		ev, err := wire.DecodeEvent(frame)
		if err != nil {
			a.site.t.Errorf("frame %s: %v", frame, err)
			return
		}
		if ev.ReplyTo == "" {
			continue
		}
		a.wg.Go(func() { a.answer(ctx, ev) })
	}
}

func (a *fakeAgent) answer(ctx context.Context, ev *wire.Event) {
	post := func(r *wire.Reply) {
		if ctx.Err() != nil {
			return
		}
		got, err := a.site.try("POST", "/v2-beta/publish", a.as, wire.AppendRancherReply(nil, r))
		if err == nil && got.status != 201 && got.status != 401 && ctx.Err() == nil { // 401: its agent was removed
			a.site.t.Errorf("publish %s: %d %s", ev.Name, got.status, got.text)
		}
	}
	var data any
	var err error
	if ev.Name == "ping" {
		data = a.pong()
	} else {
		a.mu.Lock()
		a.events = append(a.events, ev)
		a.mu.Unlock()
		data, err = a.handle(ev, post)
	}
	if err != nil {
		post(wire.NewErrorReply(ev, "", err.Error()))
		return
	}
	r, err := wire.NewReply(ev, data)
	if err != nil {
		a.site.t.Errorf("reply to %s: %v", ev.Name, err)
		return
	}
	post(r)
}

func (a *fakeAgent) pong() any {
	return map[string]any{"options": map[string]any{}, "resources": []any{
		map[string]any{
			"type": "host", "kind": "docker", "uuid": a.uuid, "hostname": "node-" + a.uuid, "physicalHostUuid": "p-" + a.uuid,
			"memory": 8_000_000_000, "milliCpu": 4000, "labels": map[string]string{"io.rancher.host.os": "linux"}, "createLabels": map[string]string{"zone": "a"},
			"info": map[string]any{"osInfo": map[string]any{"dockerVersion": "Docker version 20.10.24, build 297e128"}},
		},
		map[string]any{"type": "ipAddress", "uuid": "10.0.0.5", "hostUuid": a.uuid},
	}}
}

// obey does what an agent with an engine would.
func (a *fakeAgent) obey(ev *wire.Event, post func(*wire.Reply)) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var in struct {
		InstanceHostMap struct {
			Instance struct{ UUID string } `json:"instance"`
		} `json:"instanceHostMap"`
	}
	if err := json.Unmarshal(ev.Data, &in); err != nil {
		return nil, err
	}
	uuid := in.InstanceHostMap.Instance.UUID
	instance := func(running bool) any {
		return map[string]any{"instanceHostMap": map[string]any{"instance": map[string]any{
			"externalId": "docker-" + uuid, "+data": map[string]any{
				"dockerInspect": map[string]any{"Id": "docker-" + uuid, "Created": "2026-01-02T03:04:05Z", "State": map[string]any{"Running": running}},
				"+fields":       map[string]any{"dockerHostIp": "10.0.0.5", "dockerIp": "172.17.0.2", "dockerPorts": []string{"0.0.0.0:8080:80/tcp"}},
			},
		}}}
	}
	switch ev.Name {
	case "storage.image.activate":
		post(wire.NewProgressReply(ev, "Pulling", 50))
		return map[string]any{"imageStoragePoolMap": map[string]any{}}, nil
	case "compute.instance.activate":
		a.state[uuid] = true
		return instance(true), nil
	case "compute.instance.deactivate":
		a.state[uuid] = false
		return instance(false), nil
	case "compute.instance.remove":
		delete(a.state, uuid)
		return map[string]any{}, nil
	case "compute.instance.inspect":
		return map[string]any{"instanceInspect": map[string]any{"Id": "docker-x", "Name": "/r-x"}}, nil
	case "compute.instance.pull":
		return map[string]any{"fields": map[string]any{"dockerImage": map[string]any{"Id": "sha256:1"}}}, nil
	}
	return nil, nil
}

func (a *fakeAgent) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, ev := range a.events {
		out = append(out, ev.Name)
	}
	return out
}

// withHost starts a server with one agent and waits for its host.
func withHost(t *testing.T, s *site) (*fakeAgent, string) {
	t.Helper()
	a := s.connect(s.join(s.token(), strings.Repeat("ab", 64)), "host-uuid-1", nil)
	id := ""
	eventually(t, "the host is listed as online", func() bool {
		list := s.must("GET", "/v2-beta/hosts?connection=online", s.key, nil).data()
		if len(list) == 1 {
			id = list[0]["id"].(string)
		}
		return id != ""
	})
	return a, id
}
