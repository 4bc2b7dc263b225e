package cli

import (
	"context"
	"encoding/base64"
	"net/http"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/cli/observe"
	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/tunnel"
	"github.com/droverhq/drover/register"
)

// A doorKind is how the server of the moment reaches this host's streams.
type doorKind int

const (
	doorNone    doorKind = iota // not connected yet
	doorTunnel                  // to a server of ours
	doorRancher                 // to Rancher's proxy
)

// agentDoors keep the door open that the server understands, beside the control channel: from the first connection on,
// through every later one that is lost, until Run's ctx ends. A host whose credentials are used elsewhere never gets that
// far, and takes nobody's tunnel away.
type agentDoors struct {
	tunnel *tunnel.Client
	proxy  *hostProxy
	log    logrus.FieldLogger

	mu      sync.Mutex // guards kind
	kind    doorKind
	changed chan struct{} // capacity 1
}

func newAgentDoors(joined *register.Result, node http.Handler, proxy *hostProxy, log logrus.FieldLogger) (*agentDoors, error) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(joined.AccessKey+":"+joined.SecretKey.Reveal()))
	client, err := tunnel.NewClient(tunnel.Config{
		Options: tunnel.Options{Log: log}, URL: tunnel.Endpoint(joined.APIURL), Handler: node, TLS: joined.TLS, Proxy: joined.Proxy,
		Header: func() http.Header {
			return http.Header{"Authorization": {basic}, "User-Agent": {"drover/" + version}}
		},
	})
	if err != nil {
		return nil, err
	}
	return &agentDoors{tunnel: client, proxy: proxy, log: log, changed: make(chan struct{}, 1)}, nil
}

// connected takes in a change of the control channel's state. It does not block.
func (d *agentDoors) connected(s events.Status) {
	if s.State != events.StateConnected {
		return
	}
	kind := doorRancher
	if s.Drover {
		kind = doorTunnel
	}
	d.mu.Lock()
	d.kind = kind
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *agentDoors) wanted() doorKind {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kind
}

// Run blocks until ctx ends and what came through the doors has ended.
func (d *agentDoors) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		kind := d.wanted()
		open, shut := context.WithCancel(ctx)
		var wg sync.WaitGroup
		switch kind {
		case doorTunnel:
			wg.Go(func() { d.keep(open, "tunnel", d.tunnel.Run) })
		case doorRancher:
			wg.Go(func() { d.keep(open, "host proxy", d.proxy.Run) })
		}
		for ctx.Err() == nil && d.wanted() == kind {
			select {
			case <-d.changed:
			case <-ctx.Done():
			}
		}
		shut()
		wg.Wait()
	}
	return nil
}

// keep runs a door to its end, which only ctx should be.
func (d *agentDoors) keep(ctx context.Context, name string, run func(context.Context) error) {
	if err := run(ctx); ctx.Err() == nil {
		d.log.WithError(err).WithField("door", name).Error("a door ended")
	}
}

// status is what the metrics tell.
func (d *agentDoors) status() observe.Tunnel {
	s := d.tunnel.Status()
	return observe.Tunnel{Open: s.State == tunnel.Connected, Dials: uint64(max(s.Dials, 0)), Streams: s.Session.Streams, RTT: s.Session.RTT}
}
