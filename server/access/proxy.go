package access

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"time"

	"github.com/droverhq/drover/server/store"
)

// HeaderUser tells the host for whom a request is: the id of the account.
const HeaderUser = "Drover-User"

// ServeHost relays r to path of what the agent of host serves, for user, who was authenticated at address client. It
// returns an [*Error] if it has not answered.
func (a *Access) ServeHost(w http.ResponseWriter, r *http.Request, host *store.Host, user string, client netip.Addr, path string) error {
	if err := a.begin(); err != nil {
		return err
	}
	defer a.active.Done()
	to, err := a.route(r.Context(), host)
	if err != nil {
		return err
	}
	to.user, to.client, to.name = user, client.String(), host.DisplayName()
	if to.token != nil {
		token, err := to.token(user)
		if err != nil {
			return err
		}
		to.authorization = "Bearer " + token
		path = "/v1/" + ReplicaPath + "/" + host.AgentID + path
	}
	to.path = path
	a.relay(w, r, to)
	return nil
}

// A route is the way to a host's handler.
type route struct {
	transport     http.RoundTripper
	base          *url.URL
	token         func(user string) (string, error) // for another replica; nil where the tunnel is here
	authorization string
	path          string
	user, client  string
	name          string // of the host, for errors
}

// route finds the tunnel of a host's agent, or the replica that has it. It waits for one that is likely to come.
func (a *Access) route(ctx context.Context, host *store.Host) (*route, error) {
	agent, err := a.cfg.Store.Agents.Get(host.AgentID)
	if err != nil || agent.State == store.StateRemoved {
		return nil, problem(http.StatusNotFound, "Not Found", "host %s has no agent any more", host.DisplayName())
	}
	wait := time.NewTimer(a.cfg.Wait)
	defer wait.Stop()
	for {
		l, arrived := a.here(agent.ID)
		if l != nil {
			return &route{transport: l.transport, base: &url.URL{Scheme: "http", Host: agent.ID}}, nil
		}
		to, err := a.elsewhere(ctx, subject(agent.ID))
		if err != nil {
			a.cfg.Log.WithError(err).WithField("agent", agent.ID).Warn("access: cannot ask the other replicas")
			return nil, problem(http.StatusServiceUnavailable, CodeNoTunnel, "the tunnel of host %s cannot be looked for now", host.DisplayName())
		}
		if to != "" {
			base, err := url.Parse(to)
			if err != nil || base.Host == "" {
				return nil, problem(http.StatusBadGateway, CodeBroken, "the replica that holds the tunnel of host %s told no usable address", host.DisplayName())
			}
			return &route{transport: a.replicas, base: base, token: func(user string) (string, error) { return a.replicaToken(agent.ID, user) }}, nil
		}
		if agent, err = a.cfg.Store.Agents.Get(host.AgentID); err != nil {
			return nil, problem(http.StatusNotFound, "Not Found", "host %s has no agent any more", host.DisplayName())
		}
		if err := a.hopeless(host, agent); err != nil {
			return nil, err
		}
		var again <-chan time.Time
		if a.cfg.Store.Clustered() {
			again = time.After(lookAgain)
		}
		select {
		case <-arrived:
		case <-again:
		case <-wait.C:
			return nil, problem(http.StatusServiceUnavailable, CodeNoTunnel, "host %s is connected but has no tunnel open; see the log of its agent", host.DisplayName())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hopeless tells why waiting for a tunnel makes no sense.
func (a *Access) hopeless(host *store.Host, agent *store.Agent) error {
	switch {
	case agent.Connection != store.ConnectionOnline:
		state := agent.Connection
		if state == "" {
			state = store.ConnectionDisconnected
		}
		return problem(http.StatusServiceUnavailable, CodeNotConnected, "host %s is not connected: it is %s", host.DisplayName(), state)
	case !agent.Drover:
		return problem(http.StatusNotImplemented, CodeNoTunnel, "the agent of host %s is Rancher's and opens no tunnel", host.DisplayName())
	}
	return nil
}

// private are the headers that are between the caller and the server.
var private = [...]string{"Authorization", "Cookie", "Origin", "X-Api-No-Challenge", "X-Api-Csrf"}

// relay sends a request its way and the answer back.
func (a *Access) relay(w http.ResponseWriter, r *http.Request, to *route) {
	// Both bodies may be under way at once. A writer that cannot do that does not need to be told.
	_ = http.NewResponseController(w).EnableFullDuplex()
	proxy := httputil.ReverseProxy{
		Transport: to.transport, FlushInterval: -1, BufferPool: &a.buffers, ErrorLog: stdlog.New(io.Discard, "", 0), // viewers that leave
		Rewrite: func(pr *httputil.ProxyRequest) {
			out := pr.Out
			out.URL.Scheme, out.URL.Host, out.URL.Path, out.URL.RawPath = to.base.Scheme, to.base.Host, to.path, ""
			out.Host = to.base.Host
			for _, name := range private {
				out.Header.Del(name)
			}
			if to.authorization != "" {
				out.Header.Set("Authorization", to.authorization)
			}
			out.Header.Set(HeaderUser, to.user)
			if to.client != "" {
				out.Header.Set("X-Forwarded-For", to.client)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			// The server has set these for its own answers.
			for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Set-Cookie"} {
				resp.Header.Del(name)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // nobody is there to be told
			}
			var e *Error
			if !errors.As(err, &e) {
				a.cfg.Log.WithError(err).WithField("path", to.path).Info("access: a request did not get through")
				name := to.name
				if name == "" {
					name = to.base.Host
				}
				e = problem(http.StatusBadGateway, CodeBroken, "the connection to host %s broke before it answered", name)
			}
			e.Write(w)
		},
	}
	t := &tap{ResponseWriter: w, ctx: a.ctx, linger: a.cfg.Linger}
	defer t.close()
	proxy.ServeHTTP(t, r)
}
