package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Config{Server: srv.URL + "/v1/", AccessKey: "ak", SecretKey: "sk:with:colons", UserAgent: "drover/test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestListFollowsPagesAndStaysWithItsServer(t *testing.T) {
	var elsewhere bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere = true }))
	defer other.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != "ak" || p != "sk:with:colons" {
			t.Errorf("credentials %q %q", u, p)
		}
		if r.URL.Path != "/v2-beta/hosts" {
			t.Errorf("path %s", r.URL.Path)
		}
		next := other.URL + "/v2-beta/hosts?marker=m2"
		id := "1h1"
		if r.URL.Query().Get("marker") != "" {
			next, id = "", "1h2"
		}
		fmt.Fprintf(w, `{"data":[{"id":%q,"hostname":"h-%s","labels":null,"lastSeen":"2026-01-02T03:04:05Z"}],"pagination":{"next":%q}}`, id, id, next)
	})
	hosts, err := c.Hosts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(hosts) != 2 || hosts[1].ID != "1h2" || hosts[0].DisplayName() != "h-1h1" {
		t.Errorf("hosts %+v", hosts)
	}
	if want := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC); !hosts[0].LastSeen.Equal(want) {
		t.Errorf("last seen %v", hosts[0].LastSeen)
	}
	if elsewhere {
		t.Error("the credentials went to where the answer pointed")
	}
}

func TestErrorsSayWhatTheServerSaid(t *testing.T) {
	status, body := 422, `{"type":"error","status":422,"code":"InvalidReference","message":"no such host","detail":"1h9","fieldName":"requestedHostId"}`
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	err := c.Do(t.Context(), http.MethodPost, "containers", map[string]string{}, nil)
	if err == nil || err.Error() != "no such host: 1h9 (field requestedHostId) (422)" {
		t.Errorf("got %v", err)
	}
	for code, want := range map[int]error{401: ErrUnauthorized, 403: ErrUnauthorized, 404: ErrNotFound} {
		status, body = code, "<html>not JSON</html>"
		if err := c.Do(t.Context(), http.MethodGet, "hosts", nil, nil); !errors.Is(err, want) {
			t.Errorf("%d: %v is not %v", code, err, want)
		}
	}
	status, body = 200, "<html>a proxy's page</html>"
	var out map[string]any
	if err := c.Do(t.Context(), http.MethodGet, "hosts", nil, &out); err == nil || !strings.Contains(err.Error(), "not its JSON") {
		t.Errorf("a page for JSON: %v", err)
	}
}

