package registry

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/droverhq/drover/runtime"
)

// A registry that dies in the middle of a push is a clear error, and the push may be repeated. It asks for a login.
func TestPushTar(t *testing.T) {
	addr := start(t, "secret-7")
	var dead atomic.Bool
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: addr})
		r.Out.Host = r.In.Host
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if dead.Load() && r.Method == http.MethodPatch {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		transport.CloseIdleConnections()
	})
	ref := front.Listener.Addr().String() + "/shop/api:1"
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, tag, image(t, 3)); err != nil {
		t.Fatal(err)
	}

	if _, _, err := client(t, Config{}).PushTar(t.Context(), file, ref, nil); !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), "401 Unauthorized") {
		t.Errorf("without a login: %v", err)
	}
	c := client(t, Config{Auth: func(string) *runtime.RegistryAuth {
		return &runtime.RegistryAuth{Username: "ann", Password: "secret-7"}
	}})
	dead.Store(true)
	_, _, err = c.PushTar(t.Context(), file, ref, func(int64, int64) {})
	if err == nil || !strings.HasPrefix(err.Error(), "pushing "+ref+": ") || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "secret-7") {
		t.Errorf("a registry that dies: %v", err)
	}
	dead.Store(false)
	var last, total int64
	digest, size, err := c.PushTar(t.Context(), file, ref, func(d, all int64) { last, total = d, all })
	if err != nil || size == 0 || total == 0 || last > total {
		t.Fatalf("again: %s, %d bytes, %v; %d of %d", digest, size, err, last, total)
	}
	if m, err := c.Manifest(t.Context(), ref); err != nil || m.Digest != digest || len(m.Platforms[0].Layers) != 3 {
		t.Errorf("the registry has %+v, %v", m, err)
	}
	for _, bad := range []string{"A b", ref + "@" + digest} {
		if _, _, err := c.PushTar(t.Context(), file, bad, nil); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, _, err := c.PushTar(t.Context(), file+".none", ref, nil); err == nil {
		t.Error("pushed a file that is not there")
	}
}
