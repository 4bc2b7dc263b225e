package remote

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/resume"
)

const (
	defaultGrace = 30 * time.Second
	defaultMost  = 256
	// replay is how much output of a kept session waits to be acknowledged.
	replay = 1 << 20
)

// ErrNotKept says that there is no such session, or that it is another viewer's.
var ErrNotKept = errors.New("this stream cannot be continued: it has ended, or was never here")

// KeepOptions say how sessions are kept. A zero value is the default.
type KeepOptions struct {
	Grace time.Duration // for a viewer to come back: 30 s
	Most  int           // sessions at a time: 256; further ones are not resumable
}

// A Keeper keeps the sessions of viewers that speak resume.Protocol when their connection breaks.
type Keeper struct {
	opts KeepOptions

	mu   sync.Mutex
	kept map[string]*keptLink // by id
}

// NewKeeper returns a keeper. It starts nothing.
func NewKeeper(opts KeepOptions) *Keeper {
	if opts.Grace <= 0 {
		opts.Grace = defaultGrace
	}
	if opts.Most <= 0 {
		opts.Most = defaultMost
	}
	return &Keeper{opts: opts, kept: map[string]*keptLink{}}
}

// Wants reports whether r asks for a session that can be continued, and may have one.
func (k *Keeper) Wants(r *http.Request) bool {
	if !isWebSocket(r.Header.Get("Upgrade")) || !slices.Contains(websocket.Subprotocols(r), resume.Protocol) {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept) < k.opts.Most
}

// Accept upgrades r to a session that outlives its connections, for as long as ctx. Its context ends when the viewer says
// goodbye, or does not come back in time. A lossy session drops output while there is no connection and no more room,
// where others wait. admit, if not nil, decides about those who come back. On an error the viewer has been told;
// otherwise the caller calls serve, which returns when the first connection has ended, and, in another goroutine, the
// session's Finish.
func (k *Keeper) Accept(ctx context.Context, w http.ResponseWriter, r *http.Request, opts Options, lossy bool, admit func(*http.Request) error) (s *Session, serve func(), err error) {
	opts = opts.withDefaults()
	ws, err := upgrade(w, r, opts, []string{resume.Protocol})
	if err != nil {
		return nil, nil, err
	}
	l := &keptLink{
		keeper: k, opts: opts, admit: admit, id: random(12), key: random(32),
		out: resume.NewSender(replay, lossy), due: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s = &Session{ctx: ctx, cancel: cancel, linger: k.opts.Grace, protocol: protocolV5, link: l}
	if opts.Stdin {
		l.stdin = newPipe(inputWindow + 2*resume.AckEvery)
		s.input = &input{r: consumed{l}}
		s.Stdin = s.input
	}
	if opts.Stdout {
		s.Stdout = keptOutput{l, chanStdout}
	}
	if opts.Stderr {
		s.Stderr = keptOutput{l, chanStderr}
	}
	if opts.TTY {
		l.resize = newPipe(4 << 10)
		c := make(sizes, 1)
		s.Resize = c
		s.workers.Go(func() { c.decode(l.resize) })
	}
	k.mu.Lock()
	k.kept[l.id] = l
	k.mu.Unlock()
	s.watch()
	return s, func() { l.serve(ws, 0, true) }, nil
}

// Find returns what continues the session of the given id over the connection of r, which must bring the session's key.
// serve tells the viewer whatever goes wrong, and returns when the connection has ended.
func (k *Keeper) Find(r *http.Request, id string) (serve func(http.ResponseWriter), err error) {
	k.mu.Lock()
	l := k.kept[id]
	k.mu.Unlock()
	if l == nil || subtle.ConstantTimeCompare([]byte(r.Header.Get(resume.HeaderKey)), []byte(l.key)) != 1 {
		return nil, ErrNotKept
	}
	select {
	case <-l.gone:
		return nil, ErrNotKept // it is being ended
	default:
	}
	if l.admit != nil {
		if err := l.admit(r); err != nil {
			return nil, err
		}
	}
	received, err := strconv.ParseInt(r.Header.Get(resume.HeaderReceived), 10, 64)
	if err != nil || received < 0 {
		return nil, fmt.Errorf("header %s: want a number of bytes: %w", resume.HeaderReceived, runtime.ErrInvalid)
	}
	return func(w http.ResponseWriter) {
		if ws, err := upgrade(w, r, l.opts, []string{resume.Protocol}); err == nil {
			l.serve(ws, received, false)
		}
	}, nil
}

func (k *Keeper) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.kept, id)
}

// random returns n random bytes as text that fits into URLs.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
