package logs

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
)

// pinKey is the key of a request's context under which [Config.dialTLS] finds what the host announced.
type pinKey struct{}

var errPin = errors.New("the log service shows another certificate than the host announced")

// dialTLS connects and takes the certificate that the host announced over its control channel, or one of an authority
// that it announced; names and public authorities do not count.
func (c *Config) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	text, _ := ctx.Value(pinKey{}).(string)
	pin, err := hex.DecodeString(text)
	if err != nil || len(pin) != sha256.Size {
		return nil, fmt.Errorf("the host announced %q, which is no SHA-256: %w", text, errPin)
	}
	raw, err := c.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection below does it, by the pin
		VerifyConnection:   func(s tls.ConnectionState) error { return pinned(s.PeerCertificates, pin) },
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// pinned tells whether the first certificate is the pinned one, or was signed by a pinned authority that comes with it.
func pinned(chain []*x509.Certificate, pin []byte) error {
	for i, cert := range chain {
		sum := sha256.Sum256(cert.Raw)
		if subtle.ConstantTimeCompare(sum[:], pin) != 1 {
			continue
		}
		if i == 0 {
			return nil
		}
		roots := x509.NewCertPool()
		roots.AddCert(cert)
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots})
		return err
	}
	return errPin
}
