package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestImagesREST asks for the images of a host as a program does.
func TestImagesREST(t *testing.T) {
	u, name := newUser(t), prefix(t)
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	u.start("dev", "--listen", listen, "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	h := u.online(1)[0]
	ca := filepath.Join(u.dir, "ca.pem")
	fetchCA(t, listen, ca)
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	admin := devKey(t, u)
	ask := func(method, path, body string, status int) (out struct {
		Type    string
		Actions map[string]string
		Data    json.RawMessage
		Message string
		Detail  string
	},
	) {
		t.Helper()
		req, err := http.NewRequest(method, "https://"+listen+"/v2-beta/hosts/"+h.ID+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		access, secret, _ := strings.Cut(admin, ":")
		req.SetBasicAuth(access, secret)
		req.Header.Set("Content-Type", "application/json")
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status || json.Unmarshal(b, &out) != nil {
			t.Errorf("%s %s: %s %v\n%.300s", method, path, resp.Status, err, b)
		}
		return out
	}
	ref := name + "/rest:1"
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", ref).Run() })
	ask("POST", "/images?action=tag", `{"image":"`+image+`","target":"`+ref+`"}`, 200)
	list := ask("GET", "/images", "", 200)
	if list.Type != "collection" || !strings.Contains(string(list.Data), ref) || !strings.Contains(list.Actions["pull"], "/hosts/"+h.ID+"/images?action=pull") {
		t.Errorf("the list is %+v", list)
	}
	if one := ask("GET", "/images/"+ref, "", 200); !strings.Contains(string(one.Data), `"RepoTags"`) {
		t.Errorf("one is %s", one.Data)
	}
	ask("DELETE", "/images/"+ref, "", 200)
	ask("GET", "/images/"+ref, "", 404)
	ask("POST", "/images?action=explode", `{}`, 422)
	ask("POST", "/images?action=tag", `{"image":7}`, 422)
	ask("PUT", "/images", `{}`, 405)
	addr := startRegistry(t)
	if check := ask("POST", "/registries?action=check", `{"registry":"`+addr+`"}`, 200); !strings.Contains(string(check.Data), `"ok":true`) {
		t.Errorf("check: %s", check.Data)
	}
}

// devKey is the administrator's key that `drover dev` put into the context file.
func devKey(t *testing.T, u *user) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(u.dir, "config", "drover", "contexts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var access, secret string
	for line := range strings.Lines(string(b)) {
		switch k, v, _ := strings.Cut(strings.TrimSpace(line), ": "); k {
		case "accessKey":
			access = v
		case "secretKey":
			secret = v
		}
	}
	if access != "" && secret != "" {
		return access + ":" + secret
	}
	t.Fatalf("no key in\n%s", b)
	return ""
}
