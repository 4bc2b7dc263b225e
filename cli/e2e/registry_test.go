package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// certificate writes an authority and a certificate of it for an address.
func certificate(t *testing.T, dir, ip string) (ca, cert, key string) {
	t.Helper()
	caKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leafKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	year := time.Now().AddDate(1, 0, 0)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: year,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: ip}, NotBefore: time.Now().Add(-time.Hour), NotAfter: year,
		IPAddresses: []net.IP{net.ParseIP(ip)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return file("ca.pem", "CERTIFICATE", rootDER), file("cert.pem", "CERTIFICATE", leafDER), file("key.pem", "EC PRIVATE KEY", keyDER)
}

// registryImage packs Debian's docker-registry as an image that is built through the server.
func registryImage(u *user, ref string) {
	u.t.Helper()
	dir := filepath.Join(u.dir, "registry-image")
	copyFile := func(from, to string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755), os.WriteFile(filepath.Join(dir, to), b, 0o755))
		}
		if err != nil {
			u.t.Fatal(err)
		}
	}
	copyFile("/usr/bin/docker-registry", "root/bin/registry")
	libs, err := exec.Command("ldd", "/usr/bin/docker-registry").Output()
	if err != nil {
		u.t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(libs)) {
		if strings.HasPrefix(word, "/") {
			copyFile(word, "root"+word)
		}
	}
	for path, content := range map[string]string{
		"root/etc/docker/registry/config.yml": "version: 0.1\nlog: {level: warn}\nstorage:\n  cache: {blobdescriptor: inmemory}\n  filesystem: {rootdirectory: /var/lib/registry}\nhttp: {addr: ':5000', draintimeout: 1s}\n",
		"Dockerfile":                          "FROM scratch\nCOPY root /\nENTRYPOINT [\"/bin/registry\"]\nCMD [\"serve\",\"/etc/docker/registry/config.yml\"]\n",
	} {
		full := filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(content), 0o600)); err != nil {
			u.t.Fatal(err)
		}
	}
	u.must("image", "build", "-q", "-t", ref, dir)
}

