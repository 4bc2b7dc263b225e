package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/go-rancher/hostaccess"
	v2 "github.com/rancher/go-rancher/v2"
	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/register"
	"github.com/droverhq/drover/runtime"
	dockerengine "github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/hostproxy"
	"github.com/droverhq/drover/utils/backoff"
	"github.com/droverhq/drover/utils/secret"
)

// original stands for an agent of Rancher's: it answers pings over POST, has no tunnel, and connects to the server's
// proxy with a token that it asks for.
type original struct {
	t        *testing.T
	joined   *register.Result
	uuid     string
	instance map[string]any // its one container
	stop     func()         // ends the agent and waits for it
}

// call does a request with the agent's keys.
func (o *original) call(ctx context.Context, method, path string, body, out any) (int, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, method, o.joined.APIURL+path, bytes.NewReader(raw))
	if err != nil {
		return 0, err
	}
	req.SetBasicAuth(o.joined.AccessKey, o.joined.SecretKey.Reveal())
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(resp.Body); err == nil && out != nil {
		err = json.Unmarshal(raw, out)
	}
	return resp.StatusCode, err
}

// answerPings holds the event socket until ctx ends.
func (o *original) answerPings(ctx context.Context) {
	header := http.Header{}
	req, _ := http.NewRequest(http.MethodGet, o.joined.APIURL, nil)
	req.SetBasicAuth(o.joined.AccessKey, o.joined.SecretKey.Reveal())
	header.Set("Authorization", req.Header.Get("Authorization"))
	ws, _, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(o.joined.APIURL, "http")+"/subscribe?eventNames=ping", header)
	if err != nil {
		o.t.Errorf("subscribe: %v", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { ws.Close() })
	defer stop()
	defer ws.Close()
	for {
		var ev struct{ ID, ReplyTo, Name string }
		if err := ws.ReadJSON(&ev); err != nil {
			return
		}
		if ev.ReplyTo == "" {
			continue
		}
		reply := map[string]any{"name": ev.ReplyTo, "previousIds": []string{ev.ID}, "data": map[string]any{
			"options": map[string]any{"instances": true},
			"resources": []any{
				map[string]any{"type": "host", "kind": "docker", "uuid": o.uuid, "hostname": "original", "physicalHostUuid": "p" + o.uuid},
				map[string]any{"type": "hostUuid", "uuid": o.uuid},
				o.instance,
			},
		}}
		var said struct{ Code, Message string }
		if status, err := o.call(ctx, http.MethodPost, "/publish", reply, &said); ctx.Err() == nil && (err != nil || status != http.StatusCreated) {
			o.t.Errorf("publish: %d %v %+v", status, err, said)
		}
	}
}

