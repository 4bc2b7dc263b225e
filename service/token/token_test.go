package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func testKey(t testing.TB, b byte, now func() time.Time) *Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{b}, MinKey), now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRoundTrip(t *testing.T) {
	k := testKey(t, 1, nil)
	want := Claims{Host: "n1", Verbs: []string{VerbLogs}, User: "ada", Pod: "web-0", Container: "app", Commands: []string{"ls"}}
	text, err := k.Sign(want, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Check(text, "other-name", "n1")
	if err != nil {
		t.Fatal(err)
	}
	if got.User != "ada" || got.Pod != "web-0" || got.Container != "app" || len(got.Commands) != 1 || !got.Allows(VerbLogs) || got.Allows(VerbExec) {
		t.Errorf("got %+v", got)
	}
}

func TestWhatIsRefused(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	k := testKey(t, 1, func() time.Time { return clock })
	good, err := k.Sign(Claims{Host: "n1", Verbs: []string{VerbLogs}}, MaxLife)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	at := func(d time.Duration) int64 { return clock.Add(d).Unix() }
	full := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"host": "n1", "verbs": []string{"logs"}, "iat": at(0), "exp": at(time.Minute)}
		change(c)
		return c
	}
	parts := strings.Split(good, ".")
	for name, text := range map[string]string{
		"nothing":          "",
		"no token":         "hello",
		"no signature":     parts[0] + "." + parts[1] + ".",
		"changed claims":   parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"host":"*","verbs":["exec"],"iat":1,"exp":9999999999}`)) + "." + parts[2],
		"too long":         good + strings.Repeat("A", MaxSize),
		"another key":      signed(jwt.SigningMethodHS256, bytes.Repeat([]byte{2}, MinKey), full(func(jwt.MapClaims) {})),
		"another method":   signed(jwt.SigningMethodHS512, k.check, full(func(jwt.MapClaims) {})),
		"method none":      signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, full(func(jwt.MapClaims) {})),
		"no expiry":        signed(jwt.SigningMethodHS256, k.check, full(func(c jwt.MapClaims) { delete(c, "exp") })),
		"no time of issue": signed(jwt.SigningMethodHS256, k.check, full(func(c jwt.MapClaims) { delete(c, "iat") })),
		"lives for ever":   signed(jwt.SigningMethodHS256, k.check, full(func(c jwt.MapClaims) { c["exp"] = at(16 * time.Minute) })),
		"from the future":  signed(jwt.SigningMethodHS256, k.check, full(func(c jwt.MapClaims) { c["iat"], c["exp"] = at(2*time.Minute), at(3*time.Minute) })),
		"expired":          signed(jwt.SigningMethodHS256, k.check, full(func(c jwt.MapClaims) { c["iat"], c["exp"] = at(-10*time.Minute), at(-2*time.Minute) })),
		"no host":          signed(jwt.SigningMethodHS256, k.check, full(func(c jwt.MapClaims) { delete(c, "host") })),
		"another host":     signed(jwt.SigningMethodHS256, k.check, full(func(c jwt.MapClaims) { c["host"] = "n2" })),
	} {
		if c, err := k.Check(text, "n1", ""); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for _, d := range []time.Duration{-Skew, MaxLife, MaxLife + Skew - time.Second} {
		later := testKey(t, 1, func() time.Time { return clock.Add(d) })
		if _, err := later.Check(good, "n1"); err != nil {
			t.Errorf("with a clock that is %s off: %v", d, err)
		}
	}
	if _, err := k.Sign(Claims{Host: "n1", Verbs: []string{VerbLogs}}, MaxLife+time.Second); err == nil {
		t.Error("a token of more than 15 minutes was made")
	}
	if _, err := k.Sign(Claims{Verbs: []string{VerbLogs}}, time.Minute); err == nil {
		t.Error("a token without a host was made")
	}
}

func TestReadKey(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "key")
	write := func(text string, mode os.FileMode) {
		if err := errors.Join(os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("ab", 32)+"\n", 0o600)
	if k, err := ReadKey(name); err != nil || len(k.check.([]byte)) != 32 {
		t.Fatalf("%v", err)
	}
	for what, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"readable by others": {strings.Repeat("ab", 32), 0o640, "chmod 600"},
		"short":              {"abcd", 0o600, "32"},
		"no hex":             {"!!", 0o600, "hex or base64"},
	} {
		write(c.text, c.mode)
		if _, err := ReadKey(name); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), strings.Repeat("ab", 32)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestEd25519(t *testing.T) {
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, mode os.FileMode, der []byte, err error) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := errors.Join(err, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	secretFile := write("private.pem", "PRIVATE KEY", 0o600, der, err)
	open := write("open.pem", "PRIVATE KEY", 0o644, der, err)
	der, err = x509.MarshalPKIXPublicKey(public)
	publicFile := write("public.pem", "PUBLIC KEY", 0o644, der, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err = x509.MarshalPKCS8PrivateKey(rsaKey)
	other := write("rsa.pem", "PRIVATE KEY", 0o600, der, err)

	signer, err := ReadKey(secretFile)
	if err != nil {
		t.Fatal(err)
	}
	checker, err := ReadKey(publicFile)
	if err != nil {
		t.Fatal(err)
	}
	want := Claims{Host: "n1", Verbs: []string{VerbExec}, User: "ada", RunAs: []string{"www"}, Privileged: true}
	text, err := signer.Sign(want, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*Key{signer, checker} {
		got, err := k.Check(text, "n1")
		if err != nil || !got.Privileged || len(got.RunAs) != 1 || got.User != "ada" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if _, err := checker.Sign(want, time.Minute); err == nil || checker.CanSign() {
		t.Error("a public key made a token")
	}
	// Whoever knows the public key must not pass with it as a secret of HMAC.
	forged, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"host": "n1", "verbs": []string{"exec"}, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}).SignedString([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checker.Check(forged, "n1"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a forged token: %v", err)
	}
	mac := testKey(t, 1, nil)
	if _, err := mac.Check(text, "n1"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a token of another kind of key: %v", err)
	}
	for name, want := range map[string]string{open: "chmod 600", other: "no Ed25519 key"} {
		if _, err := ReadKey(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFromRequest(t *testing.T) {
	for _, c := range []struct{ header, value, want string }{
		{"Authorization", "Bearer abc", "abc"},
		{"Authorization", "bearer  abc ", "abc"},
		{"Authorization", "Basic abc", ""},
		{"Sec-WebSocket-Protocol", "drover.logs.v1, drover.token.a.b.c", "a.b.c"},
		{"X", "y", ""},
	} {
		r := &http.Request{Header: http.Header{}}
		r.Header.Set(c.header, c.value)
		if got := FromRequest(r); got != c.want {
			t.Errorf("%s: %s: got %q, want %q", c.header, c.value, got, c.want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	k := testKey(f, 1, func() time.Time { return time.Unix(1_800_000_000, 0) }) // all of the fuzzer's processes make one token
	good, err := k.Sign(Claims{Host: "n1", Verbs: []string{VerbLogs}}, time.Minute)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := k.Check(text, "n1"); err == nil && text != good {
			t.Errorf("%q was taken", text)
		} else if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
