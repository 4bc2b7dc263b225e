package containerlog

import (
	"context"
	"regexp"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A Query says what to read of a log. The zero value is everything so far.
//
// As in dockerd's API, Tail counts entries of both streams, before anything else is chosen among them, and an entry is a
// line or a piece of 16 KiB of a longer one.
type Query struct {
	runtime.LogOptions
	// Filter keeps the lines that match, without their newline; it implies Join.
	Filter *regexp.Regexp
	// Join puts the pieces of a long line together, up to MaxLine bytes.
	Join bool
	// MaxLine is 1 MiB if 0.
	MaxLine int
	// Cursor goes on behind an entry, instead of Tail and Since. See [Entry.Cursor].
	Cursor string
	// Idle, if not nil, is called whenever all that exists has been yielded: the time to flush.
	Idle func() error
	// Mark, if not nil, is called by Copy after each write with the cursor of all that was written.
	Mark func(cursor string) error
	// Gap, if not nil, is called where entries may be missing, because the follower was too slow for the rotation.
	Gap func()
}

// A Stater tells the state of containers; every engine's Containers does.
type Stater interface {
	State(ctx context.Context, id string) (runtime.ContainerStatus, error)
}

// Config is what a [Reader] needs.
type Config struct {
	// Containers tells where logs are and whether containers run.
	Containers Stater
	// Fallback reads what cannot be read from files; nil is none.
	Fallback runtime.LogReader
	// Root is where the host's file system is seen: "" or "/host".
	Root string
	// DataRoot returns dockerd's data folder on the host, for the files of the local driver, whose path dockerd does not
	// tell. nil turns them over to the fallback.
	DataRoot func(context.Context) (string, error)
	// Poll is how often a follow looks at its file where it gets no notice of changes: 250 ms if 0.
	Poll time.Duration
}

const (
	defaultPoll    = 250 * time.Millisecond
	defaultMaxLine = 1 << 20
	// netting is how often a follow that hears nothing asks whether its container still runs.
	netting = 10 * time.Second
	// margin is how far times may go back from one record to the next when a place is searched by time.
	margin = 10 * time.Second
)
