package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAPIServerSettings is about how the API server is reached; that it is, cli/e2e shows.
func TestAPIServerSettings(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // as outside of a pod
	for name, c := range map[string]struct {
		text string
		want string // what the error says; "" is none
	}{
		"outside of a pod":        {"", "outside of a pod, app.pods.apiserver-url is needed"},
		"a token without its URL": {"apiserver-token-file: " + token, "no app.pods.apiserver-url"},
		"a token in clear":        {"apiserver-url: http://127.0.0.1:8001\n    apiserver-token-file: " + token, "in clear"},
		"a token that is missing": {"apiserver-url: https://127.0.0.1:6443\n    apiserver-token-file: /no/such/token", "/no/such/token"},
		"a CA that is missing":    {"apiserver-url: https://127.0.0.1:6443\n    apiserver-ca-file: /no/such/ca", "/no/such/ca"},
		"a token":                 {"apiserver-url: https://127.0.0.1:6443\n    apiserver-token-file: " + token, ""},
		"a proxy of one's own":    {"apiserver-url: http://127.0.0.1:8001", ""},
	} {
		path := configFile(t, "app:\n  agent: {hostname: n1}\n  pods:\n    apiserver: true\n    "+c.text+"\n", 0o600)
		sources, err := podSources(mustLoad(t, nil, path, nil))
		if c.want == "" && (err != nil || len(sources) != 1) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "app.pods.apiserver: ")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
