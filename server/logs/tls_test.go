package logs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/droverhq/drover/server/pki"
	"github.com/droverhq/drover/server/store"
)

// vault keeps secrets for a test.
type vault map[string][]byte

func (v vault) Secret(_ context.Context, name string, create func() ([]byte, error)) ([]byte, error) {
	if have, ok := v[name]; ok {
		return have, nil
	}
	secret, err := create()
	v[name] = secret
	return secret, err
}

func TestOnlyTheAnnouncedCertificateIsTaken(t *testing.T) {
	issuer := func() *tls.Config {
		keys, err := pki.OpenCA(t.Context(), vault{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		i, err := pki.NewIssuer(keys, []string{"node"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return i.TLSConfig()
	}
	mine, other := issuer(), issuer()
	chain := func(c *tls.Config) *tls.Certificate {
		cert, err := c.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	pin := func(der []byte) string { sum := sha256.Sum256(der); return hex.EncodeToString(sum[:]) }
	// Somebody in the middle can show the right authority, and not a certificate of it.
	fixed, forged := *chain(mine), *chain(other)
	forged.Certificate = [][]byte{forged.Certificate[0], chain(mine).Certificate[1]}

	node := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	for name, c := range map[string]struct {
		shown *tls.Config
		pin   string
		ok    bool
	}{
		"the authority":                    {mine, pin(chain(mine).Certificate[1]), true},
		"the certificate itself":           {&tls.Config{Certificates: []tls.Certificate{fixed}}, pin(fixed.Certificate[0]), true},
		"another authority":                {other, pin(chain(mine).Certificate[1]), false},
		"the authority beside another one": {&tls.Config{Certificates: []tls.Certificate{forged}}, pin(chain(mine).Certificate[1]), false},
		"no digest":                        {mine, "yes", false},
		"plain HTTP":                       {nil, pin(chain(mine).Certificate[0]), false},
	} {
		srv := httptest.NewUnstartedServer(node)
		if c.shown != nil {
			srv.Listener = tls.NewListener(srv.Listener, c.shown)
		}
		srv.Start()
		t.Cleanup(srv.Close)
		_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		h := host("1h1", "a", "10.0.0.1", port)
		h.Labels[LabelTLS] = c.pin
		p := proxy(t, someHosts{hosts: []*store.Host{h}}, func(cfg *Config) {
			cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
			}
		})
		resp, err := http.Get(front(t, p, h).URL)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if cerr := resp.Body.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		if ok := resp.StatusCode == http.StatusOK && string(body) == "hello"; ok != c.ok {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		} else if !ok && (resp.StatusCode != http.StatusBadGateway || !strings.Contains(string(body), "log service of host a")) {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
}
