package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/sirupsen/logrus"
)

// Subprotocol is the WebSocket subprotocol with control messages and many lines a frame. Without it a connection
// speaks as today's clients expect: a command a message, a line a message.
const Subprotocol = "drover.logs.v1"

// LineProtocol is the name of the form without a subprotocol, for browsers that must name one beside their token.
const LineProtocol = "drover.lines.v1"

// DoorConfig says who may use a [Service] over HTTP and how much.
type DoorConfig struct {
	Service *Service
	// Authorize returns who the caller is. Nil refuses everybody; [AllowAll] serves clients that know no tokens.
	Authorize func(r *http.Request) (Caller, error)
	// Origins that browsers may come from, besides the door's own; "*" is any.
	Origins []string
	Lookup  Lookup // may be nil
	Node    string // name of this node, for the audit and for what Lookup says
	// Addresses are what else Lookup may call this node.
	Addresses []string
	// Audit gets a record of every command that ended. It may be nil and must not block long.
	Audit     func(Record)
	Log       logrus.FieldLogger
	PerClient int // commands at once of one client, app.logs.max-per-client; 0 is 8
	PerNode   int // commands at once of all, app.logs.max-per-node; 0 is 256
}

// A Record is what is kept of a command.
type Record struct {
	Time     time.Time     `json:"time"`
	Who      string        `json:"who"`
	Client   string        `json:"client"` // address
	Node     string        `json:"node"`
	Command  string        `json:"command"`
	Exit     int           `json:"exit"`
	Error    string        `json:"error,omitempty"`
	Read     int64         `json:"read"` // bytes
	Sent     int64         `json:"sent"` // bytes
	Lines    int64         `json:"lines"`
	Duration time.Duration `json:"duration"`
}

// A Caller is who sends requests.
type Caller struct {
	Name     string // for the audit
	ReadOnly bool   // may not append to stdin files
}

// AllowAll is the Authorize of a door without tokens.
func AllowAll(*http.Request) (Caller, error) { return Caller{Name: "anonymous"}, nil }

// ErrUnauthorized is what Authorize returns for a caller without a valid token.
var ErrUnauthorized = errors.New("not authorized")

// A Door is a [Service] as an http.Handler: the WebSocket at /, and the REST form below /files/, /download/, /stdin/
// and /query.
type Door struct {
	cfg      DoorConfig
	upgrader websocket.Upgrader
	mux      *http.ServeMux
	frames   sync.Pool // *[]byte, lent to who writes

	ctx     context.Context //nolint:containedctx // of the WebSockets, which outlive their requests; Close ends it
	stop    context.CancelFunc
	sockets sync.WaitGroup

	mu      sync.Mutex // guards the fields below, and that no socket begins after Close
	closed  bool
	total   int
	clients map[string]int
}

// NewDoor returns the handler. It starts nothing. The caller closes it.
func NewDoor(cfg DoorConfig) (*Door, error) {
	if cfg.Service == nil || cfg.Log == nil {
		return nil, errors.New("log door: a service and a logger are needed")
	}
	if cfg.Authorize == nil {
		cfg.Authorize = func(*http.Request) (Caller, error) { return Caller{}, ErrUnauthorized }
	}
	fill(&cfg.PerClient, 8)
	fill(&cfg.PerNode, 256)
	d := &Door{cfg: cfg, mux: http.NewServeMux(), clients: map[string]int{}}
	d.frames.New = func() any { return new([]byte) }
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.upgrader = websocket.Upgrader{
		ReadBufferSize: 1 << 10, WriteBufferSize: 4 << 10, WriteBufferPool: &sync.Pool{},
		HandshakeTimeout: 10 * time.Second, Subprotocols: []string{Subprotocol, LineProtocol}, CheckOrigin: d.originAllowed,
	}
	d.mux.HandleFunc("GET /{$}", d.socket)
	d.mux.HandleFunc("POST /query", d.query)
	d.mux.HandleFunc("GET /files/", d.files)
	d.mux.HandleFunc("GET /download/", d.download)
	d.mux.HandleFunc("POST /stdin/", d.stdin)
	return d, nil
}

// Close ends all WebSockets and waits for them. Other requests end with their own contexts.
func (d *Door) Close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.stop()
	d.sockets.Wait()
}

