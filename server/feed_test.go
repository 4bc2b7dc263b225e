package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server"
	"github.com/gorilla/websocket"
)

type feedEvent struct {
	ID, Name, ResourceType, ResourceID string
	Time                               int64
	Data                               struct{ Resource map[string]any }
}

// next returns the next event that fits.
func next(t *testing.T, conn *websocket.Conn, fits func(feedEvent) bool) feedEvent {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for {
		_, raw, err := conn.ReadMessage()
		if err != nil {
			t.Fatalf("feed: %v", err)
		}
		var ev feedEvent
		if err := json.Unmarshal(raw, &ev); err != nil {
			t.Fatalf("feed: %s: %v", raw, err)
		}
		if fits(ev) {
			return ev
		}
	}
}

func TestChangeFeed(t *testing.T) {
	s := start(t, server.Config{})
	conn, _, err := s.dial("/v2-beta/subscribe?eventNames=resource.change", s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if ev := next(t, conn, func(feedEvent) bool { return true }); ev.Name != "ping" || ev.Time == 0 {
		t.Errorf("the first event is %+v", ev)
	}
	_, hostID := withHost(t, s)
	host := next(t, conn, func(ev feedEvent) bool { return ev.ResourceType == "host" })
	if host.Name != "resource.change" || host.ResourceID != hostID || host.Data.Resource["type"] != "host" || host.ID == "" ||
		host.Data.Resource["links"].(map[string]any)["self"] != s.url+"/v2-beta/hosts/"+hostID {
		t.Errorf("host %+v", host)
	}
	c := s.must("POST", "/v2-beta/containers", s.key, map[string]any{"imageUuid": "docker:nginx"})
	next(t, conn, func(ev feedEvent) bool {
		return ev.ResourceID == c.str("id") && ev.ResourceType == "container" && ev.Data.Resource["state"] == "running"
	})
	s.must("POST", "/v2-beta/containers/"+c.str("id")+"?action=remove", s.key, map[string]any{"force": true})
	next(t, conn, func(ev feedEvent) bool { return ev.ResourceID == c.str("id") && ev.Data.Resource["state"] == "removed" })
	s.must("DELETE", "/v2-beta/hosts/"+hostID, s.key, nil)
	next(t, conn, func(ev feedEvent) bool { return ev.ResourceID == hostID && ev.Data.Resource["state"] == "removed" })
}

func TestFeedsOfUsers(t *testing.T) {
	s := start(t, server.Config{})
	user := s.must("POST", "/v2-beta/apikeys", s.key, nil)
	conn, _, err := s.dial("/v1/projects/1a1/subscribe?eventNames=resource.change%3Baccount%3D1a1", user.str("publicValue")+":"+user.str("secretValue"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.token() // which a user may not see
	_, hostID := withHost(t, s)
	ev := next(t, conn, func(ev feedEvent) bool { return ev.Name == "resource.change" })
	if ev.ResourceType != "host" || ev.ResourceID != hostID {
		t.Errorf("the first change that a user sees is %s %s", ev.ResourceType, ev.ResourceID)
	}
	s.must("DELETE", "/v2-beta/apikeys/"+user.str("id"), s.key, nil)
	next(t, conn, func(ev feedEvent) bool { return ev.Name == "logout" })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("the feed of a revoked key ends with %v", err)
	}
	if _, res, err := s.dial("/v2-beta/subscribe", "nobody:x"); err == nil || res.StatusCode != 401 {
		t.Errorf("a feed without a key: %v", err)
	}
}

func TestHostEvent(t *testing.T) {
	s := start(t, server.Config{})
	as := s.join(s.token(), strings.Repeat("ab", 64))
	s.connect(as, "host-uuid-1", func(ev *wire.Event, post func(*wire.Reply)) (any, error) {
		if ev.ResourceID == "broken" {
			return nil, errBroken
		}
		post(wire.NewProgressReply(ev, "half", 50))
		return map[string]any{"echo": json.RawMessage(ev.Data), "key": ev.Key(), "timeout": ev.TimeoutMillis}, nil
	})
	hostID := ""
	eventually(t, "the host is online", func() bool {
		if list := s.must("GET", "/v2-beta/hosts?connection=online", s.key, nil).data(); len(list) == 1 {
			hostID = list[0]["id"].(string)
		}
		return hostID != ""
	})
	path := "/v2-beta/hosts/" + hostID + "?action=event"
	got := s.must("POST", path, s.key, `{"name":"compute.instance.inspect","resourceType":"t","resourceId":"1t5","timeoutMillis":7000,"data":{"n":12345678901234567890}}`)
	data, _ := got.body["data"].(map[string]any)
	if got.status != 200 || data["key"] != "t:1t5" || data["timeout"] != 7000.0 || !strings.Contains(got.text, `{"n":12345678901234567890}`) || got.str("transitioning") != "no" {
		t.Errorf("reply %d %s", got.status, got.text)
	}
	lines := s.must("POST", path, s.key, `{"name":"compute.instance.inspect"}`, "Accept", "application/x-ndjson")
	parts := strings.Split(strings.TrimSpace(lines.text), "\n")
	if lines.header.Get("Content-Type") != "application/x-ndjson" || len(parts) != 2 || !strings.Contains(parts[0], `"half"`) || !strings.Contains(parts[1], `"transitioning":"no"`) {
		t.Errorf("lines %v %q", lines.header, lines.text)
	}
	failed := s.must("POST", path, s.key, `{"name":"compute.instance.inspect","resourceId":"broken"}`)
	if failed.status != 200 || failed.str("transitioning") != "error" || failed.str("transitioningMessage") != "it is broken" {
		t.Errorf("a failure: %s", failed.text)
	}
}

func TestPullTasks(t *testing.T) {
	s := start(t, server.Config{})
	_, hostID := withHost(t, s)
	made := s.must("POST", "/v2-beta/pulltasks", s.key, map[string]any{"image": "docker:nginx:1"})
	if made.status != 202 || made.str("image") != "nginx:1" || made.str("transitioning") != "yes" {
		t.Errorf("made: %d %s", made.status, made.text)
	}
	eventually(t, "the pull ends", func() bool {
		got := s.must("GET", "/v2-beta/pullTasks/"+made.str("id"), s.key, nil)
		return got.str("state") == "active" && got.body["status"].(map[string]any)[hostID] == "done"
	})
	if got := s.must("GET", "/v2-beta/containers?all=true", s.key, nil); len(got.data()) != 0 {
		t.Errorf("a pull made containers: %s", got.text)
	}
}

func TestInspectIsRelayedRaw(t *testing.T) {
	s := start(t, server.Config{})
	withHost(t, s)
	c := s.must("POST", "/v2-beta/containers", s.key, map[string]any{"imageUuid": "docker:nginx"})
	eventually(t, "the container runs", func() bool {
		return s.must("GET", "/v2-beta/containers/"+c.str("id"), s.key, nil).str("state") == "running"
	})
	if got := s.must("GET", "/v2-beta/containers/"+c.str("id")+"/inspect", s.key, nil); got.text != `{"Id":"docker-x","Name":"/r-x"}` {
		t.Errorf("inspect %s", got.text)
	}
}

func TestConsole(t *testing.T) {
	s := start(t, server.Config{})
	page := s.must("GET", "/", "", nil, "Accept", "text/html")
	csp := page.header.Get("Content-Security-Policy")
	if !strings.Contains(page.text, "<title>Drover</title>") || !strings.Contains(csp, "script-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Errorf("page %v", page.header)
	}
	if strings.Contains(page.text, "<script>") || strings.Contains(page.text, "style=") || strings.Contains(page.text, "http://") || strings.Contains(page.text, "https://") {
		t.Error("the page has what its own policy forbids")
	}
	for path, kind := range map[string]string{"/app.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml"} {
		if got := s.must("GET", path, "", nil); !strings.HasPrefix(got.header.Get("Content-Type"), kind) {
			t.Errorf("%s is %s", path, got.header.Get("Content-Type"))
		}
	}
	if got := s.do("POST", "/", "", nil); got.status != 405 {
		t.Errorf("POST: %d", got.status)
	}
	if got := s.must("GET", "/", "", nil, "Accept", "application/json"); len(got.data()) != 2 {
		t.Errorf("versions %s", got.text)
	}
	if got := s.must("GET", "/healthz", "", nil); got.str("version") != "1.2.3-test" {
		t.Errorf("healthz %s", got.text)
	}
}

func TestSettings(t *testing.T) {
	s := start(t, server.Config{Image: "i:1"})
	s.must("PUT", "/v2-beta/settings/api.host", s.key, map[string]any{"value": "https://drover.example:8443/"})
	made := s.must("POST", "/v2-beta/registrationtokens", s.key, nil)
	if !strings.HasPrefix(made.str("registrationUrl"), "https://drover.example:8443/v1/scripts/") {
		t.Errorf("registrationUrl %s", made.str("registrationUrl"))
	}
	script := s.must("GET", "/v2-beta/scripts/"+made.str("token"), "", nil).text
	if v := scriptValues(script)["CATTLE_URL"]; v != "https://drover.example:8443/v1" {
		t.Errorf("CATTLE_URL %s", v)
	}
	if got := s.must("GET", "/v2-beta/settings/api.host", s.key, nil); got.body["inDb"] != true || got.str("source") != "Database" {
		t.Errorf("setting %s", got.text)
	}
	if got := s.must("DELETE", "/v2-beta/settings/api.host", s.key, nil); got.str("value") != "" || got.body["inDb"] != false {
		t.Errorf("reset %s", got.text)
	}
	if got := s.do("PUT", "/v2-beta/settings/drover.server.version", s.key, map[string]any{"value": "9"}); got.status != 403 {
		t.Errorf("the version can be set: %d", got.status)
	}
}
