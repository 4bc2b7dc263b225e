package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// startRegistry runs a docker-registry on loopback and returns its address.
func startRegistry(t *testing.T) string {
	t.Helper()
	addr, dir := fmt.Sprintf("127.0.0.1:%d", freePort(t)), t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %s}\n", dir, addr)
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
	eventually(t, "the registry", func() bool {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	})
	return addr
}

// TestImages takes an image from a tar on the host, through a commit, a build and a tag, to a registry and back into a
// container.
func TestImages(t *testing.T) {
	u, name := newUser(t), prefix(t)
	roots := t.TempDir()
	u.env = append(u.env, "DROVER_IMPORT_ROOTS="+roots)
	u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	u.online(1)
	addr := startRegistry(t)
	ref, patched, final, local := addr+"/"+name+"/app:1", addr+"/"+name+"/app:2", addr+"/"+name+"/app:3", name+"/local:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", ref, patched, final, local).Run() }) // they may be gone

	// The busybox of this machine is the root file system.
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "bin/sh", Mode: 0o755, Size: int64(len(busybox))}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(busybox)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(roots, "root.tar"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var made struct{ ID, Digest string }
	u.json(&made, "image", "import", filepath.Join(roots, "root.tar"), ref, "--change", `CMD ["/bin/sh","-c","sleep 600"]`)
	if made.ID == "" || made.Digest == "" {
		t.Errorf("imported %+v", made)
	}
	if r := u.run("image", "import", "/etc/passwd", ref); r.code != 1 || !strings.Contains(r.err, "path: is not under "+roots) {
		t.Errorf("import from elsewhere: %+v", r)
	}

	id := strings.TrimSpace(u.must("run", "--name", name+"-job", ref, "/bin/sh", "-c", "echo here > /marker; sleep 600"))
	eventually(t, "the marker", func() bool {
		return exec.Command("docker", "exec", id, "/bin/sh", "-c", "read x < /marker").Run() == nil
	})
	u.must("image", "commit", name+"-job", patched, "--change", "ENV PATCHED=yes")
	u.must("rm", "-f", name+"-job")
	u.stdin = "FROM " + patched + "\nRUN read x < /marker && echo built on $x > /note\n"
	u.must("image", "build", "-q", "-t", local, "-")
	u.stdin = ""
	u.must("image", "tag", local, final)
	for _, image := range []string{ref, patched, final} {
		if out := u.must("image", "push", image); !strings.Contains(out, image+"  sha256:") {
			t.Errorf("push: %s", out)
		}
	}
	u.must("image", "rm", local, final, patched, ref)
	if out, err := exec.Command("docker", "image", "inspect", final).CombinedOutput(); err == nil {
		t.Fatalf("still there: %.300s", out)
	}
	if out := u.must("registry", "catalog", addr); out != name+"/app\n" {
		t.Errorf("catalog %q", out)
	}
	if out := u.must("registry", "tags", addr+"/"+name+"/app"); out != "1\n2\n3\n" {
		t.Errorf("tags %q", out)
	}
	u.must("image", "pull", final)
	if out := u.must("image", "ls"); !strings.Contains(out, final) {
		t.Errorf("ls:\n%s", out)
	}
	id = strings.TrimSpace(u.must("run", "--name", name+"-again", final))
	if out := u.must("exec", name+"-again", "/bin/sh", "-c", "read x < /note && echo $x"); out != "built on here\n" {
		t.Errorf("the container has %q", out)
	}
	if env := strings.Fields(docker(t, "inspect", "-f", "{{range .Config.Env}}{{.}} {{end}}", id)); !slices.Contains(env, "PATCHED=yes") {
		t.Errorf("environment %q", env)
	}
	if r := u.run("image", "rm", final); r.code != 1 || !strings.Contains(r.err, "is using") {
		t.Errorf("an image in use was removed: %+v", r)
	}
	u.must("rm", "-f", name+"-again")

	if out := u.must("registry", "rm", final); !strings.Contains(out, "  3\n") {
		t.Errorf("plan of the deletion: %q", out)
	}
	u.must("registry", "rm", final, "--yes")
	if r := u.run("registry", "manifest", final); r.code != 1 || !strings.Contains(r.err, "manifest unknown") {
		t.Errorf("manifest of what was deleted: %+v", r)
	}
	u.must("image", "rm", final)
	if r := u.run("image", "pull", final); r.code != 1 || !strings.Contains(r.err, "manifest") {
		t.Errorf("pull of what was deleted: %+v", r)
	}
}

