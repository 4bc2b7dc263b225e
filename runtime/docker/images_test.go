package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

// rootFS is a tar with one file.
func rootFS(name, content string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return &b
}

// forget removes images when the test ends.
func forget(t *testing.T, refs ...string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		e, err := docker.New(docker.Config{})
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		for _, ref := range refs {
			if err := e.RemoveImage(ctx, ref, true); err != nil && !errors.Is(err, runtime.ErrNotFound) {
				t.Error(err)
			}
		}
	})
}

// ownAddress is an address of this machine that no daemon takes for loopback; packets to it stay on the machine.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Fatal("this machine has no address but loopback; the bridge of dockerd is one")
	return ""
}

func TestImportHistoryPushPull(t *testing.T) {
	e := engine(t, docker.Config{})
	ref := startRegistry(t) + "/" + randomName() + "/app:1"
	forget(t, ref)
	var sent []runtime.PullProgress
	id, err := e.ImportImage(t.Context(), runtime.ImportRequest{Ref: ref, Comment: "made by a test", Changes: []string{`CMD ["/bin/app"]`, "ENV A=b"}},
		rootFS("hello", strings.Repeat("x", 5<<20)), func(p runtime.PullProgress) { sent = append(sent, p) })
	if err != nil {
		t.Fatal(err)
	}
	if len(sent) < 4 || sent[len(sent)-1].Current < 4<<20 {
		t.Errorf("progress of the import: %+v", sent)
	}
	cfg, err := e.ImageConfig(t.Context(), ref)
	if err != nil || cfg.ID != id || !slices.Equal(cfg.Cmd, []string{"/bin/app"}) || !slices.Contains(cfg.Env, "A=b") {
		t.Errorf("imported %+v, %v", cfg, err)
	}
	steps, err := e.History(t.Context(), ref)
	if err != nil || len(steps) != 1 || steps[0].Comment != "made by a test" || steps[0].ID != id || steps[0].Size < 5<<20 {
		t.Errorf("history %+v, %v", steps, err)
	}

	layers := map[string]bool{}
	result, err := e.Push(t.Context(), runtime.PushRequest{Ref: ref}, func(p runtime.PullProgress) {
		if p.Status == "Pushed" {
			layers[p.Layer] = true
		}
	})
	if err != nil || !strings.HasPrefix(result.Digest, "sha256:") || result.Size == 0 || len(layers) != 1 {
		t.Fatalf("push: %+v, %v, layers %v", result, err, layers)
	}
	removal, err := e.DeleteImage(t.Context(), ref, false)
	if err != nil || !slices.Contains(removal.Deleted, id) || !slices.Contains(removal.Untagged, ref) {
		t.Errorf("removal %+v, %v", removal, err)
	}
	if err := e.Pull(t.Context(), runtime.PullRequest{Ref: ref}, nil); err != nil {
		t.Fatal(err)
	}
	if cfg, err := e.ImageConfig(t.Context(), ref); err != nil || cfg.ID != id {
		t.Errorf("pulled %+v, %v", cfg, err)
	}
}

