package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNodeReload changes the commands that a running node allows.
func TestNodeReload(t *testing.T) {
	u := newUser(t)
	if err := os.WriteFile(filepath.Join(u.dir, "app.log"), []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port, config := freePort(t), filepath.Join(u.dir, "application.yaml")
	write := func(commands string) {
		t.Helper()
		text := fmt.Sprintf("app:\n  agent: {state-dir: %s/state}\n  pods: {map: off}\n  debug: {port: 0}\n"+
			"  logs: {listen: 127.0.0.1, port: %d, auth: none, root: %s, cmd-white-list: %q}\n", u.dir, port, u.dir, commands)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	query := func(command string) string {
		resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/query", port), "text/plain", strings.NewReader(command))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(b), err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	write("cat")
	p := u.start("node", "--config", config)
	allowed := func(command string) bool {
		got := query(command)
		return strings.HasPrefix(got, "200") && strings.Contains(got, "two")
	}
	eventually(t, "cat is allowed", func() bool { return allowed("cat app.log") })
	if allowed("tail -n 1 app.log") {
		t.Error("tail is allowed")
	}
	write("tail")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "tail is allowed", func() bool { return allowed("tail -n 1 app.log") })
	if got := query("cat app.log"); allowed("cat app.log") {
		t.Errorf("cat is still allowed: %s", got)
	}
	p.stop(syscall.SIGTERM)
}
