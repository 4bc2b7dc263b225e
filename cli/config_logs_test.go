package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"

	"github.com/droverhq/drover/hostinfo"
	serverlogs "github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/service/logs"
)

func TestConfigOfLogs(t *testing.T) {
	c := mustLoad(t, nil, configFile(t, `app:
  logs:
    port: 8080
    roots: [/var/log, /srv/log]
    stdin-roots: /srv/in
    auth: none
    byte-rate: 1000
    max-file-size: 2
    idle-timeout: 60
    tasks:
      "7": /data/7.log
      "8": n2:/data/8.log
      "*": "{id}.example:/data/{id}"
`, 0o600), nil)
	want := map[string]logs.Place{"7": {Path: "/data/7.log"}, "8": {Path: "/data/8.log", Node: "n2"}, "*": {Path: "/data/{id}", Node: "{id}.example"}}
	l := c.Logs.Limits.limits()
	if !reflect.DeepEqual(c.Logs.Tasks, want) || c.Logs.Port != 8080 || len(c.Logs.Roots) != 2 || l.MaxRead != 2<<20 || l.Idle != time.Minute || l.ByteRate != 1000 {
		t.Errorf("got %+v", c.Logs)
	}
	log, hook := logrustest.NewNullLogger()
	if _, err := newLogDoor(c, "n1", []string{"n1"}, nil, log); err != nil {
		t.Fatal(err)
	}
	if e := hook.LastEntry(); e == nil || e.Level != logrus.WarnLevel || !strings.Contains(e.Message, "app.logs.auth is none") {
		t.Errorf("no warning about a door without tokens: %v", e)
	}
	for key, text := range map[string]string{
		"app.logs.tasks": "7=relative", "app.logs.roots": "relative", "app.logs.auth": "perhaps", "app.logs.port": "70000", "app.logs.byte-rate": "-2",
	} {
		for _, k := range logKeys() {
			if k.name == key && k.set(new(Config), text) == nil {
				t.Errorf("%s: %q was taken", key, text)
			}
		}
	}
}

func TestALogDoorNeedsItsKey(t *testing.T) {
	log, _ := logrustest.NewNullLogger()
	c := mustLoad(t, nil, configFile(t, "app: {logs: {port: 1}}", 0o600), nil)
	if _, err := newLogDoor(c, "n1", nil, nil, log); err == nil || !strings.Contains(err.Error(), "app.logs.token-key-file") {
		t.Errorf("without a key: %v", err)
	}
	c.Logs.KeyFile = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(c.Logs.KeyFile, []byte(strings.Repeat("ab", 32)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := newLogDoor(c, "n1", nil, nil, log); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("with a key that others read: %v", err)
	}
}

type oneSample struct{ last *hostinfo.Sample }

func (s oneSample) Sample() *hostinfo.Sample { return s.last }
func (oneSample) First() <-chan struct{}     { return nil }

func TestThePortIsAnnounced(t *testing.T) {
	last := &hostinfo.Sample{Labels: map[string]string{"a": "b"}}
	labels := map[string]string{serverlogs.LabelPort: "8080"}
	s := &announced{Sampler: oneSample{last}, labels: func() map[string]string { return labels }}
	with := s.Sample()
	if with.Labels[serverlogs.LabelPort] != "8080" || with.Labels["a"] != "b" || len(last.Labels) != 1 || s.Sample() != with {
		t.Errorf("labels %v, of the sample itself %v", with.Labels, last.Labels)
	}
	var none *logDoor
	if s = (&announced{Sampler: oneSample{last}, labels: none.labels}); s.Sample() != last {
		t.Error("a host without a log service announces one")
	}
}
