package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/droverhq/drover/server/access"
	"github.com/droverhq/drover/server/compute"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/logs"
	"github.com/droverhq/drover/server/store"
	"github.com/sirupsen/logrus"
)

// The ids of the accounts that every server has.
const (
	AdminAccount = "1a1" // owns every host and container; its keys may do everything
	UserAccount  = "1a2" // its keys may drive containers
)

// Config is what a handler needs. Store, Hub and Compute are required.
type Config struct {
	Store   *store.Store
	Hub     *hub.Hub
	Compute *compute.Engine
	// APICert is served as scripts/api.crt: the public half of the key of host access tokens, PEM.
	APICert []byte
	// CA is served as scripts/ca.pem, and its checksum is part of the one-liner. Nil where agents need not pin one.
	CA []byte
	// Image is the agent image of the one-liner, unless the setting agent.image names another.
	Image string
	// PublicURL is the address that agents are told, unless the setting api.host names another. Empty: the address at
	// which the client that asks reached the server.
	PublicURL string
	// TrustedProxies may set X-Forwarded headers. Loopback always may.
	TrustedProxies []netip.Prefix
	// Version is told to clients.
	Version string
	// Web is the console, served at /. Nil: none.
	Web fs.FS
	// Access leads to the streams of the hosts. Nil: there is no way.
	Access *access.Access
	// Logs leads to the log services of the hosts. Nil: there is no way.
	Logs *logs.Proxy
	Log  logrus.FieldLogger // nil: nothing is logged
	Now  func() time.Time   // nil: the machine's clock
}

// Handler is the server's http.Handler. It is safe for concurrent use.
type Handler struct {
	cfg       Config
	store     *store.Store
	hub       *hub.Hub
	compute   *compute.Engine
	log       logrus.FieldLogger
	now       func() time.Time
	proxies   proxies
	types     map[string]*typeDef  // by id
	endpoints map[string]*endpoint // by type id
	names     map[string]string    // type id by lower-case plural and singular
	failures  *limiter
	shown     *shownTokens
	csrf      *http.CrossOriginProtection

	closing  chan struct{} // closed by Shutdown
	shutdown sync.Once
	feeds    feeds
}

// New checks cfg. It does no I/O.
func New(cfg Config) (*Handler, error) {
	if cfg.Store == nil || cfg.Hub == nil || cfg.Compute == nil {
		return nil, errors.New("api: store, hub and compute are required")
	}
	if cfg.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		cfg.Log = l
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &Handler{
		cfg: cfg, store: cfg.Store, hub: cfg.Hub, compute: cfg.Compute, log: cfg.Log, now: cfg.Now, proxies: cfg.TrustedProxies,
		types: map[string]*typeDef{}, names: map[string]string{}, failures: newLimiter(cfg.Now), shown: newShownTokens(cfg.Now),
		csrf: http.NewCrossOriginProtection(), closing: make(chan struct{}),
	}
	for _, d := range typeDefs() {
		h.types[d.id] = d
		h.names[lower(d.plural)] = d.id
		h.names[lower(d.id)] = d.id
	}
	h.endpoints = h.newEndpoints()
	return h, nil
}

// Shutdown ends the change feeds, which no http.Server waits for. Requests are still answered.
func (h *Handler) Shutdown() {
	h.shutdown.Do(func() {
		close(h.closing)
		h.feeds.close()
	})
}

// Wait returns when all change feeds have ended, which they do soon after Shutdown.
func (h *Handler) Wait() { h.feeds.wait() }

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := h.now()
	rec := &recorder{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			h.log.WithField("path", maskPath(r.URL.Path)).Errorf("a request made the server panic: %v", p)
			if rec.status == 0 {
				writeError(rec, fail(http.StatusInternalServerError, "Internal Server Error", "the server made a mistake"))
			}
		}
		h.logRequest(r, rec, h.now().Sub(begin))
	}()
	setSecurityHeaders(rec.Header())
	h.serve(rec, r)
}

