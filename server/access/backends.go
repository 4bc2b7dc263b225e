package access

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/server/store"
)

// BackendPath is where an agent of ours takes a backend's frames through its tunnel.
const BackendPath = "/hostproxy"

// backendSubject is where the replica that holds the backend of a host listens.
func backendSubject(hostID string) string { return "drover.backend." + hostID }

// ServeBackend upgrades the connection of an original agent, which shows the token that it was given for it. It returns
// when the connection has ended. An older one of the host is closed, at whatever replica it is.
func (a *Access) ServeBackend(w http.ResponseWriter, r *http.Request) error {
	claims, err := a.check(tokenOf(r))
	hostUUID, _ := claims["reportedUuid"].(string)
	agentID, _ := claims["agent"].(string)
	if err == nil && (hostUUID == "" || agentID == "") {
		err = errors.New("it is for no backend")
	}
	if err != nil {
		a.cfg.Log.WithError(err).WithField("address", r.RemoteAddr).Info("access: a backend is refused")
		return problem(http.StatusUnauthorized, "Unauthorized", "Failed authentication")
	}
	host, err := a.cfg.Store.HostByUUID(hostUUID)
	if err != nil || host.AgentID != agentID {
		return problem(http.StatusUnauthorized, "Unauthorized", "the host is another agent's")
	}
	if err := a.begin(); err != nil {
		return err
	}
	defer a.active.Done()
	ws, err := (&websocket.Upgrader{HandshakeTimeout: backendWrite, CheckOrigin: noBrowser}).Upgrade(w, r, nil)
	if err != nil {
		return nil // answered
	}
	_ = ws.NetConn().SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	b := newBackend(ws)
	forget := a.announce(backendSubject(host.ID), func(string) { cancel() })
	defer forget()
	a.mu.Lock()
	old := a.backends[host.ID]
	a.backends[host.ID] = &heldBackend{b, agentID, cancel}
	if a.closed {
		cancel()
	}
	a.mu.Unlock()
	if old != nil {
		old.cancel()
	}
	log := a.cfg.Log.WithField("host", host.ID)
	log.Info("access: backend connected")
	err = b.run(ctx)
	a.mu.Lock()
	if held := a.backends[host.ID]; held != nil && held.backend == b {
		delete(a.backends, host.ID)
	}
	a.mu.Unlock()
	log.WithError(err).WithField("invalidFrames", b.invalid.Load()).Info("access: backend closed")
	return nil
}

// noBrowser: agents send no Origin.
func noBrowser(r *http.Request) bool { return r.Header.Get("Origin") == "" }

type heldBackend struct {
	*backend
	agent  string
	cancel context.CancelFunc
}

// headerHop marks a viewer's request that another replica passed on: it is not passed on again.
const headerHop = "Drover-Hop"

// open begins a viewer's stream to a host: through the tunnel of an agent of ours, or on the backend of an original one.
// Where another replica has either, it returns that one's address instead.
func (a *Access) open(ctx context.Context, host *store.Host, uri string, passOn bool) (c *channel, replica string, err error) {
	wait := time.NewTimer(a.cfg.Wait)
	defer wait.Stop()
	for {
		l, arrived := a.here(host.AgentID)
		if l != nil {
			c, err = a.openThrough(ctx, l, uri)
			return c, "", err
		}
		a.mu.Lock()
		held := a.backends[host.ID]
		a.mu.Unlock()
		if held != nil {
			c, err = held.open(uri)
			return c, "", err
		}
		if passOn {
			for _, subject := range []string{subject(host.AgentID), backendSubject(host.ID)} {
				if replica, err = a.elsewhere(ctx, subject); err != nil || replica != "" {
					return nil, replica, err
				}
			}
		}
		agent, err := a.cfg.Store.Agents.Get(host.AgentID)
		switch {
		case err != nil:
			return nil, "", problem(http.StatusNotFound, "Not Found", "host %s has no agent any more", host.DisplayName())
		case agent.Connection != store.ConnectionOnline:
			return nil, "", a.hopeless(host, agent)
		}
		select {
		case <-arrived:
		case <-time.After(lookAgain):
		case <-wait.C:
			return nil, "", problem(http.StatusServiceUnavailable, CodeNoTunnel, "host %s is connected but its agent opened no way to its streams", host.DisplayName())
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
}

// openThrough opens a backend of the viewer's own through a tunnel: a slow viewer then slows nobody else.
func (a *Access) openThrough(ctx context.Context, l *link, uri string) (*channel, error) {
	dialer := websocket.Dialer{
		HandshakeTimeout: backendWrite,
		NetDialContext:   func(ctx context.Context, _, _ string) (net.Conn, error) { return l.session.DialContext(ctx, "", "") },
	}
	to := url.URL{Scheme: "ws", Host: l.agent, Path: BackendPath}
	ws, resp, err := dialer.DialContext(ctx, to.String(), nil)
	if err != nil {
		if resp != nil && resp.StatusCode == http.StatusNotFound {
			return nil, problem(http.StatusNotImplemented, CodeNoTunnel, "the agent of this host does not serve Rancher's paths")
		}
		return nil, problem(http.StatusBadGateway, CodeBroken, "the connection to the host broke before it answered")
	}
	run, cancel := context.WithCancel(a.ctx)
	b := newBackend(ws)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.run(run) // the viewer sees the end
	}()
	c, err := b.open(uri)
	if err != nil {
		cancel()
		<-ended
		return nil, err
	}
	c.ending = func() {
		_ = b.send(c.key, kindClose, "") // in order, before the end of everything
		cancel()
		<-ended
	}
	return c, nil
}
