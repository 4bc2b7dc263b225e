package cast

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"
)

// A Header is the first line of a recording.
type Header struct {
	Version   int               `json:"version"` // 2
	Width     int               `json:"width"`   // characters
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp,omitempty"`       // seconds since 1970
	IdleLimit float64           `json:"idle_time_limit,omitempty"` // seconds; longer pauses are played as this
	Command   string            `json:"command,omitempty"`
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
}

// Kinds of events.
const (
	kindOutput = "o"
	kindInput  = "i"
	kindResize = "r"
)

// A Recorder writes a recording, an event a line, each at once: what was recorded is there even if the process is
// killed. What is typed is recorded only if that is asked for by calling Input.
type Recorder struct {
	now   func() time.Time
	start time.Time

	mu   sync.Mutex // guards what follows, and the order of events
	out  io.Writer
	err  error             // the first of out; nothing is written after it
	rest map[string][]byte // by kind: the beginning of a character whose end is still to come
}

// NewRecorder writes the header. Times count from now on.
func NewRecorder(out io.Writer, h Header, now func() time.Time) (*Recorder, error) {
	h.Version = 2
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	r := &Recorder{now: now, start: now(), out: out, rest: map[string][]byte{}}
	if _, err := out.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	return r, nil
}

// Output records what the session wrote.
func (r *Recorder) Output(p []byte) { r.data(kindOutput, p) }

// Input records what the user typed.
func (r *Recorder) Input(p []byte) { r.data(kindInput, p) }

// Resize records a new size.
func (r *Recorder) Resize(width, height int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.event(kindResize, fmt.Sprintf("%dx%d", width, height))
}

// Close writes what is held back and returns the first error of the recording. It does not close the file.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for kind, rest := range r.rest {
		if len(rest) > 0 {
			r.event(kind, string(rest))
		}
	}
	clear(r.rest)
	return r.err
}

func (r *Recorder) data(kind string, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	whole := append(r.rest[kind], p...)
	cut := len(whole) - unfinished(whole)
	r.rest[kind] = bytes.Clone(whole[cut:])
	if cut > 0 {
		r.event(kind, string(whole[:cut]))
	}
}

// unfinished is how many bytes at the end of p may be the beginning of a character.
func unfinished(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if b := p[len(p)-n]; utf8.RuneStart(b) {
			if !utf8.FullRune(p[len(p)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// event writes one line; what is no UTF-8 becomes the replacement character, as JSON has no other place for it.
func (r *Recorder) event(kind, data string) {
	if r.err != nil {
		return
	}
	var line bytes.Buffer
	fmt.Fprintf(&line, "[%.6f, %q, ", r.now().Sub(r.start).Seconds(), kind)
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if r.err = enc.Encode(data); r.err != nil {
		return
	}
	line.Truncate(line.Len() - 1) // the encoder's newline
	line.WriteString("]\n")
	_, r.err = r.out.Write(line.Bytes())
}
