package hub

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
	"github.com/sirupsen/logrus"
)

var errStub = errors.New("hub: under construction")

// Config is what a hub needs. Only Store is required; the zero value of everything else means its default.
type Config struct {
	Store   *store.Store
	Version string // told to Drover agents in the answer to their upgrade
	Log     logrus.FieldLogger
	// Unclaimed, if set, gets each final reply whose caller is gone (its context ended, or its server process did) and
	// whose event was still stored. Calls come one at a time; the reply counts as handed over when it returns nil.
	Unclaimed func(ctx context.Context, agentID string, ev *wire.Event, r *wire.Reply) error
	Timings   Timings
}

// Timings are the hub's times and counts. Zero values mean Rancher's, as noted.
type Timings struct {
	Ping            time.Duration // between keep-alives and pings: 5 s
	PingTimeout     time.Duration // 15 s
	FailedPings     int           // until reconnecting: 6
	DisconnectAfter time.Duration // from reconnecting to disconnected: 180 s
	Hold            time.Duration // a socket lost for less than this changes no state: 2 s
	CallTimeout     time.Duration // for events that do not say: 45 s
}

// A Hub is the agents' side of one server replica. All methods are safe for concurrent use.
type Hub struct{ cfg Config }

// New checks cfg. It does no I/O.
func New(cfg Config) (*Hub, error) { return &Hub{cfg: cfg}, nil }

// Run serves until ctx ends: then agents are told to go away, sockets are closed and everything is waited for.
func (h *Hub) Run(ctx context.Context) error { return errStub }

// ServeWS upgrades the subscribe request of an authenticated agent and takes over its socket. It returns when the
// upgrade is done or refused: 409 if the agent is connected from another live place, 503 while shutting down.
func (h *Hub) ServeWS(w http.ResponseWriter, r *http.Request, agentID string) {}

// Call sends an event to an agent, wherever it is connected, and waits for the final reply, the deadline or ctx.
//
// It fills in the event's ID, ReplyTo, Time and TimeoutMillis if they are not set; the event is not modified
// otherwise, and must not be by others while Call runs. An agent that is away gets the event when it is back, if that is before the deadline. Each progress
// reply extends the deadline by one period and is passed to progress (which may be nil), in order, one at a time,
// never after Call returned. A final reply that reports a failure is returned like any other, with a nil error.
//
// If ctx ends, Call returns its error, and the event lives on until its final reply or its deadline.
// Errors: ErrTimeout, ErrUnsupported, ErrUnknownAgent, ErrFull, ErrInvalid, ErrClosed. Code gives the wire code.
func (h *Hub) Call(ctx context.Context, agentID string, ev *wire.Event, progress func(*wire.Reply)) (*wire.Reply, error) {
	return nil, errStub
}

// Send sends an event that nobody waits for. It returns when the event is stored; it is pushed at most until its
// deadline, and counts as done when it was written to the agent's socket.
func (h *Hub) Send(ctx context.Context, agentID string, ev *wire.Event) error { return errStub }

// Publish is the door for replies that arrive by POST. It returns nil when the reply is safe, also for a duplicate.
// ErrForbidden if its name does not begin with "reply.".
func (h *Hub) Publish(ctx context.Context, agentID string, r *wire.Reply) error { return errStub }

// A ContainerEvent is what an agent posts about a container that changed.
type ContainerEvent struct {
	ExternalID        string          `json:"externalId"`
	ExternalFrom      string          `json:"externalFrom"`
	ExternalStatus    string          `json:"externalStatus"` // start, stop, die, kill, destroy
	ExternalTimestamp int64           `json:"externalTimestamp"`
	ReportedHostUUID  string          `json:"reportedHostUuid"`
	Data              json.RawMessage `json:"data,omitempty"`
	DockerInspect     json.RawMessage `json:"dockerInspect,omitempty"`
}

// ContainerEvent brings the container's record up to date. ErrUnknownAgent if there is no such agent, ErrReference if
// the host is not one of the agent's.
func (h *Hub) ContainerEvent(ctx context.Context, agentID string, ev ContainerEvent) error {
	return errStub
}

// Subscribe returns a feed of the changes of records: see store.Store.Subscribe.
func (h *Hub) Subscribe(ctx context.Context, types ...string) <-chan store.Change { return nil }

// Disconnect closes the agent's socket, on whatever replica it is: after its removal, say.
func (h *Hub) Disconnect(ctx context.Context, agentID string) error { return errStub }

// LastSeen returns when the agent last made a round trip, as far as this replica knows.
func (h *Hub) LastSeen(agentID string) time.Time { return time.Time{} }

// Stats are counters since the start of the process, and gauges.
type Stats struct {
	Sessions    int   // agents connected here
	Pending     int   // events that wait for their final reply, callers of this replica
	Calls       int64 // events taken
	Replies     int64 // final replies handed to callers
	Duplicates  int64 // further final replies
	Late        int64 // final replies after the deadline, or to a caller that is gone
	Timeouts    int64
	Redelivered int64 // events pushed again after a reconnect
	SlowClosed  int64 // sockets closed because they did not drain
	StaleClosed int64 // sockets closed because they went silent
	Refused     int64 // connections refused as duplicates
	Malformed   int64 // frames that were no reply
}

// Stats returns the present numbers.
func (h *Hub) Stats() Stats { return Stats{} }
