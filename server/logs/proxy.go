// Package logs is the server's way to the log services of the hosts: it finds the one registered host that a request
// means, makes a token for it, and relays. It never connects to an address that a caller names.
//
// A [Proxy] starts nothing by itself; every relayed request lives in its caller's goroutine and ends with the request's
// context. [Proxy.Wait] waits for them.
package logs

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/sirupsen/logrus"
)

// LabelPort is the label under which a host announces the port of its log service.
const LabelPort = "io.drover.logs.port"

// LabelTLS is the label under which a host announces that its log service speaks TLS: the SHA-256, in hex, of the
// certificate of the service or of the authority behind it. No other one is taken.
const LabelTLS = "io.drover.logs.tls"

// LabelTunnel is the label under which a host announces that its log service is reached through its tunnel, at
// [TunnelPath].
const LabelTunnel = "io.drover.logs.tunnel"

// TunnelPath is where the agent of a host serves its log service in the tunnel.
const TunnelPath = "/logs"

// TokenPrefix begins the WebSocket subprotocol in which a browser shows a token.
const TokenPrefix = "drover.token."

// Hosts are the registered hosts and their agents.
type Hosts interface {
	Hosts() []*store.Host
	Agent(id string) (*store.Agent, error)
}

// Config is what a [Proxy] needs. Hosts is required.
type Config struct {
	Hosts Hosts
	// Token makes the token for a request of user to host's log service. Nil, or an empty token: none is sent, which
	// only a log service without tokens takes.
	Token func(host *store.Host, user string) (string, error)
	// Locate finds the node of a task or request, by name or address; nil: ids are not known.
	Locate func(ctx context.Context, task, request string) (node string, err error)
	// Tunnel relays through the tunnel of a host's agent; it returns an error if it has not answered. Nil: there are none.
	Tunnel func(w http.ResponseWriter, r *http.Request, host *store.Host, user string, client netip.Addr, path string) error
	// Key signs socket tokens; all replicas have the same. Nil: there are none.
	Key *rsa.PrivateKey
	Now func() time.Time // nil: the machine's clock
	// Dial connects to an address of a host; nil is TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  logrus.FieldLogger // nil: nothing is logged
}

// A Proxy relays requests to hosts. It is safe for concurrent use.
type Proxy struct {
	cfg       Config
	transport *http.Transport
	active    sync.WaitGroup
}

// New returns a proxy. It does no I/O.
func New(cfg Config) (*Proxy, error) {
	if cfg.Hosts == nil {
		return nil, errors.New("server/logs: the hosts are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	if cfg.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		cfg.Log = quiet
	}
	return &Proxy{cfg: cfg, transport: &http.Transport{
		DialContext: cfg.Dial, DialTLSContext: cfg.dialTLS, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 4,
		DisableCompression: true, // what the host compressed stays so, and the rest is not worth it
	}}, nil
}

// Wait returns when all relayed requests have ended, and closes idle connections.
func (p *Proxy) Wait() {
	p.active.Wait()
	p.transport.CloseIdleConnections()
}

// An Error is one that the caller is told.
type Error struct {
	Status int
	Text   string
}

func (e *Error) Error() string { return e.Text }

func problem(status int, format string, args ...any) *Error {
	return &Error{Status: status, Text: fmt.Sprintf(format, args...)}
}

// Find returns the host that a query means: ?host= an id, name, hostname or uuid, ?ip= the address of a host, ?taskId= or
// ?requestId= what Config.Locate knows. Only registered hosts are found. The error is an [*Error].
func (p *Proxy) Find(ctx context.Context, q url.Values) (*store.Host, error) {
	task, request := q.Get("taskId"), q.Get("requestId")
	name, ip := q.Get("host"), q.Get("ip")
	given := 0
	for _, v := range []string{task, request, name, ip} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return nil, problem(http.StatusBadRequest, "want one of ?host=, ?ip=, ?taskId= and ?requestId=")
	}
	if task+request != "" {
		if p.cfg.Locate == nil {
			return nil, problem(http.StatusBadRequest, "no task lookup is configured (app.logs.lookup)")
		}
		node, err := p.cfg.Locate(ctx, task, request)
		if err != nil {
			p.cfg.Log.WithError(err).WithField("task", task+request).Info("log proxy: task not found")
			return nil, problem(http.StatusNotFound, "task %q is not known", task+request)
		}
		name, ip = node, node
	}
	var found []*store.Host
	for _, h := range p.cfg.Hosts.Hosts() {
		if h.State != store.StateActive {
			continue
		}
		if name != "" && name == h.ID {
			return h, nil
		}
		if name != "" && (name == h.Name || name == h.Hostname || name == h.UUID) || ip != "" && sameAddress(ip, h.AgentIPAddress) {
			found = append(found, h)
		}
	}
	what := name
	if what == "" {
		what = ip
	}
	switch len(found) {
	case 0:
		return nil, problem(http.StatusNotFound, "no registered host is %q", what)
	case 1:
		return found[0], nil
	}
	return nil, problem(http.StatusConflict, "%d hosts are %q: name one by its id, as %s", len(found), what, found[0].ID)
}

