package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// A stub is the least control server that an agent can be measured under: it pushes frames and notes when the final
// reply of each arrives. It decodes no more of a reply than the id, so that what is measured is the agent.
type stub struct {
	// inBand makes the stub a Drover server, whose agents answer over the socket; else they POST as to a Rancher one.
	inBand bool

	server   *http.Server
	listener net.Listener
	upgrader websocket.Upgrader
	sessions chan *session

	mu      sync.Mutex // guards the fields below
	waiting map[string]*call
	finals  map[string]int // final replies by event id, only while counting
	order   []string       // ids of final replies in order of arrival, only while counting
	all     map[string]int // replies by event id, final or not, only while counting
}

type call struct {
	sent time.Time
	done chan time.Duration // capacity 1; -1 is an error reply
}

// A session is one subscribed agent.
type session struct {
	conn *websocket.Conn
	gone chan struct{} // closed when the reader ended
	at   time.Time     // of the upgrade
	took time.Duration // from the connection's beginning to the upgrade

	mu sync.Mutex // one writer at a time
}

func newStub(inBand bool) (*stub, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &stub{
		inBand: inBand, listener: l,
		upgrader: websocket.Upgrader{ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10},
		sessions: make(chan *session, 16),
		waiting:  make(map[string]*call),
	}
	key, err := apiKey()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/scripts/api.crt", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(key) })
	for _, version := range []string{"v1", "v2-beta"} {
		mux.HandleFunc("GET /"+version, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-API-Schemas", s.url()+"/"+version+"/schemas")
			_, _ = io.WriteString(w, `{"type":"apiVersion","id":"`+version+`","links":{}}`)
		})
		mux.HandleFunc("GET /"+version+"/schemas", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-API-Schemas", s.url()+"/"+version+"/schemas")
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "collection", "data": []any{
				s.schema(version, "publish", "publish"), s.schema(version, "containerEvent", "containerevents"),
				s.schema(version, "hostApiProxyToken", "hostapiproxytokens"),
			}})
		})
		mux.HandleFunc("POST /"+version+"/publish", s.publish)
		mux.HandleFunc("POST /"+version+"/containerevents", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
		})
		mux.HandleFunc("POST /"+version+"/hostapiproxytokens", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotImplemented)
		})
		mux.HandleFunc("GET /"+version+"/subscribe", s.subscribe)
	}
	s.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, acceptedKey{}, time.Now())
		},
	}
	return s, nil
}

// apiKey returns a public key as every server hands one out; an agent stores it at its first start.
func apiKey() ([]byte, error) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func (s *stub) schema(version, id, plural string) map[string]any {
	return map[string]any{
		"id": id, "type": "schema", "pluralName": plural,
		"collectionMethods": []string{"POST"}, "resourceMethods": []string{},
		"links": map[string]string{
			"self":       s.url() + "/" + version + "/schemas/" + id,
			"collection": s.url() + "/" + version + "/" + plural,
		},
	}
}

func (s *stub) url() string { return "http://" + s.listener.Addr().String() }

// run serves until ctx ends.
func (s *stub) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.server.Close() })
	defer stop()
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// next returns the next agent that subscribes.
func (s *stub) next(ctx context.Context) (*session, error) {
	select {
	case se := <-s.sessions:
		return se, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no agent subscribed: %w", ctx.Err())
	}
}

// acceptedKey finds when a connection began in the context of its requests.
type acceptedKey struct{}

func (s *stub) subscribe(w http.ResponseWriter, r *http.Request) {
	header := http.Header{}
	if s.inBand {
		header.Set("Drover-Version", "bench")
		header.Set("Drover-Protocol", "1")
		header.Set("Drover-Time", time.Now().UTC().Format(time.RFC3339Nano))
	}
	conn, err := s.upgrader.Upgrade(w, r, header)
	if err != nil {
		return // Upgrade has answered
	}
	se := &session{conn: conn, gone: make(chan struct{}), at: time.Now()}
	if accepted, ok := r.Context().Value(acceptedKey{}).(time.Time); ok {
		se.took = se.at.Sub(accepted)
	}
	defer close(se.gone)
	defer conn.Close()
	select {
	case s.sessions <- se:
	case <-r.Context().Done():
		return
	}
	var acks []string
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			return
		}
		id, final, ping := s.note(frame)
		if !final || ping {
			continue
		}
		// A batch of acknowledgements, as a server that stores replies in batches sends them.
		acks = append(acks, id)
		if len(acks) >= 16 || s.idle() {
			if err := se.write(ackFrame(acks)); err != nil {
				return
			}
			acks = acks[:0]
		}
	}
}

func ackFrame(ids []string) []byte {
	b := []byte(`{"name":"drover.ack","data":{"ids":[`)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, id)
	}
	return append(b, "]}}"...)
}

func (s *stub) publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.note(body)
	w.WriteHeader(http.StatusCreated)
}

// note takes one reply. Final replies end their call.
func (s *stub) note(frame []byte) (id string, final, ping bool) {
	now := time.Now()
	id = between(frame, `"previousIds":["`, `"`)
	transitioning := between(frame, `"transitioning":"`, `"`)
	final = transitioning != "yes"
	ping = len(id) > 0 && id[0] == 'p'
	s.mu.Lock()
	if s.all != nil {
		s.all[id]++
	}
	s.mu.Unlock()
	if id == "" || !final {
		return id, final, ping
	}
	s.mu.Lock()
	c := s.waiting[id]
	delete(s.waiting, id)
	if s.finals != nil {
		s.finals[id]++
		s.order = append(s.order, id)
	}
	s.mu.Unlock()
	if c != nil {
		took := now.Sub(c.sent)
		if transitioning == "error" {
			took = -1
		}
		c.done <- took
	}
	return id, final, ping
}

func between(b []byte, from, to string) string {
	i := bytes.Index(b, []byte(from))
	if i < 0 {
		return ""
	}
	b = b[i+len(from):]
	j := bytes.Index(b, []byte(to))
	if j < 0 {
		return ""
	}
	return string(b[:j])
}

func (s *stub) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) == 0
}

// count starts (or stops) to count final replies an event.
func (s *stub) count(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finals, s.order, s.all = nil, nil, nil
	if on {
		s.finals, s.all = make(map[string]int), make(map[string]int)
	}
}

// replies is how many replies an event has had, while counting.
func (s *stub) replies(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id]
}

func (s *stub) counted() (finals map[string]int, order []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	finals = make(map[string]int, len(s.finals))
	for id, n := range s.finals {
		finals[id] = n
	}
	return finals, append([]string(nil), s.order...)
}

func (se *session) write(frame []byte) error {
	se.mu.Lock()
	defer se.mu.Unlock()
	if err := se.conn.SetWriteDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	return se.conn.WriteMessage(websocket.TextMessage, frame)
}

// begin registers a call and sends its frame.
func (s *stub) begin(se *session, id string, frame []byte) (*call, error) {
	c := &call{sent: time.Now(), done: make(chan time.Duration, 1)}
	s.mu.Lock()
	s.waiting[id] = c
	s.mu.Unlock()
	return c, se.write(frame)
}

// call sends one event and waits for its final reply.
func (s *stub) call(ctx context.Context, se *session, id string, frame []byte) (time.Duration, error) {
	c, err := s.begin(se, id, frame)
	if err != nil {
		return 0, err
	}
	select {
	case d := <-c.done:
		if d < 0 {
			return 0, fmt.Errorf("event %s was answered with an error", id)
		}
		return d, nil
	case <-se.gone:
		return 0, errors.New("the agent went away")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
