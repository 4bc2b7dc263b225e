package events

import (
	"time"

	"github.com/droverhq/drover/utils/keyed"
)

// Bounds of the outbox and the journal beneath it.
const (
	maxPending      = 65536     // final replies that the server has not taken
	maxPendingBytes = 64 << 20  // of them, in a journal on disk
	maxMemoryBytes  = 16 << 20  // of them, in a journal in memory
	maxUnstored     = 16 << 20  // of them, in memory because the journal failed
	maxCached       = 1 << 20   // of them, in memory beside the journal
	window          = 512 << 10 // of them, while connected, before workers wait for the server
	maxKept         = 4 << 20   // taken replies kept for repeats, in a journal on disk
	maxKeptMemory   = 512 << 10 // and in one in memory
	maxKeptCount    = 4096
	maxKeptAge      = 15 * time.Minute
	maxTombstones   = 32768
	maxTombstoneAge = 24 * time.Hour

	// windowWait is how long a worker waits for the server to take what is before its reply.
	windowWait = time.Second
	// crossing is how long a repeated event may merely have crossed its reply on the way.
	crossing = 2 * time.Second
)

// entry is one reply on its way to the server. Its fields are guarded by the outbox's mu once it was added.
type entry struct {
	record
	kind     entryKind
	state    entryState
	stored   bool // the journal has it, at place, so the frame may be dropped
	place    place
	listed   bool // it is in the list and the map of what is pending
	sentAt   time.Time
	failures int
	lane     keyed.Taken[*entry] // while waiting
	timer    *time.Timer         // while waiting

	older, newer *entry
}

type entryKind uint8

const (
	kindFinal   entryKind = iota // journalled, offered until taken
	kindPassing                  // offered until taken, but forgotten with the process: busy and the like
	kindRepeat                   // a kept reply on its way once more
	kindOnce                     // offered once: pings and progress to a server that takes them by POST
)

type entryState uint8

const (
	stateQueued entryState = iota
	stateSending
	stateWaiting // for its next attempt
	stateSent    // over the socket, and not acknowledged
	stateGone
)

// keptReply is a reply that the server took and that still is in the journal.
type keptReply struct {
	seq   uint64
	size  int
	at    time.Time
	place place
}

// grave is a tombstone without its text.
type grave struct {
	seq, hash uint64
	at        time.Time
}