// startOriginal joins such an agent to a server. Its streams are those of the real engine.
func startOriginal(t *testing.T, u *user, server, dockerID, name string) *original {
	t.Helper()
	words := strings.Fields(u.must("token", "create"))
	var join string
	for _, w := range words {
		if strings.Contains(w, "/v1/scripts/") {
			join = w
		}
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	joined, err := register.Join(t.Context(), register.Config{URL: secret.New(join), StateDir: t.TempDir(), Identity: register.IdentityConfig{LegacyStateDir: "-"}, Log: log})
	if err != nil {
		t.Fatalf("join with %q: %v", join, err)
	}
	o := &original{t: t, joined: joined, uuid: joined.HostUUID, instance: map[string]any{
		"type": "instance", "uuid": name, "state": "running", "dockerId": dockerID, "image": image, "created": time.Now().Unix(),
	}}
	engine, err := dockerengine.New(dockerengine.Config{Host: "unix:///var/run/docker.sock"})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := service.New(service.Config{Engine: engine, Log: log, HostStats: func(context.Context) (runtime.Stats, error) {
		return runtime.Stats{Time: time.Now(), CPUTotal: 1, MemoryLimit: 1 << 30}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(joined.APICertFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := hostproxy.ParseKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	client, err := hostproxy.New(hostproxy.Config{
		Node: svc, HostUUID: o.uuid, Key: key, TrustProxy: true, Log: log,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", "/var/run/docker.sock")
		},
		Backoff: backoff.Policy{First: 50 * time.Millisecond, Max: time.Second},
		Token: func(ctx context.Context) (hostproxy.Grant, error) {
			var got struct{ URL, Token, Code, FieldName string }
			status, err := o.call(ctx, http.MethodPost, "/hostapiproxytokens", map[string]any{"reportedUuid": o.uuid}, &got)
			if status == http.StatusUnprocessableEntity && got.Code == "InvalidReference" && got.FieldName == "reportedUuid" {
				err = hostproxy.ErrUnknownHost
			} else if err == nil && status != http.StatusCreated {
				err = fmt.Errorf("status %d: %s", status, got.Code)
			}
			return hostproxy.Grant{URL: got.URL, Token: got.Token}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { o.answerPings(ctx) })
	wg.Go(func() { _ = client.Run(ctx) })
	o.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		_ = svc.Close()
		engine.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	t.Cleanup(o.stop)
	return o
}

// TestHostAccess opens Rancher's ways to two hosts, one with Drover's agent and its tunnel, one with an original agent and
// its proxy connection, with Rancher's own client.
func TestHostAccess(t *testing.T) {
	u, name := newUser(t), prefix(t)
	port := freePort(t)
	p := u.start("dev", "--tls", "off", "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--data", filepath.Join(u.dir, "data"))
	p.says("In a second terminal")
	u.online(1)
	var ours container
	u.json(&ours, "run", "--name", name+"-ours", image, "sh", "-c", "echo one; echo two >&2; exec httpd -f -p 8000 -h /etc")
	out, err := exec.Command("docker", "run", "-d", "--name", name+"-theirs", image, "sh", "-c", "echo one; echo two >&2; exec httpd -f -p 8000 -h /etc").CombinedOutput()
	if err != nil {
		t.Fatalf("docker run: %v\n%s", err, out)
	}
	theirID := strings.TrimSpace(string(out))
	a := u.api()
	agent := startOriginal(t, u, a.url, theirID, name+"-theirs")
	var theirs container
	eventually(t, "the container of the original agent", func() bool {
		var all []container
		u.json(&all, "ps")
		for _, c := range all {
			if c.ContainerID == theirID && c.Host == "original" {
				theirs = c
				return true
			}
		}
		return false
	})
	rancher, err := v2.NewRancherClient(&v2.ClientOpts{Url: a.url + "/v2-beta", AccessKey: a.user, SecretKey: a.key, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	for kind, id := range map[string]string{"tunnel": ours.ID, "proxy": theirs.ID} {
		t.Run(kind, func(t *testing.T) {
			c, err := rancher.Container.ById(id)
			if err != nil || c == nil {
				t.Fatalf("container %s: %v", id, err)
			}
			access := hostaccess.RancherWebsocketClient(*rancher)
			open := func(action string, input any) *websocket.Conn {
				t.Helper()
				var ws *websocket.Conn
				eventually(t, action+" on the "+kind, func() bool {
					ws, err = access.GetHostAccess(c.Resource, action, input)
					return err == nil
				})
				t.Cleanup(func() { ws.Close() })
				_ = ws.SetReadDeadline(time.Now().Add(patience))
				return ws
			}

			ws := open("execute", map[string]any{"command": []string{"sh"}, "tty": true})
			say := func(text string) {
				if err := ws.WriteMessage(websocket.TextMessage, []byte(base64.StdEncoding.EncodeToString([]byte(text)))); err != nil {
					t.Fatal(err)
				}
			}
			if err := ws.WriteMessage(websocket.TextMessage, []byte(":resizeTTY:97,31")); err != nil {
				t.Fatal(err)
			}
			say("sleep 0.3; stty size; echo wh''ere; exit\n")
			screen := readBase64(ws)
			if !strings.Contains(screen, "31 97") || !strings.Contains(screen, "where") {
				t.Errorf("the terminal showed %q", screen)
			}

			// Without a terminal the output is dockerd's own stream.
			ws = open("execute", map[string]any{"command": []string{"sh", "-c", "echo out; echo err >&2"}, "tty": false, "attachStdin": false})
			if got := readBase64(ws); !strings.Contains(got, "\x01\x00\x00\x00\x00\x00\x00\x04out\n") || !strings.Contains(got, "\x02\x00\x00\x00\x00\x00\x00\x04err\n") {
				t.Errorf("output %q", got)
			}

			ws = open("logs", map[string]any{"follow": false, "timestamps": false})
			var lines []string
			for {
				_, b, err := ws.ReadMessage()
				if err != nil {
					break
				}
				lines = append(lines, string(b))
			}
			if got := strings.Join(lines, ""); got != "01 one\n02 two\n" && got != "02 two\n01 one\n" {
				t.Errorf("logs %q", lines)
			}

			var stats v2.StatsAccess
			if err := rancher.GetLink(c.Resource, "containerStats", &stats); err != nil {
				t.Fatal(err)
			}
			var sample []struct {
				ID, ResourceType string
				Memory           struct{ Usage uint64 }
			}
			readJSON(t, stats.Url+"?token="+stats.Token, &sample)
			if len(sample) != 1 || sample[0].ResourceType != "container" || sample[0].Memory.Usage == 0 {
				t.Errorf("stats %+v", sample)
			}
			host, err := rancher.Host.ById(c.HostId)
			if err != nil {
				t.Fatal(err)
			}
			if err := rancher.GetLink(host.Resource, "hostStats", &stats); err != nil {
				t.Fatal(err)
			}
			readJSON(t, stats.Url+"?token="+stats.Token, &sample)
			if len(sample) != 1 || sample[0].ResourceType != "host" || sample[0].ID != host.Id {
				t.Errorf("host stats %+v", sample)
			}

			askEngine(t, rancher, host)

			if kind == "tunnel" && c.PrimaryIpAddress != "" {
				var to v2.HostAccess
				if err := rancher.Post(c.Actions["proxy"], map[string]any{"port": 8000}, &to); err != nil {
					t.Fatal(err)
				}
				resp, err := http.Get(to.Url + "passwd?token=" + to.Token)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "root:") || err != nil {
					t.Errorf("through container-proxy: %d %q %v", resp.StatusCode, body, err)
				}
				// The token of one way opens no other.
				for _, path := range []string{"/v1/exec/", "/v1/dockersocket/", "/v1/stats"} {
					_, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(a.url, "http")+path+"?token="+url.QueryEscape(to.Token), nil)
					if !errors.Is(err, websocket.ErrBadHandshake) || resp.StatusCode != http.StatusUnauthorized {
						t.Errorf("%s with a token of container-proxy: %v %v", path, resp, err)
					}
				}
			}
		})
	}
	// The figures of all hosts come over one socket.
	var all struct{ URL, Token string }
	if status, body := a.get(http.MethodGet, "/v2-beta/projects/1a1/hoststats"); status != http.StatusOK || json.Unmarshal([]byte(body), &all) != nil {
		t.Fatalf("host stats of the project: %d %s", status, body)
	}
	figures, resp, err := websocket.DefaultDialer.Dial(all.URL+"?token="+all.Token, nil)
	if err != nil {
		t.Fatalf("%v %v", err, resp)
	}
	_ = figures.SetReadDeadline(time.Now().Add(patience))
	for hosts := map[string]bool{}; len(hosts) < 2; {
		var sample []struct{ ID, ResourceType string }
		if err := figures.ReadJSON(&sample); err != nil {
			t.Fatalf("figures of several hosts, after %v: %v", hosts, err)
		}
		for _, s := range sample {
			hosts[s.ID] = true
		}
	}
	figures.Close()
	agent.stop() // a server that ends refuses its replies
	p.stop(os.Interrupt)
}

// askEngine has a host's own engine answer through its socket.
func askEngine(t *testing.T, rancher *v2.RancherClient, host *v2.Host) {
	t.Helper()
	var to v2.HostAccess
	if err := rancher.Post(host.Actions["dockersocket"], map[string]any{}, &to); err != nil {
		t.Fatalf("dockersocket: %v", err)
	}
	ws, resp, err := (&websocket.Dialer{Subprotocols: []string{"binary"}}).Dial(to.Url+"?token="+to.Token, nil)
	if err != nil {
		t.Fatalf("dockersocket: %v %v", err, resp)
	}
	defer ws.Close()
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("GET /version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	var answer, b []byte
	for err == nil {
		_, b, err = ws.ReadMessage()
		answer = append(answer, b...)
	}
	if text := string(answer); !strings.HasPrefix(text, "HTTP/1.1 200 OK") || !strings.Contains(text, `"ApiVersion"`) {
		t.Errorf("through dockersocket: %q, %v", text, err)
	}
}

// readBase64 reads until the server closes, and returns the bytes.
func readBase64(ws *websocket.Conn) string {
	var all []byte
	for {
		_, text, err := ws.ReadMessage()
		if err != nil {
			return string(all)
		}
		b, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil {
			return string(all) + "<" + err.Error() + ">"
		}
		all = append(all, b...)
	}
}

// readJSON reads one message of a socket.
func readJSON(t *testing.T, address string, into any) {
	t.Helper()
	ws, resp, err := websocket.DefaultDialer.Dial(address, nil)
	if err != nil {
		t.Fatalf("%v %v", err, resp)
	}
	defer ws.Close()
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	if err := ws.ReadJSON(into); err != nil {
		t.Fatal(err)
	}
}
