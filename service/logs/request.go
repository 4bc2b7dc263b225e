package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Request is the structured form of a command. Mode is tail unless it says otherwise.
type Request struct {
	Mode    string   `json:"mode,omitempty"` // tail, cat, grep
	Path    string   `json:"path,omitempty"`
	Files   []string `json:"files,omitempty"`   // further names or patterns
	Filter  string   `json:"filter,omitempty"`  // extended regular expression; lines that match it
	Follow  bool     `json:"follow,omitempty"`  // tail only
	Since   string   `json:"since,omitempty"`   // a time, or a duration before now
	Until   string   `json:"until,omitempty"`   // likewise
	Lines   int      `json:"lines,omitempty"`   // tail only; 0 is 10
	Context int      `json:"context,omitempty"` // lines around a match
	Task    string   `json:"taskId,omitempty"`  // or a request id: looked up instead of Path
	Request string   `json:"requestId,omitempty"`
}

// ParseRequest reads the JSON of a structured request; unknown keys are refused by name.
func ParseRequest(data []byte) (*Request, error) {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	var r Request
	if err := dec.Decode(&r); err != nil {
		return nil, &Refusal{Reason: "request: " + strings.TrimPrefix(err.Error(), "json: ")}
	}
	if dec.More() {
		return nil, &Refusal{Reason: "request: more than one JSON object"}
	}
	return &r, nil
}

// resolve fills in Path from a task or request id.
func (r *Request) resolve(ctx context.Context, d *DoorConfig) error {
	if r.Task == "" && r.Request == "" {
		return nil
	}
	if r.Path != "" {
		return &Refusal{Reason: "request: path together with taskId or requestId"}
	}
	if r.Task != "" && r.Request != "" {
		return &Refusal{Reason: "request: taskId together with requestId"}
	}
	if d.Lookup == nil {
		return &Refusal{Reason: "request: no task lookup is configured (app.logs.lookup)"}
	}
	path, node, err := d.Lookup(ctx, r.Task, r.Request)
	if errors.Is(err, ErrUnknownTask) {
		return &Refusal{Reason: fmt.Sprintf("request: unknown task %q", r.Task+r.Request)}
	}
	if err != nil {
		return fmt.Errorf("task lookup: %w", err)
	}
	if node != "" && node != d.Node && !slices.Contains(d.Addresses, node) {
		return &Refusal{Reason: fmt.Sprintf("request: task %q is on node %s", r.Task+r.Request, node)}
	}
	r.Path = path
	return nil
}

// Pipeline turns the request into stages. Nothing of it is parsed as a command line, so nothing needs quoting.
func (r *Request) Pipeline(now time.Time) (*Pipeline, error) {
	bad := func(format string, args ...any) (*Pipeline, error) {
		return nil, &Refusal{Reason: "request: " + fmt.Sprintf(format, args...)}
	}
	var operands []Word
	if r.Path != "" {
		operands = append(operands, Word{Text: r.Path})
	}
	for _, f := range r.Files {
		w := Word{Text: f}
		if strings.ContainsAny(f, "*?[") {
			w.Pattern = f
		}
		operands = append(operands, w)
	}
	if len(operands) == 0 {
		return bad("neither path nor files")
	}
	if r.Lines < 0 || r.Context < 0 {
		return bad("lines and context cannot be negative")
	}
	var p Pipeline
	stage := func(name string, args ...string) {
		words := make([]Word, 0, len(args)+len(operands))
		for _, a := range args {
			words = append(words, Word{Text: a})
		}
		if len(p.Stages) == 0 {
			words = append(append(words, Word{Text: "--"}), operands...)
		}
		p.Stages = append(p.Stages, Command{Name: name, Args: words})
	}
	times, err := r.times(now)
	if err != nil {
		return nil, err
	}
	if r.Follow && (r.Mode == "cat" || r.Mode == "grep" || times != nil && r.Until != "") {
		return bad("only tail without until follows")
	}
	switch r.Mode {
	case "", "tail":
		args := []string{"-n", strconv.Itoa(max(r.Lines, 0))}
		switch {
		case r.Follow && times != nil:
			args[1] = "+1"
		case r.Lines == 0:
			args[1] = "10"
		}
		if r.Follow {
			args = append(args, "-F")
		}
		if times != nil && !r.Follow {
			stage(timeRange, times...)
			p.Stages = append(p.Stages, Command{Name: "tail", Args: []Word{{Text: "-n"}, {Text: args[1]}}})
			break
		}
		stage("tail", args...)
		if times != nil {
			stage(timeRange, times...)
		}
	case "cat", "grep":
		if r.Mode == "grep" && r.Filter == "" {
			return bad("grep needs a filter")
		}
		if times != nil {
			stage(timeRange, times...)
		} else {
			stage("cat")
		}
	default:
		return bad("mode %q is none of tail, cat, grep", r.Mode)
	}
	if r.Filter != "" {
		args := []string{"-E", "-e", r.Filter}
		if r.Context > 0 {
			args = append(args, "-C", strconv.Itoa(r.Context))
		}
		stage("grep", args...)
	}
	return &p, nil
}

// times returns the arguments of the timeRange stage, nil if there is no range.
func (r *Request) times(now time.Time) ([]string, error) {
	if r.Since == "" && r.Until == "" {
		return nil, nil
	}
	out := []string{"", ""}
	for i, text := range []string{r.Since, r.Until} {
		if text == "" {
			continue
		}
		t, err := parseMoment(text, now)
		if err != nil {
			return nil, err
		}
		out[i] = t.Format(time.RFC3339Nano)
	}
	return out, nil
}

// parseMoment reads a time, or a duration before now.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	if t, ok := lineTime([]byte(text), now); ok {
		return t, nil
	}
	if sec, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(sec, 0), nil
	}
	return time.Time{}, &Refusal{Reason: fmt.Sprintf("%q is neither a time nor a duration", text)}
}
