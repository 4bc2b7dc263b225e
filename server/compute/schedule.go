package compute

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/droverhq/drover/server/store"
)

// Labels of a container that choose its host, as Rancher spells them. Their value is a list "key=value,key=value".
const (
	labelAffinity     = "io.rancher.scheduler.affinity:host_label"
	labelAntiAffinity = "io.rancher.scheduler.affinity:host_label_ne"
)

// schedule picks the host of a new container: the one asked for, which may be away, or else of those that are online
// and have the labels asked for, the one with the fewest containers.
func schedule(st *store.Store, s *spec) (*store.Host, error) {
	if s.RequestedHostID != "" {
		h, err := st.Hosts.Get(s.RequestedHostID)
		if errors.Is(err, store.ErrNotFound) || err == nil && h.State == store.StateRemoved {
			return nil, invalid("requestedHostId", "there is no host %s", s.RequestedHostID)
		}
		return h, err
	}
	want, err := labelList(s.Labels, labelAffinity)
	if err != nil {
		return nil, err
	}
	not, err := labelList(s.Labels, labelAntiAffinity)
	if err != nil {
		return nil, err
	}
	var best *store.Host
	fewest, online := 0, 0
	for _, h := range st.Hosts.List() {
		if h.Connection != store.ConnectionOnline || h.State != store.StateActive {
			continue
		}
		online++
		if !hasLabels(h.Labels, want) || len(not) > 0 && hasAny(h.Labels, not) {
			continue
		}
		n := 0
		for _, c := range st.ContainersOfHost(h.ID) {
			if c.State != store.ContainerRemoved {
				n++
			}
		}
		if best == nil || n < fewest {
			best, fewest = h, n
		}
	}
	switch {
	case best != nil:
		return best, nil
	case online == 0:
		return nil, unavailable("no host is online")
	default:
		return nil, unavailable("no host that is online has the labels that the container asks for")
	}
}

func labelList(labels map[string]string, key string) (map[string]string, error) {
	value := strings.TrimSpace(labels[key])
	if value == "" {
		return nil, nil
	}
	out := map[string]string{}
	for pair := range strings.SplitSeq(value, ",") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || strings.TrimSpace(k) == "" {
			return nil, invalid("labels", "label %s: %q is not KEY=VALUE", key, pair)
		}
		out[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return out, nil
}

func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func hasAny(have, unwanted map[string]string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(unwanted)), func(k string) bool {
		got, ok := have[k]
		return ok && got == unwanted[k]
	})
}
