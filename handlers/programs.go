package handlers

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// The events for programs: what a terminal does with streams, as one question and one bounded answer. Only Drover servers
// send them.
const (
	EventContainerExec    = "container.exec"
	EventContainerLogs    = "container.logs"
	EventContainerInspect = "container.inspect"
	EventContainerStats   = "container.stats"
	EventContainerFiles   = "container.files"
)

// Streams are what the host's doors lead to, under the same policy, in the same turn.
type Streams interface {
	Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.Streams) error
	ReadLogs(ctx context.Context, id string, opts runtime.LogOptions, filter *regexp.Regexp, out, errOut io.Writer) error
	Stats(ctx context.Context, id string) (runtime.Stats, error)
	// StatFile and ListFiles return what JSON can be made of.
	StatFile(ctx context.Context, id, path string) (any, error)
	ListFiles(ctx context.Context, id, path string) (files any, truncated bool, err error)
	ReadFile(ctx context.Context, id, path string) (io.ReadCloser, error)
	WriteFiles(ctx context.Context, id, dir string, tar io.Reader) error
}

const (
	defaultOutput = 1 << 20 // of each stream
	maxOutput     = 2 << 20 // two of them in base64 fit into a reply
	maxInput      = 4 << 20
	// endGrace is what a process gets between SIGHUP and SIGKILL when its time is up.
	endGrace = time.Second
	// endTime is kept free at the end of an event's time for ending a process and for its answer.
	endTime = 3 * time.Second
)

type programs struct {
	engine  runtime.Containers
	streams Streams
}

// RegisterPrograms wires the events for programs to r. It does no I/O.
func RegisterPrograms(r Router, engine runtime.Containers, streams Streams) {
	p := &programs{engine: engine, streams: streams}
	for name, f := range map[string]events.HandlerFunc{
		EventContainerExec: p.exec, EventContainerLogs: p.logs, EventContainerInspect: p.inspect,
		EventContainerStats: p.stats, EventContainerFiles: p.files,
	} {
		r.Handle(name, f)
	}
}

// oneContainer is what all of them say.
func decodeContainer(ev *wire.Event, req any, container *string) error {
	if err := decodeEvent(ev, req); err != nil {
		return err
	}
	if *container == "" {
		return invalid("container", "missing")
	}
	return nil
}

// outputSize checks how much of each stream is wanted.
func outputSize(path string, n *int) (int, error) {
	switch {
	case n == nil:
		return defaultOutput, nil
	case *n < 1 || *n > maxOutput:
		return 0, invalid(path, "want 1 to %d bytes", maxOutput)
	}
	return *n, nil
}

// execRequest is the data of container.exec.
type execRequest struct {
	Container     string   `json:"container"`
	Command       []string `json:"command"`
	Env           []string `json:"env"`
	User          string   `json:"user"`
	WorkDir       string   `json:"workDir"`
	Privileged    bool     `json:"privileged"`
	Stdin         string   `json:"stdin"`
	StdinBase64   string   `json:"stdinBase64"`
	MaxOutput     *int     `json:"maxOutputBytes"`
	TimeoutMillis int64    `json:"timeoutMillis"` // of the process; 0 is what the event's own leaves
}

// execAnswer is the answer to container.exec.
type execAnswer struct {
	Container string `json:"container"`
	ExitCode  int    `json:"exitCode"` // -1 if the process was ended
	TimedOut  bool   `json:"timedOut,omitempty"`
	Millis    int64  `json:"durationMillis"`
	Stdout    text   `json:"stdout"`
	Stderr    text   `json:"stderr"`
}

// text is a bounded output. Of one that was too long it is the beginning, and Tail is its end.
type text struct {
	Text      string `json:"text"`
	Tail      string `json:"tail,omitempty"`
	Encoding  string `json:"encoding,omitempty"` // "base64" where it is no plain text
	Bytes     int64  `json:"bytes"`              // of the whole
	Truncated bool   `json:"truncated"`
	Omitted   int64  `json:"omittedBytes,omitempty"` // between Text and Tail
}

