package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

func TestRecordsOutliveTheProcess(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	made, err := s.Hosts.Create(ctx, store.Host{UUID: "u-1", Hostname: "node1", Labels: map[string]string{"zone": "a"}, Info: json.RawMessage(`{"cpuInfo":{"count":4}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if made.ID != "1h1" || made.Created.IsZero() || made.Revision == 0 {
		t.Errorf("created %+v", made)
	}
	if _, err := s.Hosts.Update(ctx, made.ID, func(h *store.Host) error { h.Name = "first"; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Hosts.Create(ctx, store.Host{UUID: "u-2"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Hosts.Delete(ctx, "1h2", 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = storetest.OpenConfig(t, store.Config{Dir: dir})
	host, err := s.HostByUUID("u-1")
	if err != nil {
		t.Fatal(err)
	}
	if host.Name != "first" || host.Labels["zone"] != "a" || string(host.Info) != `{"cpuInfo":{"count":4}}` {
		t.Errorf("after reopening: %+v", host)
	}
	if _, err := s.Hosts.Get("1h2"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted host: %v, want ErrNotFound", err)
	}
	third, err := s.Hosts.Create(ctx, store.Host{UUID: "u-3"})
	if err != nil {
		t.Fatal(err)
	}
	if third.ID != "1h3" {
		t.Errorf("id after reopening = %s, want 1h3: numbers are never used twice", third.ID)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	storetest.OpenConfig(t, store.Config{Dir: dir})
	_, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "in use by another server") {
		t.Errorf("second open: %v", err)
	}
}

func TestUpdateLosesNoWrite(t *testing.T) {
	ctx := t.Context()
	url := storetest.NATS(t)
	a := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
	b := storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}})
	task, err := a.PullTasks.Create(ctx, store.PullTask{Image: "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the other replica to see the record", func() bool { _, err := b.PullTasks.Get(task.ID); return err == nil })
	var wg sync.WaitGroup
	for _, s := range []*store.Store{a, b} {
		for range 4 {
			wg.Go(func() {
				for range 10 {
					_, err := s.PullTasks.Update(ctx, task.ID, func(p *store.PullTask) error { p.TransitioningProgress++; return nil })
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, s := range []*store.Store{a, b} {
		waitFor(t, "all 80 writes", func() bool { p, err := s.PullTasks.Get(task.ID); return err == nil && p.TransitioningProgress == 80 })
	}
}

func TestReplaceChecksTheRevision(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	made, err := s.Settings.Create(ctx, store.Setting{Meta: store.Meta{ID: "api.host"}, Value: "a"})
	if err != nil {
		t.Fatal(err)
	}
	stale := *made
	if _, err := s.Settings.Update(ctx, "api.host", func(v *store.Setting) error { v.Value = "b"; return nil }); err != nil {
		t.Fatal(err)
	}
	stale.Value = "c"
	if _, err := s.Settings.Replace(ctx, stale); !errors.Is(err, store.ErrConflict) {
		t.Errorf("replace of a changed record: %v, want ErrConflict", err)
	}
	if err := s.Settings.Delete(ctx, "api.host", stale.Revision); !errors.Is(err, store.ErrConflict) {
		t.Errorf("delete of a changed record: %v, want ErrConflict", err)
	}
	if v, _ := s.Settings.Get("api.host"); v.Value != "b" {
		t.Errorf("value = %q, want b", v.Value)
	}
	if err := s.Settings.Delete(ctx, "api.host", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Settings.Create(ctx, store.Setting{Meta: store.Meta{ID: "api.host"}, Value: "again"}); err != nil {
		t.Errorf("create after delete: %v", err)
	}
	if v, err := s.Settings.Get("api.host"); err != nil || v.Value != "again" {
		t.Errorf("after delete and create: %v, %v", v, err)
	}
}

func TestNaturalKeysAreUnique(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	if _, err := s.Hosts.Create(ctx, store.Host{UUID: "same"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Hosts.Create(ctx, store.Host{UUID: "same"}); !errors.Is(err, store.ErrExists) {
		t.Errorf("second host of one uuid: %v, want ErrExists", err)
	}
	if _, err := s.Hosts.Create(ctx, store.Host{Meta: store.Meta{ID: "1h1"}, UUID: "other"}); !errors.Is(err, store.ErrExists) {
		t.Errorf("second host of one id: %v, want ErrExists", err)
	}
	if n := s.Hosts.Len(); n != 1 {
		t.Errorf("%d hosts, want 1", n)
	}
}

func TestLookups(t *testing.T) {
	ctx := t.Context()
	s := storetest.Open(t)
	var ids []string
	for i := range 12 {
		c, err := s.Containers.Create(ctx, store.Container{UUID: fmt.Sprint("c", i), HostID: fmt.Sprint("1h", i%2), ExternalID: fmt.Sprint("e", i)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	list := s.Containers.List()
	for i, c := range list {
		if c.ID != ids[i] {
			t.Fatalf("list[%d] = %s, want %s: sorted by number", i, c.ID, ids[i])
		}
	}
	if got := s.ContainersOfHost("1h1"); len(got) != 6 || got[0].UUID != "c1" {
		t.Errorf("containers of 1h1: %d", len(got))
	}
	if c, err := s.ContainerByExternalID("1h1", "e3"); err != nil || c.UUID != "c3" {
		t.Errorf("by external id: %v, %v", c, err)
	}
	if _, err := s.ContainerByExternalID("1h0", "e3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("external id on another host: %v, want ErrNotFound", err)
	}
	// A record that moves leaves its old place in the index.
	if _, err := s.Containers.Update(ctx, ids[3], func(c *store.Container) error { c.HostID = "1h7"; return nil }); err != nil {
		t.Fatal(err)
	}
	if n := len(s.ContainersOfHost("1h1")); n != 5 {
		t.Errorf("old host has %d containers, want 5", n)
	}
	if n := len(s.ContainersOfHost("1h7")); n != 1 {
		t.Errorf("new host has %d containers, want 1", n)
	}
}

func TestFeedIsOrderedAndCoalesced(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := storetest.Open(t)
	feed := s.Subscribe(ctx, store.TypeHost)
	if _, err := s.Settings.Create(ctx, store.Setting{Meta: store.Meta{ID: "x"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		h, err := s.Hosts.Create(ctx, store.Host{UUID: fmt.Sprint("u", i)})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 50 {
			if _, err := s.Hosts.Update(ctx, h.ID, func(h *store.Host) error { h.Memory = int64(n); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Hosts.Delete(ctx, "1h2", 0); err != nil {
		t.Fatal(err)
	}
	last := make(map[string]store.Change)
	seen := 0
	for len(last) < 3 || !last["1h2"].Deleted || last["1h3"].Record.(*store.Host).Memory != 49 {
		c := <-feed
		if c.Type != store.TypeHost {
			t.Fatalf("change of a type not asked for: %+v", c)
		}
		if c.Revision <= last[c.ID].Revision {
			t.Fatalf("%s: revision %d after %d", c.ID, c.Revision, last[c.ID].Revision)
		}
		last[c.ID] = c
		seen++
	}
	if last["1h1"].Record.(*store.Host).Memory != 49 {
		t.Error("the last state of 1h1 did not arrive")
	}
	if seen > 20 {
		t.Errorf("%d changes for a reader that was away, want them coalesced", seen)
	}
	cancel()
	for range feed {
	}
}

func TestSecretIsMadeOnce(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	made := 0
	create := func() ([]byte, error) { made++; return []byte("-----key-----"), nil }
	s := storetest.OpenConfig(t, store.Config{Dir: dir})
	for range 2 {
		got, err := s.Secret(ctx, "host-api.key", create)
		if err != nil || string(got) != "-----key-----" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if made != 1 {
		t.Errorf("made %d times, want once", made)
	}
	info, err := os.Stat(filepath.Join(dir, "keys", "host-api.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", info, err)
	}
	if _, err := s.Secret(ctx, "../x", create); err == nil {
		t.Error("a name that leaves the directory is taken")
	}
}

func TestClusterSecretsAreSealed(t *testing.T) {
	ctx := t.Context()
	url := storetest.NATS(t)
	key := []byte("0123456789abcdef")
	open := func(seal []byte) *store.Store {
		return storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), URLs: []string{url}, SealKey: seal})
	}
	a, b, wrong := open(key), open(key), open([]byte("fedcba9876543210"))
	if _, err := a.Secret(ctx, "ca.key", func() ([]byte, error) { return []byte("secret!"), nil }); err != nil {
		t.Fatal(err)
	}
	no := func() ([]byte, error) { return nil, errors.New("must not be made again") }
	if got, err := b.Secret(ctx, "ca.key", no); err != nil || string(got) != "secret!" {
		t.Errorf("other replica: %q, %v", got, err)
	}
	if got, err := wrong.Secret(ctx, "ca.key", no); err == nil {
		t.Errorf("with another seal key: %q, want an error", got)
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
