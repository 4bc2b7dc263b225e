package store

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"time"
)

// A Credential is the digest of one secret. The secret itself is shown once, when it is made, and kept nowhere.
type Credential struct {
	Salt    string    `json:"salt"`   // hex
	Digest  string    `json:"digest"` // hex of SHA-256(salt, secret)
	Created time.Time `json:"created,omitzero"`
	Used    bool      `json:"used,omitempty"` // whether someone authenticated with it
}

// Matches reports, in constant time, whether secret is the one of c.
func (c Credential) Matches(secret string) bool {
	salt, err := hex.DecodeString(c.Salt)
	if err != nil || len(salt) == 0 {
		return false
	}
	want, err := hex.DecodeString(c.Digest)
	if err != nil || len(want) != sha256.Size {
		return false
	}
	return subtle.ConstantTimeCompare(digest(salt, secret), want) == 1
}

func digest(salt []byte, secret string) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(secret))
	return h.Sum(nil)
}

func newCredential(secret string, now time.Time) Credential {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails: it ends the process instead
	return Credential{Salt: hex.EncodeToString(salt), Digest: hex.EncodeToString(digest(salt, secret)), Created: now}
}

// secretAlphabet holds no characters that are easily mistaken for one another: 55 of them, 5.78 bits each.
const secretAlphabet = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ123456789"

// newSecret returns 40 random characters, more than 230 bits.
func newSecret() string {
	out := make([]byte, 0, 40)
	buf := make([]byte, 64)
	for len(out) < cap(out) {
		_, _ = rand.Read(buf)
		for _, b := range buf {
			// Take six bits and reject what lies past the alphabet, so that every character is equally likely.
			if i := int(b & 63); i < len(secretAlphabet) && len(out) < cap(out) {
				out = append(out, secretAlphabet[i])
			}
		}
	}
	return string(out)
}

// newAccessKey returns the public half of a key pair: 10 random bytes as upper-case hex, as Rancher's are.
func newAccessKey() string {
	b := make([]byte, 10)
	_, _ = rand.Read(b)
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, 20)
	for _, v := range b {
		out = append(out, digits[v>>4], digits[v&15])
	}
	return string(out)
}
