package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// An output is what an event for programs answers of a stream.
type output struct {
	Text, Tail, Encoding string
	Bytes, OmittedBytes  int64
	Truncated            bool
}

// TestEventsForPrograms asks a host for all five of them as a program does: by REST, through the server, of a real container.
func TestEventsForPrograms(t *testing.T) {
	u, name := newUser(t), prefix(t)
	u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data")).says("In a second terminal")
	h := u.online(1)[0]
	var made container
	u.json(&made, "run", "--name", name, image, "sh", "-c", "echo one; echo two; echo oops >&2; exec sleep 600")
	a := u.api()
	ask := func(event string, data map[string]any, into any) (said string) {
		t.Helper()
		data["container"] = made.ContainerID[:12]
		body, err := json.Marshal(map[string]any{"name": event, "data": data, "timeoutMillis": patience.Milliseconds()})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url+"/v2-beta/hosts/"+h.ID+"?action=event", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(a.user, a.key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := a.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if into == nil {
			return fmt.Sprintf("%d %s", resp.StatusCode, text)
		}
		var reply struct{ Data json.RawMessage }
		if resp.StatusCode != http.StatusOK || json.Unmarshal(text, &reply) != nil || json.Unmarshal(reply.Data, into) != nil {
			t.Fatalf("%s: %s\n%.500s", event, resp.Status, text)
		}
		return ""
	}

	type result struct {
		ExitCode       int
		TimedOut       bool
		Stdout, Stderr output
	}
	var ran result
	ask("container.exec", map[string]any{"command": []string{"sh", "-c", `cat; echo "$A" >&2; exit 7`}, "env": []string{"A=b"}, "stdin": "in"}, &ran)
	if ran.ExitCode != 7 || ran.TimedOut || ran.Stdout.Text != "in" || ran.Stderr.Text != "b\n" {
		t.Errorf("exec: %+v", ran)
	}
	ran = result{}
	ask("container.exec", map[string]any{"command": []string{"sh", "-c", "seq 1 100000"}, "maxOutputBytes": 1000}, &ran)
	if out := ran.Stdout; !out.Truncated || out.Bytes != 588895 || !strings.HasPrefix(out.Text, "1\n2\n") || !strings.HasSuffix(out.Tail, "99999\n100000\n") || len(out.Text)+len(out.Tail) > 1000 {
		t.Errorf("exec, bounded: %d bytes, %q, %q", out.Bytes, out.Text, out.Tail)
	}
	ran = result{}
	ask("container.exec", map[string]any{"command": []string{"sh", "-c", "echo before; sleep 600"}, "timeoutMillis": 500}, &ran)
	if !ran.TimedOut || ran.ExitCode != -1 || !strings.HasPrefix("before\n", ran.Stdout.Text) { // it may not have come that far
		t.Errorf("exec, out of time: %+v", ran)
	}

	var logs struct{ Stdout, Stderr output }
	eventually(t, "the container's log", func() bool {
		ask("container.logs", map[string]any{"filter": "^o"}, &logs)
		return logs.Stdout.Text == "one\n" && logs.Stderr.Text == "oops\n"
	})

	var inspected struct {
		Container struct{ ID, Name string }
	}
	ask("container.inspect", map[string]any{}, &inspected)
	if inspected.Container.ID != made.ContainerID || inspected.Container.Name == "" {
		t.Errorf("inspect: %+v", inspected)
	}

	var sampled struct{ Stats map[string]any }
	ask("container.stats", map[string]any{}, &sampled)
	if n, _ := sampled.Stats["memoryBytes"].(float64); n <= 0 {
		t.Errorf("stats: %v", sampled.Stats)
	}

	var file struct {
		Path    string
		Bytes   int64
		Content output
		Files   []struct{ Name string }
	}
	ask("container.files", map[string]any{"action": "write", "path": "/tmp/note", "text": "hello\n"}, &file)
	ask("container.files", map[string]any{"action": "read", "path": "/tmp/note"}, &file)
	if file.Content.Text != "hello\n" {
		t.Errorf("files: %+v", file)
	}
	ask("container.files", map[string]any{"action": "list", "path": "/tmp"}, &file)
	if len(file.Files) != 1 || file.Files[0].Name != "note" {
		t.Errorf("files: %+v", file.Files)
	}

	for said, data := range map[string]map[string]any{
		"command":        {},
		"maxOutputBytes": {"command": []string{"true"}, "maxOutputBytes": 1 << 40},
		"string":         {"command": "true"},
	} {
		if got := ask("container.exec", data, nil); !strings.Contains(got, `"code":"invalid"`) || !strings.Contains(got, said) {
			t.Errorf("container.exec of %v: %s", data, got)
		}
	}
}
