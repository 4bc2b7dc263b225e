package hubtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/gorilla/websocket"
)

// A Handler does the work of an event.
type Handler func(ctx context.Context, ev *wire.Event, progress func(text string, percent int)) (data any, err error)

// AgentConfig says what an agent is like.
type AgentConfig struct {
	ID       string
	Original bool     // like Rancher's: replies by POST, one event at a time for each resource, the others dropped
	Names    []string // subscribed besides ping; default: "test.event"
	Handle   Handler  // default: answers with the event's data
	HostUUID string   // reported in pings; "": nothing is
	// Instances are reported in pings.
	Instances func() []map[string]any
	NoRetry   bool // stays away once its connection ended
}

// An Agent is a client of the hub with a journal: what it answered it sends again until it was acknowledged, and does
// not do again.
type Agent struct {
	tb  testing.TB
	srv func() *Server
	cfg AgentConfig

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	conn     *websocket.Conn
	upgrade  *http.Response
	running  map[string]bool // by event id
	locked   map[string]bool // by resource
	unacked  map[string][]byte
	answered map[string][]byte // for the whole life of the agent
	runs     map[string]int
	order    map[string][]string // event ids by resource, as they were begun
	dropped  int
	acks     map[string]int
	mute     bool
	afterAck int
	frames   []string // all that came, but pings
	pings    []string
	goAway   int64
	dials    int
	lastErr  error
	status   int
}

// StartAgent connects an agent to whatever server srv returns at the time. It is stopped with the test.
func StartAgent(tb testing.TB, srv func() *Server, cfg AgentConfig) *Agent {
	tb.Helper()
	if cfg.Names == nil {
		cfg.Names = []string{"test.event"}
	}
	if cfg.Handle == nil {
		cfg.Handle = func(_ context.Context, ev *wire.Event, _ func(string, int)) (any, error) { return ev.Data, nil }
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Agent{
		tb: tb, srv: srv, cfg: cfg, cancel: cancel,
		running: map[string]bool{}, locked: map[string]bool{}, unacked: map[string][]byte{}, answered: map[string][]byte{},
		runs: map[string]int{}, order: map[string][]string{}, acks: map[string]int{},
	}
	a.wg.Go(func() { a.run(ctx) })
	tb.Cleanup(a.Stop)
	return a
}

// To returns srv as StartAgent wants it.
func To(srv *Server) func() *Server { return func() *Server { return srv } }

// Stop ends the agent and waits for it.
func (a *Agent) Stop() {
	a.cancel()
	a.Cut()
	a.wg.Wait()
}

// Cut breaks the connection.
func (a *Agent) Cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_ = a.conn.NetConn().Close()
	}
}

// Mute makes the agent leave pings unanswered; its WebSocket library answers all the same.
func (a *Agent) Mute() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mute = true
}

// Connected reports whether the agent has a socket.
func (a *Agent) Connected() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conn != nil
}

// WaitConnected waits until the server knows the agent's socket.
func (a *Agent) WaitConnected() {
	a.tb.Helper()
	WaitFor(a.tb, "the agent to connect", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.conn != nil && len(a.pings) > 0
	})
}

// Upgrade returns the answer to the last upgrade.
func (a *Agent) Upgrade() *http.Response {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.upgrade
}

// Runs returns how often each event was handled.
func (a *Agent) Runs() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.runs)
}

// Order returns the events of a resource in the order in which they were begun.
func (a *Agent) Order(key string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.order[key])
}

// Dropped returns how many events an original agent left out because it was at work on their resource.
func (a *Agent) Dropped() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropped
}

// Unacked returns how many final replies were not acknowledged yet.
func (a *Agent) Unacked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.unacked)
}

// Acks returns how often each event was acknowledged.
func (a *Agent) Acks() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.acks)
}

// AfterAck returns how many events came again although their reply was acknowledged: an agent that forgets what is
// acknowledged would do them twice.
func (a *Agent) AfterAck() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.afterAck
}

// Pings returns the ping frames that came.
func (a *Agent) Pings() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pings)
}

// Frames returns the other frames that came.
func (a *Agent) Frames() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.frames)
}

// GoAway returns what the server asked for when it shut down, in milliseconds.
func (a *Agent) GoAway() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.goAway
}

// Status returns the HTTP status of the last dial, and how many dials there were.
func (a *Agent) Status() (status, dials int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status, a.dials
}

