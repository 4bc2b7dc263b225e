package cri_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/cri/critest"
)

// registries is a registry with an image at /open/app:1 and /private/app:1; the latter wants joe's password, and what is
// below /stalled/ never comes.
func registries(t *testing.T) string {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case strings.Contains(r.URL.Path, "/stalled/"):
			<-r.Context().Done()
		case strings.Contains(r.URL.Path, "/private/") && r.Header.Get("X-Test") == "" && (user != "joe" || password != "secret-5"):
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	host := strings.TrimPrefix(server.URL, "http://")
	img, err := random.Image(1<<16, 2)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	for _, repo := range []string{"/open/app:1", "/private/app:1"} {
		ref, err := name.ParseReference(host+repo, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img, remote.WithTransport(insider{transport})); err != nil {
			t.Fatal(err)
		}
	}
	return host
}

// An insider needs no password.
type insider struct{ http.RoundTripper }

func (i insider) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Test", "1")
	return i.RoundTripper.RoundTrip(r)
}

func TestPull(t *testing.T) {
	c := critest.Start(t)
	e := closing(t, newEngine(t, c))
	host := registries(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	steps := 0
	if err := e.Pull(ctx, runtime.PullRequest{Ref: host + "/open/app:1"}, func(p runtime.PullProgress) {
		if steps++; p.Status == "" {
			t.Error("a step without a status")
		}
	}); err != nil || steps == 0 {
		t.Fatalf("Pull: %v after %d steps", err, steps)
	}
	if _, err := e.ImageConfig(ctx, host+"/open/app:1"); err != nil {
		t.Errorf("the image after the pull: %v", err)
	}
	want(t, "RemoveImage", e.RemoveImage(ctx, host+"/open/app:1", false), nil)
	_, err := e.ImageConfig(ctx, host+"/open/app:1")
	want(t, "the image after its removal", err, runtime.ErrNotFound)

	want(t, "an image that is not there", e.Pull(ctx, runtime.PullRequest{Ref: host + "/open/other:1"}, nil), runtime.ErrNotFound)
	want(t, "no reference", e.Pull(ctx, runtime.PullRequest{Ref: "A B"}, nil), runtime.ErrInvalid)
	private := runtime.PullRequest{Ref: host + "/private/app:1"}
	if err := e.Pull(ctx, private, nil); err == nil {
		t.Error("a private image without a password")
	}
	private.Auth = &runtime.RegistryAuth{Username: "joe", Password: "wrong-7"}
	if err := e.Pull(ctx, private, nil); err == nil || strings.Contains(err.Error(), "wrong-7") {
		t.Errorf("a wrong password: %v", err)
	}
	private.Auth.Password = "secret-5"
	want(t, "the right password", e.Pull(ctx, private, nil), nil)

	err = e.Pull(ctx, runtime.PullRequest{Ref: host + "/stalled/app:1", Inactivity: time.Second}, nil)
	if err == nil || !strings.Contains(err.Error(), "progress") || ctx.Err() != nil {
		t.Errorf("a pull that stalls: %v", err)
	}
	short, cut := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cut()
	if err := e.Pull(short, runtime.PullRequest{Ref: host + "/stalled/app:1"}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a pull whose ctx ends: %v", err)
	}
}
