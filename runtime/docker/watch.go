package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/runtime"
)

// message is the part of a daemon's event that makes a notice.
type message struct {
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
	Time     int64
	TimeNano int64
}

// Watch yields what happens to containers. A daemon that falls silent is asked whether it is alive, so that a stream
// over a hung daemon breaks within Config.WatchInterval and a ping's patience.
func (e *Engine) Watch(ctx context.Context, since time.Time) iter.Seq2[runtime.Notice, error] {
	if since.IsZero() {
		since = time.Now() // so that nothing is lost between the call and the daemon's answer
	}
	return func(yield func(runtime.Notice, error) bool) {
		const op = "watch containers"
		s, err := e.opened(ctx, op)
		if err == nil {
			err = e.watch(ctx, s, since, yield)
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, errStopped):
		default:
			yield(runtime.Notice{}, e.wrapLong(ctx, op, err))
		}
	}
}

// errStopped says that the consumer of a Watch has had enough.
var errStopped = errors.New("stopped")

func (e *Engine) watch(parent context.Context, s *session, since time.Time, yield func(runtime.Notice, error) bool) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	query := url.Values{
		"filters": {`{"type":["container"]}`},
		"since":   {strconv.FormatInt(since.Unix(), 10) + "." + nanos(since)},
	}
	var events atomic.Int64
	var watchdog sync.WaitGroup
	watchdog.Go(func() { e.guard(ctx, s, cancel, &events) })
	defer watchdog.Wait()
	defer cancel(nil)

	resp, err := e.request(ctx, e.long, s, http.MethodGet, "/events", query.Encode(), nil, nil)
	if err != nil {
		return cause(ctx, err)
	}
	defer resp.Body.Close()
	decoder := json.NewDecoder(resp.Body)
	for {
		var m message
		if err := decoder.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				err = &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the daemon ended the stream", Cause: err}
			}
			return cause(ctx, err)
		}
		events.Add(1)
		if m.Action == "" || m.Actor.ID == "" {
			continue
		}
		if !yield(noticeOf(m), nil) {
			return errStopped
		}
	}
}

// guard ends a stream with its cause when the daemon neither sends events nor answers a ping.
func (e *Engine) guard(ctx context.Context, s *session, cancel context.CancelCauseFunc, events *atomic.Int64) {
	tick := time.NewTicker(e.cfg.WatchInterval)
	defer tick.Stop()
	var seen int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n := events.Load(); n != seen {
			seen = n
			continue
		}
		ping, done := context.WithTimeout(ctx, pingTimeout)
		_, err := s.api.Ping(ping)
		done()
		if err != nil && ctx.Err() == nil {
			cancel(&runtime.Error{Kind: runtime.ErrUnavailable, Message: "the daemon is silent and does not answer a ping", Cause: err})
			return
		}
	}
}

// cause prefers the reason for which ctx was ended to the error that its end led to.
func cause(ctx context.Context, err error) error {
	var known *runtime.Error
	if reason := context.Cause(ctx); errors.As(reason, &known) {
		return known
	}
	return err
}

func noticeOf(m message) runtime.Notice {
	n := runtime.Notice{ID: m.Actor.ID, Time: time.Unix(0, m.TimeNano)}
	if m.TimeNano == 0 {
		n.Time = time.Unix(m.Time, 0)
	}
	// "exec_start: cmd args" and "health_status: healthy" carry text that is none of the action.
	n.Action, _, _ = strings.Cut(m.Action, ":")
	n.Name = m.Actor.Attributes["name"]
	n.Image = m.Actor.Attributes["image"]
	for key, value := range m.Actor.Attributes {
		switch key {
		case "name", "image", "exitCode", "signal", "execID", "oldName", "execDuration":
			continue
		}
		if n.Labels == nil {
			n.Labels = make(map[string]string, len(m.Actor.Attributes))
		}
		n.Labels[key] = value
	}
	return n
}

// nanos is the fraction of a second, nine digits.
func nanos(t time.Time) string {
	text := strconv.Itoa(t.Nanosecond())
	return strings.Repeat("0", 9-len(text)) + text
}
