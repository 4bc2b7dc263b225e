package handlers_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// ask runs an event with the data, which must succeed, and decodes the answer.
func ask(t testing.TB, r *events.Router, name string, data, into any) {
	t.Helper()
	reply := mustServe(t, r, imageEvent(t, name, data))
	if into == nil {
		return
	}
	if err := json.Unmarshal(reply.Data, into); err != nil {
		t.Fatalf("%s: %v in %.300s", name, err, reply.Data)
	}
}

// refused runs an event that must fail.
func refused(t *testing.T, r *events.Router, name string, data any, code, want string) {
	t.Helper()
	t.Run(name+" "+want, func(t *testing.T) { wantError(t, serve(t, r, imageEvent(t, name, data)), code, want) })
}

func imageEvent(t testing.TB, name string, data any) *wire.Event {
	t.Helper()
	raw, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Event{ID: newUUID(), Name: name, ReplyTo: "reply.1", TimeoutMillis: 120_000, Data: raw}
}

type m = map[string]any

// oneImage is what the events that make an image answer.
type oneImage struct {
	Image struct {
		ID, Name, Digest string
		Bytes            int64
		RepoTags         []string
	}
}

// registryServer runs a docker-registry on an address of this machine.
func registryServer(t testing.TB, ip string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q}\n", dir, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need Debian's docker-registry: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	deadline := time.Now().Add(time.Minute)
	for {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ownAddress is an address of this machine that no daemon takes for loopback; packets to it stay on the machine.
func ownAddress(t testing.TB) string {
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

// forgetImages removes images when the test ends.
func forgetImages(t testing.TB, e runtime.Images, refs ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, ref := range refs {
			if err := e.RemoveImage(cleanupContext(t), ref, true); err != nil && !errors.Is(err, runtime.ErrNotFound) {
				t.Error(err)
			}
		}
	})
}

