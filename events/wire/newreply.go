package wire

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// MaxFrame bounds one event and one reply, in bytes.
const MaxFrame = 8 << 20

// maxData leaves a reply room for the rest of its frame.
const maxData = MaxFrame - 64<<10

// maxText bounds the human text of a reply.
const maxText = 4 << 10

// NewReply returns the good final reply to ev. data nil means none; a [json.RawMessage] or []byte is taken as it is,
// without copying, once it was found to be JSON; anything else is marshalled. It fails where data is no JSON or would
// not fit into [MaxFrame].
func NewReply(ev *Event, data any) (*Reply, error) {
	raw, err := rawData(data)
	if err != nil {
		return nil, err
	}
	r := answer(ev)
	r.ID, r.Time, r.Data = newID(), time.Now().UnixMilli(), raw
	return r, nil
}

// answer returns what every reply to ev has, with one allocation.
func answer(ev *Event) *Reply {
	r := &struct {
		Reply
		ids [1]string
	}{ids: [1]string{ev.ID}}
	r.Reply = Reply{Name: ev.ReplyTo, ResourceID: ev.ResourceID, ResourceType: ev.ResourceType}
	if ev.ID != "" {
		r.PreviousIDs = r.ids[:]
	}
	return &r.Reply
}

// NewErrorReply returns the bad final reply to ev. code is one of the Code constants, text is one line for people:
// line breaks become spaces and a long one is cut.
func NewErrorReply(ev *Event, code, text string) *Reply {
	r := answer(ev)
	r.Transitioning, r.TransitioningMessage, r.Code = TransitioningError, oneLine(text), code
	return r
}

// NewProgressReply returns a reply to ev that says how far it has come. percent is held to 0 to 100; 0 is not sent.
func NewProgressReply(ev *Event, text string, percent int) *Reply {
	r := answer(ev)
	r.Transitioning, r.TransitioningMessage = TransitioningYes, oneLine(text)
	r.TransitioningProgress = min(max(percent, 0), 100)
	return r
}

func rawData(data any) (json.RawMessage, error) {
	var raw []byte
	switch d := data.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		raw = d
	case []byte:
		raw = d
	default:
		var err error
		if raw, err = json.Marshal(data); err != nil {
			return nil, fmt.Errorf("encoding the reply's data: %w", err)
		}
		return bounded(raw)
	}
	if len(raw) == 0 {
		return nil, nil
	}
	if !Valid(raw) {
		return nil, fmt.Errorf("the reply's data (%d bytes) is no JSON", len(raw))
	}
	return bounded(raw)
}

func bounded(raw []byte) (json.RawMessage, error) {
	if len(raw) > maxData {
		return nil, fmt.Errorf("the reply's data has %d bytes, more than %d", len(raw), maxData)
	}
	return raw, nil
}

func oneLine(s string) string {
	s = strings.TrimSpace(s)
	if strings.ContainsAny(s, "\r\n") {
		s = strings.Join(strings.Fields(s), " ")
	}
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}

// newID returns a random UUID (version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	s[8] = '-'
	hex.Encode(s[9:13], b[4:6])
	s[13] = '-'
	hex.Encode(s[14:18], b[6:8])
	s[18] = '-'
	hex.Encode(s[19:23], b[8:10])
	s[23] = '-'
	hex.Encode(s[24:36], b[10:16])
	return string(s[:])
}
