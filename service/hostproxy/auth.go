package hostproxy

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/golang-jwt/jwt/v5"
)

// errToken is what a viewer without a good token gets; the log has the reason.
var errToken = errors.New("the token does not allow this")

// ParseKey reads the public key of the server from the content of api.crt.
func ParseKey(pem []byte) (*rsa.PublicKey, error) {
	key, err := jwt.ParseRSAPublicKeyFromPEM(pem)
	if err != nil {
		return nil, fmt.Errorf("api.crt holds no RSA certificate or public key: %w", err)
	}
	return key, nil
}

// authorize checks the token in a request URI and returns its claims.
func (c *Client) authorize(uri *url.URL) (jwt.MapClaims, error) {
	text := uri.Query().Get("token")
	if text == "" {
		return nil, fmt.Errorf("%w: there is none", errToken)
	}
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return c.cfg.Key, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithLeeway(clockLeeway))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errToken, err)
	}
	if host, _ := claims["hostUuid"].(string); host == "" || host != c.cfg.HostUUID {
		return nil, fmt.Errorf("%w: it is for another host", errToken)
	}
	return claims, nil
}

// claim decodes one claim into to; one that is missing or of another shape is an error.
func claim(claims jwt.MapClaims, name string, to any) error {
	raw, ok := claims[name]
	if !ok {
		return fmt.Errorf("%w: it has no claim %s", errToken, name)
	}
	b, err := json.Marshal(raw)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return fmt.Errorf("%w: claim %s: %w", errToken, name, err)
	}
	return nil
}
