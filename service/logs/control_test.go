package logs

import (
	"bytes"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	logrustest "github.com/sirupsen/logrus/hooks/test"
)

// piecemeal writes in small pieces, as a stream of a tunnel does: what two write at once is mixed.
type piecemeal struct{ net.Listener }

func (l piecemeal) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return pieces{c}, err
}

type pieces struct{ net.Conn }

func (c pieces) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.Conn.Write(p[n:min(n+700, len(p))])
		n += k
	}
	return n, err
}

func TestControlFramesDoNotCutOutput(t *testing.T) {
	dir := fixtures(t)
	want, err := os.ReadFile(filepath.Join(dir, "app.log"))
	if err != nil {
		t.Fatal(err)
	}
	log, _ := logrustest.NewNullLogger()
	door, err := NewDoor(DoorConfig{Service: newService(t, Config{Roots: []string{dir}}), Authorize: AllowAll, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(door)
	srv.Listener = piecemeal{srv.Listener}
	srv.Start()
	t.Cleanup(srv.Close)
	t.Cleanup(door.Close)
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pongs := 0
	conn.SetPongHandler(func(data string) error {
		if data != "are you there" {
			return fmt.Errorf("pong %q", data)
		}
		pongs++
		return nil
	})
	stop := make(chan struct{})
	pinging := make(chan struct{})
	go func() {
		defer close(pinging)
		for {
			select {
			case <-stop:
				return
			default:
				if conn.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(time.Second)) != nil {
					return
				}
			}
		}
	}()
	for range 5 {
		send(t, conn, "cat app.log")
		for line := range bytes.Lines(want) {
			if _, got := receive(t, conn); got != strings.TrimSuffix(string(line), "\n") {
				t.Fatalf("got %q, want %q", got, line)
			}
		}
	}
	close(stop)
	<-pinging
	if pongs == 0 {
		t.Error("no ping was answered")
	}
	if err := conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, _, err = conn.ReadMessage()
	}
	if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the end: %v", err)
	}
}

// A client that pings while it reads slowly keeps its connection: no control frame shortens the time that output has.
func TestASlowViewerMayPing(t *testing.T) {
	dir := t.TempDir()
	want := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 80_000) // more than the buffers on the way hold
	if err := os.WriteFile(filepath.Join(dir, "big.log"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	conn := newTestDoor(t, Config{Roots: []string{dir}}, nil).dial(t, Subprotocol)
	send(t, conn, `{"run":"cat big.log"}`)
	receive(t, conn)
	for range 3 {
		if err := conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(400 * time.Millisecond) // slow: what it does is wait
	}
	if out, _, end := collect(t, conn); end.Exit != 0 || end.Error != "" || !bytes.HasSuffix(want, []byte(out)) {
		t.Errorf("%d bytes, %+v", len(out), end)
	}
}

// lumps records the calls of a sink.
type lumps struct{ got []string }

func (l *lumps) Write(p []byte) (int, error) { l.got = append(l.got, string(p)); return len(p), nil }

func TestOutputIsCutAtTheEndsOfLines(t *testing.T) {
	dir := fixtures(t)
	long := strings.Repeat("y", 3*blockSize)
	appendTo(t, filepath.Join(dir, "long.log"), "short\n"+long+"\nlast without an end")
	s := newService(t, Config{Roots: []string{dir}, Commands: []string{"cat", "tail", "awk", "head", "grep"}})
	for _, line := range []string{
		"cat app.log", "cat app.log | cat", "cat long.log app.log", "tail -n 900 app.log", "awk '{printf \"%s%s\", $0, \"\\n\"}' app.log", "head -c 100000 app.log",
		"cat app.log | grep -v nothing",
	} {
		p, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		var l lumps
		if _, err := s.Run(t.Context(), p, Sink{Out: &l, Err: func(line string) { t.Error(line) }}); err != nil {
			t.Fatal(err)
		}
		for i, lump := range l.got {
			if i < len(l.got)-1 && !strings.HasSuffix(lump, "\n") && len(lump) < blockSize {
				t.Errorf("%s: the lump %d of %d ends with %q", line, i, len(l.got), lump[max(0, len(lump)-40):])
				break
			}
		}
	}
}
