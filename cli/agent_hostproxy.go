package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/register"
	"github.com/droverhq/drover/service/hostproxy"
	"github.com/droverhq/drover/utils/backoff"
)

const (
	// keyRetry is between looks for the key that tokens are checked with; it may come with the first config.update.
	keyRetry = 5 * time.Second
	// maxKeyFile bounds api.crt.
	maxKeyFile = 64 << 10
	// consoles is where virtual machines have the sockets of their screens.
	consoles = "/var/lib/rancher/vm"
)

// hostProxy is the door that a Rancher server reaches this host's streams through.
type hostProxy struct {
	cfg     *Config
	joined  *register.Result
	node    *nodeService
	channel func() creator // the control channel, which is made after the doors
	log     logrus.FieldLogger
}

// A creator makes resources at the server; [events.Client] is one.
type creator interface {
	Create(ctx context.Context, resourceType string, body, out any) error
}

// Run serves a Rancher server until ctx ends. It waits for the server's public key: without it no token could be believed.
func (p *hostProxy) Run(ctx context.Context) error {
	for said := false; ; said = true {
		client, err := p.client()
		if err == nil {
			return client.Run(ctx)
		}
		if !said {
			p.log.WithError(err).Warn("no host access through the server's proxy: the key of its tokens is missing; it is looked for every 5 s")
		}
		if err := backoff.Sleep(ctx, keyRetry); err != nil {
			return err
		}
	}
}

// ServeHTTP serves the viewers of Rancher's paths at a server of ours, which come through the tunnel.
func (p *hostProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client, err := p.client()
	if err != nil {
		p.log.WithError(err).Warn("no host access by Rancher's paths: the key of the server's tokens is missing")
		http.Error(w, "the agent has no key to check tokens with", http.StatusServiceUnavailable)
		return
	}
	client.ServeHTTP(w, r)
}

// client makes the client with the key of the moment.
func (p *hostProxy) client() (*hostproxy.Client, error) {
	text, err := readKeyFile(firstOf(p.cfg.Agent.APICertFile, p.joined.APICertFile, filepath.Join(p.cfg.Agent.StateDir, "api.crt")))
	if err != nil {
		return nil, err
	}
	key, err := hostproxy.ParseKey(text)
	if err != nil {
		return nil, err
	}
	return hostproxy.New(hostproxy.Config{
		Node: p.node, Token: p.grant, HostUUID: p.joined.HostUUID, Key: key, TrustProxy: p.cfg.Doors.TrustProxy,
		TLS: p.joined.TLS, Proxy: p.joined.Proxy, Log: p.log, Dial: dialEngine(p.cfg.Engine.DockerHost), Console: dialConsole(p.cfg.Agent.Rootfs),
		Backoff: backoff.Policy{First: time.Second, Base: 5 * time.Second, Max: 30 * time.Second},
	})
}

func readKeyFile(name string) ([]byte, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s is no key file", name)
	}
	return os.ReadFile(name)
}

// grant asks the server for a token, as an original agent does.
func (p *hostProxy) grant(ctx context.Context) (hostproxy.Grant, error) {
	var got struct{ URL, Token string }
	err := p.channel().Create(ctx, "hostApiProxyToken", map[string]any{"reportedUuid": p.joined.HostUUID}, &got)
	var refusal *events.APIError
	if errors.As(err, &refusal) {
		switch {
		case refusal.Status == http.StatusUnprocessableEntity && refusal.Code == "InvalidReference" && refusal.FieldName == "reportedUuid":
			err = fmt.Errorf("%w: %w", hostproxy.ErrUnknownHost, err)
		case refusal.Status == http.StatusNotImplemented:
			err = fmt.Errorf("%w: %w", hostproxy.ErrDisabled, err)
		}
	}
	if err == nil && (got.URL == "" || got.Token == "") {
		err = errors.New("the server's answer has no url or no token")
	}
	return hostproxy.Grant{URL: got.URL, Token: got.Token}, err
}

// dialEngine connects to the engine's own socket; nil where it has none here.
func dialEngine(host string) func(context.Context) (net.Conn, error) {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil
	}
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
}

func dialConsole(rootfs string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, container string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join("/", rootfs, consoles, filepath.Base(container), "vnc"))
	}
}