// rootFS is a tar with the busybox that images need to run.
func rootFS(name, content string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestImagesThroughEvents(t *testing.T) {
	e := dockerEngine(t)
	dir := t.TempDir()
	r := newRouter(e, handlers.Options{ImageRoots: []string{dir}})
	label := prefix + newUUID()
	addr := registryServer(t, "127.0.0.1")
	ref, second, third := addr+"/"+label+"/app:1", addr+"/"+label+"/app:2", label+":committed"
	forgetImages(t, e, ref, second, third)

	write(t, filepath.Join(dir, "root.tar.gz"), gzipped(t, rootFS("hello", strings.Repeat("x", 100_000))))
	var made oneImage
	ask(t, r, "image.import", m{"path": filepath.Join(dir, "root.tar.gz"), "image": ref, "changes": []string{"LABEL " + label + "=yes"}, "comment": "imported"}, &made)
	if !strings.HasPrefix(made.Image.ID, "sha256:") || !strings.HasPrefix(made.Image.Digest, "sha256:") || made.Image.Bytes < 100_000 {
		t.Fatalf("imported %+v", made)
	}
	var list struct {
		Images []struct {
			ID       string
			RepoTags []string
			InUse    int
		}
	}
	ask(t, r, "image.list", m{}, &list)
	if !slices.ContainsFunc(list.Images, func(i struct {
		ID       string
		RepoTags []string
		InUse    int
	},
	) bool {
		return i.ID == made.Image.ID && slices.Equal(i.RepoTags, []string{ref}) && i.InUse == 0
	}) {
		t.Errorf("the list has no %s", ref)
	}
	if got := field(t, mustServe(t, r, imageEvent(t, "image.inspect", m{"image": ref})).Data, "image", "Id"); got != made.Image.ID {
		t.Errorf("inspect: %v", got)
	}
	var history struct{ History []runtime.HistoryEntry }
	if ask(t, r, "image.history", m{"image": ref}, &history); len(history.History) != 1 || history.History[0].Comment != "imported" {
		t.Errorf("history %+v", history)
	}
	ask(t, r, "image.tag", m{"image": ref, "target": second}, nil)
	var pushed oneImage
	if ask(t, r, "image.push", m{"image": second}, &pushed); !strings.HasPrefix(pushed.Image.Digest, "sha256:") {
		t.Errorf("pushed %+v", pushed)
	}
	for _, name := range []string{ref, second} {
		ask(t, r, "image.remove", m{"image": name}, nil)
	}
	refused(t, r, "image.inspect", m{"image": second}, wire.CodeNotFound, "No such image")
	var pulled oneImage
	if ask(t, r, "image.pull", m{"image": second}, &pulled); pulled.Image.ID != made.Image.ID {
		t.Errorf("pulled %+v, not %s", pulled, made.Image.ID)
	}

	id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{Name: label, Image: testImage, Cmd: []string{"/bin/true"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Remove(cleanupContext(t), id, runtime.RemoveOptions{Force: true}) })
	var committed oneImage
	ask(t, r, "image.commit", m{"container": id, "image": third, "changes": []string{"LABEL " + label + "=yes", "ENV A=b"}}, &committed)
	if !slices.Contains(committed.Image.RepoTags, third) {
		t.Errorf("committed %+v", committed)
	}

	var prune struct{ Prune runtime.PruneReport }
	ask(t, r, "image.prune", m{"all": true, "labels": []string{label}, "dryRun": true}, &prune)
	if len(prune.Prune.Images) != 2 || len(prune.Prune.Deleted) != 0 || prune.Prune.Bytes < 100_000 {
		t.Errorf("plan %+v", prune.Prune)
	}
	ask(t, r, "image.prune", m{"all": true, "labels": []string{label}}, &prune)
	if len(prune.Prune.Images) != 2 || !slices.Contains(prune.Prune.Deleted, made.Image.ID) {
		t.Errorf("pruned %+v", prune.Prune)
	}
	refused(t, r, "image.prune", m{"until": "tomorrow"}, wire.CodeInvalid, "until: is neither")
	refused(t, r, "image.push", m{"image": "No Such/Ref"}, wire.CodeInvalid, "no image reference")
	refused(t, r, "image.push", m{}, wire.CodeInvalid, "image: missing")
	refused(t, r, "image.commit", m{"container": label + "-none", "image": third}, wire.CodeNotFound, "No such container")
	refused(t, newRouter(plainEngine{e}, handlers.Options{}), "image.history", m{"image": testImage}, wire.CodeUnsupported, "")
}

func TestImportSources(t *testing.T) {
	e := dockerEngine(t)
	dir, outside := t.TempDir(), t.TempDir()
	r := newRouter(e, handlers.Options{ImageRoots: []string{dir}, MaxImport: 3 << 20})
	ref := prefix + newUUID() + ":1"
	forgetImages(t, e, ref)
	in := func(name string) m { return m{"path": filepath.Join(dir, name), "image": ref} }

	plain := rootFS("hello", "world")
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	for _, d := range []string{"tree/etc", "tree/bin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(tree, "etc/passwd"), []byte("root:x:0:0\n"))
	if err := errors.Join(os.Link(filepath.Join(tree, "etc/passwd"), filepath.Join(tree, "etc/passwd-")),
		os.Symlink("/etc/passwd", filepath.Join(tree, "bin/link")), syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
		os.Symlink(outside, filepath.Join(dir, "escape")), os.Chmod(filepath.Join(tree, "bin"), 0o750)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "plain.tar"), plain)
	write(t, filepath.Join(dir, "z.tar.zst"), encoder.EncodeAll(plain, nil))
	for _, name := range []string{"plain.tar", "z.tar.zst", "tree"} {
		var made oneImage
		ask(t, r, "image.import", in(name), &made)
		if made.Image.ID == "" || made.Image.Digest == "" {
			t.Errorf("%s: %+v", name, made)
		}
		if name != "tree" && made.Image.Bytes != int64(len(plain)) {
			t.Errorf("%s: %d bytes, want %d", name, made.Image.Bytes, len(plain))
		}
	}
	// What the directory became.
	id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{Name: prefix + newUUID(), Image: ref, Cmd: []string{"/x"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Remove(cleanupContext(t), id, runtime.RemoveOptions{Force: true}) })
	if st, err := e.StatPath(t.Context(), id, "/etc/passwd-"); err != nil || st.Size != 11 || st.Mode.Perm() != 0o600 {
		t.Errorf("hard link: %+v, %v", st, err)
	}
	if st, err := e.StatPath(t.Context(), id, "/bin/link"); err != nil || st.LinkTarget != "/etc/passwd" {
		t.Errorf("symlink: %+v, %v", st, err)
	}
	if st, err := e.StatPath(t.Context(), id, "/bin"); err != nil || st.Mode.Perm() != 0o750 {
		t.Errorf("directory: %+v, %v", st, err)
	}

	write(t, filepath.Join(outside, "secret.tar"), plain)
	write(t, filepath.Join(dir, "bomb.tar.gz"), gzipped(t, rootFS("zeros", strings.Repeat("\x00", 20<<20))))
	write(t, filepath.Join(dir, "cut.tar.gz"), gzipped(t, rootFS("f", newUUID()))[:30])
	write(t, filepath.Join(dir, "x.tar.xz"), []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 0})
	write(t, filepath.Join(dir, "text"), bytes.Repeat([]byte("this is no tar"), 100))
	refused(t, r, "image.import", in("escape/secret.tar"), wire.CodeInvalid, "leads out of the folder")
	refused(t, r, "image.import", in("../"+filepath.Base(outside)+"/secret.tar"), wire.CodeInvalid, "is not under "+dir)
	refused(t, r, "image.import", m{"path": "root.tar", "image": ref}, wire.CodeInvalid, "path: is not absolute")
	refused(t, r, "image.import", in("none"), wire.CodeNotFound, "no such file on the host")
	refused(t, r, "image.import", in("fifo"), wire.CodeInvalid, "neither a file nor a directory")
	refused(t, r, "image.import", in("bomb.tar.gz"), wire.CodeInvalid, "larger than 3.1 MB")
	refused(t, r, "image.import", in("cut.tar.gz"), wire.CodeInvalid, "cannot be read to its end")
	refused(t, r, "image.import", in("x.tar.xz"), wire.CodeUnsupported, "packed with xz")
	refused(t, r, "image.import", in("text"), wire.CodeInternal, "import "+ref)
	refused(t, newRouter(e, handlers.Options{}), "image.import", in("plain.tar"), wire.CodeInvalid, "allows no folder")
}