func sameAddress(a, b string) bool {
	x, err := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	return err == nil && err2 == nil && x.Unmap() == y.Unmap()
}

// address is where a host's log service listens, as the host announced it. An agent must not make the server talk to the
// server's own machine or to a metadata service, so such addresses count only where the agent itself comes from there.
func (p *Proxy) address(h *store.Host) (string, error) {
	port, err := strconv.ParseUint(h.Labels[LabelPort], 10, 16)
	if err != nil || port == 0 {
		return "", problem(http.StatusConflict, "host %s serves no logs: app.logs.port is not set there", h.DisplayName())
	}
	ip, err := netip.ParseAddr(h.AgentIPAddress)
	if err != nil {
		return "", problem(http.StatusConflict, "host %s has no known address", h.DisplayName())
	}
	ip = ip.Unmap().WithZone("")
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		agent, err := p.cfg.Hosts.Agent(h.AgentID)
		if err != nil || !fromThere(agent.RemoteAddr, ip) {
			return "", problem(http.StatusForbidden, "host %s says its address is %s, which the server does not connect to", h.DisplayName(), ip)
		}
	}
	return net.JoinHostPort(ip.String(), strconv.FormatUint(port, 10)), nil
}

func fromThere(remote string, ip netip.Addr) bool {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	addr, err := netip.ParseAddr(remote)
	return err == nil && (addr.Unmap() == ip || addr.IsLoopback() && ip.IsLoopback())
}

// Serve relays r to path of host's log service for user, who was authenticated at address client: through the host's
// tunnel where it has one, to the port that it announced else. A WebSocket is relayed until it closes.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, host *store.Host, user string, client netip.Addr, path string) error {
	p.active.Add(1)
	defer p.active.Done()
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return problem(http.StatusForbidden, "a browser sent this request from another site")
		}
	}
	if p.cfg.Tunnel != nil && host.Labels[LabelTunnel] != "" {
		err := p.cfg.Tunnel(w, withoutToken(r), host, user, client, TunnelPath+path)
		if err == nil || host.Labels[LabelPort] == "" {
			return err
		}
		p.cfg.Log.WithError(err).WithField("host", host.ID).Info("log proxy: no way through the tunnel, trying the port")
	}
	return p.dial(w, withoutToken(r), host, user, path)
}

// withoutToken takes what a browser showed to the server out of the subprotocols: it is not for the host.
func withoutToken(r *http.Request) *http.Request {
	const name = "Sec-Websocket-Protocol"
	var kept []string
	for _, header := range r.Header.Values(name) {
		for one := range strings.SplitSeq(header, ",") {
			if one = strings.TrimSpace(one); one != "" && !strings.HasPrefix(one, TokenPrefix) {
				kept = append(kept, one)
			}
		}
	}
	r = r.Clone(r.Context())
	r.Header.Del(name)
	if len(kept) > 0 {
		r.Header.Set(name, strings.Join(kept, ", "))
	}
	return r
}

// dial relays to the port of the host's log service.
func (p *Proxy) dial(w http.ResponseWriter, r *http.Request, host *store.Host, user, path string) error {
	address, err := p.address(host)
	if err != nil {
		return err
	}
	token := ""
	if p.cfg.Token != nil {
		if token, err = p.cfg.Token(host, user); err != nil {
			return fmt.Errorf("token for host %s: %w", host.ID, err)
		}
	}
	scheme := "http"
	if pin := host.Labels[LabelTLS]; pin != "" {
		scheme = "https"
		r = r.WithContext(context.WithValue(r.Context(), pinKey{}, pin))
	}
	relay := httputil.ReverseProxy{
		Transport: p.transport, FlushInterval: -1,
		Rewrite: func(pr *httputil.ProxyRequest) {
			out := pr.Out
			out.URL.Scheme, out.URL.Host, out.URL.Path, out.URL.RawPath = scheme, address, path, ""
			out.Host = address
			// What the caller showed to the server is not for the host.
			for _, name := range []string{"Authorization", "Cookie", "Origin"} {
				out.Header.Del(name)
			}
			if token != "" {
				out.Header.Set("Authorization", "Bearer "+token)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode == http.StatusUnauthorized {
				return problem(http.StatusBadGateway, "host %s does not take the server's tokens: both need the same app.logs.token-key-file", host.DisplayName())
			}
			// The server has set these for its own answers.
			for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options"} {
				resp.Header.Del(name)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var e *Error
			if !errors.As(err, &e) {
				p.cfg.Log.WithError(err).WithField("host", host.ID).Warn("log proxy: no connection")
				e = problem(http.StatusBadGateway, "the log service of host %s at %s does not answer", host.DisplayName(), address)
				if errors.Is(err, errPin) {
					e.Text = fmt.Sprintf("the log service of host %s at %s shows another certificate than the host announced", host.DisplayName(), address)
				}
			}
			if r.Context().Err() == nil {
				e.Write(w)
			}
		},
		ErrorLog: nil,
	}
	relay.ServeHTTP(boundHalfClose(w), r)
	return nil
}

// Write answers a request with the error.
func (e *Error) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "status": e.Status, "code": http.StatusText(e.Status), "message": e.Text})
}
