package logs

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/droverhq/drover/server/store"
)

func TestSocketTokens(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	h := host("1h1", "a", "10.0.0.1", "")
	p := proxy(t, someHosts{hosts: []*store.Host{h}}, func(c *Config) { c.Key, c.Now = key, func() time.Time { return now } })
	token, expires, err := p.SocketToken(h, "1a1")
	if err != nil || !expires.Equal(now.Add(SocketTokenLife)) {
		t.Fatal(expires, err)
	}
	if account, id, err := p.CheckSocketToken(token); account != "1a1" || id != "1h1" || err != nil {
		t.Errorf("checked: %q, %q, %v", account, id, err)
	}
	sign := func(method jwt.SigningMethod, key any, c socketClaims) string {
		text, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := socketClaims{Host: "1h1", RegisteredClaims: jwt.RegisteredClaims{
		Audience: jwt.ClaimStrings{audience}, Subject: "1a1", ExpiresAt: jwt.NewNumericDate(now.Add(time.Second)),
	}}
	other, forever, nobody := good, good, good
	other.Audience, forever.ExpiresAt, nobody.Subject = jwt.ClaimStrings{"drover-replica"}, nil, ""
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"for something else": sign(jwt.SigningMethodRS256, key, other), "without an end": sign(jwt.SigningMethodRS256, key, forever),
		"for nobody": sign(jwt.SigningMethodRS256, key, nobody), "of another server": sign(jwt.SigningMethodRS256, foreign, good),
		"unsigned": sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good), "HMAC with the public key": sign(jwt.SigningMethodHS256, key.N.Bytes(), good),
		"empty": "", "noise": "a.b.c", "changed": token[:len(token)-4] + "AAAA",
	} {
		if account, id, err := p.CheckSocketToken(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %q, %q, %v", name, account, id, err)
		}
	}
	now = now.Add(2 * SocketTokenLife)
	if _, _, err := p.CheckSocketToken(token); !errors.Is(err, ErrToken) {
		t.Errorf("an old one: %v", err)
	}
	without := proxy(t, someHosts{}, nil)
	if _, _, err := without.SocketToken(h, "1a1"); err == nil {
		t.Error("a token was made without a key")
	}
	if _, _, err := without.CheckSocketToken(token); !errors.Is(err, ErrToken) {
		t.Errorf("checked without a key: %v", err)
	}
}
