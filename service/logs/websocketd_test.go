package logs

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// TestSameMessagesAsWebsocketd sends command lines to the set-up of old, a shell behind a real websocketd, and to the
// door, and compares the messages that come back.
func TestSameMessagesAsWebsocketd(t *testing.T) {
	dir := fixtures(t)
	appendTo(t, filepath.Join(dir, "odd.log"), "dos\r\n\nspaces  at the end  \n\ttab\nüñí → 日本\n"+strings.Repeat("long ", 40_000)+"\n")
	appendTo(t, filepath.Join(dir, "end.log"), "-- the end --\n")
	stdin := filepath.Join(dir, "stdin")
	appendTo(t, stdin, "")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("websocketd", "--address=127.0.0.1", "--port="+port, "--loglevel=none", "bash", "-c", `while read -r line; do eval "$line"; done`)
	shell.Dir, shell.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shell.Process.Kill(); _ = shell.Wait() })
	var old *websocket.Conn
	eventually(t, "websocketd answers", func() bool {
		old, _, err = websocket.DefaultDialer.Dial("ws://"+address+"/", nil)
		return err == nil
	})
	defer old.Close()
	ours := newTestDoor(t, Config{Roots: []string{dir}, StdinRoots: []string{dir}, Limits: Limits{MaxLines: 100_000}}, nil).dial(t)

	ask := func(conn *websocket.Conn, line string) (messages []string) {
		send(t, conn, line)
		send(t, conn, "cat end.log")
		for {
			kind, text := receive(t, conn)
			if kind != websocket.TextMessage {
				t.Fatalf("%s: a message of kind %d", line, kind)
			}
			if text == "-- the end --" {
				return messages
			}
			messages = append(messages, text)
		}
	}
	for _, line := range []string{
		"cat app.log", "cat odd.log", "cat odd.log app.log", "tail -n 200 app.log | grep -i error", "cat app.log | grep id=37", "grep -c ERROR app.log",
		"cat app.log | grep 'no such line'", "head -n 3 app.log", "sort app.log | uniq -c | head -n 20", "awk '{print $1}' app.log | sort | uniq -c | tail -n 3",
		"grep -n 'took [0-9]* ms' app.log | head -n 5", "", "   ", "tail -n +4990 app.log", "ls sub",
		"echo 'a line for the task' >> " + stdin, "cat " + stdin,
	} {
		want, got := ask(old, line), ask(ours, line)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %d messages, websocketd sends %d", line, len(got), len(want))
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Errorf("message %d is %.80q, of websocketd %.80q", i, got[i], want[i])
					break
				}
			}
		}
	}
}
