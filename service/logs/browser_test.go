package logs

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/net/websocket"
)

// TestTheOldPageWorksUnchanged drives the page of the old set-up in a real browser.
func TestTheOldPageWorksUnchanged(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "task-7.stdout")
	appendTo(t, file, "starting\nerror: disk is full\ngrün <b>&amp;</b>\n")
	log, _ := logrustest.NewNullLogger()
	door, err := NewDoor(DoorConfig{Service: newService(t, Config{Roots: []string{dir}}), Authorize: AllowAll, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", door)
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/page.html") })
	defer door.Close()
	server := httptest.NewServer(mux)
	defer server.Close()

	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(time.Minute))...)
	defer stop()
	ctx, cancel := chromedp.NewContext(alloc)
	defer cancel()
	ctx, cancelTime := context.WithTimeout(ctx, 2*time.Minute)
	defer cancelTime()

	do := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatal(err)
		}
	}
	open := func(file, filter, mode string) {
		t.Helper()
		for id, value := range map[string]string{"file": file, "filter": filter, "mode": mode} {
			if _, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("document.getElementById('%s').value = '%s'", id, value))); err != nil {
				t.Fatal(err)
			}
		}
		do(chromedp.Click("button"))
	}
	shows := func(want string) {
		t.Helper()
		eventually(t, "the page shows "+want, func() bool {
			text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.getElementById('out').textContent`))
			if err != nil {
				t.Fatal(err)
			}
			return text == want
		})
	}
	do(chromedp.Navigate(server.URL + "/page"))
	open(file, "", "tail")
	shows("starting\nerror: disk is full\ngrün <b>&amp;</b>\n")
	appendTo(t, file, "one more\n")
	shows("starting\nerror: disk is full\ngrün <b>&amp;</b>\none more\n")
	open(file, "error", "cat")
	shows("error: disk is full\n")
	open(file, "-i MORE", "tail")
	shows("one more\n")
	if err := chromedp.Cancel(ctx); err != nil {
		t.Error(err)
	}
}

// TestBehindNginx runs the real nginx with the snippet that is shipped.
func TestBehindNginx(t *testing.T) {
	dir := fixtures(t)
	door := newTestDoor(t, Config{Roots: []string{dir}}, nil)
	conf, err := os.ReadFile("../../deploy/nginx/drover.conf")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	text := strings.NewReplacer("127.0.0.1:8080", strings.TrimPrefix(door.URL, "http://"), "listen 80;", "listen "+front+";").Replace(string(conf))
	main := "daemon off; master_process off; pid " + work + "/pid; error_log " + work + "/error.log;\nevents {}\nhttp {\naccess_log off;\n" +
		"client_body_temp_path " + work + "/b; proxy_temp_path " + work + "/p; fastcgi_temp_path " + work + "/f; uwsgi_temp_path " + work + "/u; scgi_temp_path " + work + "/s;\n" + text + "\n}\n"
	if err := os.WriteFile(filepath.Join(work, "nginx.conf"), []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/nginx", "-c", filepath.Join(work, "nginx.conf"), "-e", filepath.Join(work, "error.log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "nginx listens", func() bool {
		c, err := net.Dial("tcp", front)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	conn, err := websocket.Dial("ws://"+front+"/?ip=10.0.0.1", "", "http://"+front)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(work, "error.log"))
		t.Fatalf("%v; nginx says %s", err, log)
	}
	defer conn.Close()
	if err := websocket.Message.Send(conn, "tail -n 1 -f small.log"); err != nil {
		t.Fatal(err)
	}
	var line string
	for _, want := range []string{"epsilon", "zeta"} {
		if err := websocket.Message.Receive(conn, &line); err != nil || line != want {
			t.Fatalf("got %q, %v; want %q", line, err, want)
		}
		appendTo(t, filepath.Join(dir, "small.log"), "zeta\n")
	}
	if resp, body := get(t, "http://"+front+"/download"+dir+"/small.log", "Range", "bytes=0-4"); resp.StatusCode != http.StatusPartialContent || string(body) != "alpha" {
		t.Errorf("a download through nginx: %s %q", resp.Status, body)
	}
}
