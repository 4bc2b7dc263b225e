package eventstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events/wire"
)

// The credentials that a [Server] takes.
const (
	AccessKey = "ABCDEF0123456789ABCD"
	SecretKey = "s3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3cr"
)

// Options say what kind of server to be. The zero value is Rancher's, over plain HTTP.
type Options struct {
	Drover    bool          // take replies over the socket and acknowledge them
	Version   string        // Drover-Version; "test" if empty
	TLS       bool          // serve https, with a certificate of its own; see [Server.RootCAs]
	KeepAlive time.Duration // between text pings without replyTo; 5 s, negative for none
	Skew      time.Duration // how far the server's clock is off
}

// A Server is a fake control server.
type Server struct {
	tb   testing.TB
	opts Options
	http *httptest.Server

	mu         sync.Mutex
	sessions   map[*Session]struct{}
	arrivals   chan *Session
	dials      []Dial
	subscribe  refusal // of the next subscriptions
	publish    publishFault
	holdAcks   bool
	pings      map[string]bool // ids of pings on their way: their replies are not acknowledged
	outbox     []*wire.Event   // events to deliver until they are answered, in order
	undone     map[string]int
	answers    map[string]*Answer
	order      []string // ids, as their first final reply came
	duplicates int
	created    map[string][]json.RawMessage
	changed    chan struct{} // closed and replaced when something above changed
}

// A Dial is one attempt to subscribe.
type Dial struct {
	At     time.Time
	Status int // what it was answered; 101 is a success
	Header http.Header
	Events []string // eventNames of the query
}

// An Answer is what came back for one event.
type Answer struct {
	Final      *wire.Reply   // the first final reply; nil before
	Raw        []byte        // of Final, as it came
	At         time.Time     // of Final
	Progress   []*wire.Reply // before it
	Late       []*wire.Reply // progress after it: never right
	Duplicates int           // final replies after it
}

type refusal struct {
	status     int
	retryAfter string
	times      int // how often yet; negative is for ever
}

type publishFault struct {
	every  int // one POST in so many fails; 0 is none
	status int // 0 closes the connection after the reply was taken
	delay  time.Duration
	count  int
}

