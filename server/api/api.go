package api

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/netip"
	"time"

	"github.com/droverhq/drover/server/compute"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
	"github.com/sirupsen/logrus"
)

// The ids of the accounts that every server has.
const (
	AdminAccount = "1a1" // owns every host and container; its keys may do everything
	UserAccount  = "1a2" // its keys may drive containers
)

// SettingBootstrapped is the setting that says that the admin key was made.
const SettingBootstrapped = "drover.bootstrapped"

// FormatKey returns an API key as people see it: "ak_<access key>:<secret>".
func FormatKey(accessKey, secret string) string { return "ak_" + accessKey + ":" + secret }

// Config is what a handler needs.
type Config struct {
	Store          *store.Store
	Hub            *hub.Hub
	Compute        *compute.Engine
	APICert        []byte // served as scripts/api.crt
	CA             []byte // served as scripts/ca.pem and pinned by agents; nil where they need not
	Image          string // of the one-liner
	PublicURL      string // told to agents instead of the address a client used; may be empty
	TrustedProxies []netip.Prefix
	Version        string
	Web            fs.FS
	Log            logrus.FieldLogger
	Now            func() time.Time
}

// Handler is the server's http.Handler.
type Handler struct{ cfg Config }

// New checks cfg. It does no I/O.
func New(cfg Config) (*Handler, error) { return &Handler{cfg: cfg}, nil }

// Shutdown ends the change feeds. New requests are still answered.
func (h *Handler) Shutdown() {}

// Wait returns when all change feeds have ended.
func (h *Handler) Wait() {}

// OneLiner returns the docker run command that joins a host to the server at base.
func (h *Handler) OneLiner(ctx context.Context, base string) (string, error) { return "", nil }

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"type":"error","status":500,"code":"Internal Server Error"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
