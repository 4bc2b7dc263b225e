package hostinfo

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

// metadataService answers as a cloud's would. tokens says whether it wants a session token.
type metadataService struct {
	answers map[string]string // path -> body
	tokens  bool
	broken  atomic.Int64 // how many requests fail first
	asked   atomic.Int32
	hosts   atomic.Pointer[string]
}

func (m *metadataService) RoundTrip(r *http.Request) (*http.Response, error) {
	m.asked.Add(1)
	m.hosts.Store(&r.URL.Host)
	if m.broken.Add(-1) >= 0 {
		return nil, errors.New("no route to host")
	}
	status, body := http.StatusOK, m.answers[r.URL.Path]
	header := ""
	for name := range r.Header {
		if strings.Contains(strings.ToLower(name), "metadata-token") {
			header = r.Header.Get(name)
		}
	}
	switch {
	case r.Method == http.MethodPut && (!m.tokens || header == ""):
		status = http.StatusNotFound
	case r.Method == http.MethodPut:
		body = "TOKEN"
	case m.tokens && header != "TOKEN":
		status = http.StatusUnauthorized
	case body == "":
		status = http.StatusNotFound
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}, Request: r}, nil
}

func TestCloudLabels(t *testing.T) {
	aws := map[string]string{
		"/latest/meta-data/placement/region": "eu-west-1\n", "/latest/meta-data/placement/availability-zone": "eu-west-1b",
	}
	firmware := func(name, text string) fstest.MapFS { return fstest.MapFS{name: {Data: []byte(text + "\n")}} }
	for name, c := range map[string]struct {
		fs      fstest.MapFS
		service *metadataService
		want    map[string]string
		host    string
	}{
		"aws": {
			fs: firmware("sys/class/dmi/id/sys_vendor", "Amazon EC2"), service: &metadataService{answers: aws, tokens: true},
			want: map[string]string{labelProvider: "aws", labelRegion: "eu-west-1", labelZone: "eu-west-1b"}, host: "169.254.169.254",
		},
		"aws on Xen, without tokens": {
			fs: firmware("sys/hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef"), service: &metadataService{answers: aws},
			want: map[string]string{labelProvider: "aws", labelRegion: "eu-west-1", labelZone: "eu-west-1b"}, host: "169.254.169.254",
		},
		"aliyun": {
			fs: firmware("sys/class/dmi/id/product_name", "Alibaba Cloud ECS"),
			service: &metadataService{answers: map[string]string{
				"/latest/meta-data/region-id": "cn-hangzhou", "/latest/meta-data/zone-id": "cn-hangzhou-i",
			}, tokens: true},
			want: map[string]string{labelProvider: "aliyun", labelRegion: "cn-hangzhou", labelZone: "cn-hangzhou-i"}, host: "100.100.100.200",
		},
		"nobody's machine is not asked": {fs: firmware("sys/class/dmi/id/sys_vendor", "QEMU"), service: &metadataService{answers: aws}},
		"no firmware":                   {fs: fstest.MapFS{}, service: &metadataService{answers: aws}},
		"a page of a captive portal": {
			fs: firmware("sys/class/dmi/id/sys_vendor", "Amazon EC2"), host: "169.254.169.254",
			service: &metadataService{answers: map[string]string{
				"/latest/meta-data/placement/region": "<html>log in</html>", "/latest/meta-data/placement/availability-zone": "<html>",
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				col := New(Config{FS: c.fs, StateDir: dir, Metadata: c.service})
				err := col.detectCloud(t.Context())
				if (err != nil) != (c.want == nil && c.host != "") {
					t.Errorf("error %v", err)
				}
				if got, err := readCloudLabels(dir); err != nil || !maps.Equal(got, c.want) {
					t.Errorf("labels %v, %v; want %v", got, err, c.want)
				}
				host := ""
				if p := c.service.hosts.Load(); p != nil {
					host = *p
				}
				if host != c.host {
					t.Errorf("%q was asked, want %q", host, c.host)
				}
				if left, _ := filepath.Glob(dir + "/info.json.*"); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		})
	}
}

// The labels of a cloud are in a sample soon after its service answered, also late, and are never asked for again.
func TestCollectorDetectsTheCloud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		service := &metadataService{answers: map[string]string{
			"/latest/meta-data/placement/region": "us-east-1", "/latest/meta-data/placement/availability-zone": "us-east-1a",
		}}
		service.broken.Store(2)
		run := func() *Collector {
			c := New(Config{
				FS: fstest.MapFS{"sys/class/dmi/id/sys_vendor": {Data: []byte("Amazon EC2")}}, StateDir: dir, Metadata: service,
				Usage: usageOf(nil),
			})
			ctx, stop := context.WithTimeout(t.Context(), 3*cloudPause)
			defer stop()
			if err := c.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("run ended with %v", err)
			}
			return c
		}
		if got := run().Sample().Labels[labelZone]; got != "us-east-1a" {
			t.Errorf("zone %q", got)
		}
		asked := service.asked.Load()
		if got := run().Sample().Labels[labelZone]; got != "us-east-1a" || service.asked.Load() != asked {
			t.Errorf("at the second start: zone %q, asked %d times more", got, service.asked.Load()-asked)
		}
		// What cannot be read is not overwritten, and a service that never answers is given up.
		if err := os.WriteFile(filepath.Join(dir, "info.json"), []byte(`{}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := run().Sample().Labels; len(got) > 0 || service.asked.Load() != asked {
			t.Errorf("with an info.json of its own: labels %v, asked %d times more", got, service.asked.Load()-asked)
		}
		service.broken.Store(1000)
		before := time.Now()
		c := New(Config{FS: fstest.MapFS{"sys/class/dmi/id/sys_vendor": {Data: []byte("Amazon EC2")}}, StateDir: dir, Metadata: service})
		if err := c.detectCloud(t.Context()); err == nil || time.Since(before) > cloudTries*cloudPause {
			t.Errorf("after %s: %v", time.Since(before), err)
		}
	})
}
