package access

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The ways of Rancher's host access, which are the last words of their paths.
const (
	WayExec           = "exec"
	WayLogs           = "logs"
	WayStats          = "stats"
	WayHostStats      = "hoststats"
	WayContainerStats = "containerstats"
	WayConsole        = "console"
	WaySocket         = "dockersocket"
	WayProxy          = "container-proxy"
	WayBackend        = "connectbackend"
)

// Lives of tokens, as Rancher's.
const (
	viewLife  = 5 * time.Minute
	proxyLife = 16 * time.Hour
)

// claimWay keeps the token of one way from opening another: a viewer of figures must not get a shell. Agents ignore it.
const claimWay = "droverWay"

// claimOf is the claim that a way's agent cannot do without; "" is none.
func claimOf(way string) string {
	switch way {
	case WayExec, WayLogs, WayConsole:
		return way
	case WayProxy:
		return "proxy"
	case WayHostStats:
		return "resourceId"
	case WayContainerStats:
		return "containerIds"
	}
	return ""
}

// ViewToken makes the token that opens one way to a host, with the claims that the agent expects.
func (a *Access) ViewToken(hostUUID, way string, claims map[string]any) (string, error) {
	life := viewLife
	if way == WayProxy {
		life = proxyLife
	}
	all := jwt.MapClaims{}
	maps.Copy(all, claims)
	all["hostUuid"], all[claimWay] = hostUUID, way
	return a.sign(all, life)
}

// BackendToken makes the token with which the agent of a host connects its backend.
func (a *Access) BackendToken(hostUUID, agentID string) (string, error) {
	return a.sign(jwt.MapClaims{"reportedUuid": hostUUID, "agent": agentID}, viewLife)
}

func (a *Access) sign(claims jwt.MapClaims, life time.Duration) (string, error) {
	now := a.cfg.Now()
	claims["kid"], claims["sub"], claims["iss"] = "default", "cattle", "http://cattle.io"
	claims["iat"], claims["exp"] = now.Unix(), now.Add(life).Unix()
	return jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(a.cfg.Key)
}

// tokenOf returns the token of a viewer or a backend: of the URL, where original clients have it, or of the header.
func tokenOf(r *http.Request) string {
	if token := r.URL.Query().Get("token"); token != "" {
		return token
	}
	if scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(value)
	}
	return ""
}

// check verifies a token's signature and life. A token between replicas is none.
func (a *Access) check(text string) (jwt.MapClaims, error) {
	if text == "" {
		return nil, errors.New("there is no token")
	}
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return &a.cfg.Key.PublicKey, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(time.Minute), jwt.WithTimeFunc(a.cfg.Now))
	if err == nil && claims["aud"] != nil {
		err = errors.New("it is for something else")
	}
	return claims, err
}

// checkView returns the host that a token opens this way to.
func (a *Access) checkView(text, way string) (hostUUID string, claims jwt.MapClaims, err error) {
	claims, err = a.check(text)
	if err != nil {
		return "", nil, err
	}
	hostUUID, _ = claims["hostUuid"].(string)
	if hostUUID == "" {
		return "", nil, errors.New("it names no host")
	}
	if got, _ := claims[claimWay].(string); got != way {
		return "", nil, fmt.Errorf("it is for %.40q and not for %s", got, way)
	}
	switch claim := claimOf(way); claim {
	case "":
	case "resourceId":
		if id, _ := claims[claim].(string); id == "" {
			err = fmt.Errorf("it has no claim %s", claim)
		}
	default:
		if m, _ := claims[claim].(map[string]any); m == nil {
			err = fmt.Errorf("it has no claim %s", claim)
		}
	}
	return hostUUID, claims, err
}
