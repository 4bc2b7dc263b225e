package service

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/droverhq/drover/service/containerlog"
)

// HeaderLogTime is the host's time before it looked into a log. Whoever wanted only what comes from then on, and was cut
// off before it came, asks for what came since.
const HeaderLogTime = "Drover-Log-Time"

// Forms of a log stream, chosen by the request's Accept header. The default is the bare output, both streams together.
const (
	// MediaFramed is dockerd's: each piece begins with eight bytes: 1 for stdout, 2 for stderr or 3 for an error of the
	// stream itself, three zeros, and the length, big-endian.
	MediaFramed = "application/vnd.docker.multiplexed-stream"
	// MediaResumable is MediaFramed with a frame of kind 4 after each frame of output: the cursor to go on from if nothing
	// after it arrived. A frame of kind 5 marks a gap.
	MediaResumable = "application/vnd.drover.log-stream"
	// MediaLines is one JSON object a line: see LogLine.
	MediaLines = "application/x-ndjson"

	mediaText = "text/plain"
)

// Kinds of frames.
const (
	frameStdout = 1
	frameStderr = 2
	frameError  = 3
	frameCursor = 4
	frameGap    = 5

	frameHeader = 8
)

// A LogLine is an entry of a log in the form of MediaLines.
type LogLine struct {
	Stream    string    `json:"stream"` // stdout, stderr
	Time      time.Time `json:"time"`
	Log       string    `json:"log"`                 // with its newline
	Truncated bool      `json:"truncated,omitempty"` // the line was too long and goes on in the next entry
	Cursor    string    `json:"cursor,omitempty"`
}

// serveLogs writes the output of a container.
func (s *Service) serveLogs(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	lq := containerlog.Query{}
	lq.Stdout, lq.Stderr = q.flag("stdout"), q.flag("stderr")
	lq.Follow, lq.Timestamps = q.flag("follow"), q.flag("timestamps")
	lq.Since, lq.Until = q.when("since"), q.when("until")
	lq.Join, lq.Cursor = q.flag("join"), q.Get("cursor")
	switch tail := q.Get("tail"); tail {
	case "", "all":
	case "0":
		lq.Tail = -1
	default:
		lq.Tail = q.number("tail", 0, 0, 1<<31-1)
	}
	if expr := q.Get("filter"); expr != "" {
		re, err := regexp.Compile(expr)
		if err != nil {
			return invalid("parameter filter: %v", err)
		}
		lq.Filter = re
	}
	if q.err != nil {
		return q.err
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbLogs, Container: st}); err != nil {
		return err
	}
	w.Header().Set(HeaderLogTime, time.Now().UTC().Format(time.RFC3339Nano))
	out := newLogWriter(w, accepted(r))
	defer out.release()
	lq.Idle = out.Flush
	switch out.media {
	case MediaLines:
		lq.Gap = out.gap
		err = s.logs.Entries(r.Context(), st.ID, lq, out.entry)
	case MediaResumable:
		lq.Mark, lq.Gap = out.cursor, out.gap
		err = s.logs.Copy(r.Context(), st.ID, lq, out.stream(frameStdout), out.stream(frameStderr))
	default:
		err = s.logs.Copy(r.Context(), st.ID, lq, out.stream(frameStdout), out.stream(frameStderr))
	}
	return out.end(r.Context(), err)
}

// accepted chooses the form of the answer.
func accepted(r *http.Request) string {
	for _, header := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(header, ",") {
			media, _, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err != nil {
				continue
			}
			switch media {
			case MediaFramed, MediaResumable, MediaLines:
				return media
			}
		}
	}
	return mediaText
}

// A logWriter puts a log into the form that was asked for. It holds up to 64 KiB until Flush.
type logWriter struct {
	http  *http.ResponseController
	w     http.ResponseWriter
	buf   *bufio.Writer
	media string
	begun bool // the header was sent
	json  *json.Encoder
}

func newLogWriter(w http.ResponseWriter, media string) *logWriter {
	return &logWriter{http: http.NewResponseController(w), w: w, media: media}
}

// begin sends the header with the first output, so that an error before it can still be told properly.
func (l *logWriter) begin() {
	if l.begun {
		return
	}
	l.begun = true
	h := l.w.Header()
	h.Set("Content-Type", l.media)
	if l.media == mediaText {
		h.Set("Content-Type", mediaText+"; charset=utf-8")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold a stream back
	l.buf = bufio.NewWriterSize(l.w, 64<<10)
	l.json = json.NewEncoder(l.buf)
	l.json.SetEscapeHTML(false)
}

func (l *logWriter) release() { l.buf = nil }

// Flush sends what is held.
func (l *logWriter) Flush() error {
	l.begin()
	if err := l.buf.Flush(); err != nil {
		return err
	}
	return l.http.Flush()
}

func (l *logWriter) stream(kind byte) io.Writer {
	if l.media == mediaText {
		return plainLog{l} // comparable: both streams are one
	}
	return framedLog{l, kind}
}

type plainLog struct{ l *logWriter }

func (p plainLog) Write(b []byte) (int, error) {
	p.l.begin()
	return p.l.buf.Write(b)
}

type framedLog struct {
	l    *logWriter
	kind byte
}

func (f framedLog) Write(b []byte) (int, error) { return f.l.frame(f.kind, b) }

func (l *logWriter) frame(kind byte, b []byte) (int, error) {
	l.begin()
	var head [frameHeader]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[4:], uint32(len(b)))
	if _, err := l.buf.Write(head[:]); err != nil {
		return 0, err
	}
	return l.buf.Write(b)
}

func (l *logWriter) cursor(c string) error {
	_, err := l.frame(frameCursor, []byte(c))
	return err
}

func (l *logWriter) entry(e *containerlog.Entry) error {
	l.begin()
	line := LogLine{Stream: "stdout", Time: e.Time(), Log: string(e.Line), Truncated: e.Truncated, Cursor: e.Cursor()}
	if e.Stderr {
		line.Stream = "stderr"
	}
	return l.json.Encode(line)
}

// gap tells that entries are missing here. An error of writing it shows at the next write.
func (l *logWriter) gap() {
	l.begin()
	if l.media == MediaLines {
		_ = l.json.Encode(map[string]bool{"gap": true})
		return
	}
	_, _ = l.frame(frameGap, nil)
}

// end finishes the stream. An error becomes a frame where there are frames.
func (l *logWriter) end(ctx context.Context, err error) error {
	if err != nil && !l.begun {
		return err
	}
	if err != nil && ctx.Err() == nil {
		switch l.media {
		case MediaFramed, MediaResumable:
			_, _ = l.frame(frameError, []byte(err.Error()))
		case MediaLines:
			_ = l.json.Encode(map[string]string{"error": err.Error()})
		}
	}
	return errors.Join(err, l.Flush())
}
