package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/droverhq/drover/server/store"
)

// The replica that holds the tunnel of an agent listens to a subject of its own, so that a question finds it or is told at
// once that nobody does, and no table of tunnels has to be kept true.
func subject(agentID string) string { return "drover.tunnel." + agentID }

// A note goes from one replica to another.
type note struct {
	Kind string `json:"kind"`
	From string `json:"from,omitempty"`
	URL  string `json:"url,omitempty"`
}

// Kinds of notes.
const (
	noteWhere = "where" // request: who holds the tunnel? The answer is noteHere
	noteHere  = "here"  // I do, and you reach me at URL
	noteTook  = "took"  // From has a newer tunnel of the agent
)

const (
	askTimeout  = 2 * time.Second
	lookAgain   = 250 * time.Millisecond // between looks for a tunnel at other replicas
	replicaLife = time.Minute            // of a token between replicas
	// audience keeps tokens between replicas apart from those that the same key signs for viewers.
	audience = "drover-replica"
)

// announce tells the other replicas that this one has what the subject stands for. They end theirs.
func (a *Access) announce(subject string, end func(reason string)) (forget func()) {
	if !a.cfg.Store.Clustered() {
		return func() {}
	}
	stop, err := a.cfg.Store.Handle(subject, func(m store.Message) {
		var n note
		if json.Unmarshal(m.Data, &n) != nil {
			return
		}
		switch {
		case n.Kind == noteWhere:
			m.Answer(encode(note{Kind: noteHere, From: a.self, URL: a.cfg.URL}))
		case n.Kind == noteTook && n.From != a.self:
			end("the agent opened another one at another replica")
		}
	})
	if err == nil {
		err = a.cfg.Store.Publish(subject, encode(note{Kind: noteTook, From: a.self}))
	}
	if err != nil {
		a.cfg.Log.WithError(err).WithField("subject", subject).Warn("access: the other replicas do not know what this one holds")
	}
	if stop == nil {
		return func() {}
	}
	return stop
}

func encode(n note) []byte {
	b, _ := json.Marshal(n) // it holds strings alone
	return b
}

// elsewhere returns the address of the replica that holds what the subject stands for; "" if none does.
func (a *Access) elsewhere(ctx context.Context, subject string) (string, error) {
	if !a.cfg.Store.Clustered() {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := a.cfg.Store.Request(ctx, subject, encode(note{Kind: noteWhere}))
	if errors.Is(err, store.ErrNobody) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var n note
	if err := json.Unmarshal(answer, &n); err != nil || n.Kind != noteHere {
		return "", fmt.Errorf("access: a replica answered %.60q", answer)
	}
	if n.From == a.self {
		return "", nil // it has ended meanwhile
	}
	return n.URL, nil
}

// replicaClaims are what a replica shows to another one.
type replicaClaims struct {
	jwt.RegisteredClaims
	Agent string `json:"agent"`
}

func (a *Access) replicaToken(agentID, user string) (string, error) {
	now := a.cfg.Now()
	return jwt.NewWithClaims(jwt.SigningMethodRS256, replicaClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Audience: jwt.ClaimStrings{audience}, Subject: user, Issuer: a.self,
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(replicaLife)),
		},
		Agent: agentID,
	}).SignedString(a.cfg.Key)
}

// checkReplica returns the user for whom another replica asks.
func (a *Access) checkReplica(r *http.Request, agentID string) (user string, err error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("no token")
	}
	var claims replicaClaims
	_, err = jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return &a.cfg.Key.PublicKey, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
		jwt.WithLeeway(replicaLife), jwt.WithTimeFunc(a.cfg.Now))
	if err != nil {
		return "", err
	}
	if claims.Agent != agentID {
		return "", errors.New("the token is for another agent")
	}
	return claims.Subject, nil
}

// ReplicaPath is the path below the API's version under which a replica takes requests of others: ReplicaPath/AGENT/PATH.
const ReplicaPath = "replicaproxy"

// ServeReplica relays a request that another replica passed on to path of an agent's handler.
func (a *Access) ServeReplica(w http.ResponseWriter, r *http.Request, agentID, path string) error {
	user, err := a.checkReplica(r, agentID)
	if err != nil {
		a.cfg.Log.WithError(err).WithField("address", r.RemoteAddr).Warn("access: a request that shows no replica's token")
		return problem(http.StatusUnauthorized, "Unauthorized", "this is for other replicas of the server")
	}
	if err := a.begin(); err != nil {
		return err
	}
	defer a.active.Done()
	l, _ := a.here(agentID)
	if l == nil {
		return problem(http.StatusServiceUnavailable, CodeNoTunnel, "the tunnel moved; try again")
	}
	a.relay(w, r, &route{transport: l.transport, base: &url.URL{Scheme: "http", Host: agentID}, path: path, user: user, client: r.Header.Get("X-Forwarded-For")})
	return nil
}
