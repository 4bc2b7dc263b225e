package token

import (
	"encoding/base64"
	"encoding/hex"
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
	Container string   // the only container that the token is for; "" is any
	Pod       string   // the only pod; "" is any
	// Commands is the policy for what may be executed: the first words that are allowed; nil is anything.
	Commands []string
	Expires  time.Time // set by Check; Sign sets it from its life
}

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
}

// A Key signs and checks tokens.
type Key struct {
	secret []byte
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
	return &Key{secret: slices.Clone(secret), now: now}, nil
}

// ReadKey reads a key from a file that only its owner may read: at least 32 bytes in hex or base64, as
// "openssl rand -hex 32" writes them.
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
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("token key: others can read %s (%s): chmod 600", name, fi.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxSize))
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	secret, err := decodeKey(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("token key: %s: %w", name, err)
	}
	return NewKey(secret, nil)
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
	now := k.now()
	p := payload{Host: c.Host, Verbs: c.Verbs, Container: c.Container, Pod: c.Pod, Commands: c.Commands}
	p.Subject = c.User
	p.IssuedAt, p.ExpiresAt = jwt.NewNumericDate(now), jwt.NewNumericDate(now.Add(life))
	return jwt.NewWithClaims(jwt.SigningMethodHS256, &p).SignedString(k.secret)
}

// Check returns what a token says, if it is signed with the key, is valid now, lives no longer than MaxLife and is for
// one of the hosts, which are the names of this one. Any error is ErrInvalid.
func (k *Key) Check(token string, hosts ...string) (*Claims, error) {
	if token == "" || len(token) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrInvalid, len(token))
	}
	var p payload
	// The library compares signatures in constant time, and only this one method is taken.
	_, err := jwt.ParseWithClaims(token, &p, func(*jwt.Token) (any, error) { return k.secret, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
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
		Expires: p.ExpiresAt.Time,
	}, nil
}
