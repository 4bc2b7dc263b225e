package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

// Times and limits of a change feed.
const (
	feedPing     = 5 * time.Second  // between ping events, as Rancher's
	feedSilence  = 60 * time.Second // a client that sends not even pongs for this long is gone
	feedWrite    = 10 * time.Second // for one message
	maxFeeds     = 2000
	maxFeedFrame = 4 << 10 // of a client, which has nothing to say
)

// changeEvent is the one event that people may subscribe to.
const changeEvent = "resource.change"

// serveSubscribe opens an event socket: to the hub for an agent, a change feed for everyone else.
func serveSubscribe(q *request) error {
	if !websocket.IsWebSocketUpgrade(q.r) {
		return notFound()
	}
	for _, name := range q.r.URL.Query()["eventNames"] {
		if !isEventName(name) {
			return invalid("InvalidCharacters", "eventNames", "%q is no name of an event", name)
		}
	}
	if q.who.kind == kindAgent {
		r := q.r
		if q.client != peer(r) { // the hub shall note the agent's address, not a proxy's
			r = r.WithContext(r.Context())
			r.RemoteAddr = netip.AddrPortFrom(q.client, 0).String()
		}
		q.h.hub.ServeWS(q.w, r, q.who.agent.ID)
		return nil
	}
	return q.serveFeed()
}

// feeds are the open change feeds.
type feeds struct {
	wg sync.WaitGroup

	mu     sync.Mutex // guards the following fields
	closed bool
	open   int
}

// enter counts a feed in, unless there are too many or the server shuts down.
func (f *feeds) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.open >= maxFeeds {
		return false
	}
	f.open++
	f.wg.Add(1)
	return true
}

func (f *feeds) leave() {
	f.mu.Lock()
	f.open--
	f.mu.Unlock()
	f.wg.Done()
}

func (f *feeds) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

func (f *feeds) wait() { f.wg.Wait() }

// serveFeed writes the changes of everything that the account may list, until the client leaves, its key is revoked,
// or the server shuts down. A slow client gets the last state of each resource, not every one.
func (q *request) serveFeed() error {
	if !q.sameOrigin() {
		return forbidden("a browser opened this socket from another site")
	}
	if !q.h.feeds.enter() {
		e := fail(http.StatusServiceUnavailable, "Service Unavailable", "too many change feeds are open")
		e.RetryAfter = retryBusy
		return e
	}
	defer q.h.feeds.leave()
	upgrader := websocket.Upgrader{
		HandshakeTimeout: feedWrite, CheckOrigin: func(*http.Request) bool { return true }, // checked above, with the proxies in mind
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			writeError(w, fail(status, "InvalidFormat", "%v", reason))
		},
	}
	ctx, cancel := context.WithCancel(q.ctx())
	defer cancel()
	// Subscribed before the client can know that it is connected: it misses nothing after that.
	changes := q.h.hub.Subscribe(ctx, q.feedTypes()...)
	conn, err := upgrader.Upgrade(q.w, q.r, nil)
	if err != nil {
		return nil // answered by the upgrader
	}
	reader := make(chan struct{})
	go func() {
		defer close(reader)
		defer cancel()
		drainSocket(conn)
	}()
	q.feed(ctx, conn, changes)
	_ = conn.Close()
	<-reader
	return nil
}

// drainSocket reads until the socket ends: pongs and close frames are seen no other way.
func drainSocket(conn *websocket.Conn) {
	conn.SetReadLimit(maxFeedFrame)
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(feedSilence)) }
	conn.SetPongHandler(alive)
	_ = alive("")
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
		_ = alive("")
	}
}

// feed is the only writer of messages to conn.
func (q *request) feed(ctx context.Context, conn *websocket.Conn, changes <-chan store.Change) {
	ticker := time.NewTicker(feedPing)
	defer ticker.Stop()
	wanted := slices.ContainsFunc(q.r.URL.Query()["eventNames"], func(name string) bool {
		bare, _, _ := strings.Cut(name, ";")
		return bare == changeEvent
	})
	send := func(v any) bool {
		_ = conn.SetWriteDeadline(time.Now().Add(feedWrite))
		return conn.WriteJSON(v) == nil
	}
	bye := func(code int, why string) {
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, why), time.Now().Add(time.Second))
	}
	if !send(q.pingEvent()) {
		return
	}
	for {
		select {
		case <-ctx.Done():
			select {
			case <-q.h.closing:
				bye(websocket.CloseGoingAway, "the server is shutting down")
			default:
			}
			return
		case <-q.h.closing:
			bye(websocket.CloseGoingAway, "the server is shutting down")
			return
		case <-ticker.C:
			if !send(q.pingEvent()) || conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(feedWrite)) != nil {
				return
			}
		case c, ok := <-changes:
			if !ok {
				bye(websocket.CloseGoingAway, "the server is shutting down")
				return
			}
			if c.Type == store.TypeAPIKey && c.Deleted && q.who.key != nil && c.ID == q.who.key.ID {
				send(map[string]any{"name": "logout"})
				bye(websocket.ClosePolicyViolation, "the key was revoked")
				return
			}
			if !wanted {
				continue
			}
			if ev := q.changeEvent(c); ev != nil && !send(ev) {
				return
			}
		}
	}
}

// feedTypes are the types whose changes a feed hears of: those the account may list, and keys, for its own.
func (q *request) feedTypes() []string {
	types := []string{store.TypeAPIKey}
	for _, typ := range []string{
		store.TypeHost, store.TypeContainer, store.TypePullTask, store.TypeAgent, store.TypeRegistrationToken,
	} {
		if q.mayList(typ) {
			types = append(types, typ)
		}
	}
	return types
}

func (q *request) mayList(typ string) bool {
	d := q.h.types[typ]
	return d != nil && slices.Contains(d.grants[q.who.kind].collection, http.MethodGet)
}

// changeEvent describes a change to the account, or is nil where it may not know the resource.
func (q *request) changeEvent(c store.Change) map[string]any {
	if !q.mayList(c.Type) {
		return nil
	}
	res := &resource{typ: c.Type, id: c.ID, fields: map[string]any{"state": store.StateRemoved}}
	if !c.Deleted {
		switch rec := c.Record.(type) {
		case *store.Host:
			res = q.h.hostResource(rec)
		case *store.Container:
			res = q.h.containerResource(rec)
		case *store.PullTask:
			res = pullTaskResource(rec)
		case *store.Agent:
			res = q.h.agentResource(q, rec)
		case *store.RegistrationToken:
			res = q.h.tokenResource(q.agentBase(), rec)
		case *store.APIKey:
			res = q.h.keyResource(rec)
		default:
			return nil
		}
	}
	return map[string]any{
		"id": uuid.NewString(), "name": changeEvent, "resourceType": c.Type, "resourceId": c.ID,
		"data": map[string]any{"resource": q.render(res)}, "time": q.h.now().UnixMilli(),
	}
}

func (q *request) pingEvent() map[string]any {
	return map[string]any{
		"id": uuid.NewString(), "name": "ping", "resourceId": nil, "resourceType": nil,
		"data": map[string]any{"options": map[string]any{}, "resources": []any{}}, "time": q.h.now().UnixMilli(),
	}
}

// sameOrigin reports whether a socket was opened by no browser, or by a page of this server.
func (q *request) sameOrigin() bool {
	origin := q.r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	_, host, _ := strings.Cut(q.target.base, "://")
	return strings.EqualFold(u.Host, host) || strings.EqualFold(u.Host, q.r.Host)
}