func TestCommit(t *testing.T) {
	e := engine(t, docker.Config{})
	id := sleeper(t)
	ref := randomName() + ":1"
	forget(t, ref)
	img, err := e.Commit(t.Context(), runtime.CommitRequest{
		Container: id, Ref: ref, Author: "ann", Comment: "as it stands", Changes: []string{`CMD ["/bin/true"]`, "ENV COLOUR=blue", "LABEL made=here"},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.InspectImage(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ID, Author, Comment string
		Config              struct {
			Cmd, Env []string
			Labels   map[string]string
		}
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != img || got.Author != "ann" || got.Comment != "as it stands" || !slices.Equal(got.Config.Cmd, []string{"/bin/true"}) ||
		!slices.Contains(got.Config.Env, "COLOUR=blue") || got.Config.Labels["made"] != "here" {
		t.Errorf("committed %+v", got)
	}
	if _, err := e.Commit(t.Context(), runtime.CommitRequest{Container: id, Ref: ref, Changes: []string{"RUN rm -rf /"}}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("a change that is none: %v", err)
	}
	if _, err := e.Commit(t.Context(), runtime.CommitRequest{Container: randomName(), Ref: ref}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("no such container: %v", err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	e := engine(t, docker.Config{})
	ref := randomName() + ":1"
	forget(t, ref)
	id, err := e.ImportImage(t.Context(), runtime.ImportRequest{Ref: ref}, rootFS("f", "saved"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if err := e.SaveImages(t.Context(), []string{ref}, &saved); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveImage(t.Context(), ref, false); err != nil {
		t.Fatal(err)
	}
	loaded, err := e.LoadImages(t.Context(), &saved, nil)
	if err != nil || !slices.Equal(loaded, []string{ref}) {
		t.Errorf("loaded %q, %v", loaded, err)
	}
	if cfg, err := e.ImageConfig(t.Context(), ref); err != nil || cfg.ID != id {
		t.Errorf("%+v, %v", cfg, err)
	}
	if err := e.SaveImages(t.Context(), []string{randomName()}, io.Discard); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("saving what is not there: %v", err)
	}
	if _, err := e.LoadImages(t.Context(), strings.NewReader("this is no tar"), nil); err == nil {
		t.Error("loaded what is no tar")
	}
	if _, err := e.ImportImage(t.Context(), runtime.ImportRequest{Ref: ref}, strings.NewReader(strings.Repeat("this is no tar", 100)), nil); err == nil {
		t.Error("imported what is no tar")
	}
}

// What a dry run says is what goes, and an image in use stays.
func TestPrune(t *testing.T) {
	e := engine(t, docker.Config{})
	label := randomName()
	made := map[string]string{}
	for _, name := range []string{"free", "used", "kept"} {
		ref := label + "-" + name + ":1"
		forget(t, ref)
		changes := []string{"LABEL " + label + "=yes", `CMD ["/x"]`}
		if name == "kept" {
			changes = append(changes, "LABEL keep=yes")
		}
		id, err := e.ImportImage(t.Context(), runtime.ImportRequest{Ref: ref, Changes: changes}, rootFS("f", strings.Repeat(name, 1000)), nil)
		if err != nil {
			t.Fatal(err)
		}
		made[name] = id
	}
	id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{Name: randomName(), Image: made["used"]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNow(t, id) })

	opts := runtime.PruneOptions{Labels: []string{label + "=yes"}, NotLabels: []string{"keep"}, DryRun: true}
	if plan, err := e.PruneImages(t.Context(), opts); err != nil || len(plan.Images) != 0 {
		t.Errorf("none of them is dangling: %+v, %v", plan, err)
	}
	opts.All = true
	plan, err := e.PruneImages(t.Context(), opts)
	if err != nil || len(plan.Images) != 1 || plan.Images[0].ID != made["free"] || plan.Bytes != 4000 || len(plan.Deleted) != 0 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	opts.DryRun = false
	opts.Until = time.Now().Add(-time.Hour)
	if done, err := e.PruneImages(t.Context(), opts); err != nil || len(done.Images)+len(done.Deleted) != 0 {
		t.Errorf("none of them is an hour old: %+v, %v", done, err)
	}
	opts.Until = time.Time{}
	done, err := e.PruneImages(t.Context(), opts)
	if err != nil || len(done.Images) != 1 || done.Images[0].ID != made["free"] || !slices.Contains(done.Deleted, made["free"]) || done.Bytes != plan.Bytes {
		t.Errorf("pruned %+v, %v", done, err)
	}
	for _, name := range []string{"used", "kept"} {
		if _, err := e.ImageConfig(t.Context(), made[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.PruneImages(t.Context(), runtime.PruneOptions{Labels: []string{"=x"}}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("a label without a key: %v", err)
	}
}

func TestPushFailures(t *testing.T) {
	e := engine(t, docker.Config{})
	plain := httptest.NewUnstartedServer(http.NotFoundHandler())
	plain.Listener.Close()
	var err error
	if plain.Listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(ownAddress(t), "0")); err != nil {
		t.Fatal(err)
	}
	plain.Start()
	t.Cleanup(plain.Close)
	name := "/" + randomName() + ":1"
	ref := plain.Listener.Addr().String() + name
	gone, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := gone.Addr().String() + name
	gone.Close()
	forget(t, ref, nobody)
	if _, err := e.ImportImage(t.Context(), runtime.ImportRequest{Ref: ref}, rootFS("f", "x"), nil); err != nil {
		t.Fatal(err)
	}
	if err := e.TagImage(t.Context(), ref, nobody); err != nil {
		t.Fatal(err)
	}
	_, err = e.Push(t.Context(), runtime.PushRequest{Ref: ref}, nil)
	if !errors.Is(err, runtime.ErrPlainHTTP) || !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("a registry without TLS: %v", err)
	}
	if _, err := e.Push(t.Context(), runtime.PushRequest{Ref: nobody}, nil); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("no registry at all: %v", err)
	}
	if _, err := e.Push(t.Context(), runtime.PushRequest{Ref: "127.0.0.1:1/" + randomName() + ":1"}, nil); err == nil {
		t.Error("pushed what is not there")
	}
	for _, bad := range []string{"", "a/UPPER", "a b", "x@sha256:" + strings.Repeat("0", 64), "../../containers/json"} {
		if _, err := e.Push(t.Context(), runtime.PushRequest{Ref: bad}, nil); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
