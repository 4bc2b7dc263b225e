package token

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// MaxLife is the longest time that a token can be valid for.
	MaxLife = 15 * time.Minute
	// Skew is how far the clocks of two machines may be apart.
	Skew = time.Minute
	// MaxSize is the longest token that is looked at, in bytes.
	MaxSize = 8 << 10
	// MinKey is the shortest key, in bytes.
	MinKey = 32
)

// The verbs of the doors.
const (
	VerbLogs   = "logs"   // read log files
	VerbStdin  = "stdin"  // append to stdin files
	VerbExec   = "exec"   // run a command in a container
	VerbAttach = "attach" // attach to a container

	VerbForward = "forward" // reach a port of a pod
	VerbPods    = "pods"    // read the pod map and the facts of containers
	VerbLimits  = "limits"  // change the limits of a container
	VerbPrestop = "prestop" // leave what is to run before a pod ends
	VerbStreams = "streams" // what else the node serves of a container: its logs, files, figures
)

// AnyHost as [Claims.Host] allows every host that knows the key.
const AnyHost = "*"

// ErrInvalid is every reason for which a token is refused; what wraps it says which, and is for the log alone.
var ErrInvalid = errors.New("the token is not valid")

// Claims are what a token says.
type Claims struct {
	Host      string   // name or uuid of the host, or AnyHost; required
	Verbs     []string // required
	User      string   // who asks, for the audit
	Container string   // the only container that the token is for: its id, or its name in Pod; "" is any
	Pod       string   // the only pod, "namespace/name"; "" is any
	// Commands is the policy for what may be executed: each holds the first words of commands that are allowed,
	// separated by spaces; nil is anything.
	Commands []string
	// RunAs are the users that a command may be run as, beside the container's own; AnyUser is all.
	RunAs []string
	// Privileged allows commands with all capabilities.
	Privileged bool
	Expires    time.Time // set by Check; Sign sets it from its life
}

// AnyUser in [Claims.RunAs] allows every user.
const AnyUser = "*"

// Allows tells whether the token is for verb.
func (c *Claims) Allows(verb string) bool { return slices.Contains(c.Verbs, verb) }

// payload is the form on the wire.
type payload struct {
	jwt.RegisteredClaims
	Host      string   `json:"host"`
	Verbs     []string `json:"verbs"`
	Container string   `json:"container,omitempty"`
	Pod       string   `json:"pod,omitempty"`
	Commands  []string `json:"commands,omitempty"`

	RunAs      []string `json:"runAs,omitempty"`
	Privileged bool     `json:"privileged,omitempty"`
}

// A Key signs and checks tokens, or only checks them if it is the public half of an Ed25519 key.
type Key struct {
	method jwt.SigningMethod
	sign   any // nil where only the public half is known
	check  any
	now    func() time.Time
}

// NewKey returns a key of at least MinKey secret bytes. now may be nil.
func NewKey(secret []byte, now func() time.Time) (*Key, error) {
	if len(secret) < MinKey {
		return nil, fmt.Errorf("token key: %d bytes, and %d are the least", len(secret), MinKey)
	}
	if now == nil {
		now = time.Now
	}
	secret = slices.Clone(secret)
	return &Key{method: jwt.SigningMethodHS256, sign: secret, check: secret, now: now}, nil
}

// NewEd25519 returns a key that signs. now may be nil.
func NewEd25519(private ed25519.PrivateKey, now func() time.Time) (*Key, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("token key: an Ed25519 key of %d bytes", len(private))
	}
	k, err := NewEd25519Public(private.Public().(ed25519.PublicKey), now)
	if err == nil {
		k.sign = private
	}
	return k, err
}

// NewEd25519Public returns a key that only checks. now may be nil.
func NewEd25519Public(public ed25519.PublicKey, now func() time.Time) (*Key, error) {
	if len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("token key: an Ed25519 key of %d bytes", len(public))
	}
	if now == nil {
		now = time.Now
	}
	return &Key{method: jwt.SigningMethodEdDSA, check: public, now: now}, nil
}