func (h *Handler) serve(w *recorder, r *http.Request) {
	segs, ok := splitPath(r.URL)
	if !ok {
		writeError(w, notFound())
		return
	}
	if h.serveHealth(w, r, segs) {
		return
	}
	base, ok := h.proxies.base(r)
	if !ok {
		writeError(w, fail(http.StatusBadRequest, "InvalidFormat", "the Host header is no host"))
		return
	}
	if len(segs) == 1 && lower(segs[0]) == "logs" {
		t := &target{base: base, version: latest}
		if token := logs.SocketTokenOf(r); token != "" && r.Header.Get("Authorization") == "" {
			h.answer(w, r, h.serveLogsByToken(w, r, t, token))
			return
		}
		h.answer(w, r, h.asWhom(w, r, t, func(q *request) error { return q.serveLogs(r.URL.Query(), "/") }))
		return
	}
	t, ok := parseTarget(base, segs)
	if !ok {
		h.serveConsole(w, r, segs)
		return
	}
	w.Header().Set("X-API-Schemas", t.prefix()+"/schemas")
	w.Header().Set("Cache-Control", "no-store")
	if len(t.segments) == 2 && lower(t.segments[0]) == "scripts" {
		h.answer(w, r, h.serveScript(w, r, &t))
		return
	}
	if len(t.segments) > 0 && access.IsWay(lower(t.segments[0])) {
		h.answer(w, r, h.serveWay(w, r, &t))
		return
	}
	if len(t.segments) > 1 && lower(t.segments[0]) == access.ReplicaPath {
		h.answer(w, r, h.serveReplica(w, r, &t))
		return
	}
	h.answer(w, r, h.serveAPI(w, r, &t))
}

// answer turns an error into an answer. What it does not know is the server's own fault.
func (h *Handler) answer(w *recorder, r *http.Request, err error) {
	if err == nil || w.status != 0 {
		return
	}
	if r.Context().Err() != nil && errors.Is(err, r.Context().Err()) {
		err = fail(http.StatusServiceUnavailable, "Service Unavailable", "the request was cut off")
	}
	e := asAPIError(err)
	if e == nil {
		h.log.WithError(err).WithField("path", maskPath(r.URL.Path)).Error("cannot answer a request")
		e = fail(http.StatusInternalServerError, "Internal Server Error", "the server cannot do this now")
	}
	writeError(w, e)
}

func (h *Handler) serveAPI(w *recorder, r *http.Request, t *target) error {
	return h.asWhom(w, r, t, h.dispatch)
}

// asWhom finds out who sends a request and has it answered.
func (h *Handler) asWhom(w *recorder, r *http.Request, t *target, answer func(*request) error) error {
	if err := h.csrf.Check(r); err != nil {
		return forbidden("a browser sent this request from another site")
	}
	client := h.proxies.client(r)
	who, err := h.authenticate(r, client)
	if err != nil {
		if err.Status == http.StatusUnauthorized && r.Header.Get("X-API-No-Challenge") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="Enter API access key and secret key as username and password"`)
		}
		return err
	}
	w.who = who.accountID
	w.Header().Set("X-API-ACCOUNT-ID", who.accountID)
	w.Header().Set("X-API-ACCOUNT-KIND", who.kind)
	if t.project != "" && t.project != AdminAccount {
		return notFound()
	}
	return answer(&request{h: h, w: w, r: r, target: t, who: who, client: client})
}

// A request is one authenticated request to the API.
type request struct {
	h      *Handler
	w      *recorder
	r      *http.Request
	target *target
	who    *identity
	client netip.Addr
}

func (q *request) ctx() context.Context { return q.r.Context() }

// schema describes a type to whoever asks, or is false where they may not know it.
func (q *request) schema(id string) (schema, bool) {
	d, ok := q.h.types[id]
	if !ok {
		return schema{}, false
	}
	return d.schemaFor(q.who.kind, q.target.prefix())
}

func setSecurityHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer") // registration tokens are part of addresses
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

func (h *Handler) logRequest(r *http.Request, rec *recorder, took time.Duration) {
	log := h.log.WithFields(logrus.Fields{
		"method": r.Method, "path": maskPath(r.URL.Path), "status": rec.status, "bytes": rec.bytes,
		"millis": took.Milliseconds(), "client": h.proxies.client(r).String(), "account": rec.who,
	})
	switch {
	case rec.status >= 500:
		log.Warn("request")
	case rec.status >= 400 || r.Method != http.MethodGet && r.Method != http.MethodHead && rec.who != "" && !rec.quiet:
		log.Info("request")
	default:
		log.Debug("request")
	}
}

// fromCompute turns an error of package compute or of the store into an answer.
func fromCompute(err error) error {
	var e *compute.Error
	if errors.As(err, &e) {
		return workError(e.Code, e.Field, e.Text)
	}
	if errors.Is(err, store.ErrNotFound) {
		return notFound()
	}
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) {
		return fail(http.StatusConflict, "Conflict", "%v", err)
	}
	return fmt.Errorf("api: %w", err)
}
