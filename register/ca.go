package register

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/droverhq/drover/utils/atomicfile"
)

// A CAError says why the server's certificate, or its CA, is not trusted. Its text is one line with everything that
// tells which certificate it was.
type CAError struct {
	Where        string // URL, file or server name
	Reason       string
	Expected     string // SHA-256 of the PEM, in hex; "" where no pin was at work
	Found        string
	Certificates []Certificate // of the CA that was found, or of the server's chain
	Err          error         // what lies below, or nil
}

// A Certificate is what a person wants to know of one.
type Certificate struct {
	Subject, Issuer string
	Names           []string // DNS names and addresses
	NotBefore       time.Time
	NotAfter        time.Time
	SHA256          string // of the DER form, in hex
}

func (c Certificate) String() string {
	names := "none"
	if len(c.Names) > 0 {
		names = strings.Join(c.Names, " ")
	}
	return fmt.Sprintf("[subject %s; issuer %s; names %s; valid %s to %s; sha256 of the certificate %s]",
		c.Subject, c.Issuer, names, c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), c.SHA256)
}

// Error returns one line.
func (e *CAError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "certificate of %s: %s", e.Where, e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %s", oneLine(e.Err.Error()))
	}
	if e.Expected != "" {
		fmt.Fprintf(&b, "; expected sha256 %s, found %s", e.Expected, e.Found)
	}
	for i, c := range e.Certificates {
		fmt.Fprintf(&b, "; certificate %d of %d %s", i+1, len(e.Certificates), c)
	}
	return b.String()
}

// Unwrap returns what lies below.
func (e *CAError) Unwrap() error { return e.Err }

// Explain turns a failed verification of a server's certificate, anywhere in err's chain, into a *[CAError] that shows
// the certificates which the server sent and what can be done. Other errors come back unchanged.
func Explain(err error) error {
	var ce *CAError
	var ve *tls.CertificateVerificationError
	if errors.As(err, &ce) || !errors.As(err, &ve) {
		return err
	}
	e := &CAError{Where: "the server", Reason: "not trusted", Err: ve.Err, Certificates: describe(ve.UnverifiedCertificates)}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(ve.Err, &host):
		e.Where, e.Reason = host.Host, "it is made for other names"
	case errors.As(ve.Err, &invalid) && invalid.Reason == x509.Expired:
		e.Reason = "it is not valid at this time: is the clock right?"
	case errors.As(ve.Err, &unknown):
		e.Reason = "nobody trusted signed it: give the CA with CATTLE_CA_CHECKSUM or --ca-file"
	}
	return e
}

func describe(certs []*x509.Certificate) []Certificate {
	var out []Certificate
	for _, c := range certs {
		sum := sha256.Sum256(c.Raw)
		d := Certificate{
			Subject: name(c.Subject.String()), Issuer: name(c.Issuer.String()),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, SHA256: hex.EncodeToString(sum[:]),
		}
		for _, n := range c.DNSNames {
			d.Names = append(d.Names, cut(n, 100))
		}
		for _, ip := range c.IPAddresses {
			d.Names = append(d.Names, ip.String())
		}
		if len(d.Names) > 20 {
			d.Names = append(d.Names[:20], "...")
		}
		out = append(out, d)
	}
	return out[:min(len(out), 5)]
}

func name(s string) string {
	if s == "" {
		return "(empty)"
	}
	return cut(s, 200)
}

// A checksum is the SHA-256 of a PEM file; the zero value is no pin.
type checksum string

// parseChecksum reads a digest as people write it.
func parseChecksum(text string) (checksum, error) {
	hexa := strings.ToLower(strings.TrimSpace(text))
	hexa = strings.ReplaceAll(strings.TrimPrefix(hexa, "sha256:"), ":", "")
	if b, err := hex.DecodeString(hexa); err != nil || len(b) != sha256.Size {
		if text == "" {
			return "", nil
		}
		return "", fmt.Errorf("CA checksum %q is not 64 hex digits (SHA-256 of the PEM file)", cut(text, 80))
	}
	return checksum(hexa), nil
}

// matches compares the digest of pemBytes as they are, and as they are with and without one final newline: that is what
// changes when a PEM is copied. found is the first of the three.
func (c checksum) matches(pemBytes []byte) (found string, ok bool) {
	trimmed := bytes.TrimSpace(pemBytes)
	for i, form := range [][]byte{pemBytes, trimmed, append(bytes.Clone(trimmed), '\n')} {
		sum := sha256.Sum256(form)
		digest := hex.EncodeToString(sum[:])
		if i == 0 {
			found = digest
		}
		if subtle.ConstantTimeCompare([]byte(digest), []byte(c)) == 1 {
			return digest, true
		}
	}
	return found, false
}

