package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// TestImages takes an image from a tar on the host to a registry, and back into a container.
func TestImages(t *testing.T) {
	u, name := newUser(t), prefix(t)
	roots := t.TempDir()
	u.env = append(u.env, "DROVER_IMPORT_ROOTS="+roots)
	u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	u.online(1)
	addr := startRegistry(t)
	ref, patched := addr+"/"+name+"/app:1", addr+"/"+name+"/app:2"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", ref, patched).Run() }) // they may be gone

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
	for _, image := range []string{ref, patched} {
		if out := u.must("image", "push", image); !strings.Contains(out, image+"  sha256:") {
			t.Errorf("push: %s", out)
		}
		u.must("image", "rm", image)
	}
	if out := u.must("registry", "catalog", addr); out != name+"/app\n" {
		t.Errorf("catalog %q", out)
	}
	if out := u.must("registry", "tags", addr+"/"+name+"/app"); out != "1\n2\n" {
		t.Errorf("tags %q", out)
	}
	u.must("image", "pull", patched)
	if out := u.must("image", "ls"); !strings.Contains(out, patched) {
		t.Errorf("ls:\n%s", out)
	}
	id = strings.TrimSpace(u.must("run", "--name", name+"-again", patched, "/bin/sh", "-c", "read x < /marker && sleep 600"))
	if env := strings.Fields(docker(t, "inspect", "-f", "{{range .Config.Env}}{{.}} {{end}}", id)); !slices.Contains(env, "PATCHED=yes") {
		t.Errorf("environment %q", env)
	}
	if r := u.run("image", "rm", patched); r.code != 1 || !strings.Contains(r.err, "is using") {
		t.Errorf("an image in use was removed: %+v", r)
	}
	u.must("rm", "-f", name+"-again")

	if out := u.must("registry", "rm", patched); !strings.Contains(out, "  2\n") {
		t.Errorf("plan of the deletion: %q", out)
	}
	u.must("registry", "rm", patched, "--yes")
	if r := u.run("registry", "manifest", patched); r.code != 1 || !strings.Contains(r.err, "manifest unknown") {
		t.Errorf("manifest of what was deleted: %+v", r)
	}
	u.must("image", "rm", patched)
	if r := u.run("image", "pull", patched); r.code != 1 || !strings.Contains(r.err, "manifest") {
		t.Errorf("pull of what was deleted: %+v", r)
	}
}
