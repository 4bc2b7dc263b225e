package ping

import (
	"context"
	"encoding/json"
	"sync"
	"testing"

	"github.com/droverhq/drover/hostinfo"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

// TestThisHost puts the real parts together: the local daemon, this machine, and the cache.
func TestThisHost(t *testing.T) {
	e, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Ping(t.Context()); err != nil {
		t.Fatalf("this test needs a dockerd on %s: %v", docker.DefaultHost, err)
	}
	cache := runtime.NewCache(runtime.CacheConfig{Source: e})
	var r *Reporter
	host := hostinfo.New(hostinfo.Config{StateDir: t.TempDir(), EngineRoot: func() string { return r.EngineRoot() }})
	r = New(Config{HostUUID: "u", PhysicalHostUUID: "p", Hostname: "h", HostIP: "127.0.0.1", Containers: cache, Engine: e, Host: host})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{cache.Run, host.Run, r.Run} {
		wg.Go(func() { _ = run(ctx) })
	}
	defer wg.Wait()
	defer cancel()
	<-cache.Ready()
	<-host.First()
	<-r.loaded
	raw := ask(t, r, `{"resources":true,"stats":true,"instances":true}`)
	var a struct {
		Options   struct{ Instances bool }
		Resources []map[string]any
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	if !a.Options.Instances || len(a.Resources) < 5 {
		t.Fatalf("answer is %s", raw)
	}
	h := a.Resources[1]
	for _, key := range []string{"memory", "milliCpu", "localStorageMb"} {
		if n, _ := h[key].(float64); n <= 0 {
			t.Errorf("%s is %v", key, h[key])
		}
	}
	info, _ := h["info"].(map[string]any)
	for part, key := range map[string]string{"cpuInfo": "count", "memoryInfo": "memTotal", "diskInfo": "dockerStorageDriver", "osInfo": "dockerVersion"} {
		if m, _ := info[part].(map[string]any); m[key] == nil {
			t.Errorf("%s.%s is missing in %v", part, key, info[part])
		}
	}
	t.Logf("%s", raw)
}