// TestBuildSaveLoad builds from each kind of context through a server and an agent, and moves the image as a file.
func TestBuildSaveLoad(t *testing.T) {
	u, name := newUser(t), prefix(t)
	roots := t.TempDir()
	u.env = append(u.env, "DROVER_IMPORT_ROOTS="+roots)
	u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	u.online(1)
	ref := name + "/built:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", ref).Run() }) // it may be gone

	dir := filepath.Join(u.dir, "context")
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "Dockerfile"), "FROM "+image+"\nARG WHO\nCOPY . /app\nRUN echo hello $WHO; ls /app; test ! -e /app/secret.key\n")
	write(filepath.Join(dir, ".dockerignore"), "*.key\n")
	write(filepath.Join(dir, "secret.key"), "x")
	write(filepath.Join(dir, "main.txt"), "x")
	r := u.run("image", "build", "-t", ref, "--build-arg", "WHO="+name, dir)
	if r.code != 0 || !strings.HasPrefix(r.out, ref+"  sha256:") || !strings.Contains(r.err, "| hello "+name+"\n") || !strings.Contains(r.err, "| main.txt\n") || !strings.Contains(r.err, "RUN echo hello") {
		t.Fatalf("build: %+v", r)
	}
	built := docker(t, "image", "inspect", "-f", "{{.Id}}", ref)

	// A failing step, its last lines, and the image to look into.
	write(filepath.Join(dir, "broken"), "FROM "+image+"\nRUN echo kept > /kept\nRUN echo before; exit 4\n")
	r = u.run("image", "build", "-q", "--builder", "classic", "-f", filepath.Join(dir, "broken"), dir)
	found := regexp.MustCompile(`drover run ([0-9a-f]{12}) sleep 600`).FindStringSubmatch(r.err)
	if r.code != 1 || !strings.Contains(r.err, "failed: [3/3] RUN echo before; exit 4\n  | before\n") || found == nil {
		t.Fatalf("a failing build: %+v", r)
	}
	if out := docker(t, "run", "--rm", found[1], "cat", "/kept"); out != "kept" {
		t.Errorf("the image before the failure has %q", out)
	}
	docker(t, "rmi", "-f", found[1])

	// Other ways of a context: a Dockerfile on standard input, a tar on it, a folder of the host.
	for _, c := range []struct {
		stdin string
		args  []string
	}{
		{"FROM " + image + "\nCOPY main.txt /\n", []string{"-f", "-", dir}},
		{"FROM " + image + "\nLABEL a=b\n", []string{"-"}},
		{"", []string{"--on-host", filepath.Join(roots, "ctx")}},
	} {
		write(filepath.Join(roots, "ctx", "Dockerfile"), "FROM "+image+"\nLABEL c=d\n")
		u.stdin = c.stdin
		if out := u.must(append([]string{"image", "build", "-t", ref}, c.args...)...); !strings.HasPrefix(out, ref+"  sha256:") {
			t.Errorf("%q: %q", c.args, out)
		}
		u.stdin = ""
		docker(t, "rmi", ref)
	}

	// One clear line each.
	if err := os.Symlink("/etc", filepath.Join(roots, "out")); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "typo"), "FORM scratch\n")
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"unknown instruction: FORM":                  {"-f", filepath.Join(dir, "typo"), dir},
		"leads out of the context through a symlink": {"-f", filepath.Join(dir, "linked"), dir},
		"leads out of the folder that this host":     {"--on-host", filepath.Join(roots, "out")},
		"is not under " + roots:                      {"--on-host", "/etc"},
		"is no image":                                {"-t", "Not:A:Name", dir},
		"no such file":                               {filepath.Join(dir, "none")},
		"context has no file":                        {roots},
		"Failed to connect":                          {"http://user:geheim@127.0.0.1:1/x.git"},
	} {
		r := u.run(append([]string{"image", "build", "-q"}, args...)...)
		if r.code == 0 || !strings.Contains(r.err, want) || strings.Contains(r.err, "geheim") {
			t.Errorf("%q: %+v, want %q", args, r, want)
		}
	}

	// Out as a file and in again.
	docker(t, "tag", built, ref)
	file := filepath.Join(u.dir, "saved.tar")
	u.must("image", "save", ref, "-f", file)
	docker(t, "rmi", ref)
	if out := u.must("image", "load", "-f", file); out != ref+"\n" {
		t.Errorf("load says %q", out)
	}
	if id := docker(t, "image", "inspect", "-f", "{{.Id}}", ref); id != built {
		t.Errorf("loaded %s, saved %s", id, built)
	}
	if r := u.run("image", "save", name+"/none:1", "-f", file+"2"); r.code != 1 || !strings.Contains(strings.ToLower(r.err), "no such image") {
		t.Errorf("saving what is not there: %+v", r)
	}
	if left, _ := filepath.Glob(filepath.Join(u.dir, ".drover-save-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if r := u.run("image", "load", "-f", filepath.Join(dir, "typo")); r.code != 1 || strings.Count(r.err, "\n") != 1 {
		t.Errorf("loading what is no tar: %+v", r)
	}
}
