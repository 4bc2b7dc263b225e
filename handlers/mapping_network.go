package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// index writes the index of an array element in a field's path.
func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// firstNic returns the nic with the lowest device number, nil if there is none.
func firstNic(in *instance) *nic {
	var first *nic
	for i := range in.Nics {
		if first == nil || in.Nics[i].DeviceNumber < first.DeviceNumber {
			first = &in.Nics[i]
		}
	}
	return first
}

// mapPorts publishes the instance's ports.
func mapPorts(spec *runtime.ContainerSpec, in *instance) {
	for _, p := range in.Ports {
		proto := strings.ToLower(p.Protocol)
		if proto == "" {
			proto = "tcp"
		}
		spec.ExposedPorts = append(spec.ExposedPorts, runtime.Port{PrivatePort: p.PrivatePort, Protocol: proto})
		spec.PortBindings = append(spec.PortBindings, runtime.Port{
			IP: p.Data.Fields.BindAddress, PrivatePort: p.PrivatePort, PublicPort: p.PublicPort, Protocol: proto,
		})
	}
}

// networkKind returns what the first nic is plugged into. An instance without nics says it by its network mode, which
// only Drover's servers send so.
func networkKind(in *instance, n *nic) string {
	if n != nil {
		return n.Network.Kind
	}
	mode := in.Data.Fields.NetworkMode
	switch {
	case mode == "host":
		return "dockerHost"
	case mode == "none":
		return "dockerNone"
	case mode == "container" && in.NetworkContainer != nil, strings.HasPrefix(mode, "container:"):
		return "dockerContainer"
	}
	return ""
}

// mapNetwork puts the container into its network, and takes away what that network cannot do.
func (h *handlers) mapNetwork(ctx context.Context, spec *runtime.ContainerSpec, in *instance) error {
	n := firstNic(in)
	if n != nil {
		if n.MacAddress != "" {
			spec.Labels[labelMac] = n.MacAddress
		}
		for _, ip := range n.IPAddresses {
			if ip.Role == "primary" {
				spec.Labels[labelIP] = fmt.Sprintf("%s/%d", ip.Address, ip.Subnet.CIDRSize)
				break
			}
		}
	}
	kind := networkKind(in, n)
	switch kind {
	case "dockerHost":
		spec.NetworkMode, spec.Hostname = "host", ""
	case "dockerNone":
		spec.NetworkMode, spec.NetworkDisabled = "none", true
	case "dockerContainer":
		id, err := h.networkContainer(ctx, in)
		if err != nil {
			return err
		}
		spec.NetworkMode, spec.Hostname = "container:"+id, ""
	case "cni":
		spec.NetworkMode = "none"
		spec.Labels[labelCNIWait] = "true"
		if in.label(labelCNINetwork) == "" {
			spec.Labels[labelCNINetwork] = n.Network.Name
		} else {
			spec.Labels[labelCNINetwork] = in.label(labelCNINetwork)
		}
	default:
		if n != nil {
			spec.MacAddress = n.MacAddress
		} else if mode := in.Data.Fields.NetworkMode; mode == "bridge" {
			spec.NetworkMode = mode
		}
		if in.Native {
			return h.mapNativeLinks(ctx, spec, in)
		}
		return nil
	}
	// These networks publish no ports.
	spec.PublishAll, spec.ExposedPorts, spec.PortBindings = false, nil, nil
	h.mapOldDNS(ctx, spec, kind)
	return nil
}

// networkContainer returns the id or name of the container whose network is shared.
func (h *handlers) networkContainer(ctx context.Context, in *instance) (string, error) {
	if id, ok := strings.CutPrefix(in.Data.Fields.NetworkMode, "container:"); ok && in.NetworkContainer == nil && id != "" {
		return id, nil
	}
	other := in.NetworkContainer
	if other == nil {
		return "", invalid("instance.networkContainer", "missing")
	}
	st, err := h.find(ctx, other)
	switch {
	case err == nil:
		return st.ID, nil
	case !errors.Is(err, runtime.ErrNotFound):
		return "", err
	}
	return containerName(other), nil
}

// mapNativeLinks links a container that was not made for a server the way the engine does.
func (h *handlers) mapNativeLinks(ctx context.Context, spec *runtime.ContainerSpec, in *instance) error {
	for _, l := range in.Links {
		if l.Target == nil || l.LinkName == "" {
			continue
		}
		st, err := h.find(ctx, l.Target)
		target := st.Name
		if errors.Is(err, runtime.ErrNotFound) {
			target = containerName(l.Target)
		} else if err != nil {
			return err
		}
		spec.Links = append(spec.Links, target+":"+l.LinkName)
	}
	slices.Sort(spec.Links)
	return nil
}