func (p *programs) exec(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req execRequest
	if err := decodeContainer(ev, &req, &req.Container); err != nil {
		return nil, err
	}
	input, size, err := req.check()
	if err != nil {
		return nil, err
	}
	st, err := p.engine.State(ctx, req.Container)
	if err != nil {
		return nil, fmt.Errorf("look at container %s: %w", req.Container, err)
	}
	limited, cancel := within(ctx, time.Duration(req.TimeoutMillis)*time.Millisecond)
	defer cancel()
	out, errOut := newEnds(size), newEnds(size)
	streams := runtime.Streams{Out: out, Err: errOut}
	if input != nil {
		streams.In = input
	}
	began := time.Now()
	err = p.streams.Exec(limited, st.ID, runtime.ExecSpec{
		Cmd: req.Command, Env: req.Env, User: req.User, WorkingDir: req.WorkDir, Privileged: req.Privileged, Grace: endGrace,
	}, streams)
	answer := &execAnswer{Container: st.ID, Millis: time.Since(began).Milliseconds(), Stdout: out.text(), Stderr: errOut.text()}
	var exit *runtime.ExitError
	switch {
	case errors.As(err, &exit):
		answer.ExitCode = exit.Code
	case err != nil && ctx.Err() == nil && limited.Err() != nil:
		answer.ExitCode, answer.TimedOut = -1, true
	case err != nil:
		return nil, err
	}
	return answer, nil
}

// check returns the input, nil if there is none, and how much of each output is wanted.
func (r *execRequest) check() (io.Reader, int, error) {
	if len(r.Command) == 0 || r.Command[0] == "" {
		return nil, 0, invalid("command", "missing")
	}
	for i, e := range r.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return nil, 0, invalid(fmt.Sprintf("env[%d]", i), "want NAME=VALUE")
		}
	}
	for i, word := range slices.Concat(r.Command, r.Env, []string{r.User, r.WorkDir}) {
		if strings.ContainsRune(word, 0) {
			return nil, 0, invalid("command", "word %d holds a zero byte", i)
		}
	}
	if r.TimeoutMillis < 0 || r.TimeoutMillis > (24*time.Hour).Milliseconds() {
		return nil, 0, invalid("timeoutMillis", "number out of range")
	}
	input := r.Stdin
	if r.StdinBase64 != "" {
		if input != "" {
			return nil, 0, invalid("stdinBase64", "stdin is given too")
		}
		b, err := base64.StdEncoding.DecodeString(r.StdinBase64)
		if err != nil {
			return nil, 0, invalid("stdinBase64", "not base64")
		}
		input = string(b)
	}
	if len(input) > maxInput {
		return nil, 0, invalid("stdin", "more than %d bytes", maxInput)
	}
	size, err := outputSize("maxOutputBytes", r.MaxOutput)
	if err != nil || input == "" {
		return nil, size, err
	}
	return strings.NewReader(input), size, nil
}

// within returns a context that ends early enough for an answer before ctx does.
func within(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if by, ok := ctx.Deadline(); ok {
		left := time.Until(by)
		left -= min(endTime, left/2)
		if most <= 0 || left < most {
			most = left
		}
	}
	if most <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, most)
}

// logsRequest is the data of container.logs.
type logsRequest struct {
	Container  string `json:"container"`
	Stdout     bool   `json:"stdout"` // neither: both
	Stderr     bool   `json:"stderr"`
	Tail       *int   `json:"tail"` // last n entries; missing is all
	Since      string `json:"since"`
	Until      string `json:"until"`
	Timestamps bool   `json:"timestamps"`
	Filter     string `json:"filter"` // RE2
	MaxOutput  *int   `json:"maxOutputBytes"`
}

// logsAnswer is the answer to container.logs.
type logsAnswer struct {
	Container string `json:"container"`
	Stdout    text   `json:"stdout"`
	Stderr    text   `json:"stderr"`
}

func (p *programs) logs(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req logsRequest
	if err := decodeContainer(ev, &req, &req.Container); err != nil {
		return nil, err
	}
	opts := runtime.LogOptions{Stdout: req.Stdout, Stderr: req.Stderr, Timestamps: req.Timestamps}
	switch {
	case req.Tail == nil:
	case *req.Tail < 0:
		return nil, invalid("tail", "number out of range")
	case *req.Tail == 0:
		opts.Tail = -1
	default:
		opts.Tail = *req.Tail
	}
	var err error
	if opts.Since, err = eventTime("since", req.Since); err != nil {
		return nil, err
	}
	if opts.Until, err = eventTime("until", req.Until); err != nil {
		return nil, err
	}
	var filter *regexp.Regexp
	if req.Filter != "" {
		if filter, err = regexp.Compile(req.Filter); err != nil {
			return nil, invalid("filter", "%v", err)
		}
	}
	size, err := outputSize("maxOutputBytes", req.MaxOutput)
	if err != nil {
		return nil, err
	}
	st, err := p.engine.State(ctx, req.Container)
	if err != nil {
		return nil, fmt.Errorf("look at container %s: %w", req.Container, err)
	}
	out, errOut := newEnds(size), newEnds(size)
	if err := p.streams.ReadLogs(ctx, st.ID, opts, filter, out, errOut); err != nil {
		return nil, err
	}
	return &logsAnswer{Container: st.ID, Stdout: out.text(), Stderr: errOut.text()}, nil
}

