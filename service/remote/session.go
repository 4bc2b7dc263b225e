package remote

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/runtime"
)

// Options say which streams a viewer asked for, and how patient to be with it. A zero duration is the default.
type Options struct {
	Stdin, Stdout, Stderr, TTY bool

	// Creation bounds the upgrade and, over SPDY, the wait for the streams: 30 s.
	Creation time.Duration
	// KeepAlive is the time between frames to an idle viewer: 20 s.
	KeepAlive time.Duration
	// Linger is how long the viewer may take to close the connection at the end: 5 s.
	Linger time.Duration
	// CheckOrigin decides about requests of browsers; nil admits those of the same origin.
	CheckOrigin func(*http.Request) bool
	// Header is added to the answer of the upgrade.
	Header http.Header
	// Fail answers a request that cannot be upgraded; nil answers in plain text.
	Fail func(w http.ResponseWriter, status int, err error)
}

const (
	defaultCreation  = 30 * time.Second
	defaultKeepAlive = 20 * time.Second
	defaultLinger    = 5 * time.Second
	// lastWords is how long writing may take when nobody waits any more, farewell how long the status of a process may.
	lastWords = 2 * time.Second
	farewell  = 30 * time.Second
	// inputLimit is how much input may wait for the process.
	inputLimit = 256 << 10
	// chunk is the longest payload of a frame. With all that is put before it, it fills four records of TLS.
	chunk = 64<<10 - 32
)

func (o Options) withDefaults() Options {
	if o.Creation <= 0 {
		o.Creation = defaultCreation
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = defaultKeepAlive
	}
	if o.Linger <= 0 {
		o.Linger = defaultLinger
	}
	if o.TTY {
		o.Stderr = false // a terminal has one output
	}
	if o.Fail == nil {
		o.Fail = func(w http.ResponseWriter, status int, err error) { http.Error(w, err.Error(), status) }
	}
	return o
}

// ErrGone says that the viewer is gone.
var ErrGone = errors.New("the viewer is gone")

// A Session is the other end of a viewer's streams. Streams that were not asked for are nil.
type Session struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Resize <-chan runtime.TerminalSize // closed when no more will come; nil without a terminal

	protocol string
	link     link
	input    *input
	ctx      context.Context //nolint:containedctx // it is what the session tells
	cancel   context.CancelCauseFunc
	linger   time.Duration
	calm     func() bool // takes the deadline at the end of ctx back
	workers  sync.WaitGroup
}

// A link is what SPDY and WebSocket have in common.
type link interface {
	// status writes the last words on the error stream.
	status(p []byte) error
	// shut ends the outputs in order, so that the viewer reads to their end.
	shut()
	// closed is closed when the viewer closed the connection, or it broke.
	closed() <-chan struct{}
	// deadline bounds the writes that are blocked and those that come.
	deadline(d time.Duration)
	// close closes the connection.
	close()
}

// Upgradable reports whether r asks for a protocol that [Accept] speaks.
func Upgradable(r *http.Request) bool {
	up := r.Header.Get("Upgrade")
	return isSPDY(up) || isWebSocket(up)
}

func isSPDY(upgrade string) bool { return strings.EqualFold(strings.TrimSpace(upgrade), "SPDY/3.1") }

func isWebSocket(upgrade string) bool {
	return strings.EqualFold(strings.TrimSpace(upgrade), "websocket")
}

// Accept upgrades r. On an error the viewer has been told. Otherwise the caller calls Finish.
func Accept(w http.ResponseWriter, r *http.Request, opts Options) (*Session, error) {
	opts = opts.withDefaults()
	ctx, cancel := context.WithCancelCause(r.Context())
	s := &Session{ctx: ctx, cancel: cancel, linger: opts.Linger}
	var err error
	switch up := r.Header.Get("Upgrade"); {
	case isSPDY(up):
		err = s.acceptSPDY(w, r, opts)
	case isWebSocket(up):
		err = s.acceptWebSocket(w, r, opts)
	default:
		err = errors.New("upgrade to SPDY/3.1 or websocket required")
		w.Header().Set("Upgrade", "SPDY/3.1, websocket")
		opts.Fail(w, http.StatusUpgradeRequired, err)
	}
	if err != nil {
		cancel(err)
		return nil, err
	}
	s.watch()
	return s, nil
}

// watch ties the context and the link together.
func (s *Session) watch() {
	// Whoever blocks in a Write learns that nobody waits for it any more.
	s.calm = context.AfterFunc(s.ctx, func() { s.link.deadline(lastWords) })
	s.workers.Go(func() {
		select {
		case <-s.link.closed():
			s.cancel(ErrGone)
		case <-s.ctx.Done():
		}
	})
}

// Context ends when the viewer is gone, with ErrGone as its cause, or when the request's context ends.
func (s *Session) Context() context.Context { return s.ctx }

