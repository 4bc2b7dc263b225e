package hostproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/droverhq/drover/runtime"
)

const (
	statsInterval = time.Second
	statsParallel = 8
)

// An element is one sample in the form of the original agent.
type element struct {
	ID           string `json:"id"`
	ResourceType string `json:"resourceType"`
	MemLimit     uint64 `json:"memLimit"`
	Timestamp    string `json:"timestamp"`
	CPU          struct {
		Usage struct {
			Total  uint64   `json:"total"`
			PerCPU []uint64 `json:"per_cpu_usage"`
			User   uint64   `json:"user"`
			System uint64   `json:"system"`
		} `json:"usage"`
	} `json:"cpu"`
	DiskIO struct {
		Bytes []diskBytes `json:"io_service_bytes"`
	} `json:"diskio"`
	Network netBytes `json:"network"`
	Memory  struct {
		Usage uint64 `json:"usage"`
	} `json:"memory"`
}

type diskBytes struct {
	Major int               `json:"major"`
	Minor int               `json:"minor"`
	Stats map[string]uint64 `json:"stats"`
}

type netBytes struct {
	Name       string     `json:"name"`
	RxBytes    uint64     `json:"rx_bytes"`
	RxPackets  uint64     `json:"rx_packets"`
	RxErrors   uint64     `json:"rx_errors"`
	RxDropped  uint64     `json:"rx_dropped"`
	TxBytes    uint64     `json:"tx_bytes"`
	TxPackets  uint64     `json:"tx_packets"`
	TxErrors   uint64     `json:"tx_errors"`
	TxDropped  uint64     `json:"tx_dropped"`
	Interfaces []netBytes `json:"interfaces,omitempty"`
}

func elementOf(kind, id string, st runtime.Stats) element {
	e := element{ID: id, ResourceType: kind, MemLimit: st.MemoryLimit, Timestamp: st.Time.Format(time.RFC3339Nano)}
	e.CPU.Usage.Total, e.CPU.Usage.User, e.CPU.Usage.System = st.CPUTotal, st.CPUUser, st.CPUSystem
	e.CPU.Usage.PerCPU = st.PerCPU
	if st.PerCPU == nil {
		e.CPU.Usage.PerCPU = []uint64{}
	}
	e.Memory.Usage = st.Memory
	if kind == "host" {
		e.DiskIO.Bytes = []diskBytes{{Stats: map[string]uint64{"Read": st.ReadBytes, "Write": st.WriteBytes}}}
		e.Network = netBytes{Name: "all"}
	} else {
		e.DiskIO.Bytes = []diskBytes{{Stats: map[string]uint64{"Read": st.ReadBytes}}, {Stats: map[string]uint64{"Write": st.WriteBytes}}}
	}
	for _, n := range st.Networks {
		one := netBytes{
			Name: n.Name, RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors, RxDropped: n.RxDropped,
			TxBytes: n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors, TxDropped: n.TxDropped,
		}
		e.Network.add(one)
		if kind == "container" {
			if e.Network.Name == "" {
				e.Network.Name = one.Name
			}
			e.Network.Interfaces = append(e.Network.Interfaces, one)
		}
	}
	return e
}

func (n *netBytes) add(o netBytes) {
	n.RxBytes += o.RxBytes
	n.RxPackets += o.RxPackets
	n.RxErrors += o.RxErrors
	n.RxDropped += o.RxDropped
	n.TxBytes += o.TxBytes
	n.TxPackets += o.TxPackets
	n.TxErrors += o.TxErrors
	n.TxDropped += o.TxDropped
}

// stats is the old path: the host without an id, or the container that the path names.
func (c *Client) stats(ctx context.Context, s *stream, _ jwt.MapClaims, id string) error {
	if id == "" {
		return c.sendHost(ctx, s, "")
	}
	return c.sendContainers(ctx, s, func(context.Context) (map[string]string, error) { return map[string]string{id: id}, nil })
}

func (c *Client) hostStats(ctx context.Context, s *stream, claims jwt.MapClaims, _ string) error {
	var id string
	if err := claim(claims, "resourceId", &id); err != nil {
		return err
	}
	return c.sendHost(ctx, s, id)
}

// containerStats sends the running ones of the containers in the token, or the one of them that the path names.
func (c *Client) containerStats(ctx context.Context, s *stream, claims jwt.MapClaims, id string) error {
	var names map[string]string // docker's id to the server's
	if err := claim(claims, "containerIds", &names); err != nil {
		return err
	}
	if id != "" {
		if _, ok := names[id]; !ok {
			return fmt.Errorf("%w: it is not for container %.64q", errToken, id)
		}
		return c.sendContainers(ctx, s, func(context.Context) (map[string]string, error) { return map[string]string{id: id}, nil })
	}
	return c.sendContainers(ctx, s, func(ctx context.Context) (map[string]string, error) {
		running, err := c.cfg.Node.Running(ctx)
		if err != nil {
			return nil, err
		}
		now := map[string]string{}
		for _, r := range running {
			if name, ok := names[r.ID]; ok {
				now[r.ID] = name
			}
		}
		return now, nil
	})
}

func (c *Client) sendHost(ctx context.Context, s *stream, id string) error {
	return s.everySecond(ctx, func() ([]element, error) {
		st, err := c.cfg.Node.HostSample(ctx)
		return []element{elementOf("host", id, st)}, err
	})
}

// sendContainers samples several containers at a time; one that has ended or fails is left out, and ends nobody's stream.
func (c *Client) sendContainers(ctx context.Context, s *stream, which func(context.Context) (map[string]string, error)) error {
	return s.everySecond(ctx, func() ([]element, error) {
		ids, err := which(ctx)
		if err != nil {
			return nil, err
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		out := []element{}
		slots := make(chan struct{}, statsParallel)
		for id, name := range ids {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				if st, err := c.cfg.Node.ContainerSample(ctx, id); err == nil {
					mu.Lock()
					out = append(out, elementOf("container", name, st))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return out, nil
	})
}

// everySecond sends an array of samples a second until ctx ends.
func (s *stream) everySecond(ctx context.Context, sample func() ([]element, error)) error {
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		elements, err := sample()
		if err != nil {
			return err
		}
		if len(elements) > 0 {
			b, err := json.Marshal(elements)
			if err != nil {
				return err
			}
			if err := s.send(string(b)); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