// The classic trap has an answer that names the remedy, and a way out that needs none.
func TestPushToARegistryWithoutTLS(t *testing.T) {
	e := dockerEngine(t)
	dir := t.TempDir()
	log, logged := recorder()
	temp := t.TempDir()
	r := events.NewRouter(events.RouterConfig{Classify: handlers.Classify, Log: log})
	handlers.Register(r, e, handlers.Options{ImageRoots: []string{dir}, TempDir: temp, Log: log})
	addr := registryServer(t, ownAddress(t))
	ref := addr + "/" + prefix + newUUID() + "/app:1"
	forgetImages(t, e, ref)
	write(t, filepath.Join(dir, "root.tar"), rootFS("hello", strings.Repeat("x", 3<<20)))
	ask(t, r, "image.import", m{"path": filepath.Join(dir, "root.tar"), "image": ref}, nil)

	info, err := e.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secret := m{"username": "ann", "password": "s3cr3t-word", "serverAddress": addr}
	for _, verb := range []string{"push", "pull"} {
		reply := serve(t, r, imageEvent(t, "image."+verb, m{"image": ref, "credential": secret}))
		wantError(t, reply, wire.CodeInvalid, `{"insecure-registries":["`+addr+`"]} into /etc/docker/daemon.json`)
		wantError(t, reply, wire.CodeInvalid, "the Docker daemon of host "+info.Name)
		if offers := strings.Contains(reply.TransitioningMessage, "drover image push --via agent --insecure "+ref); offers != (verb == "push") {
			t.Errorf("%s: %s", verb, reply.TransitioningMessage)
		}
	}
	refused(t, r, "image.push", m{"image": ref, "via": "agent"}, wire.CodeInvalid, "name it as insecure")
	var pushed oneImage
	ask(t, r, "image.push", m{"image": ref, "via": "agent", "insecure": []string{addr}, "credential": secret}, &pushed)
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	var manifest struct {
		Manifest struct {
			Digest    string
			Platforms []struct{ Layers []struct{ Digest string } }
		}
	}
	ask(t, r, "registry.manifest", m{"image": ref, "insecure": []string{addr}}, &manifest)
	if manifest.Manifest.Digest != pushed.Image.Digest || len(manifest.Manifest.Platforms) != 1 || len(manifest.Manifest.Platforms[0].Layers) != 1 {
		t.Errorf("the registry has %+v, pushed was %+v", manifest, pushed)
	}
	refused(t, r, "image.push", m{"image": ref, "via": "pigeon"}, wire.CodeInvalid, "via: is neither")
	if strings.Contains(logged.String(), "s3cr3t-word") {
		t.Errorf("the log has the password:\n%s", logged.String())
	}
}