// TestRegistryRun runs a registry with TLS and passwords on a host and does with it all that the commands can.
func TestRegistryRun(t *testing.T) {
	u, name := newUser(t), prefix(t)
	u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	u.online(1)
	packed := name + "/registry:1"
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	ref := addr + "/shop/api:1"
	t.Cleanup(func() {
		removeContainers(t, name)
		_ = exec.Command("docker", "rmi", "-f", packed, ref, addr+"/shop/api:2").Run() // they may be gone
		_ = exec.Command("docker", "volume", "rm", name+"-registry").Run()
	})
	registryImage(u, packed)
	ca, cert, key := certificate(t, u.dir, "127.0.0.1")
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(u.dir, "htpasswd")
	if err := os.WriteFile(users, fmt.Appendf(nil, "ann:%s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	u.must("registry", "run", packed, "--name", name+"-registry", "--port", addr, "--tls-cert", cert, "--tls-key", key, "--htpasswd", users)
	u.env = append(u.env, "DROVER_REGISTRY_PASSWORD=right")
	ann := []string{"--username", "ann", "--registry-ca", ca}
	eventually(t, "the registry", func() bool { return u.run(append([]string{"registry", "check", addr}, ann...)...).code == 0 })

	docker(t, "tag", image, ref)
	for want, args := range map[string][]string{
		"give its CA":    {"registry", "catalog", addr, "--username", "ann"},
		"authentication": {"registry", "catalog", addr, "--registry-ca", ca},
		"no basic auth":  {"image", "push", ref},
	} {
		if r := u.run(args...); r.code != 1 || !strings.Contains(r.err, want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: %+v, want one line with %q", args, r, want)
		}
	}
	if out := u.must("image", "push", ref, "--username", "ann"); !strings.Contains(out, "sha256:") {
		t.Errorf("push through the engine: %q", out)
	}
	own := filepath.Join(u.dir, "own")
	if err := errors.Join(os.MkdirAll(own, 0o755), os.WriteFile(filepath.Join(own, "Dockerfile"), []byte("FROM "+image+"\nCOPY Dockerfile /own\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	u.must("image", "build", "-q", "-t", addr+"/shop/api:2", own)
	u.must(append([]string{"image", "push", addr + "/shop/api:2", "--via", "agent"}, ann...)...)
	if out := u.must(append([]string{"registry", "tags", addr + "/shop/api"}, ann...)...); out != "1\n2\n" {
		t.Errorf("tags %q", out)
	}

	// To another registry, without TLS, and the sizes are there.
	other := startRegistry(t)
	u.env = append(u.env, "DROVER_SOURCE_REGISTRY_PASSWORD=right")
	u.must("registry", "copy", ref, other+"/mirror/api:1", "--source-username", "ann", "--registry-ca", ca)
	if out := u.must("registry", "manifest", other+"/mirror/api:1"); !strings.Contains(out, "linux/amd64") {
		t.Errorf("manifest of the copy: %s", out)
	}

	// Delete by tag, collect, and push the same again: the registry must not remember what is gone.
	rm := append([]string{"registry", "rm", addr + "/shop/api:2", "--yes"}, ann...)
	u.must(rm...)
	if r := u.run(append([]string{"registry", "manifest", addr + "/shop/api:2"}, ann...)...); r.code != 1 || !strings.Contains(r.err, "unknown") {
		t.Errorf("what was deleted: %+v", r)
	}
	var plan, done struct{ Manifests, Blobs int }
	u.json(&plan, "registry", "gc", name+"-registry", "--dry-run")
	u.json(&done, "registry", "gc", name+"-registry")
	if plan.Blobs < 2 || done != plan {
		t.Errorf("planned %+v, done %+v", plan, done)
	}
	eventually(t, "the registry after the collection", func() bool { return u.run(append([]string{"registry", "check", addr}, ann...)...).code == 0 })
	u.must("image", "push", addr+"/shop/api:2", "--username", "ann")
	docker(t, "rmi", addr+"/shop/api:2")
	u.must("image", "pull", addr+"/shop/api:2", "--username", "ann")
	if r := u.run("registry", "gc", strings.TrimSpace(u.must("run", "--name", name+"-other", image, "sleep", "600"))); r.code != 1 || !strings.Contains(r.err, "is no registry") {
		t.Errorf("collecting the garbage of no registry: %+v", r)
	}
	for want, args := range map[string][]string{
		"belong together":     {"--tls-cert", "/x"},
		"is no absolute path": {"--htpasswd", "users"},
		"is neither a volume": {"--volume", "a:b"},
		"is not K=V":          {"--env", "A"},
	} {
		if r := u.run(append([]string{"registry", "run", packed}, args...)...); r.code != 2 || !strings.Contains(r.err, want) {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// TestRegistryTroubles: a long catalog, a registry that dies while it is pushed to, and what is no registry at all.
func TestRegistryTroubles(t *testing.T) {
	u, name := newUser(t), prefix(t)
	u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	u.online(1)
	addr := startRegistry(t)
	seed := addr + "/seed:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", seed).Run() }) // it may be gone
	docker(t, "tag", image, seed)
	u.must("image", "push", seed)

	// 250 repositories: the manifest of the first under other names.
	get, err := http.NewRequest(http.MethodGet, "http://"+addr+"/v2/seed/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	const kind = "application/vnd.docker.distribution.manifest.v2+json"
	get.Header.Set("Accept", kind)
	manifest := answer(t, get, http.StatusOK)
	var parsed struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(manifest, &parsed); err != nil {
		t.Fatal(err)
	}
	for i := range 249 {
		repo := fmt.Sprintf("http://%s/v2/team/app-%03d", addr, i)
		for _, digest := range []string{parsed.Config.Digest, parsed.Layers[0].Digest} {
			mount, err := http.NewRequest(http.MethodPost, repo+"/blobs/uploads/?mount="+digest+"&from=seed", nil)
			if err != nil {
				t.Fatal(err)
			}
			answer(t, mount, http.StatusCreated)
		}
		put, err := http.NewRequest(http.MethodPut, repo+"/manifests/1", strings.NewReader(string(manifest)))
		if err != nil {
			t.Fatal(err)
		}
		put.Header.Set("Content-Type", kind)
		answer(t, put, http.StatusCreated)
	}
	if list := strings.Fields(u.must("registry", "catalog", addr)); len(list) != 250 || list[0] != "seed" || list[249] != "team/app-248" {
		t.Errorf("%d repositories in the catalog", len(list))
	}

	// A registry that dies in the middle of a push, and is there again for the next.
	target, err := url.Parse("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	var dying atomic.Bool
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Host = p.In.Host // its Location headers lead back here
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if dying.Load() && r.Method == http.MethodPatch {
			_, _ = io.CopyN(io.Discard, r.Body, 64<<10)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	fragile := strings.TrimPrefix(front.URL, "http://") + "/" + name + "/app:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", fragile).Run() })
	// A layer that no registry has.
	u.stdin = "FROM " + image + "\nRUN head -c 3000000 /dev/urandom > /big\n"
	u.must("image", "build", "-q", "--no-cache", "-t", fragile, "-")
	u.stdin = ""
	dying.Store(true) // the engine would try for a minute of its own
	r := u.run("image", "push", "--via", "agent", fragile)
	if r.code != 1 || strings.Count(r.err, "\n") != 1 || strings.Contains(r.err, "<") {
		t.Errorf("push to a registry that dies: %+v", r)
	}
	dying.Store(false)
	for _, via := range []string{"agent", "engine"} {
		if r := u.run("image", "push", "--via", via, fragile); r.code != 0 || !strings.Contains(r.out, "sha256:") {
			t.Errorf("the next push via %s: %+v", via, r)
		}
	}

	// Something that answers with a page.
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>\n<body>\nWelcome\n</body>\n</html>")
	}))
	defer page.Close()
	html := strings.TrimPrefix(page.URL, "http://")
	docker(t, "tag", image, html+"/a:1")
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", html+"/a:1").Run() })
	for _, args := range [][]string{
		{"registry", "check", html},
		{"registry", "catalog", html},
		{"registry", "tags", html + "/a"},
		{"registry", "manifest", html + "/a:1"},
		{"image", "pull", html + "/a:2"},
		{"image", "push", html + "/a:1"},
		{"image", "push", "--via", "agent", html + "/a:1"},
	} {
		if r := u.run(args...); r.code != 1 || strings.Count(r.err, "\n") != 1 || strings.Contains(r.err, "Welcome") {
			t.Errorf("%q of a web page: %+v", args, r)
		}
	}
	for _, args := range [][]string{{"image", "pull", "No:Such:Name"}, {"registry", "tags", "UPPER"}, {"image", "push", "-x"}} {
		if r := u.run(args...); r.code != 2 {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func answer(t *testing.T, r *http.Request, status int) []byte {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %s %v\n%s", r.Method, r.URL, resp.Status, err, b)
	}
	return b
}
