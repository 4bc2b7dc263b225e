package cli

import (
	"fmt"
	"os"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/node"
)

// newAgentPort is the node port of an agent, or nil where it is not configured: the same streams as through the tunnel,
// for callers with a token or a certificate. host is what knows the pods, and may be nil.
func newAgentPort(cfg *Config, hostUUID string, containers node.Containers, streams *nodeService, host *nodeHost, log logrus.FieldLogger) (*nodePort, error) {
	if !cfg.portConfigured() {
		return nil, nil
	}
	name := cfg.Agent.Hostname
	if name == "" {
		name, _ = os.Hostname()
	}
	auth, err := portAuth(&cfg.Port, hostUUID, name, cfg.Agent.IP)
	if err != nil {
		return nil, err
	}
	// The streams alone: what is mounted beside them trusts the tunnel.
	var h *node.Handler
	if host != nil {
		h, err = host.handler(streams.Service, auth)
	} else {
		h, err = node.New(node.Config{Streams: streams.Service, Containers: containers, Pods: noPods{}, Authenticate: auth, Log: log})
	}
	if err != nil {
		return nil, err
	}
	return newNodePort(cfg, []string{name, cfg.Agent.IP}, h, log)
}

// noPods is the pod map of a host that has none.
type noPods struct{}

// GetAllPods implements [node.Pods].
func (noPods) GetAllPods() []*runtime.Pod { return nil }

// GetPod implements [node.Pods].
func (noPods) GetPod(namespace, name string) (*runtime.Pod, error) {
	return nil, &runtime.Error{Kind: runtime.ErrNotFound, Message: fmt.Sprintf("no pod %s/%s: this host has none", namespace, name)}
}

// GetContainerByCid implements [node.Pods].
func (noPods) GetContainerByCid(cid string) (*runtime.Container, error) {
	return nil, &runtime.Error{Kind: runtime.ErrNotFound, Message: fmt.Sprintf("container %s is in no pod", cid)}
}

// AddListener implements [node.Pods].
func (noPods) AddListener(runtime.MetaListener) {}

// RemoveListener implements [node.Pods].
func (noPods) RemoveListener(runtime.MetaListener) {}
