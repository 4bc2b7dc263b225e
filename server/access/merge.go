package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/server/store"
)

// MaxMerged bounds the hosts whose figures come over one socket.
const MaxMerged = 512

// mergedKind is the word behind a way, and the claim, of figures of several hosts in one socket; "" is one host.
func mergedKind(way, rest string) string {
	switch kind := strings.Trim(rest, "/"); {
	case way == WayHostStats && kind == "project", way == WayContainerStats && kind == "service":
		return kind
	}
	return ""
}

// A Part is one host's share of a merged token: the address of its own way and the token for that, as Rancher has it; or,
// for hoststats, the host's UUID alone, of which far more go into a URL.
type Part struct {
	URL   string `json:"url,omitempty"`
	Token string `json:"token,omitempty"`
	Host  string `json:"host,omitempty"`
}

// MergedToken makes the token of one socket for the figures of several hosts. kind is project or service.
func (a *Access) MergedToken(way, kind string, parts []Part) (string, error) {
	return a.sign(map[string]any{kind: parts, claimWay: way + "/" + kind}, viewLife)
}

// An end is a viewer's stream to a host, or to several.
type end interface {
	Send(body string) error
	// Recv waits for a body; false is the end.
	Recv() (string, bool)
	// Close lets Recv end. It may be called more than once.
	Close()
}

// checkMerged returns the hosts of a merged token, and the token for each.
func (a *Access) checkMerged(text, way, kind string) (hosts []*store.Host, tokens []string, err error) {
	claims, err := a.check(text)
	if err != nil {
		return nil, nil, err
	}
	if got, _ := claims[claimWay].(string); got != way+"/"+kind {
		return nil, nil, fmt.Errorf("it is for %.40q and not for %s/%s", got, way, kind)
	}
	parts, _ := claims[kind].([]any)
	if len(parts) == 0 || len(parts) > MaxMerged {
		return nil, nil, fmt.Errorf("claim %s has %d hosts: want 1 to %d", kind, len(parts), MaxMerged)
	}
	for _, p := range parts {
		part, _ := p.(map[string]any)
		token, _ := part["token"].(string)
		uuid, _ := part["host"].(string)
		if uuid == "" {
			if uuid, _, err = a.checkView(token, way); err != nil {
				return nil, nil, fmt.Errorf("a token in it: %w", err)
			}
		}
		host, err := a.cfg.Store.HostByUUID(uuid)
		if err != nil || host.State == store.StateRemoved {
			continue // since the token was made
		}
		if token == "" {
			if token, err = a.ViewToken(uuid, WayHostStats, map[string]any{"resourceId": host.ID}); err != nil {
				return nil, nil, err
			}
		}
		hosts, tokens = append(hosts, host), append(tokens, token)
	}
	return hosts, tokens, nil
}

// serveMerged sends a viewer the figures of several hosts. One that cannot be reached is left out, unless none can.
func (a *Access) serveMerged(w http.ResponseWriter, r *http.Request, way, kind string) error {
	hosts, tokens, err := a.checkMerged(tokenOf(r), way, kind)
	if err != nil {
		a.cfg.Log.WithError(err).WithField("way", way+"/"+kind).WithField("address", r.RemoteAddr).Info("access: a viewer is refused")
		return problem(http.StatusUnauthorized, "Unauthorized", "the token does not allow this")
	}
	ctx, cancel := context.WithCancel(a.ctx)
	m := &merged{ctx: ctx, cancel: cancel, out: make(chan string)}
	defer m.wait()
	defer m.Close()
	ends, failed := make([]end, len(hosts)), make([]error, len(hosts))
	var opening sync.WaitGroup
	for i, host := range hosts {
		opening.Go(func() { ends[i], failed[i] = a.openFigures(r.Context(), host, way, tokens[i]) })
	}
	opening.Wait()
	for i, e := range ends {
		if failed[i] == nil {
			m.add(e)
			continue
		}
		a.cfg.Log.WithError(failed[i]).WithField("host", hosts[i].ID).Info("access: the figures of a host are left out")
	}
	if m.sources == 0 {
		return errors.Join(append(failed, problem(http.StatusServiceUnavailable, CodeNotConnected, "none of these hosts is connected"))...)
	}
	m.begin()
	a.serveSocket(w, r, m)
	return nil
}

// openFigures opens the way to one host, here or at the replica that has it.
func (a *Access) openFigures(ctx context.Context, host *store.Host, way, token string) (end, error) {
	query := "?" + url.Values{"token": {token}}.Encode()
	c, replica, err := a.open(ctx, host, "/v1/"+way+"/"+query, true)
	switch {
	case err != nil:
		return nil, err
	case replica == "":
		return releasing{c}, nil
	}
	dialer := websocket.Dialer{HandshakeTimeout: backendWrite, TLSClientConfig: a.cfg.TLS}
	ws, resp, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(replica, "http")+"/v1/"+way+query, http.Header{headerHop: {a.self}})
	if err != nil {
		if resp != nil {
			err = fmt.Errorf("%w: %s", err, resp.Status)
		}
		return nil, problem(http.StatusBadGateway, CodeBroken, "the replica that holds the way to host %s: %v", host.DisplayName(), err)
	}
	ws.SetReadLimit(backendFrame)
	return distant{ws}, nil
}

// releasing is a channel that nobody else releases.
type releasing struct{ *channel }

// Close ends it.
func (r releasing) Close() { r.release() }

// distant is a host's way at another replica, which pings it.
type distant struct{ ws *websocket.Conn }

func (d distant) Send(string) error { return nil }

func (d distant) Recv() (string, bool) {
	_ = d.ws.SetReadDeadline(time.Now().Add(viewerSilence))
	_, b, err := d.ws.ReadMessage()
	return string(b), err == nil
}

func (d distant) Close() { _ = d.ws.Close() }

// merged is what several ends bring, a message after the other. Its end is that of the last of them.
type merged struct {
	ctx     context.Context //nolint:containedctx // Close ends it
	cancel  context.CancelFunc
	out     chan string
	sources int
	readers sync.WaitGroup
	closing sync.WaitGroup
}

// add takes an end over. It is not called after begin.
func (m *merged) add(e end) {
	m.sources++
	m.readers.Go(func() {
		leave := sync.OnceFunc(e.Close)
		stop := context.AfterFunc(m.ctx, leave)
		defer leave() // once it returns, nobody else is at it
		defer stop()
		for {
			body, ok := e.Recv()
			if !ok {
				return
			}
			select {
			case m.out <- body:
			case <-m.ctx.Done():
				return
			}
		}
	})
}

func (m *merged) begin() {
	m.closing.Go(func() {
		m.readers.Wait()
		close(m.out)
	})
}

// wait blocks until nothing of it runs any more.
func (m *merged) wait() {
	m.readers.Wait()
	m.closing.Wait()
}

// Send drops what a viewer says: figures have no input.
func (m *merged) Send(string) error { return nil }

// Recv waits for a message of any host.
func (m *merged) Recv() (string, bool) {
	select {
	case body, ok := <-m.out:
		return body, ok
	case <-m.ctx.Done():
		return "", false
	}
}

// Close ends it for all hosts.
func (m *merged) Close() { m.cancel() }