// ServeHTTP serves one request. A WebSocket goes on after it has returned, until it is closed or Close is called.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, err := d.cfg.Authorize(r)
	if err != nil {
		d.cfg.Log.WithFields(logrus.Fields{"client": r.RemoteAddr, "path": r.URL.Path}).WithError(err).Warn("log service: refused")
		w.Header().Set("WWW-Authenticate", `Bearer realm="drover logs"`)
		fail(w, http.StatusUnauthorized, "not authorized: a token is needed")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !d.originAllowed(r) {
		fail(w, http.StatusForbidden, "this origin is not allowed (app.logs.origins)")
		return
	}
	d.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
}

// Trusted is the door for requests that somebody else has let in, as what comes through the tunnel to a server. who
// names the caller and the address that it sent from. Its WebSockets end with until, as with Close.
func (d *Door) Trusted(until context.Context, who func(r *http.Request) (caller Caller, client string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, client := who(r)
		ctx := context.WithValue(r.Context(), callerKey{}, name)
		r = r.WithContext(context.WithValue(ctx, untilKey{}, until))
		r.RemoteAddr = client
		d.mux.ServeHTTP(w, r)
	})
}

// untilKey is the key of the context that ends the WebSockets of a request, which outlive the request's own.
type untilKey struct{}

type callerKey struct{}

func caller(r *http.Request) Caller {
	who, _ := r.Context().Value(callerKey{}).(Caller)
	return who
}

// originAllowed takes requests that name no origin, the door's own, and those that are configured.
func (d *Door) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if slices.Contains(d.cfg.Origins, "*") || slices.Contains(d.cfg.Origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// fail answers with one clear line as JSON.
func fail(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "status": status, "message": fmt.Sprintf(format, args...)})
}

// enter takes one of the places for commands; the caller calls leave.
func (d *Door) enter(client string) (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total >= d.cfg.PerNode {
		return nil, &LimitError{Key: "app.logs.max-per-node", Limit: fmt.Sprintf("%d commands", d.cfg.PerNode)}
	}
	if d.clients[client] >= d.cfg.PerClient {
		return nil, &LimitError{Key: "app.logs.max-per-client", Limit: fmt.Sprintf("%d commands", d.cfg.PerClient)}
	}
	d.total++
	d.clients[client]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.total--
		if d.clients[client]--; d.clients[client] == 0 {
			delete(d.clients, client)
		}
	}, nil
}

func errReadOnly() error { return &Refusal{Reason: "the token does not allow to append (verb stdin)"} }

// address is where a request comes from, without a port.
func address(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// run carries out one command under the limits and writes the audit.
func (d *Door) run(ctx context.Context, who Caller, client, command string, p *Pipeline, sink Sink) (Result, error) {
	start := time.Now()
	var result Result
	leave, err := d.enter(who.Name + "@" + client)
	if err == nil && p.Append != nil && who.ReadOnly {
		leave()
		err = errReadOnly()
		result.ExitCode = 2
	} else if err == nil {
		err = guard(func() error {
			defer leave()
			var err error
			result, err = d.cfg.Service.Run(ctx, p, sink)
			return err
		})
	} else {
		result.ExitCode = 1
	}
	var bug *panicError
	if errors.As(err, &bug) {
		d.cfg.Log.WithField("command", command).Errorf("log service: panic: %v\n%s", bug.value, bug.stack)
	}
	d.audit(Record{
		Time: start, Who: who.Name, Client: client, Node: d.cfg.Node, Command: command, Exit: result.ExitCode,
		Read: result.ReadBytes, Sent: result.OutBytes, Lines: result.OutLines, Duration: time.Since(start),
	}, err)
	return result, err
}

func (d *Door) audit(rec Record, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		rec.Error = err.Error()
	}
	d.cfg.Log.WithFields(logrus.Fields{
		"who": rec.Who, "client": rec.Client, "node": rec.Node, "command": rec.Command, "exit": rec.Exit, "read": rec.Read, "sent": rec.Sent,
		"error": rec.Error, "millis": rec.Duration.Milliseconds(),
	}).Info("log service: command")
	if d.cfg.Audit != nil {
		d.cfg.Audit(rec)
	}
}
