package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Names of the secrets in the vault.
const (
	nameCA     = "ca.pem"  // certificate and key of the authority, in this order
	nameAPIKey = "api.key" // RSA key of the host access tokens
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	backdate = 24 * time.Hour // clocks of agents that are behind
)

// Keys are the keys of one control server, the same for all its replicas.
type Keys struct {
	caCert *x509.Certificate
	caKey  *ecdsa.PrivateKey
	caPEM  []byte
	apiKey *rsa.PrivateKey
	apiPEM []byte
}

// A Vault keeps small named secrets. Secret returns the one of that name, made by create if there is none; processes
// that ask for one name at the same time all get the same answer. [store.Store] is one.
//
// [store.Store]: https://pkg.go.dev/github.com/droverhq/drover/server/store#Store
type Vault interface {
	Secret(ctx context.Context, name string, create func() ([]byte, error)) ([]byte, error)
}

// Open loads the keys from v and makes those that are missing. now is the clock; nil means the machine's.
func Open(ctx context.Context, v Vault, now func() time.Time) (*Keys, error) {
	k, err := OpenCA(ctx, v, now)
	if err != nil {
		return nil, err
	}
	api, err := v.Secret(ctx, nameAPIKey, newAPIKey)
	if err != nil {
		return nil, fmt.Errorf("pki: secret %s: %w", nameAPIKey, err)
	}
	if err := k.parseAPIKey(api); err != nil {
		return nil, fmt.Errorf("pki: secret %s: %w", nameAPIKey, err)
	}
	return k, nil
}

// OpenCA is Open for whoever needs the authority alone: the keys have no API key then.
func OpenCA(ctx context.Context, v Vault, now func() time.Time) (*Keys, error) {
	if now == nil {
		now = time.Now
	}
	ca, err := v.Secret(ctx, nameCA, func() ([]byte, error) { return newCA(now()) })
	if err != nil {
		return nil, fmt.Errorf("pki: secret %s: %w", nameCA, err)
	}
	k := &Keys{}
	if err := k.parseCA(ca); err != nil {
		return nil, fmt.Errorf("pki: secret %s: %w", nameCA, err)
	}
	return k, nil
}

// CAPEM returns the authority's certificate in PEM: what ca.pem serves and what agents pin.
func (k *Keys) CAPEM() []byte { return append([]byte(nil), k.caPEM...) }

// CANotAfter returns when the authority's certificate expires.
func (k *Keys) CANotAfter() time.Time { return k.caCert.NotAfter }

// APIPublicPEM returns the public half of the token key in PEM (SubjectPublicKeyInfo): what api.crt serves.
func (k *Keys) APIPublicPEM() []byte { return append([]byte(nil), k.apiPEM...) }

// APIKey returns the RSA key that signs host access tokens.
func (k *Keys) APIKey() *rsa.PrivateKey { return k.apiKey }

// Checksum returns the SHA-256 of a PEM file in lower-case hex: the value of CATTLE_CA_CHECKSUM.
func Checksum(pemBytes []byte) string {
	sum := sha256.Sum256(pemBytes)
	return hex.EncodeToString(sum[:])
}

func newCA(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Drover"}, CommonName: "Drover server CA " + serial.Text(16)[:8]},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...), nil
}

func newAPIKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive, and always of the same length
	return new(big.Int).SetBytes(b), nil
}

func (k *Keys) parseCA(data []byte) error {
	certBlock, rest := pem.Decode(data)
	if certBlock == nil || certBlock.Type != "CERTIFICATE" {
		return errors.New("does not begin with a PEM certificate")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return err
	}
	if !cert.IsCA {
		return errors.New("the certificate is not one of an authority")
	}
	key, err := parseKey(rest)
	if err != nil {
		return err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("the key is a %T, want an ECDSA one", key)
	}
	if !ec.PublicKey.Equal(cert.PublicKey) {
		return errors.New("key and certificate do not belong together")
	}
	k.caCert, k.caKey, k.caPEM = cert, ec, pem.EncodeToMemory(certBlock)
	return nil
}

func (k *Keys) parseAPIKey(data []byte) error {
	key, err := parseKey(data)
	if err != nil {
		return err
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return fmt.Errorf("the key is a %T, want an RSA one", key)
	}
	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		return err
	}
	k.apiKey, k.apiPEM = rsaKey, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return nil
}

func parseKey(data []byte) (crypto.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM private key")
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}