func TestRegistryEvents(t *testing.T) {
	e := dockerEngine(t)
	dir := t.TempDir()
	r := newRouter(e, handlers.Options{ImageRoots: []string{dir}})
	one, two := registryServer(t, "127.0.0.1"), registryServer(t, "127.0.0.1")
	repo := one + "/shop/api"
	ref := repo + ":1"
	forgetImages(t, e, ref, repo+":2")
	write(t, filepath.Join(dir, "root.tar"), rootFS("hello", newUUID()))
	ask(t, r, "image.import", m{"path": filepath.Join(dir, "root.tar"), "image": ref}, nil)
	ask(t, r, "image.tag", m{"image": ref, "target": repo + ":2"}, nil)
	for _, tag := range []string{":1", ":2"} {
		ask(t, r, "image.push", m{"image": repo + tag}, nil)
	}
	ask(t, r, "registry.check", m{"registry": one}, nil)
	var catalog struct{ Repositories []string }
	if ask(t, r, "registry.catalog", m{"registry": one}, &catalog); !slices.Equal(catalog.Repositories, []string{"shop/api"}) {
		t.Errorf("catalog %q", catalog.Repositories)
	}
	var tags struct{ Tags []string }
	if ask(t, r, "registry.tags", m{"repository": repo}, &tags); !slices.Equal(tags.Tags, []string{"1", "2"}) {
		t.Errorf("tags %q", tags.Tags)
	}
	var copied, deleted struct {
		Image    struct{ Digest string }
		Deletion struct {
			Digest string
			Tags   []string
		}
	}
	ask(t, r, "registry.copy", m{"source": ref, "target": two + "/copy/api:9"}, &copied)
	ask(t, r, "registry.delete", m{"image": ref, "dryRun": true}, &deleted)
	if !slices.Equal(deleted.Deletion.Tags, []string{"1", "2"}) || deleted.Deletion.Digest != copied.Image.Digest {
		t.Errorf("would go: %+v; copied was %+v", deleted, copied)
	}
	ask(t, r, "registry.manifest", m{"image": ref}, nil)
	ask(t, r, "registry.delete", m{"image": ref}, nil)
	refused(t, r, "registry.manifest", m{"image": ref}, wire.CodeNotFound, "manifest")
	ask(t, r, "registry.manifest", m{"image": two + "/copy/api:9"}, nil)
	refused(t, r, "registry.catalog", m{}, wire.CodeInvalid, "registry: missing")
	refused(t, r, "registry.check", m{"registry": "127.0.0.1:1"}, wire.CodeUnavailable, "does not answer")
	refused(t, r, "registry.tags", m{"repository": "A B"}, wire.CodeInvalid, "no repository")
	refused(t, r, "registry.check", m{"registry": one, "ca": "nonsense"}, wire.CodeInvalid, "ca: holds no PEM certificate")
	refused(t, r, "registry.check", m{"registry": one, "insecure": "yes"}, wire.CodeInvalid, "insecure: expected an array")
}

// dataReports collects progress with its data.
type dataReports struct {
	reports
	data []any
}

func (r *dataReports) ReportData(message string, percent int, data any) {
	r.Report(message, percent)
	r.data = append(r.data, data)
}

// pushing is an engine whose pushes tell a lot.
type pushing struct {
	*stub
	runtime.ImageManager
	steps []runtime.PullProgress
}

func (e *pushing) Push(_ context.Context, _ runtime.PushRequest, progress func(runtime.PullProgress)) (runtime.PushResult, error) {
	for _, s := range e.steps {
		time.Sleep(900 * time.Microsecond)
		progress(s)
	}
	return runtime.PushResult{Digest: "sha256:d", Size: 5}, nil
}

// 10,000 messages of a push within 9 s cost at most 40 replies, each of which tells how every layer stands.
func TestPushProgressHasLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &pushing{stub: newStub(), steps: []runtime.PullProgress{
			{Status: "The push refers to repository [x]"},
			{Layer: "a", Status: "Preparing"},
			{Layer: "b", Status: "Preparing"},
			{Layer: "c", Status: "Layer already exists"},
			{Layer: "d", Status: "Mounted from x/y"},
		}}
		for i := range 10_000 {
			e.steps = append(e.steps, runtime.PullProgress{Layer: []string{"a", "b"}[i%2], Status: "Pushing", Current: int64(i+1) * 100, Total: 1_000_000})
		}
		e.steps = append(e.steps, runtime.PullProgress{Layer: "a", Status: "Pushed"})
		p := &dataReports{}
		reply := newRouter(e, handlers.Options{}).Serve(t.Context(), imageEvent(t, "image.push", m{"image": "x/y:1"}), p)
		if reply.Transitioning == wire.TransitioningError {
			t.Fatal(reply.TransitioningMessage)
		}
		lines, percent := p.all()
		if len(lines) < 20 || len(lines) > 40 || len(p.data) != len(lines) || percent < 90 {
			t.Errorf("%d lines, %d with data, %d %%", len(lines), len(p.data), percent)
		}
		raw, err := json.Marshal(p.data[len(p.data)-1])
		if err != nil {
			t.Fatal(err)
		}
		var last struct {
			Layer, Status  string
			Current, Total int64
			Layers         []struct {
				Layer, Status  string
				Current, Total int64
			}
		}
		if err := json.Unmarshal(raw, &last); err != nil {
			t.Fatal(err)
		}
		if last.Status != "Pushing" || last.Total != 1_000_000 || last.Current < 900_000 || len(last.Layers) != 4 ||
			last.Layers[0].Layer != "a" || last.Layers[2].Status != "Layer already exists" || last.Layers[1].Current < 900_000 {
			t.Errorf("the last data is %s", raw)
		}
	})
}
