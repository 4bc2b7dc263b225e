package pods

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// KubeletConfig says how to ask the kubelet.
type KubeletConfig struct {
	URL       string // "https://127.0.0.1:10250/pods", or the read-only port's
	TokenFile string // read for every question, since tokens are replaced; "" sends none
	CAFile    string // that the kubelet's certificate is of; "" is the system's
	// SkipVerify takes any certificate: many kubelets have one that nobody signed. The token is then sent to whoever
	// holds the port.
	SkipVerify bool
	Interval   time.Duration // default 10 s
	Timeout    time.Duration // of one question; default 10 s
}

type kubelet struct {
	cfg    KubeletConfig
	client *http.Client
}

// NewKubelet returns a source that asks the kubelet of this node for its pods.
func NewKubelet(cfg KubeletConfig) (Source, error) {
	if err := checkURL(cfg.URL); err != nil {
		return nil, fmt.Errorf("the kubelet's address: %w", err)
	}
	if cfg.TokenFile != "" && !strings.HasPrefix(strings.ToLower(cfg.URL), "https:") {
		return nil, errors.New("the kubelet's token would be sent in clear: its URL is not https")
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: cfg.SkipVerify} //nolint:gosec // the operator's choice
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the kubelet's CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the kubelet's CA: %s holds no certificate", cfg.CAFile)
		}
	}
	return &kubelet{cfg, &http.Client{Timeout: cfg.Timeout, Transport: &http.Transport{TLSClientConfig: conf, MaxIdleConns: 1, IdleConnTimeout: time.Minute}}}, nil
}

func checkURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("want an http or https URL")
	}
	return nil
}

func (k *kubelet) Name() string { return "kubelet" }

func (k *kubelet) Follow(ctx context.Context, told func([]*PodInfo), failed func(error)) {
	defer k.client.CloseIdleConnections()
	poll(ctx, k.cfg.Interval, k.ask, told, failed)
}

func (k *kubelet) ask(ctx context.Context) ([]*PodInfo, error) {
	header := http.Header{"Accept": {"application/json"}}
	if k.cfg.TokenFile != "" {
		token, err := os.ReadFile(k.cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("the kubelet's token: %w", err)
		}
		header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	body, err := get(ctx, k.client, k.cfg.URL, header)
	if err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	var list corev1.PodList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("kubelet: no list of pods: %w", err)
	}
	if list.Kind != "PodList" {
		return nil, fmt.Errorf("kubelet: no list of pods, but %q", list.Kind)
	}
	out := make([]*PodInfo, len(list.Items))
	for i := range list.Items {
		out[i] = fromCore(&list.Items[i])
	}
	return out, nil
}