func TestUnreachableServer(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := New(Config{Server: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Hosts(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "is it running?") {
		t.Errorf("got %v", err)
	}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	c, err = New(Config{Server: secure.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Hosts(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "--ca-file") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "localhost:8080", "ftp://x", "http://"} {
		if _, err := New(Config{Server: bad}); err == nil {
			t.Errorf("%q was taken for a server", bad)
		}
	}
}

func TestNamesAndPrefixes(t *testing.T) {
	containers := []Container{
		{ID: "1i1", Name: "web", ExternalID: strings.Repeat("ab", 32)},
		{ID: "1i2", Name: "web-2", ExternalID: "abcd" + strings.Repeat("0", 60)},
		{ID: "1i3", Name: "db", ExternalID: strings.Repeat("cd", 32), HostID: "1h1", State: State{State: "running"}},
		{ID: "1i4", Name: "db", ExternalID: strings.Repeat("ef", 32), HostID: "1h2", State: State{State: "stopped"}},
		{ID: "1i5", Name: "old", ExternalID: "ff00", State: State{State: "removed"}},
		{ID: "1i6", Name: "efefef", ExternalID: strings.Repeat("12", 32)},
		{ID: "1i7", Name: "young", HostID: "1h1", State: State{State: "creating"}},
	}
	hosts := []Host{{ID: "1h1", Name: "web-1"}, {ID: "1h2", Hostname: "rack/2"}}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v2-beta/hosts"); ok {
			for _, h := range hosts {
				if rest == "/"+h.ID {
					_ = json.NewEncoder(w).Encode(h)
					return
				}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"data": hosts})
			return
		}
		if id, ok := strings.CutPrefix(r.URL.Path, "/v2-beta/containers/"); ok {
			for _, c := range containers {
				if c.ID == id {
					_ = json.NewEncoder(w).Encode(c)
					return
				}
			}
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": containers})
	})
	for ref, want := range map[string]string{
		"1i2": "1i2", "web": "1i1", "/web": "1i1", "web-2": "1i2", "abab": "1i1", "ABCD": "1i2", "cd": "1i3",
		strings.Repeat("ef", 32): "1i4", "efefef": "1i6", // a name beats a prefix
	} {
		got, err := c.Container(t.Context(), ref, "")
		if err != nil || got.ID != want {
			t.Errorf("%q: got %v, %v, want %s", ref, got, err, want)
		}
	}
	if got, err := c.Container(t.Context(), "db", "1h2"); err != nil || got.ID != "1i4" {
		t.Errorf("db on 1h2: %v, %v", got, err)
	}
	for ref, want := range map[string][3]string{
		"web-1/db":   {"1h1", strings.Repeat("cd", 32), "db"},
		"1h2/db":     {"1h2", strings.Repeat("ef", 32), "db"},
		"rack/2/ef":  {"1h2", strings.Repeat("ef", 32), "db"},
		"1h1/1i3":    {"1h1", strings.Repeat("cd", 32), "db"},
		"web-1/new":  {"1h1", "new", "new"}, // the host may know it
		"cdcd":       {"1h1", strings.Repeat("cd", 32), "db"},
		"web-1/cdcd": {"1h1", strings.Repeat("cd", 32), "db"},
	} {
		p, err := c.Place(t.Context(), ref, "")
		if err != nil || p.Host.ID != want[0] || p.Ref != want[1] || p.Name() != want[2] {
			t.Errorf("%q: %+v, %v, want %q", ref, p, err, want)
		}
	}
	for ref, want := range map[string]string{
		"db": "say HOST/CONTAINER", "nowhere/db": `no host "nowhere"`, "new": `no container "new"`, "web-1/": "empty name", "young": "creating",
	} {
		if p, err := c.Place(t.Context(), ref, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", ref, p, err, want)
		}
	}
	if _, err := c.Place(t.Context(), "web-1/db", "1h2"); err == nil || !strings.Contains(err.Error(), "another host was asked for") {
		t.Errorf("two hosts: %v", err)
	}
	for ref, want := range map[string]string{
		"db": `"db" means 2 containers; say HOST/CONTAINER, or use one of the ids:` + "\n  1i3  web-1/db (running)\n  1i4  rack/2/db (stopped)",
		"ab": "means 2 containers", "wbe": "did you mean web?", "old": `no container "old": not found`, "1i5": "not found", "": "empty name",
		"nothing-like-it": `no container "nothing-like-it": not found`,
	} {
		if got, err := c.Container(t.Context(), ref, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want an error with %q", ref, got, err, want)
		}
	}
}

func TestWatchYieldsChangesInOrder(t *testing.T) {
	up := websocket.Upgrader{}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("eventNames") != "resource.change" {
			t.Errorf("asked for %s", r.URL.RawQuery)
		}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for _, frame := range []string{
			`{"name":"ping"}`, `not JSON`, `{"name":"resource.change","resourceType":"host","resourceId":"1h1","time":1,"data":{"resource":{"id":"1h1"}}}`,
			`{"name":"resource.change","resourceType":"container","resourceId":"1i1","time":2,"data":{"resource":{"id":"1i1"}}}`,
		} {
			if err := conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
				t.Error(err)
			}
		}
		_, _, _ = conn.ReadMessage() // until the client is gone
	})
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	ready := false
	err := c.Watch(ctx, func() { ready = true }, func(ch *Change) error {
		got = append(got, ch.ResourceType+" "+ch.ResourceID+" "+string(ch.Data.Resource))
		if len(got) == 2 {
			cancel()
		}
		return nil
	})
	if err != nil || !ready {
		t.Errorf("ready %v, error %v", ready, err)
	}
	if want := `[host 1h1 {"id":"1h1"} container 1i1 {"id":"1i1"}]`; fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
}

func TestWatchTellsARefusal(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	err := c.Watch(t.Context(), func() { t.Error("ready") }, nil)
	if !errors.Is(err, ErrUnauthorized) {
		t.Errorf("got %v", err)
	}
}

func FuzzTolerantFields(f *testing.F) {
	for _, s := range []string{`{"transitioningProgress":"50"}`, `{"transitioningProgress":null,"created":1}`, `{"created":"x","transitioningProgress":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s struct {
			State
			Created Time `json:"created"`
		}
		if json.Unmarshal(b, &s) != nil {
			return
		}
		if _, err := json.Marshal(s.Created); err != nil {
			t.Error(err)
		}
	})
}
