package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

// daemon is one that answers every call but the ping by fn.
func daemon(t *testing.T, fn http.HandlerFunc) *docker.Engine {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if r.URL.Path == "/_ping" {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fn(w, r)
	}))
	e := open(t, docker.Config{Host: "tcp://" + server.Listener.Addr().String()})
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return e
}

const (
	lineStart = `{"status":"Pulling from library/x","id":"1"}` + "\n"
	lineLayer = `{"status":"Downloading","progressDetail":{"current":10,"total":100},"progress":"[> ]","id":"abc"}` + "\n"
	lineEnd   = `{"status":"Status: Downloaded newer image for x:1"}` + "\n"
)

func TestPullStream(t *testing.T) {
	cut := func(text string) http.HandlerFunc { // ends the connection in the middle
		return func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	say := func(text string) http.HandlerFunc { // ends it in order
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		class  error
		words  string
	}{
		"good":               {say(lineStart + lineLayer + lineEnd), nil, ""},
		"nothing":            {say(""), runtime.ErrUnavailable, "too early"},
		"cut between lines":  {cut(lineStart + lineLayer), runtime.ErrUnavailable, "too early"},
		"cut in a line":      {cut(lineStart + lineLayer[:20]), runtime.ErrUnavailable, "too early"},
		"ended before a end": {say(lineStart + lineLayer), runtime.ErrUnavailable, "too early"},
		"ended in a line":    {say(lineStart + lineLayer[:20]), runtime.ErrUnavailable, "too early"},
		"cut after the end":  {cut(lineStart + lineEnd), runtime.ErrUnavailable, "too early"},
		"error":              {say(lineStart + `{"errorDetail":{"message":"disk full"},"error":"disk full"}`), nil, "disk full"},
		"old error":          {say(lineStart + `{"error":"disk full"}` + lineEnd), nil, "disk full"},
		"error with code":    {say(lineStart + `{"errorDetail":{"code":404,"message":"gone"},"error":"gone"}`), runtime.ErrNotFound, "gone"},
		"no JSON":            {say(lineStart + "<html>"), runtime.ErrUnavailable, "invalid character"},
		"wrong type":         {say(`{"status":7}`), runtime.ErrUnavailable, "Status"},
		"long line":          {say(lineStart + `{"status":"` + strings.Repeat("x", 1<<20) + `"}` + lineEnd), nil, ""},
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"message":"Get \"https://reg/v2/\": dial tcp: refused"}`)
		}, nil, "dial tcp: refused"},
	} {
		t.Run(name, func(t *testing.T) {
			err := daemon(t, c.answer).Pull(t.Context(), runtime.PullRequest{Ref: "x:1"}, nil)
			switch {
			case c.words == "" && err != nil:
				t.Errorf("got %v", err)
			case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words) || !strings.HasPrefix(err.Error(), "pull x:1: ")):
				t.Errorf("got %v, want %q", err, c.words)
			case c.class != nil && !errors.Is(err, c.class):
				t.Errorf("got %v, want %v", err, c.class)
			}
		})
	}
}

func TestPullRequest(t *testing.T) {
	var query, auth string
	e := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		query, auth = r.URL.RawQuery, r.Header.Get("X-Registry-Auth")
		_, _ = io.WriteString(w, lineStart+lineLayer+lineEnd)
	})
	digest := "sha256:" + strings.Repeat("ab", 32)
	for ref, want := range map[string]string{
		"x":                   "fromImage=docker.io%2Flibrary%2Fx&platform=linux%2Farm64&tag=latest",
		"reg.test:5000/a/b:1": "fromImage=reg.test%3A5000%2Fa%2Fb&platform=linux%2Farm64&tag=1",
		"a/b@" + digest:       "fromImage=docker.io%2Fa%2Fb&platform=linux%2Farm64&tag=" + strings.ReplaceAll(digest, ":", "%3A"),
	} {
		var steps []runtime.PullProgress
		err := e.Pull(t.Context(), runtime.PullRequest{Ref: ref, Platform: "Linux/ARM64"}, func(p runtime.PullProgress) { steps = append(steps, p) })
		if err != nil || query != want || auth != "" {
			t.Errorf("%s: query %s, auth %q, %v", ref, query, auth, err)
		}
		if len(steps) != 3 || steps[1] != (runtime.PullProgress{Layer: "abc", Status: "Downloading", Current: 10, Total: 100}) {
			t.Errorf("%s: steps %+v", ref, steps)
		}
	}
	credential := runtime.RegistryAuth{Username: "joe", Password: "p/w+d?ÿ", Email: "j@x", ServerAddress: "https://docker.io"}
	if err := e.Pull(t.Context(), runtime.PullRequest{Ref: "x", Auth: &credential}, nil); err != nil {
		t.Error(err)
	}
	text, err := base64.URLEncoding.DecodeString(auth)
	if err != nil {
		t.Fatalf("%s: %v", auth, err)
	}
	var decoded map[string]string
	if err := json.Unmarshal(text, &decoded); err != nil || decoded["username"] != "joe" || decoded["password"] != credential.Password ||
		decoded["email"] != "j@x" || decoded["serveraddress"] != "https://index.docker.io/v1/" {
		t.Errorf("auth: %v, %v", decoded, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", credential, credential, credential); strings.Contains(text, "p/w") {
		t.Errorf("a credential shows its secret: %s", text)
	}
}

func TestPullInactivity(t *testing.T) {
	e := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		for range 6 { // slow, but alive
			_, _ = io.WriteString(w, lineLayer)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
		<-r.Context().Done()
	})
	began := time.Now()
	err := e.Pull(t.Context(), runtime.PullRequest{Ref: "x", Inactivity: 500 * time.Millisecond}, nil)
	if err == nil || !strings.Contains(err.Error(), "no progress for 500ms") || time.Since(began) < time.Second {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
	// One that does not even begin.
	e = daemon(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	err = e.Pull(t.Context(), runtime.PullRequest{Ref: "x", Inactivity: 100 * time.Millisecond}, nil)
	if err == nil || !strings.Contains(err.Error(), "no progress for 100ms") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err = e.Pull(ctx, runtime.PullRequest{Ref: "x"}, nil); !errors.Is(err, context.Canceled) || errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// The daemon builds from a context that it fetches itself.
func TestBuildRemote(t *testing.T) {
	e := engine(t, docker.Config{})
	files := http.NewServeMux()
	serve := func(name, dockerfile string) {
		files.HandleFunc("/"+name, func(w http.ResponseWriter, _ *http.Request) {
			var buf bytes.Buffer
			tw := tar.NewWriter(&buf)
			_ = tw.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile))})
			_, _ = io.WriteString(tw, dockerfile)
			_ = tw.Close()
			w.Header().Set("Content-Type", "application/x-tar")
			_, _ = w.Write(buf.Bytes())
		})
	}
	tag := randomName() + ":1"
	serve("good.tar", "FROM "+image+"\nLABEL drover=test\nRUN echo built-here\n")
	serve("bad.tar", "FROM "+image+"\nRUN echo before-it-fails; exit 9\n")
	server := httptest.NewServer(files)
	defer server.Close()
	var said strings.Builder
	err := e.BuildRemote(t.Context(), server.URL+"/good.tar", tag, func(p runtime.PullProgress) { said.WriteString(p.Status + "\n") })
	if err != nil || !strings.Contains(said.String(), "built-here") {
		t.Fatalf("%v\n%s", err, said.String())
	}
	defer func() {
		if err := e.RemoveImage(context.Background(), tag, true); err != nil {
			t.Error(err)
		}
	}()
	if _, err := e.ImageConfig(t.Context(), tag); err != nil {
		t.Error(err)
	}
	err = e.BuildRemote(t.Context(), server.URL+"/bad.tar", randomName()+":1", nil)
	if err == nil || !strings.Contains(err.Error(), "exit 9") {
		t.Errorf("a build that fails: %v", err)
	}
	if err = e.BuildRemote(t.Context(), server.URL+"/none.tar", randomName()+":1", nil); err == nil {
		t.Error("a build of nothing is a success")
	}
	if err = e.BuildRemote(t.Context(), "", tag, nil); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
