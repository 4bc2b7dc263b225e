package client

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestEvent(t *testing.T) {
	answers := map[string]string{
		"good": `{"name":"x","transitioning":"yes","transitioningMessage":"half","transitioningProgress":50,"data":{"layer":"a"}}` + "\n" +
			`{"name":"x","transitioning":"no","data":{"id":"7"}}` + "\n",
		"bad":     `{"transitioning":"error","transitioningMessage":"No such image","code":"notFound"}` + "\n",
		"cut":     `{"transitioning":"yes"}` + "\n",
		"html":    "<html>\n",
		"refused": `{"type":"error","code":"NotFound","message":"there is no host"}`,
	}
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked = r.Method + " " + r.URL.String() + " " + r.Header.Get("Accept") + " " + string(b)
		host := strings.Split(r.URL.Path, "/")[3]
		if host == "refused" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, answers[host])
	}))
	defer server.Close()
	c, err := New(Config{Server: server.URL, AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out struct{ ID string }
	var told []Answer
	if err := c.Event(t.Context(), "good", "image.list", map[string]int{"a": 1}, time.Minute, func(a *Answer) { told = append(told, *a) }, &out); err != nil {
		t.Fatal(err)
	}
	if out.ID != "7" || len(told) != 1 || told[0].Message != "half" || told[0].Progress != 50 || string(told[0].Data) != `{"layer":"a"}` {
		t.Errorf("%+v after %+v", out, told)
	}
	if want := `POST /v2-beta/hosts/good?action=event application/x-ndjson {"data":{"a":1},"name":"image.list","timeoutMillis":60000}`; asked != want {
		t.Errorf("asked %s", asked)
	}
	var bad *EventError
	if err := c.Event(t.Context(), "bad", "x", nil, time.Minute, nil, &out); !errors.As(err, &bad) || !errors.Is(err, ErrNotFound) || err.Error() != "No such image" {
		t.Errorf("bad: %v", err)
	}
	for host, want := range map[string]string{"cut": "ended too early", "html": "not its JSON", "refused": "there is no host"} {
		if err := c.Event(t.Context(), host, "x", nil, time.Minute, nil, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", host, err)
		}
	}
}