// NewServer starts a server that ends with the test.
func NewServer(tb testing.TB, opts Options) *Server {
	tb.Helper()
	if opts.Version == "" {
		opts.Version = "test"
	}
	if opts.KeepAlive == 0 {
		opts.KeepAlive = 5 * time.Second
	}
	s := &Server{
		tb: tb, opts: opts, sessions: map[*Session]struct{}{}, arrivals: make(chan *Session, 1024), undone: map[string]int{}, pings: map[string]bool{},
		answers: map[string]*Answer{}, created: map[string][]json.RawMessage{}, changed: make(chan struct{}),
	}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if opts.TLS {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	tb.Cleanup(s.Close)
	return s
}

// Close ends every session and the server. It may be called more than once.
func (s *Server) Close() {
	s.Cut()
	s.http.CloseClientConnections()
	s.http.Close()
}

// URL returns the base of the API, as an agent is given it.
func (s *Server) URL() string { return s.http.URL + "/v1" }

// Addr returns host:port.
func (s *Server) Addr() string { return s.http.Listener.Addr().String() }

// TLS returns a client's configuration that trusts the server.
func (s *Server) TLS() *tls.Config {
	pool := x509.NewCertPool()
	if c := s.http.Certificate(); c != nil {
		pool.AddCert(c)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	base := "http://" + r.Host
	if r.TLS != nil {
		base = "https://" + r.Host
	}
	version, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	w.Header().Set("X-API-Schemas", base+"/"+version+"/schemas")
	user, pass, _ := r.BasicAuth()
	authorized := user == AccessKey && pass == SecretKey
	switch {
	case rest == "subscribe":
		s.serveSubscribe(w, r, authorized)
	case !authorized:
		fail(w, http.StatusUnauthorized, "Unauthorized", "")
	case version != "v1" && version != "v2-beta":
		fail(w, http.StatusNotFound, "Not Found", "")
	case rest == "":
		writeJSON(w, http.StatusOK, map[string]any{"type": "apiVersion", "id": version})
	case rest == "schemas":
		writeJSON(w, http.StatusOK, schemas(base+"/"+version))
	case r.Method != http.MethodPost:
		fail(w, http.StatusMethodNotAllowed, "Method not allowed", "")
	case rest == "publish":
		s.servePublish(w, r)
	case rest == "containerevents" || rest == "hostapiproxytokens":
		s.serveCreate(w, r, rest)
	default:
		fail(w, http.StatusNotFound, "Not Found", "")
	}
}

func schemas(base string) any {
	schema := func(id, plural string) map[string]any {
		return map[string]any{
			"id": id, "type": "schema", "pluralName": plural, "collectionMethods": []string{"POST"}, "resourceMethods": []string{"GET"},
			"links":          map[string]string{"self": base + "/schemas/" + id, "collection": base + "/" + plural},
			"resourceFields": map[string]any{"name": map[string]any{"type": "string", "nullable": true}},
		}
	}
	publish := schema("publish", "publish")
	publish["links"] = map[string]string{"self": base + "/schemas/publish"} // the collection link may be missing
	return map[string]any{"type": "collection", "resourceType": "schema", "data": []any{
		publish, schema("containerEvent", "containerevents"), schema("hostApiProxyToken", "hostapiproxytokens"),
		map[string]any{"id": "host", "type": "schema", "pluralName": "hosts", "collectionMethods": []string{"GET"}, "links": map[string]string{"self": base + "/schemas/host"}},
	}}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, code, field string) {
	writeJSON(w, status, map[string]any{"type": "error", "status": status, "code": code, "message": code, "fieldName": field})
}

func (s *Server) serveSubscribe(w http.ResponseWriter, r *http.Request, authorized bool) {
	dial := Dial{At: time.Now(), Header: r.Header.Clone(), Events: r.URL.Query()["eventNames"], Status: http.StatusSwitchingProtocols}
	s.mu.Lock()
	no := s.subscribe
	if s.subscribe.times > 0 {
		if s.subscribe.times--; s.subscribe.times == 0 {
			s.subscribe = refusal{}
		}
	}
	switch {
	case no.status != 0:
		dial.Status = no.status
	case !authorized:
		dial.Status = http.StatusUnauthorized
	}
	s.dials = append(s.dials, dial)
	s.notifyLocked()
	s.mu.Unlock()
	if dial.Status != http.StatusSwitchingProtocols {
		if no.retryAfter != "" {
			w.Header().Set("Retry-After", no.retryAfter)
		}
		fail(w, dial.Status, http.StatusText(dial.Status), "")
		return
	}
	header := http.Header{}
	if s.opts.Drover && r.Header.Get(wire.HeaderProtocol) == wire.Protocol {
		header.Set(wire.HeaderVersion, s.opts.Version)
		header.Set(wire.HeaderProtocol, wire.Protocol)
		header.Set(wire.HeaderTime, time.Now().Add(s.opts.Skew).Format(time.RFC3339Nano))
	}
	up := websocket.Upgrader{ReadBufferSize: 16 << 10, WriteBufferSize: 16 << 10}
	ws, err := up.Upgrade(w, r, header)
	if err != nil {
		return
	}
	newSession(s, ws).run()
}

func (s *Server) servePublish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.publish.count++
	fault := s.publish
	fails := fault.every > 0 && fault.count%fault.every == 0
	s.mu.Unlock()
	if fault.delay > 0 {
		select {
		case <-time.After(fault.delay):
		case <-r.Context().Done():
			return
		}
	}
	if fails && fault.status != 0 {
		fail(w, fault.status, http.StatusText(fault.status), "")
		return
	}
	reply, err := wire.DecodeReply(body)
	switch {
	case err != nil:
		fail(w, http.StatusBadRequest, "InvalidBodyContent", "")
		return
	case !strings.HasPrefix(reply.Name, "reply."):
		fail(w, http.StatusForbidden, "Forbidden", "")
		return
	}
	s.took(reply, body)
	if fails {
		panic(http.ErrAbortHandler) // taken, and yet the agent does not hear of it
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body)
}

func (s *Server) serveCreate(w http.ResponseWriter, r *http.Request, collection string) {
	body, err := io.ReadAll(r.Body)
	if err != nil || !json.Valid(body) {
		fail(w, http.StatusBadRequest, "InvalidBodyContent", "")
		return
	}
	s.mu.Lock()
	s.created[collection] = append(s.created[collection], body)
	s.notifyLocked()
	n := len(s.created[collection])
	s.mu.Unlock()
	if strings.Contains(string(body), `"unknown-host"`) {
		fail(w, http.StatusUnprocessableEntity, "InvalidReference", "reportedUuid")
		return
	}
	writeJSON(w, http.StatusCreated, map[string]any{"id": strconv.Itoa(n), "url": "ws://" + r.Host + "/v1/connectbackend", "token": "t" + strconv.Itoa(n)})
}

// took files one reply and returns whether it is final.
func (s *Server) took(reply *wire.Reply, raw []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := reply.EventID()
	a := s.answers[id]
	if a == nil {
		a = &Answer{}
		s.answers[id] = a
	}
	final := reply.Final()
	switch {
	case final && a.Final == nil:
		a.Final, a.Raw, a.At = reply, append([]byte(nil), raw...), time.Now()
		s.order = append(s.order, id)
		if i, ok := s.undone[id]; ok {
			s.outbox[i] = nil
			delete(s.undone, id)
		}
	case final:
		a.Duplicates++
		s.duplicates++
	case a.Final != nil:
		a.Late = append(a.Late, reply)
	default:
		a.Progress = append(a.Progress, reply)
	}
	s.notifyLocked()
	return final
}

func (s *Server) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait blocks until done, called under mu, says true.
func (s *Server) wait(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := done(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
