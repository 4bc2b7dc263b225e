package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	leafLife  = 90 * 24 * time.Hour
	leafRenew = leafLife / 3 // renewed when less than this is left
	maxNames  = 100          // names in one certificate; addresses that clients reached beyond it are not added
)

// An Issuer hands out the server's certificate, signed by the authority of its [Keys].
type Issuer struct {
	keys *Keys
	now  func() time.Time

	mu    sync.Mutex // guards the following fields
	names []string
	leaf  *tls.Certificate
}

// NewIssuer returns an issuer whose certificate names every host of names: DNS names, wildcards and IP addresses.
// Empty names and duplicates are dropped. A nil now means the machine's clock.
func NewIssuer(keys *Keys, names []string, now func() time.Time) (*Issuer, error) {
	if now == nil {
		now = time.Now
	}
	i := &Issuer{keys: keys, now: now}
	for _, n := range names {
		if n != "" && !slices.Contains(i.names, n) {
			i.names = append(i.names, n)
		}
	}
	if len(i.names) > maxNames {
		return nil, fmt.Errorf("pki: %d names for the server certificate, at most %d", len(i.names), maxNames)
	}
	_, err := i.certificate("")
	return i, err
}

// TLSConfig returns a server configuration (TLS 1.2 and later, HTTP/1.1 alone because WebSockets need it) that
// serves the issuer's certificate and renews it.
func (i *Issuer) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.certificate(reached(hello))
		},
	}
}

// Names returns the hosts that the current certificate names.
func (i *Issuer) Names() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.names)
}

// reached returns the address at which a client that named no host reached the server. It is an address of this
// machine, so that naming it in the certificate gives nothing away.
func reached(hello *tls.ClientHelloInfo) string {
	if hello.ServerName != "" || hello.Conn == nil {
		return ""
	}
	addr, ok := hello.Conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	ip, ok := netip.AddrFromSlice(addr.IP)
	if !ok {
		return ""
	}
	return ip.Unmap().String()
}

func (i *Issuer) certificate(host string) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	isNew := host != "" && len(i.names) < maxNames && !slices.Contains(i.names, host)
	if isNew {
		i.names = append(i.names, host)
	}
	if i.leaf != nil && !isNew && i.leaf.Leaf.NotAfter.Sub(i.now()) > leafRenew {
		return i.leaf, nil
	}
	leaf, err := i.keys.issue(i.names, i.now())
	if err != nil {
		return nil, fmt.Errorf("pki: issue the server certificate: %w", err)
	}
	i.leaf = leaf
	return leaf, nil
}

func (k *Keys) issue(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(leafLife)
	if notAfter.After(k.caCert.NotAfter) {
		notAfter = k.caCert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Drover"}, CommonName: "Drover server"},
		NotBefore:    now.Add(-backdate),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, k.caCert, key.Public(), k.caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The authority travels along, so that a client can show whom it would have to trust.
	return &tls.Certificate{Certificate: [][]byte{der, k.caCert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
