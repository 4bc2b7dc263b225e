package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// The reply's data of activate, deactivate and remove. "+" before a key tells the server to merge the object into the
// one it has.
type instanceReply struct {
	Instance instanceReplyBody `json:"instance"`
}

type instanceReplyBody struct {
	ExternalID string            `json:"externalId"`
	Data       instanceReplyData `json:"+data"`
}

type instanceReplyData struct {
	Container json.RawMessage     `json:"dockerContainer"`
	Inspect   json.RawMessage     `json:"dockerInspect"`
	Mounts    json.RawMessage     `json:"dockerMounts,omitempty"`
	Fields    instanceReplyFields `json:"+fields"`
}

type instanceReplyFields struct {
	HostIP string   `json:"dockerHostIp"`
	IP     *string  `json:"dockerIp"`
	Ports  []string `json:"dockerPorts"`
}

// resourceKey is the key that the reply's data stands under.
func resourceKey(ev *wire.Event) string {
	if ev.ResourceType == "" {
		return "instanceHostMap"
	}
	return ev.ResourceType
}

// notFoundReply tells that the instance has no container here.
func notFoundReply(ev *wire.Event, in *instance, hostIP string) map[string]instanceReply {
	return map[string]instanceReply{resourceKey(ev): {Instance: instanceReplyBody{
		ExternalID: in.ExternalID,
		Data:       instanceReplyData{Fields: instanceReplyFields{HostIP: hostIP}},
	}}}
}

// replyIP says how the address of a container of a CNI network is found.
type replyIP struct {
	lookup  bool // look for it and wait
	mayFail bool // do without it if it cannot be found
}

// instanceReply tells all about the instance's container.
func (h *handlers) instanceReply(ctx context.Context, ev *wire.Event, in *instance, st runtime.ContainerStatus, how replyIP) (any, error) {
	var ip string
	var err error
	if st.Labels[labelCNINetwork] != "" && how.lookup {
		if ip, err = h.cniAddress(ctx, st); err != nil {
			// A container that ended meanwhile has no address, and that is no failure of the event.
			now, rerr := h.look(ctx, st.ID)
			if !how.mayFail && (rerr != nil || now.Running) {
				return nil, fmt.Errorf("address of container %s: %w", st.Name, err)
			}
			h.log.WithField("container", st.Name).WithError(err).Info("container has no address")
		}
	} else {
		ip = st.IP
	}
	raw, err := h.engine.Inspect(ctx, st.ID)
	if errors.Is(err, runtime.ErrNotFound) { // gone between two looks
		return notFoundReply(ev, in, h.opts.HostIP), nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", st.Name, err)
	}
	rows, err := h.engine.List(ctx, runtime.ListOptions{Name: st.Name, Raw: true})
	if err != nil {
		return nil, fmt.Errorf("list container %s: %w", st.Name, err)
	}
	var row runtime.ContainerSummary
	for _, r := range rows {
		if r.ID == st.ID {
			row = r
		}
	}
	var parts struct{ Mounts json.RawMessage }
	if err := json.Unmarshal(raw, &parts); err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", st.Name, err)
	}
	ports := portList(row.Ports)
	if len(ports) == 0 {
		ports = h.imagePorts(ctx, st.Image)
	}
	return map[string]instanceReply{resourceKey(ev): {Instance: instanceReplyBody{
		ExternalID: st.ID,
		Data: instanceReplyData{
			Container: row.Raw, Inspect: raw, Mounts: parts.Mounts,
			Fields: instanceReplyFields{HostIP: h.opts.HostIP, IP: &ip, Ports: ports},
		},
	}}}, nil
}

// portList writes ports as "ip:public:private/proto". Servers read no IPv6 there, so one that only repeats an IPv4 port
// is left out.
func portList(ports []runtime.Port) []string {
	v4 := make(map[runtime.Port]bool)
	for _, p := range ports {
		if !strings.Contains(p.IP, ":") {
			p.IP = ""
			v4[p] = true
		}
	}
	list := make([]string, 0, len(ports))
	for _, p := range ports {
		var b strings.Builder
		if strings.Contains(p.IP, ":") {
			same := p
			same.IP = ""
			if v4[same] {
				continue
			}
			fmt.Fprintf(&b, "[%s]:", p.IP)
		} else if p.IP != "" {
			b.WriteString(p.IP + ":")
		}
		switch {
		case p.PublicPort != 0:
			fmt.Fprintf(&b, "%d:", p.PublicPort)
		case p.IP != "":
			b.WriteString(":")
		}
		fmt.Fprintf(&b, "%d/%s", p.PrivatePort, p.Protocol)
		list = append(list, b.String())
	}
	return list
}

// imagePorts are the ports that the image exposes; none if it is gone.
func (h *handlers) imagePorts(ctx context.Context, ref string) []string {
	ports := []string{}
	c, err := h.engine.ImageConfig(ctx, ref)
	if err != nil {
		return ports
	}
	for _, p := range c.ExposedPorts {
		ports = append(ports, fmt.Sprintf("%d/%s", p.PrivatePort, p.Protocol))
	}
	return ports
}
