package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/token"
)

// headerToken is where the node agents before Drover look for a token.
const headerToken = "access-token"

// serverExecPath is the one path that takes a token from its query: its clients know no other way.
const serverExecPath = "/dockin/opagent/exec/serverexec"

// TokenAuth checks the token of a request: of "Authorization: Bearer", of a WebSocket subprotocol, of the header
// access-token, or, of serverexec alone, of the parameter access-token. hosts are the names of this node.
func TokenAuth(key *token.Key, hosts ...string) func(*http.Request) (*token.Claims, error) {
	return func(r *http.Request) (*token.Claims, error) {
		text := token.FromRequest(r)
		if text == "" {
			text = r.Header.Get(headerToken)
		}
		if text == "" && r.URL.Path == serverExecPath {
			text = r.URL.Query().Get(headerToken)
		}
		if text == "" {
			return nil, errors.New("there is no token")
		}
		return key.Check(text, hosts...)
	}
}

// Everything are the claims of a caller who may do everything.
func Everything(user string) *token.Claims {
	return &token.Claims{
		Host: token.AnyHost, User: user, RunAs: []string{token.AnyUser}, Privileged: true,
		Verbs: []string{
			token.VerbExec, token.VerbAttach, token.VerbForward, token.VerbPods, token.VerbLimits, token.VerbPrestop, token.VerbStreams,
		},
	}
}

// A caller is somebody whose token is good.
type caller struct {
	*token.Claims
	remote string
	h      *Handler
}

// admit checks who asks, and whether at all for such a thing.
func (h *Handler) admit(r *http.Request, verb string) (*caller, error) {
	c := &caller{h: h, remote: r.RemoteAddr, Claims: &token.Claims{}}
	if !h.originAllowed(r) {
		return nil, c.refuse(verb, Target{}, "a page of the origin "+r.Header.Get("Origin")+" may not connect")
	}
	claims, err := h.cfg.Authenticate(r)
	if err != nil {
		c.log(verb, Target{}).WithError(err).Warn("refused")
		return nil, &refusal{http.StatusUnauthorized, "a valid token is needed"}
	}
	c.Claims = claims
	if !claims.Allows(verb) {
		return nil, c.refuse(verb, Target{}, "the token is not for "+verb)
	}
	return c, nil
}

// originAllowed keeps the pages of others out: browsers name the origin of a page, programs name none.
func (h *Handler) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(h.cfg.Origins, "*") || slices.Contains(h.cfg.Origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

func (c *caller) log(verb string, t Target) logrus.FieldLogger {
	remote, _, err := net.SplitHostPort(c.remote)
	if err != nil {
		remote = c.remote
	}
	f := logrus.Fields{"door": "node", "verb": verb, "user": c.User, "remote": remote}
	if t.Pod != "" {
		f["pod"] = t.Namespace + "/" + t.Pod
	}
	if t.Name != "" {
		f["container"] = t.Name
	}
	if t.ID != "" {
		f["id"] = runtime.ShortContainerId(t.ID)
	}
	return c.h.cfg.Log.WithFields(f)
}

// refuse logs who is refused and why, and returns what the caller is told.
func (c *caller) refuse(verb string, t Target, why string) error {
	c.log(verb, t).WithField("reason", why).Warn("refused")
	return &refusal{http.StatusForbidden, "forbidden: " + why}
}

// mayPod tells whether a token is for a pod, before anybody looks for the pod.
func (c *caller) mayPod(verb, namespace, pod string) error {
	if c.Pod != "" && c.Pod != namespace+"/"+pod {
		return c.refuse(verb, Target{Namespace: namespace, Pod: pod}, "the token is for another pod")
	}
	return nil
}

// idLength is the shortest beginning of a container's id that a token may name it by.
const idLength = 12

// mayContainer tells whether a token is for a container.
func (c *caller) mayContainer(verb string, t Target) error {
	if c.Pod != "" && (t.Pod == "" || c.Pod != t.Namespace+"/"+t.Pod) {
		return c.refuse(verb, t, "the token is for another pod")
	}
	want := c.Container
	if want == "" || want == t.ID || len(want) >= idLength && strings.HasPrefix(t.ID, want) {
		return nil
	}
	// A name is worth something within a pod, or where no pods are.
	if want == t.Name && (c.Pod != "" || t.Pod == "") {
		return nil
	}
	return c.refuse(verb, t, "the token is for another container")
}

// mayRun tells whether a token allows a process.
func (c *caller) mayRun(t Target, q url.Values) error {
	user := q.Get("user")
	if user != "" && !slices.Contains(c.RunAs, token.AnyUser) && !slices.Contains(c.RunAs, user) {
		return c.refuse(token.VerbExec, t, fmt.Sprintf("the token does not allow to run as %.64q", user))
	}
	if q.Has("privileged") && !slices.Contains([]string{"0", "false", "no", "off"}, strings.ToLower(q.Get("privileged"))) && !c.Privileged {
		return c.refuse(token.VerbExec, t, "the token does not allow privileged processes")
	}
	if c.Commands == nil {
		return nil
	}
	argv := q["command"]
	if !slices.ContainsFunc(c.Commands, func(allowed string) bool {
		words := strings.Fields(allowed)
		return len(words) > 0 && len(words) <= len(argv) && slices.Equal(words, argv[:len(words)])
	}) {
		first := ""
		if len(argv) > 0 {
			first = argv[0]
		}
		return c.refuse(token.VerbExec, t, fmt.Sprintf("the token does not allow the command %.64q", first))
	}
	// What a command does depends on its environment: PATH, LD_PRELOAD, and much that nobody can list.
	for _, e := range q["env"] {
		if name, _, _ := strings.Cut(e, "="); !harmless(name) {
			return c.refuse(token.VerbExec, t, fmt.Sprintf("the token allows certain commands, and those not with the variable %.64q", name))
		}
	}
	if q.Get("workDir") != "" || q.Get("workdir") != "" || q.Get("workingDir") != "" {
		return c.refuse(token.VerbExec, t, "the token allows certain commands, and those not in another directory")
	}
	return nil
}

// harmless names what only changes how output looks.
func harmless(name string) bool {
	return slices.Contains([]string{"TERM", "LANG", "LANGUAGE", "COLUMNS", "LINES", "TZ"}, name) || strings.HasPrefix(name, "LC_")
}