// CanSign tells whether the key makes tokens.
func (k *Key) CanSign() bool { return k.sign != nil }

// ReadKey reads a key from a file: at least 32 bytes in hex or base64, as "openssl rand -hex 32" writes them, or an
// Ed25519 key in PEM, as "openssl genpkey -algorithm ed25519" and "openssl pkey -pubout" write them. Whatever can sign
// must be readable by its owner alone.
func ReadKey(name string) (*Key, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > MaxSize {
		return nil, fmt.Errorf("token key: %s is no key file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxSize))
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	k, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("token key: %s: %w", name, err)
	}
	if k.CanSign() && fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("token key: others can read %s (%s): chmod 600", name, fi.Mode().Perm())
	}
	return k, nil
}

func parseKey(text []byte) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		secret, err := decodeKey(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, err
		}
		return NewKey(secret, nil)
	}
	switch block.Type {
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the private key cannot be parsed")
		}
		if private, ok := key.(ed25519.PrivateKey); ok {
			return NewEd25519(private, nil)
		}
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the public key cannot be parsed")
		}
		if public, ok := key.(ed25519.PublicKey); ok {
			return NewEd25519Public(public, nil)
		}
	}
	return nil, fmt.Errorf("a PEM block %.40q that is no Ed25519 key", block.Type)
}

func decodeKey(text string) ([]byte, error) {
	if b, err := hex.DecodeString(text); err == nil {
		return b, nil
	}
	if b, err := base64.StdEncoding.DecodeString(text); err == nil {
		return b, nil
	}
	return nil, errors.New("want at least 32 bytes in hex or base64")
}

// Sign makes a token that is valid for life, at most MaxLife.
func (k *Key) Sign(c Claims, life time.Duration) (string, error) {
	if c.Host == "" || len(c.Verbs) == 0 {
		return "", errors.New("token: a host and a verb are needed")
	}
	if life <= 0 || life > MaxLife {
		return "", fmt.Errorf("token: a life of %s: want at most %s", life, MaxLife)
	}
	if !k.CanSign() {
		return "", errors.New("token: a public key checks tokens and makes none")
	}
	now := k.now()
	p := payload{
		Host: c.Host, Verbs: c.Verbs, Container: c.Container, Pod: c.Pod, Commands: c.Commands, RunAs: c.RunAs, Privileged: c.Privileged,
	}
	p.Subject = c.User
	p.IssuedAt, p.ExpiresAt = jwt.NewNumericDate(now), jwt.NewNumericDate(now.Add(life))
	return jwt.NewWithClaims(k.method, &p).SignedString(k.sign)
}

// Check returns what a token says, if it is signed with the key, is valid now, lives no longer than MaxLife and is for
// one of the hosts, which are the names of this one. Any error is ErrInvalid.
func (k *Key) Check(token string, hosts ...string) (*Claims, error) {
	if token == "" || len(token) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrInvalid, len(token))
	}
	var p payload
	// The library compares signatures in constant time, and only this one method is taken.
	_, err := jwt.ParseWithClaims(token, &p, func(*jwt.Token) (any, error) { return k.check, nil },
		jwt.WithValidMethods([]string{k.method.Alg()}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(Skew), jwt.WithTimeFunc(k.now), jwt.WithStrictDecoding())
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	case p.IssuedAt == nil || p.ExpiresAt.Sub(p.IssuedAt.Time) > MaxLife:
		return nil, fmt.Errorf("%w: it is made to live longer than %s", ErrInvalid, MaxLife)
	case p.Host != AnyHost && (p.Host == "" || !slices.Contains(hosts, p.Host)):
		return nil, fmt.Errorf("%w: it is for host %q", ErrInvalid, p.Host)
	}
	return &Claims{
		Host: p.Host, Verbs: p.Verbs, User: p.Subject, Container: p.Container, Pod: p.Pod, Commands: p.Commands,
		RunAs: p.RunAs, Privileged: p.Privileged, Expires: p.ExpiresAt.Time,
	}, nil
}
