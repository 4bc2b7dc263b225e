package access

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/server/store"
)

const (
	viewerPing    = 20 * time.Second
	viewerSilence = 2 * time.Minute
	viewerWrite   = 10 * time.Second
	// viewerFrame is the longest message of a viewer.
	viewerFrame = 1 << 20
	// binaryProtocol is the subprotocol of viewers who want bytes and not their base64.
	binaryProtocol = "binary"
)

// Ways tells whether a word is the name of one of Rancher's ways to a host that are WebSockets.
func isSocket(way string) bool {
	switch way {
	case WayExec, WayLogs, WayStats, WayHostStats, WayContainerStats, WayConsole, WaySocket:
		return true
	}
	return false
}

// IsWay tells whether a word is the name of one of Rancher's ways to a host.
func IsWay(way string) bool { return isSocket(way) || way == WayProxy || way == WayBackend }

// ServeWay answers a request for one of Rancher's ways, whose path below the API's version is way and rest. The token in
// the request says who may: nobody else is asked.
func (a *Access) ServeWay(w http.ResponseWriter, r *http.Request, way, rest string) error {
	if way == WayBackend {
		if !websocket.IsWebSocketUpgrade(r) {
			return problem(http.StatusUpgradeRequired, "Upgrade Required", "this is a WebSocket")
		}
		return a.ServeBackend(w, r)
	}
	if isSocket(way) && !websocket.IsWebSocketUpgrade(r) {
		return problem(http.StatusUpgradeRequired, "Upgrade Required", "this is a WebSocket")
	}
	if err := a.begin(); err != nil {
		return err
	}
	defer a.active.Done()
	if kind := mergedKind(way, rest); kind != "" {
		return a.serveMerged(w, r, way, kind)
	}
	token := tokenOf(r)
	hostUUID, claims, err := a.checkView(token, way)
	if err != nil {
		a.cfg.Log.WithError(err).WithField("way", way).WithField("address", r.RemoteAddr).Info("access: a viewer is refused")
		return problem(http.StatusUnauthorized, "Unauthorized", "the token does not allow this")
	}
	host, err := a.cfg.Store.HostByUUID(hostUUID)
	if err != nil || host.State == store.StateRemoved {
		return problem(http.StatusNotFound, "Not Found", "the host of the token is not registered any more")
	}
	uri := "/v1/" + way + "/"
	if rest = strings.Trim(rest, "/"); rest != "" {
		uri = "/v1/" + way + "/" + url.PathEscape(rest)
	}
	if way == WayProxy {
		uri = "/v1/" + way + "/"
	}
	// Original agents, which show api.crt's key what they get, want the token in the query.
	c, replica, err := a.open(r.Context(), host, uri+"?"+url.Values{"token": {token}}.Encode(), r.Header.Get(headerHop) == "")
	switch {
	case err != nil:
		return err
	case replica != "":
		return a.passOn(w, r, replica, token)
	}
	defer c.release()
	stop := context.AfterFunc(a.ctx, c.Close)
	defer stop()
	if way == WayProxy {
		return a.proxyHTTP(w, r, c, claims, "/"+rest)
	}
	a.serveSocket(w, r, c)
	return nil
}

// passOn relays a viewer's request to the replica that has the way to its host.
func (a *Access) passOn(w http.ResponseWriter, r *http.Request, replica, token string) error {
	base, err := url.Parse(replica)
	if err != nil || base.Host == "" {
		return problem(http.StatusBadGateway, CodeBroken, "the replica that holds the way to the host told no usable address")
	}
	next := r.Clone(r.Context())
	next.Header.Set(headerHop, a.self)
	next.Header.Del("Origin") // it was looked at here
	a.relay(w, next, &route{
		transport: a.replicas, base: base, path: r.URL.Path, authorization: "Bearer " + token, name: base.Host,
	})
	return nil
}

// serveSocket connects a viewer's WebSocket with an end until either ends.
func (a *Access) serveSocket(w http.ResponseWriter, r *http.Request, c end) {
	up := websocket.Upgrader{
		HandshakeTimeout: viewerWrite, CheckOrigin: func(*http.Request) bool { return true }, // the API looked at it, with its proxies in mind
		Subprotocols: []string{binaryProtocol},
	}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // answered
	}
	_ = ws.NetConn().SetDeadline(time.Time{})
	defer ws.Close()
	binary := ws.Subprotocol() == binaryProtocol
	var reader sync.WaitGroup
	reader.Go(func() {
		defer c.Close()
		readViewer(ws, c, binary)
	})
	defer reader.Wait()
	defer ws.Close()
	pinging := make(chan struct{})
	var pings sync.WaitGroup
	pings.Go(func() {
		tick := time.NewTicker(viewerPing)
		defer tick.Stop()
		for {
			select {
			case <-pinging:
				return
			case <-tick.C:
				_ = ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(viewerWrite))
			}
		}
	})
	defer func() { close(pinging); pings.Wait() }()
	for {
		body, ok := c.Recv()
		if !ok {
			_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
			return
		}
		kind, data := websocket.TextMessage, []byte(body)
		if binary {
			kind = websocket.BinaryMessage
			if data, err = base64.StdEncoding.DecodeString(body); err != nil {
				continue // not of this path; it has no meaning as bytes
			}
		}
		_ = ws.SetWriteDeadline(time.Now().Add(viewerWrite))
		if ws.WriteMessage(kind, data) != nil {
			return
		}
	}
}

// readViewer passes a viewer's messages on until he leaves.
func readViewer(ws *websocket.Conn, c end, binary bool) {
	ws.SetReadLimit(viewerFrame)
	alive := func() { _ = ws.SetReadDeadline(time.Now().Add(viewerSilence)) }
	alive()
	ws.SetPongHandler(func(string) error { alive(); return nil })
	for {
		kind, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		alive()
		body := string(data)
		if binary && kind == websocket.BinaryMessage {
			body = base64.StdEncoding.EncodeToString(data)
		}
		if c.Send(body) != nil {
			return
		}
	}
}
