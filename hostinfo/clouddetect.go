package hostinfo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Labels of a host in a cloud. An original agent makes the same.
const (
	labelProvider = "io.rancher.host.provider"
	labelRegion   = "io.rancher.host.region"
	labelZone     = "io.rancher.host.zone"
)

// How often a metadata service is asked. It may come up after the host.
const (
	cloudTries   = 6
	cloudPause   = 30 * time.Second
	cloudTimeout = 2 * time.Second // of one request
	maxMetadata  = 1 << 10         // bytes of an answer: a name or a session token
)

// A cloud is one provider and its metadata service.
type cloud struct {
	name         string
	vendors      []string // how the firmware's vendor, product or uuid begins, in lower case
	url          string
	region, zone string // paths
	header       string // prefix of the headers of a session token
}

// clouds are the providers that an original agent knows.
func clouds() []cloud {
	return []cloud{
		{
			name: "aws", vendors: []string{"amazon", "ec2"}, url: "http://169.254.169.254/latest/",
			region: "meta-data/placement/region", zone: "meta-data/placement/availability-zone", header: "X-aws-ec2-metadata-token",
		},
		{
			name: "aliyun", vendors: []string{"alibaba"}, url: "http://100.100.100.200/latest/",
			region: "meta-data/region-id", zone: "meta-data/zone-id", header: "X-aliyun-ecs-metadata-token",
		},
	}
}

// MetadataTransport reaches a cloud's metadata service: never through a proxy, which would answer for another machine.
func MetadataTransport() http.RoundTripper {
	return &http.Transport{
		DialContext:       (&net.Dialer{Timeout: cloudTimeout}).DialContext,
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
	}
}

// cloudOf tells from the firmware in whose machine this host runs. A machine of nobody's is never asked for metadata:
// on a private network its address may be anyone.
func cloudOf(fsys fs.FS) (cloud, bool) {
	for _, name := range []string{
		"sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name", "sys/class/dmi/id/bios_vendor",
		"sys/class/dmi/id/product_uuid", "sys/hypervisor/uuid",
	} {
		text, err := read(fsys, name)
		if err != nil {
			continue // not there, or root's alone
		}
		text = strings.ToLower(strings.TrimSpace(text))
		for _, c := range clouds() {
			for _, vendor := range c.vendors {
				if strings.HasPrefix(text, vendor) {
					return c, true
				}
			}
		}
	}
	return cloud{}, false
}

// labels asks the metadata service, with a session token where it has such.
func (c cloud) labels(ctx context.Context, via http.RoundTripper) (map[string]string, error) {
	client := &http.Client{
		Transport: via, Timeout: cloudTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	token, err := c.ask(ctx, client, http.MethodPut, "api/token", c.header+"-ttl-seconds", "60")
	if _, refused := errors.AsType[statusError](err); err != nil && !refused {
		return nil, err
	}
	out := map[string]string{labelProvider: c.name}
	for label, path := range map[string]string{labelRegion: c.region, labelZone: c.zone} {
		value, err := c.ask(ctx, client, http.MethodGet, path, c.header, token)
		if err != nil {
			return nil, err
		}
		if !isPlace(value) {
			return nil, fmt.Errorf("metadata %s: %q is no name of a place", path, value)
		}
		out[label] = value
	}
	return out, nil
}

// A statusError is an answer that is no success.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("HTTP %d", int(e)) }

func (c cloud) ask(ctx context.Context, client *http.Client, method, path, header, value string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, nil)
	if err != nil {
		return "", err
	}
	if value != "" {
		req.Header.Set(header, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("metadata %s: %w", path, statusError(resp.StatusCode))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata))
	if err != nil {
		return "", fmt.Errorf("metadata %s: %w", path, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// isPlace tells a region or zone from the page of a captive portal.
func isPlace(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// detectCloud asks until the provider answered, a few times, and keeps the answer in info.json for good. It returns
// without a word where the firmware names no provider.
func (c *Collector) detectCloud(ctx context.Context) error {
	where, ok := cloudOf(c.cfg.FS)
	if !ok {
		return nil
	}
	for try := 1; ; try++ {
		labels, err := where.labels(ctx, c.cfg.Metadata)
		if err == nil {
			return writeCloudLabels(c.cfg.StateDir, labels)
		}
		if try == cloudTries {
			return fmt.Errorf("%s: %w", where.name, err)
		}
		t := time.NewTimer(cloudPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// lacksCloudLabels tells whether there is a state directory without info.json. Whatever is in that file stays.
func lacksCloudLabels(dir string) bool {
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "info.json"))
	return errors.Is(err, fs.ErrNotExist)
}

// writeCloudLabels writes info.json in one step.
func writeCloudLabels(dir string, labels map[string]string) (err error) {
	b, err := json.Marshal(map[string]any{"label": labels})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "info.json.*")
	if err != nil {
		return fmt.Errorf("info.json: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("info.json: %w", errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, "info.json"))
}
