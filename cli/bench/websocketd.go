package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// A linePeer serves the big file as websocketd does, a line a message and as binary messages.
type linePeer struct {
	name          string
	lines, binary string // URLs
	close         func()
}

// websocketd starts the real one twice where it is installed, and a stand-in else.
func (s *logsSuite) websocketd(ctx context.Context) (*linePeer, error) {
	program, err := exec.LookPath("websocketd")
	if err != nil {
		stand := httptest.NewServer(standIn(s.big))
		return &linePeer{name: "stand-in for websocketd", lines: stand.URL + "/lines", binary: stand.URL + "/binary", close: stand.Close}, nil
	}
	p := &linePeer{name: "websocketd"}
	var running []*exec.Cmd
	p.close = func() {
		for _, cmd := range running {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
		}
	}
	for _, mode := range []struct {
		url  *string
		flag string
	}{{&p.lines, "--binary=false"}, {&p.binary, "--binary=true"}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.close()
			return nil, err
		}
		address := l.Addr().String()
		_, port, err := net.SplitHostPort(address)
		if err = errors.Join(err, l.Close()); err != nil {
			p.close()
			return nil, err
		}
		cmd := exec.Command(program, "--address=127.0.0.1", "--port="+port, mode.flag, "--loglevel=none", "cat", s.big)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			p.close()
			return nil, err
		}
		running = append(running, cmd)
		if err := answers(ctx, address); err != nil {
			p.close()
			return nil, fmt.Errorf("%s does not answer: %w", p.name, err)
		}
		*mode.url = "http://" + address + "/"
	}
	return p, nil
}

// answers waits until a port takes connections.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// standIn serves a file as websocketd does: a child process, and a message for each of its lines, or for each read.
func standIn(name string) http.Handler {
	up := websocket.Upgrader{WriteBufferSize: 4 << 10}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		cmd := exec.CommandContext(r.Context(), "cat", name)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return
		}
		messages := make(chan []byte) // unbuffered, as there
		go func() {
			defer close(messages)
			reader := bufio.NewReader(out)
			for {
				var m []byte
				var err error
				if r.URL.Path == "/lines" {
					m, err = reader.ReadBytes('\n')
					m = bytes.TrimSuffix(m, []byte("\n"))
				} else {
					buf := make([]byte, 64<<10)
					var n int
					n, err = out.Read(buf)
					m = buf[:n]
				}
				if err != nil {
					return
				}
				messages <- m
			}
		}()
		kind := websocket.TextMessage
		if r.URL.Path != "/lines" {
			kind = websocket.BinaryMessage
		}
		for m := range messages {
			if err == nil {
				err = conn.WriteMessage(kind, m)
			}
		}
		_ = cmd.Wait()
		_, _, _ = conn.ReadMessage() // until the client has everything
	})
}