// Protocol is the one that was agreed on, "v4.channel.k8s.io"; "" if the viewer named none.
func (s *Session) Protocol() string { return s.protocol }

// Finish tells the viewer how the process ended and ends the session.
func (s *Session) Finish(err error) {
	if s.input != nil {
		s.workers.Go(s.input.drain)
	}
	if s.ctx.Err() == nil {
		// A slow viewer has much to read before it comes to the status.
		s.link.deadline(farewell)
	}
	if !errors.Is(context.Cause(s.ctx), ErrGone) {
		if text := status(s.protocol, err); len(text) > 0 {
			_ = s.link.status(text)
		}
		s.link.shut()
		linger, over := s.linger, s.ctx.Done()
		if s.ctx.Err() != nil {
			linger, over = min(linger, lastWords), nil // for the status to arrive
		}
		wait := time.NewTimer(linger)
		select {
		case <-s.link.closed():
		case <-over:
		case <-wait.C:
		}
		wait.Stop()
	}
	s.calm()
	s.link.close()
	s.cancel(ErrGone)
	s.workers.Wait()
}

// status is how a protocol version words the end of a process.
func status(protocol string, err error) []byte {
	st := statusOf(err)
	switch versionOf(protocol) {
	case 4, 5:
		b, _ := json.Marshal(st) // strings and numbers only
		return b
	}
	return []byte(st.Message)
}

// versionOf is the number in a protocol's name; the names without one are version 1.
func versionOf(protocol string) int {
	if len(protocol) > 2 && protocol[0] == 'v' && protocol[2] == '.' {
		return int(protocol[1] - '0')
	}
	return 1
}

// A Status is the part of a metav1.Status that the protocols use.
type Status struct {
	Metadata struct{}       `json:"metadata"`
	Status   string         `json:"status"` // Success or Failure
	Message  string         `json:"message,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Details  *StatusDetails `json:"details,omitempty"`
	Code     int            `json:"code,omitempty"`
}

// StatusDetails hold the exit code of a process.
type StatusDetails struct {
	Causes []StatusCause `json:"causes,omitempty"`
}

// A StatusCause is one of the details.
type StatusCause struct {
	Type    string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// Values of a [Status] for a process that ended with a code other than 0.
const (
	ReasonExit    = "NonZeroExitCode"
	CauseExitCode = "ExitCode"
)

func statusOf(err error) Status {
	st := Status{Status: "Failure"}
	var exit *runtime.ExitError
	switch {
	case err == nil:
		st.Status = "Success"
	case errors.As(err, &exit):
		st.Reason = ReasonExit
		st.Message = "command terminated with non-zero exit code: " + exit.Error()
		st.Details = &StatusDetails{Causes: []StatusCause{{Type: CauseExitCode, Message: itoa(exit.Code)}}}
	default:
		st.Message = err.Error()
		st.Reason, st.Code = "InternalError", http.StatusInternalServerError
		for _, class := range []struct {
			err    error
			reason string
			code   int
		}{
			{runtime.ErrNotFound, "NotFound", http.StatusNotFound},
			{runtime.ErrConflict, "Conflict", http.StatusConflict},
			{runtime.ErrInvalid, "BadRequest", http.StatusBadRequest},
			{runtime.ErrUnsupported, "MethodNotAllowed", http.StatusMethodNotAllowed},
			{runtime.ErrUnavailable, "ServiceUnavailable", http.StatusServiceUnavailable},
		} {
			if errors.Is(err, class.err) {
				st.Reason, st.Code = class.reason, class.code
			}
		}
	}
	return st
}

// input is a viewer's standard input. One reader at a time: first the process, then whoever throws the rest away.
type input struct {
	r    io.Reader
	mu   sync.Mutex // held while reading
	over atomic.Bool
}

func (i *input) Read(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over.Load() {
		return 0, io.EOF
	}
	n, err := i.r.Read(p)
	if i.over.Load() {
		return 0, io.EOF
	}
	return n, err
}

// drain reads the rest, so that the viewer is not stuck in sending it and its goodbye is seen.
func (i *input) drain() {
	i.over.Store(true)
	i.mu.Lock()
	defer i.mu.Unlock()
	_, _ = io.Copy(io.Discard, i.r)
}

// sizes is a channel of which only the newest size counts.
type sizes chan runtime.TerminalSize

// decode passes on the sizes in r, JSON objects one after another, until it ends.
func (c sizes) decode(r io.Reader) {
	defer close(c)
	dec := json.NewDecoder(r)
	for {
		var size runtime.TerminalSize
		if dec.Decode(&size) != nil {
			break
		}
		if size.Width > 0 && size.Height > 0 {
			c.put(size)
		}
	}
	// Nonsense is not passed on, but read: the other streams share the connection.
	_, _ = io.Copy(io.Discard, r)
}

func (c sizes) put(size runtime.TerminalSize) {
	for {
		select {
		case c <- size:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}
