package events

import (
	"sync/atomic"
	"time"
)

// A State says what a [Client] is doing.
type State string

// The states of a [Client].
const (
	StateIdle       State = "idle" // Run was not called
	StateConnecting State = "connecting"
	StateConnected  State = "connected"
	StateBackingOff State = "backing off"
	StateDraining   State = "draining"
	StateClosed     State = "closed" // Run returned
)

// Status is a snapshot of a [Client].
type Status struct {
	State     State
	Since     time.Time // when State began
	NextDial  time.Time // while backing off
	LastError string    // why the last connection or attempt ended; "" before the first failure
	LastFrame time.Time // the last sign of life from the server; zero before the first

	Drover        bool          // the server speaks Drover's extension: replies go over the socket
	ServerVersion string        // Drover-Version of the server, or ""
	ClockSkew     time.Duration // server's clock minus ours, where the server says its time
	RTT           time.Duration // of the last keep-alive

	Stats Stats
}

// Stats are gauges and counters since New. Fields without a unit count.
type Stats struct {
	Queued      int // events that wait
	QueuedBytes int64
	Running     int // events in a handler, pings too
	Unsent      int // final replies that the server did not take yet

	Connects        uint64 // connections made
	ConnectFailures uint64
	Events          uint64 // events read, pings too
	Pings           uint64 // pings with a replyTo
	KeepAlives      uint64 // pings without a replyTo
	Malformed       uint64 // frames that could not be read
	Busy            uint64 // events refused because a queue was full
	Joined          uint64 // events whose id was queued or running
	Repeated        uint64 // events answered from the journal
	Replies         uint64 // final replies made, pings too
	Resent          uint64 // final replies sent again
	Taken           uint64 // final replies that the server took
	Refused         uint64 // final replies that the server refused for good
	Expired         uint64 // final replies that nobody took in time
	Progress        uint64 // progress replies sent
	PublishFailures uint64 // attempts to POST that failed
	JournalFailures uint64 // writes of the journal that failed; the reply went out from memory
}

// counters is the live form of Stats.
type counters struct {
	running                                    atomic.Int64
	connects, connectFailures                  atomic.Uint64
	events, pings, keepAlives, malformed       atomic.Uint64
	busy, joined, repeated                     atomic.Uint64
	replies, resent, taken, refused, expired   atomic.Uint64
	progress, publishFailures, journalFailures atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		Running:  int(c.running.Load()),
		Connects: c.connects.Load(), ConnectFailures: c.connectFailures.Load(),
		Events: c.events.Load(), Pings: c.pings.Load(), KeepAlives: c.keepAlives.Load(), Malformed: c.malformed.Load(),
		Busy: c.busy.Load(), Joined: c.joined.Load(), Repeated: c.repeated.Load(),
		Replies: c.replies.Load(), Resent: c.resent.Load(), Taken: c.taken.Load(), Refused: c.refused.Load(), Expired: c.expired.Load(),
		Progress: c.progress.Load(), PublishFailures: c.publishFailures.Load(), JournalFailures: c.journalFailures.Load(),
	}
}