func (a *Agent) run(ctx context.Context) {
	for ctx.Err() == nil {
		a.session(ctx)
		if a.cfg.NoRetry {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (a *Agent) session(ctx context.Context) {
	srv := a.srv()
	if srv == nil {
		return
	}
	header := http.Header{}
	if !a.cfg.Original {
		header.Set(wire.HeaderProtocol, wire.Protocol)
		header.Set(wire.HeaderVersion, "test")
	}
	url := srv.Subscribe(a.cfg.ID, append([]string{wire.NamePing}, a.cfg.Names...)...)
	conn, res, err := websocket.DefaultDialer.DialContext(ctx, url, header)
	a.mu.Lock()
	a.dials++
	a.lastErr, a.upgrade = err, res
	if res != nil {
		a.status = res.StatusCode
	}
	if err != nil {
		a.mu.Unlock()
		return
	}
	a.conn = conn
	again := slices.Collect(maps.Values(a.unacked))
	a.mu.Unlock()
	defer func() {
		_ = conn.Close()
		a.mu.Lock()
		a.conn = nil
		a.mu.Unlock()
	}()
	for _, reply := range again {
		a.write(reply)
	}
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil || ctx.Err() != nil {
			return
		}
		a.take(ctx, srv, frame)
	}
}

// write sends a frame over whatever socket there is.
func (a *Agent) write(frame []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		// If it fails the reply is sent again later.
		_ = a.conn.WriteMessage(websocket.TextMessage, frame)
	}
}

func (a *Agent) take(ctx context.Context, srv *Server, frame []byte) {
	ev, err := wire.DecodeEvent(frame)
	if err != nil {
		a.tb.Errorf("the server sent %.200q: %v", frame, err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch ev.Name {
	case wire.NamePing:
		a.pings = append(a.pings, string(frame))
		if ev.ReplyTo != "" && !a.mute {
			a.wg.Go(func() { a.answer(ctx, srv, ev, a.pong(ev), nil, false) })
		}
		return
	case wire.NameAck:
		ack, err := wire.DecodeAck(ev.Data)
		if err != nil {
			a.tb.Errorf("ack: %v", err)
		}
		for _, id := range ack.IDs {
			delete(a.unacked, id)
			a.acks[id]++
		}
		return
	case wire.NameGoAway:
		g, err := wire.DecodeGoAway(ev.Data)
		if err != nil {
			a.tb.Errorf("goaway: %v", err)
		}
		a.goAway = g.RetryAfterMillis
		return
	}
	a.frames = append(a.frames, string(frame))
	if a.acks[ev.ID] > 0 {
		a.afterAck++
	}
	if reply, ok := a.answered[ev.ID]; ok && !a.cfg.Original {
		a.unacked[ev.ID] = reply
		a.wg.Go(func() { a.write(reply) })
		return
	}
	key := ev.Key()
	switch {
	case a.cfg.Original && key != "" && a.locked[key]:
		a.dropped++
		return
	case a.running[ev.ID]:
		return // joined
	}
	a.running[ev.ID], a.locked[key] = true, true
	a.runs[ev.ID]++
	a.order[key] = append(a.order[key], ev.ID)
	a.wg.Go(func() {
		data, err := a.cfg.Handle(ctx, ev, func(text string, percent int) {
			a.post(ctx, srv, wire.NewProgressReply(ev, text, percent))
		})
		a.answer(ctx, srv, ev, data, err, true)
	})
}

func (a *Agent) answer(ctx context.Context, srv *Server, ev *wire.Event, data any, err error, work bool) {
	var r *wire.Reply
	if err == nil {
		r, err = wire.NewReply(ev, data)
	}
	if err != nil {
		r = wire.NewErrorReply(ev, wire.CodeInternal, err.Error())
	}
	a.mu.Lock()
	if work {
		frame := wire.AppendReply(nil, r)
		a.answered[ev.ID] = frame
		delete(a.running, ev.ID)
		delete(a.locked, ev.Key())
		if !a.cfg.Original && ev.ReplyTo != "" {
			a.unacked[ev.ID] = frame
		}
	}
	a.mu.Unlock()
	if ev.ReplyTo != "" {
		a.post(ctx, srv, r)
	}
}

func (a *Agent) post(ctx context.Context, srv *Server, r *wire.Reply) {
	if !a.cfg.Original {
		a.write(wire.AppendReply(nil, r))
		return
	}
	url := srv.URL + "/publish?agent=" + a.cfg.ID
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(wire.AppendRancherReply(nil, r)))
	if err != nil {
		a.tb.Error(err)
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return // one attempt, like the original
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}

// pong is the data of a ping reply.
func (a *Agent) pong(ev *wire.Event) any {
	var in struct {
		Options struct{ Resources, Instances bool }
	}
	if err := json.Unmarshal(ev.Data, &in); err != nil {
		a.tb.Errorf("ping data %s: %v", ev.Data, err)
	}
	options := map[string]any{}
	var resources []any
	if in.Options.Resources && a.cfg.HostUUID != "" {
		resources = append(resources,
			map[string]any{"type": "physicalHost", "kind": "physicalHost", "uuid": "p-" + a.cfg.HostUUID, "name": "node"},
			map[string]any{
				"type": "host", "kind": "docker", "uuid": a.cfg.HostUUID, "hostname": "node-" + a.cfg.HostUUID,
				"physicalHostUuid": "p-" + a.cfg.HostUUID, "memory": 8_000_000_000, "milliCpu": 4000, "localStorageMb": 51200,
				"labels":       map[string]string{"io.rancher.host.docker_version": "20.10"},
				"createLabels": map[string]string{"zone": "a"},
				"info":         map[string]any{"osInfo": map[string]string{"dockerVersion": "Docker version 20.10.24, build 297e128"}},
			},
			map[string]any{"type": "storagePool", "kind": "docker", "uuid": a.cfg.HostUUID + "-pool", "hostUuid": a.cfg.HostUUID, "name": "pool"},
			map[string]any{"type": "ipAddress", "uuid": "10.0.0.5", "hostUuid": a.cfg.HostUUID})
	}
	if in.Options.Instances && a.cfg.Instances != nil {
		options["instances"] = true
		resources = append(resources, map[string]any{"type": "hostUuid", "uuid": a.cfg.HostUUID})
		for _, in := range a.cfg.Instances() {
			resources = append(resources, in)
		}
	}
	data := map[string]any{"options": options}
	if len(resources) > 0 {
		data["resources"] = resources
	}
	return data
}

// Instance is an element of AgentConfig.Instances.
func Instance(name, dockerID, state string) map[string]any {
	return map[string]any{
		"type": "instance", "uuid": name, "state": state, "dockerId": dockerID, "image": "busybox",
		"created": 1_700_000_000, "systemContainer": "",
	}
}

// Event makes an event for a resource.
func Event(i, resource int) *wire.Event {
	return &wire.Event{
		Name: "test.event", ResourceType: "thing", ResourceID: fmt.Sprint("1t", resource),
		Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)),
	}
}