// parseCA returns the certificates of a PEM file, one at least.
func parseCA(pemBytes []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := pemBytes; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("no PEM certificate in it: %s", said(pemBytes))
	}
	return certs, nil
}

// checkCA compares a CA with its pin, if there is one, and returns the pool of its certificates.
func checkCA(where string, pemBytes []byte, pin checksum) (*x509.CertPool, error) {
	certs, parseErr := parseCA(pemBytes)
	if pin != "" {
		if found, ok := pin.matches(pemBytes); !ok {
			return nil, &CAError{
				Where: where, Reason: "the CA is not the one that was pinned", Expected: string(pin), Found: found,
				Certificates: describe(certs), Err: parseErr,
			}
		}
	}
	if parseErr != nil {
		return nil, &CAError{Where: where, Reason: "not a CA", Err: parseErr}
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// trust returns the TLS configuration for a server. scriptURL is a URL below ".../scripts/" of that server, from which
// the place of ca.pem follows.
func (j *joiner) trust(ctx context.Context, scriptURL string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	o := j.cfg.TLS
	pinned := o.CAChecksum != "" || o.CAFile != ""
	if o.Insecure {
		if pinned {
			return nil, errors.New("insecure was asked for together with a CA: choose one")
		}
		j.notice(NoticeTLS, "the server's certificate is not verified: whoever sits on the way can take over this host")
		cfg.InsecureSkipVerify = true // asked for by name, and said so above
		return cfg, nil
	}
	if !pinned {
		return cfg, nil
	}
	u, err := parseServerURL(scriptURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" {
		return nil, &CAError{Where: u.Host, Reason: "a CA is given, but the server's URL is http: with that there is no certificate to verify"}
	}
	pin, err := parseChecksum(o.CAChecksum)
	if err != nil {
		return nil, err
	}
	if o.CAFile != "" {
		pemBytes, err := readBounded(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		cfg.RootCAs, err = checkCA(o.CAFile, pemBytes, pin)
		return cfg, err
	}
	cfg.RootCAs, err = j.pinnedCA(ctx, u, pin)
	return cfg, err
}

// pinnedCA returns the CA with the digest pin: the stored one, or else the server's.
func (j *joiner) pinnedCA(ctx context.Context, scriptURL *url.URL, pin checksum) (*x509.CertPool, error) {
	stored := filepath.Join(j.cfg.StateDir, fileCA)
	if pemBytes, err := readBounded(stored); err == nil {
		if pool, err := checkCA(stored, pemBytes, pin); err == nil {
			return pool, nil
		}
	}
	at := *scriptURL
	at.Path, at.RawPath, at.RawQuery = path.Dir(at.Path)+"/ca.pem", "", ""
	// Nothing secret is sent over this connection and nothing it brings is believed: the digest decides.
	c := NewHTTPClient(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}, j.proxy, j.cfg.RequestTimeout, 1)
	defer c.CloseIdleConnections()
	a, err := j.request(ctx, "download the CA from "+at.String(), c, j.cfg.RetryFor, get(at.String()))
	if err != nil {
		return nil, err
	}
	if a.cut != nil {
		return nil, fmt.Errorf("download the CA from %s: %w", at.String(), a.cut)
	}
	if a.status != 200 {
		e := &CAError{Where: at.String(), Reason: fmt.Sprintf("the server does not give its CA: HTTP %d: %s", a.status, said(a.body)), Expected: string(pin), Found: "none"}
		if a.chain != nil {
			e.Certificates = describe(a.chain.PeerCertificates)
		}
		return nil, e
	}
	pool, err := checkCA(at.String(), a.body, pin)
	if err != nil {
		var ce *CAError
		if errors.As(err, &ce) && len(ce.Certificates) == 0 && a.chain != nil {
			ce.Certificates = describe(a.chain.PeerCertificates)
		}
		return nil, err
	}
	if err := atomicfile.Write(stored, a.body, 0o600); err != nil {
		return nil, err
	}
	return pool, nil
}

// readBounded reads a small file.
func readBounded(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	if fi.Size() > maxBody {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxBody)
	}
	return os.ReadFile(file)
}
