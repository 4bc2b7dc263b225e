package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ResourceManagerConfig says how to ask a resource manager.
type ResourceManagerConfig struct {
	URL      string        // app.rm.api: "http://127.0.0.1:10002/rmController"
	HostIP   string        // of this node, whose pods are asked for
	Interval time.Duration // default 30 s
	Timeout  time.Duration // of one question; default 5 s
}

type resourceManager struct {
	cfg     ResourceManagerConfig
	address string
	client  *http.Client
}

// NewResourceManager returns a source that asks a resource manager for the pods of this node. It knows no uids and no
// phases: it adds addresses to pods that others know, and tells of those that nobody else does.
func NewResourceManager(cfg ResourceManagerConfig) (Source, error) {
	if err := checkURL(cfg.URL); err != nil {
		return nil, fmt.Errorf("the resource manager's address: %w", err)
	}
	if cfg.HostIP == "" {
		return nil, errors.New("the resource manager needs the address of this node")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 30 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	address := strings.TrimSuffix(cfg.URL, "/") + "/getPodInfoByHostIp?" + url.Values{"hostIp": {cfg.HostIP}}.Encode()
	return &resourceManager{cfg, address, &http.Client{Timeout: cfg.Timeout, Transport: &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute}}}, nil
}

func (r *resourceManager) Name() string { return "rm" }

func (r *resourceManager) Follow(ctx context.Context, told func([]*PodInfo), failed func(error)) {
	defer r.client.CloseIdleConnections()
	poll(ctx, r.cfg.Interval, r.ask, told, failed)
}

func (r *resourceManager) ask(ctx context.Context) ([]*PodInfo, error) {
	body, err := get(ctx, r.client, r.address, http.Header{"Accept": {"application/json"}, "Cache-Control": {"no-cache"}})
	if err != nil {
		return nil, fmt.Errorf("resource manager: %w", err)
	}
	var answer struct {
		Code    *int
		Message string
		Data    []struct{ PodName, Namespace, PodIP, HostIP string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("resource manager: no list of pods: %w", err)
	}
	switch {
	case answer.Code == nil:
		return nil, errors.New("resource manager: an answer without a code")
	case *answer.Code != 0:
		return nil, fmt.Errorf("resource manager: code %d: %.200s", *answer.Code, answer.Message)
	case answer.Data == nil:
		return nil, errors.New("resource manager: an answer without data")
	}
	out := make([]*PodInfo, 0, len(answer.Data))
	for _, p := range answer.Data {
		if p.PodName == "" {
			return nil, errors.New("resource manager: a pod without a name")
		}
		out = append(out, &PodInfo{Namespace: p.Namespace, Name: p.PodName, PodIP: p.PodIP, HostIP: p.HostIP})
	}
	return out, nil
}
