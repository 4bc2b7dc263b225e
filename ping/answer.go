package ping

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// firstWait is how long the first answer waits for the first sample.
const firstWait = 50 * time.Millisecond

// options are what a ping asks for.
type options struct{ resources, stats, instances bool }

// parseOptions reads data.options tolerantly: what is not plainly true is false, and no data is an empty ping.
func parseOptions(data json.RawMessage) options {
	if len(data) == 0 {
		return options{}
	}
	var d struct {
		Options struct{ Resources, Stats, Instances json.RawMessage }
	}
	// A ping must be answered whatever it holds: an error leaves the rest unset.
	_ = json.Unmarshal(data, &d)
	yes := func(raw json.RawMessage) bool {
		s := string(raw)
		return s == "true" || s == `"true"`
	}
	return options{resources: yes(d.Options.Resources), stats: yes(d.Options.Stats), instances: yes(d.Options.Instances)}
}

// Handle answers one ping. It returns an error only when ctx has ended.
func (r *Reporter) Handle(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	o := parseOptions(ev.Data)
	if r.cfg.Disabled {
		o = options{}
	}
	if o.resources {
		r.grace.Do(func() { r.waitFirst(ctx) })
	}
	var host, insts []byte
	var err error
	if o.resources {
		if host, err = r.hostResources(o.stats); err != nil {
			return nil, err
		}
	}
	if o.instances && r.cfg.Containers != nil && r.cfg.Containers.Healthy() {
		if insts, err = r.instances(r.cfg.Containers.Snapshot()); err != nil {
			return nil, err
		}
	}
	b := make([]byte, 0, 64+len(host)+len(insts))
	b = append(b, `{"options":{`...)
	if insts != nil {
		b = append(b, `"instances":true`...)
	}
	b = append(b, '}')
	if host != nil || insts != nil {
		b = append(b, `,"resources":[`...)
		b = append(b, host...)
		if host != nil && insts != nil {
			b = append(b, ',')
		}
		b = append(b, insts...)
		b = append(b, ']')
	}
	return json.RawMessage(append(b, '}')), nil
}

// waitFirst waits until host and engine were looked at once, but not long.
func (r *Reporter) waitFirst(ctx context.Context) {
	t := time.NewTimer(firstWait)
	defer t.Stop()
	seen := []<-chan struct{}{r.loaded}
	if r.cfg.Host != nil {
		seen = append(seen, r.cfg.Host.First())
	}
	for _, c := range seen {
		select {
		case <-c:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// An instancePart is the rendered list of one snapshot.
type instancePart struct {
	list []runtime.ContainerSummary
	json []byte
}

func sameList(a, b []runtime.ContainerSummary) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// instances renders the host's uuid and the containers. It is done once for each snapshot.
func (r *Reporter) instances(list []runtime.ContainerSummary) ([]byte, error) {
	if p := r.insts.Load(); p != nil && sameList(p.list, list) {
		return p.json, nil
	}
	b, err := appendResource(nil, map[string]any{"type": "hostUuid", "uuid": r.cfg.HostUUID})
	if err != nil {
		return nil, err
	}
	for i := range list {
		c := &list[i]
		state := state(c)
		if state == "" {
			continue
		}
		m := map[string]any{
			"type": "instance", "uuid": UUID(c), "state": state, "dockerId": c.ID, "image": c.Image,
			"created": c.Created.Unix(),
		}
		if len(c.Labels) > 0 {
			m["labels"] = c.Labels
		}
		if b, err = appendResource(b, m); err != nil {
			return nil, err
		}
	}
	r.insts.Store(&instancePart{list: list, json: b})
	return b, nil
}

// state is "running", "stopped", or "" for a container that was only created.
func state(c *runtime.ContainerSummary) string {
	switch c.State {
	case "running", "paused":
		return "running"
	case "created", "":
		return ""
	}
	return "stopped"
}

// labelUUID is the label that holds the server's uuid of a container.
const labelUUID = "io.rancher.container.uuid"

// UUID returns what a server knows a container by: its uuid label, else its first name, else its id.
func UUID(c *runtime.ContainerSummary) string {
	switch {
	case c.Labels[labelUUID] != "":
		return c.Labels[labelUUID]
	case len(c.Names) > 0 && c.Names[0] != "":
		return c.Names[0]
	}
	return "no-uuid-" + c.ID
}

// appendResource appends a resource to a comma-separated list. Every resource carries systemContainer.
func appendResource(b []byte, m map[string]any) ([]byte, error) {
	m["systemContainer"] = ""
	j, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the %v resource: %w", m["type"], err)
	}
	if len(b) > 0 {
		b = append(b, ',')
	}
	return append(b, j...), nil
}
