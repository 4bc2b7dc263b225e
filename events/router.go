package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events/wire"
)

// RouterConfig says what a [Router] does around each handler. The zero value works.
type RouterConfig struct {
	Log     logrus.FieldLogger
	Timeout time.Duration // of events that do not say timeoutMillis; 45 s
	// MaxTimeout bounds what an event may ask for, and what progress may extend it to; 24 h.
	MaxTimeout time.Duration
	// Classify maps a handler's error to one of wire's codes and to one line for people. It may return "" for either:
	// the code is then "internal" and the line the error's text. nil means that for every error.
	Classify func(error) (code, userText string)
	// Policy is asked before each handler; its error refuses the event with code "denied". nil allows everything.
	Policy func(context.Context, *wire.Event) error
	// Observe is told of each event served: its name ("other" if no handler has it), its result ("ok" or the error's
	// code) and how long the handler took. nil is fine. It must not block.
	Observe func(name, result string, took time.Duration)
}

// A Router carries events to their handlers: it recovers panics, sets the deadline, asks the policy, logs, measures and
// turns what comes back into the final reply, each once and in one place.
type Router struct {
	cfg      RouterConfig
	handlers map[string]Handler
}

// resultOK is what Observe is told of a good reply.
const resultOK = "ok"

// NewRouter returns a router without handlers.
func NewRouter(cfg RouterConfig) *Router {
	def(&cfg.Timeout, 45*time.Second)
	def(&cfg.MaxTimeout, 24*time.Hour)
	if cfg.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		cfg.Log = silent
	}
	return &Router{cfg: cfg, handlers: map[string]Handler{}}
}

// Handle sets the handler of events called name. It belongs to wiring: it must not be called once the router is in use,
// and panics on a second handler for one name.
func (r *Router) Handle(name string, h Handler) {
	if _, dup := r.handlers[name]; dup {
		panic("events: second handler for " + name)
	}
	if name == "" || h == nil {
		panic("events: Handle without a name or a handler")
	}
	r.handlers[name] = h
}

// Names returns what there are handlers for, sorted: what to subscribe to.
func (r *Router) Names() []string {
	names := make([]string, 0, len(r.handlers))
	for name := range r.handlers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Serve runs the handler of ev and returns the final reply, which is never nil. It blocks until the handler returns;
// p may be nil. A handler that panics, fails, or does not exist makes an error reply.
func (r *Router) Serve(ctx context.Context, ev *wire.Event, p Progress) *wire.Reply {
	if p == nil {
		p = noProgress{}
	}
	return r.serve(ctx, ev, time.Now(), p)
}

type noProgress struct{}

func (noProgress) Report(string, int) {}

// timeout returns how long ev may take.
func (r *Router) timeout(ev *wire.Event) time.Duration {
	return min(ev.Timeout(r.cfg.Timeout), r.cfg.MaxTimeout)
}

// serve is Serve for an event that arrived some time ago: its deadline counts from then, because its sender does.
func (r *Router) serve(ctx context.Context, ev *wire.Event, arrived time.Time, p Progress) *wire.Reply {
	name, _, _ := strings.Cut(ev.Name, ";") // some servers leave their routing suffix on
	started := time.Now()
	h, ok := r.handlers[name]
	if !ok {
		err := fmt.Errorf("no handler for event %q", name)
		return r.failed(ev, "other", wire.CodeUnsupported, err.Error(), err, started)
	}
	period := r.timeout(ev)
	deadline := arrived.Add(period)
	if !deadline.After(started) {
		err := fmt.Errorf("waited %s in the queue, longer than its sender waits", started.Sub(arrived).Round(time.Millisecond))
		return r.failed(ev, name, wire.CodeTimeout, err.Error(), err, started)
	}
	if r.cfg.Policy != nil {
		if err := r.cfg.Policy(ctx, ev); err != nil {
			return r.failed(ev, name, wire.CodeDenied, err.Error(), err, started)
		}
	}
	m := withMovingDeadline(ctx, deadline, period, r.cfg.MaxTimeout)
	defer m.stop()
	data, err := r.call(m, h, name, ev, &extending{m, p})
	if err == nil {
		var reply *wire.Reply
		if reply, err = finalReply(ev, data); err == nil {
			r.succeeded(ev, name, started)
			return reply
		}
	}
	switch {
	case m.expired():
		return r.failed(ev, name, wire.CodeTimeout, "timed out after "+time.Since(arrived).Round(time.Millisecond).String(), err, started)
	case ctx.Err() != nil:
		return r.failed(ev, name, wire.CodeUnavailable, "the agent is shutting down", err, started)
	}
	code, text := r.classify(err)
	return r.failed(ev, name, code, text, err, started)
}

// call runs h, under the lane where ev needs it, and makes an error of a panic.
func (r *Router) call(ctx context.Context, h Handler, name string, ev *wire.Event, p Progress) (data any, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	ctx, release, err := holdLane(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	return h.Handle(ctx, ev, p)
}

func finalReply(ev *wire.Event, data any) (*wire.Reply, error) {
	res, ok := data.(Result)
	if !ok {
		return wire.NewReply(ev, data)
	}
	reply, err := wire.NewReply(ev, res.Data)
	if err == nil {
		reply.Transitioning, reply.TransitioningMessage = wire.TransitioningNo, res.Message
	}
	return reply, err
}

func (r *Router) classify(err error) (code, text string) {
	var fe *wire.FieldError
	var pe *panicError
	switch {
	case errors.As(err, &pe):
		return wire.CodeInternal, "the handler crashed; see the agent's log"
	case errors.As(err, &fe):
		code = wire.CodeInvalid
	}
	if r.cfg.Classify != nil {
		c, t := r.cfg.Classify(err)
		if code == "" {
			code = c
		}
		text = t
	}
	if code == "" {
		code = wire.CodeInternal
	}
	if text == "" {
		text = err.Error()
	}
	return code, text
}

func (r *Router) succeeded(ev *wire.Event, name string, started time.Time) {
	took := time.Since(started)
	if r.cfg.Observe != nil {
		r.cfg.Observe(name, resultOK, took)
	}
	if logsDebug(r.cfg.Log) {
		eventLog(r.cfg.Log, ev).WithField("took", took).Debug("event done")
	}
}

func (r *Router) failed(ev *wire.Event, name, code, text string, err error, started time.Time) *wire.Reply {
	took := time.Since(started)
	if r.cfg.Observe != nil {
		r.cfg.Observe(name, code, took)
	}
	log := eventLog(r.cfg.Log, ev).WithFields(logrus.Fields{"took": took, "code": code})
	var pe *panicError
	if errors.As(err, &pe) {
		log = log.WithField("stack", string(pe.stack))
	}
	log.WithError(err).Warn("event failed")
	return wire.NewErrorReply(ev, code, text)
}

func eventLog(log logrus.FieldLogger, ev *wire.Event) *logrus.Entry {
	return log.WithFields(logrus.Fields{"event": ev.ID, "name": ev.Name, "resource": ev.Key()})
}

// logsDebug reports whether a debug line would be written, so that its fields need not be made for nothing.
func logsDebug(log logrus.FieldLogger) bool {
	switch l := log.(type) {
	case *logrus.Logger:
		return l.IsLevelEnabled(logrus.DebugLevel)
	case *logrus.Entry:
		return l.Logger.IsLevelEnabled(logrus.DebugLevel)
	}
	return true
}

// extending grants an event more time with each report of its progress.
type extending struct {
	m *moving
	p Progress
}

func (e *extending) Report(message string, percent int) {
	e.m.extend()
	e.p.Report(message, percent)
}

type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }
