package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/register"
	"github.com/droverhq/drover/service/hostproxy"
)

// answering is a control channel that answers every creation the same way.
type answering struct {
	answer string
	err    error
	asked  []any
}

func (a *answering) Create(_ context.Context, resourceType string, body, out any) error {
	a.asked = append(a.asked, resourceType, body)
	if a.err != nil {
		return a.err
	}
	return json.Unmarshal([]byte(a.answer), out)
}

func TestHostProxyAsksForItsToken(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	for _, c := range []struct {
		what   string
		server answering
		want   error // nil with grant: success
		grant  hostproxy.Grant
	}{
		{"granted", answering{answer: `{"url":"ws://s/v1/connectbackend","token":"t"}`}, nil, hostproxy.Grant{URL: "ws://s/v1/connectbackend", Token: "t"}},
		{"not known yet", answering{err: &events.APIError{Status: 422, Code: "InvalidReference", FieldName: "reportedUuid"}}, hostproxy.ErrUnknownHost, hostproxy.Grant{}},
		{"another field", answering{err: &events.APIError{Status: 422, Code: "InvalidReference", FieldName: "x"}}, errAny, hostproxy.Grant{}},
		{"switched off", answering{err: &events.APIError{Status: 501, Code: "HostApiProxyDisabled"}}, hostproxy.ErrDisabled, hostproxy.Grant{}},
		{"an answer without token", answering{answer: `{"url":"ws://s"}`}, errAny, hostproxy.Grant{}},
	} {
		p := &hostProxy{cfg: &Config{}, joined: &register.Result{HostUUID: "u-1"}, log: log, channel: func() creator { return &c.server }}
		got, err := p.grant(t.Context())
		switch {
		case c.want == nil && (err != nil || got != c.grant), c.want == errAny && (err == nil || errors.Is(err, hostproxy.ErrUnknownHost) || errors.Is(err, hostproxy.ErrDisabled)),
			c.want != nil && c.want != errAny && !errors.Is(err, c.want):
			t.Errorf("%s: %+v, %v", c.what, got, err)
		}
		asked, _ := json.Marshal(c.server.asked)
		if string(asked) != `["hostApiProxyToken",{"reportedUuid":"u-1"}]` {
			t.Errorf("%s: asked %s", c.what, asked)
		}
	}
}

var errAny = errors.New("any other error")

func TestHostProxyNeedsAGoodKey(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	dir := t.TempDir()
	for what, text := range map[string]string{"an error page": "<html>404</html>", "another block": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "nothing": ""} {
		file := filepath.Join(dir, "api.crt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := &hostProxy{cfg: &Config{Agent: AgentConfig{APICertFile: file}}, joined: &register.Result{HostUUID: "u-1"}, log: log}
		if _, err := p.client(); err == nil {
			t.Errorf("%s was taken for a key", what)
		}
	}
	p := &hostProxy{cfg: &Config{Agent: AgentConfig{APICertFile: dir}}, joined: &register.Result{HostUUID: "u-1"}, log: log}
	if _, err := p.client(); err == nil {
		t.Error("a folder was taken for a key")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run without a key ends with %v", err)
	}
}