// eventTime reads a time (RFC 3339) or how long ago ("10m").
func eventTime(path, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, invalid(path, "want a time (2026-11-20T13:51:00Z) or how long ago (10m)")
}

func (p *programs) inspect(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req struct {
		Container string `json:"container"`
	}
	if err := decodeContainer(ev, &req, &req.Container); err != nil {
		return nil, err
	}
	raw, err := p.engine.Inspect(ctx, req.Container)
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", req.Container, err)
	}
	return wrapRaw("container", raw)
}

func (p *programs) stats(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	var req struct {
		Container string `json:"container"`
	}
	if err := decodeContainer(ev, &req, &req.Container); err != nil {
		return nil, err
	}
	st, err := p.engine.State(ctx, req.Container)
	if err != nil {
		return nil, fmt.Errorf("look at container %s: %w", req.Container, err)
	}
	s, err := p.streams.Stats(ctx, st.ID)
	if err != nil {
		return nil, err
	}
	type network struct {
		Name      string `json:"name"`
		RxBytes   uint64 `json:"rxBytes"`
		RxPackets uint64 `json:"rxPackets"`
		RxErrors  uint64 `json:"rxErrors"`
		RxDropped uint64 `json:"rxDropped"`
		TxBytes   uint64 `json:"txBytes"`
		TxPackets uint64 `json:"txPackets"`
		TxErrors  uint64 `json:"txErrors"`
		TxDropped uint64 `json:"txDropped"`
	}
	networks := make([]network, 0, len(s.Networks))
	for _, n := range s.Networks {
		networks = append(networks, network(n))
	}
	return map[string]any{"stats": map[string]any{
		"id": s.ID, "name": st.Name, "time": s.Time, "cpuTotalNanos": s.CPUTotal, "cpuUserNanos": s.CPUUser, "cpuSystemNanos": s.CPUSystem,
		"memoryBytes": s.Memory, "memoryLimitBytes": s.MemoryLimit, "pids": s.Pids, "readBytes": s.ReadBytes, "writeBytes": s.WriteBytes,
		"networks": networks,
	}}, nil
}

// ends keeps the beginning and the end of what is written to it.
type ends struct {
	head []byte
	tail []byte // a ring once it is full
	at   int    // where the oldest byte of the ring is
	half int
	all  int64
}

// newEnds returns a writer that keeps size bytes, half of them from the end.
func newEnds(size int) *ends { return &ends{half: size - size/2} }

func (e *ends) Write(p []byte) (int, error) {
	n := len(p)
	e.all += int64(n)
	room := min(e.half-len(e.head), len(p))
	e.head, p = append(e.head, p[:room]...), p[room:]
	if len(p) > e.half {
		p = p[len(p)-e.half:]
	}
	room = min(e.half-len(e.tail), len(p))
	e.tail, p = append(e.tail, p[:room]...), p[room:]
	for len(p) > 0 {
		m := copy(e.tail[e.at:], p)
		p = p[m:]
		e.at = (e.at + m) % e.half
	}
	return n, nil
}

// text returns what was kept. Characters that the cuts went through are left out.
func (e *ends) text() text {
	tail := append(slices.Clone(e.tail[e.at:]), e.tail[:e.at]...)
	t := text{Bytes: e.all, Omitted: e.all - int64(len(e.head)+len(tail))}
	if t.Truncated = t.Omitted > 0; !t.Truncated {
		return t.with(slices.Concat(e.head, tail), nil)
	}
	return t.with(e.head, tail)
}

func (t text) with(head, tail []byte) text {
	h, l := head, tail
	if t.Truncated {
		h, l = wholeEnd(head), wholeStart(tail)
	}
	if plain(h) && plain(l) {
		t.Omitted += int64(len(head) - len(h) + len(tail) - len(l))
		t.Text, t.Tail = string(h), string(l)
		return t
	}
	t.Encoding = "base64"
	t.Text = base64.StdEncoding.EncodeToString(head)
	if t.Truncated {
		t.Tail = base64.StdEncoding.EncodeToString(tail)
	}
	return t
}

// wholeEnd drops a character of which only the beginning is there, wholeStart one of which only the end is.
func wholeEnd(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

func wholeStart(b []byte) []byte {
	for i := 0; i < utf8.UTFMax-1 && i < len(b); i++ {
		if utf8.RuneStart(b[i]) {
			return b[i:]
		}
	}
	return b
}

// plain reports whether b is text that JSON does not blow up.
func plain(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	controls := 0
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' {
			controls++
		}
	}
	return controls <= len(b)/16
}
