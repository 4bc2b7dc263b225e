package logs

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/droverhq/drover/server/store"
)

// SocketTokenLife is how long a socket token opens sockets. One that is open goes on.
const SocketTokenLife = time.Minute

// audience keeps socket tokens apart from all else that is signed with the server's key.
const audience = "drover-log-socket"

// ErrToken says that a socket token is not valid, or not any more.
var ErrToken = errors.New("the token is not valid, or not any more")

// socketClaims are what a page in a browser shows, which cannot send a key with a WebSocket.
type socketClaims struct {
	jwt.RegisteredClaims
	Host string `json:"host"`
}

// SocketToken returns a token with which a page may open a WebSocket to the log service of host, for account.
func (p *Proxy) SocketToken(host *store.Host, account string) (token string, expires time.Time, err error) {
	if p.cfg.Key == nil {
		return "", time.Time{}, errors.New("server/logs: there is no key for tokens")
	}
	now := p.cfg.Now()
	expires = now.Add(SocketTokenLife)
	token, err = jwt.NewWithClaims(jwt.SigningMethodRS256, socketClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Audience: jwt.ClaimStrings{audience}, Subject: account, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
		},
		Host: host.ID,
	}).SignedString(p.cfg.Key)
	return token, expires, err
}

// CheckSocketToken returns for which account and host a token is, or [ErrToken].
func (p *Proxy) CheckSocketToken(token string) (account, hostID string, err error) {
	if p.cfg.Key == nil {
		return "", "", ErrToken
	}
	var claims socketClaims
	_, err = jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return &p.cfg.Key.PublicKey, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithLeeway(10*time.Second), jwt.WithTimeFunc(p.cfg.Now))
	if err != nil || claims.Subject == "" || claims.Host == "" {
		return "", "", ErrToken // why is nobody's business
	}
	return claims.Subject, claims.Host, nil
}

// SocketTokenOf returns the token that a request to open a WebSocket shows as the subprotocol "drover.token.TOKEN"; ""
// if there is none. Never one of its URL, which proxies log.
func SocketTokenOf(r *http.Request) string {
	for _, header := range r.Header.Values("Sec-Websocket-Protocol") {
		for one := range strings.SplitSeq(header, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(one), TokenPrefix); ok {
				return token
			}
		}
	}
	return ""
}
