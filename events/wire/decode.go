package wire

import (
	"encoding/json"
	"fmt"
)

// DecodeEvent reads one event. The event is never nil: where err says that something is wrong, an [*FieldError], it
// holds what could be read, so that an answer can be sent to its ID and ReplyTo. An id is not asked for, because
// the server's own frames have none. Data aliases frame, which must not change afterwards; data must be an object.
// Unknown keys are ignored, of a key given twice the last counts, and frames above [MaxFrame] are refused.
func DecodeEvent(frame []byte) (*Event, error) {
	ev := &Event{}
	f, tooLarge := open(frame)
	var t [6]text
	for f.next() {
		switch string(f.key) {
		case "id":
			f.text(&t[0])
		case "name":
			f.text(&t[1])
		case "replyTo":
			f.text(&t[2])
		case "resourceId":
			f.text(&t[3])
		case "resourceType":
			f.text(&t[4])
		case "publisher":
			f.text(&t[5])
		case "previousIds":
			ev.PreviousIDs = f.list()
		case "previousNames":
			ev.PreviousNames = f.list()
		case "data":
			ev.Data = f.raw(true)
		case "time":
			ev.Time = f.integer("a number of milliseconds", false)
		case "timeoutMillis":
			ev.TimeoutMillis = f.integer("a number of milliseconds", false)
		default:
			f.skip()
		}
	}
	join(t[:], &ev.ID, &ev.Name, &ev.ReplyTo, &ev.ResourceID, &ev.ResourceType, &ev.Publisher)
	if tooLarge != nil {
		return ev, tooLarge
	}
	return ev, f.end()
}

// DecodeReply reads one reply, in Drover's or in Rancher's form. Like [DecodeEvent] it never returns nil and reads on
// after a field of the wrong type. Data aliases frame and may be any JSON; null is read as none.
func DecodeReply(frame []byte) (*Reply, error) {
	r := &Reply{}
	f, tooLarge := open(frame)
	var t [7]text
	for f.next() {
		switch string(f.key) {
		case "id":
			f.text(&t[0])
		case "name":
			f.text(&t[1])
		case "resourceId":
			f.text(&t[2])
		case "resourceType":
			f.text(&t[3])
		case "transitioning":
			f.text(&t[4])
		case "transitioningMessage":
			f.text(&t[5])
		case "code":
			f.text(&t[6])
		case "previousIds":
			r.PreviousIDs = f.list()
		case "data":
			r.Data = f.raw(false)
		case "time":
			r.Time = f.integer("a number of milliseconds", false)
		case "transitioningProgress":
			r.TransitioningProgress = int(min(max(f.integer("a number or a string of one", true), -1<<31), 1<<31-1))
		default:
			f.skip()
		}
	}
	join(t[:], &r.ID, &r.Name, &r.ResourceID, &r.ResourceType, &r.Transitioning, &r.TransitioningMessage, &r.Code)
	if tooLarge != nil {
		return r, tooLarge
	}
	return r, f.end()
}

// UnmarshalJSON reads e as [DecodeEvent] does.
func (e *Event) UnmarshalJSON(b []byte) error {
	ev, err := DecodeEvent(append([]byte(nil), b...))
	*e = *ev
	return err
}

// UnmarshalJSON reads r as [DecodeReply] does.
func (r *Reply) UnmarshalJSON(b []byte) error {
	re, err := DecodeReply(append([]byte(nil), b...))
	*r = *re
	return err
}

// open begins to read frame. Of one that is too large, its beginning is read all the same, for the sake of its id.
func open(frame []byte) (fields, error) {
	var tooLarge error
	if len(frame) > MaxFrame {
		tooLarge = &FieldError{Want: fmt.Sprintf("at most %d bytes", MaxFrame), Got: "more"}
		frame = frame[:MaxFrame]
	}
	f := fields{s: scanner{b: frame}, depth: 1}
	f.begin()
	return f, tooLarge
}

// text is the text of a string in the frame, or its decoded copy.
type text []byte

// join makes the strings of one frame with one allocation.
func join(texts []text, dst ...*string) {
	n := 0
	for _, t := range texts {
		n += len(t)
	}
	if n == 0 {
		return
	}
	var small [256]byte
	all := small[:0]
	if n > len(small) {
		all = make([]byte, 0, n)
	}
	for _, t := range texts {
		all = append(all, t...)
	}
	s := string(all)
	for i, t := range texts {
		*dst[i], s = s[:len(t)], s[len(t):]
	}
}

// fields walks over the members of the object that a frame is. It keeps the first thing that is wrong; a value of the
// wrong type does not stop it, malformed JSON does.
type fields struct {
	s     scanner
	key   []byte // of the present member
	depth int
	first bool
	done  bool
	err   *FieldError
}

func (f *fields) begin() {
	f.s.space()
	if f.s.i >= len(f.s.b) || f.s.b[f.s.i] != '{' {
		f.wrong("a JSON object")
		f.done = true
		return
	}
	f.s.i++
	f.first = true
}

// wrong remembers that the value at hand is not what is wanted.
func (f *fields) wrong(want string) {
	if f.err == nil {
		f.err = &FieldError{Field: string(f.key), Want: want, Got: f.s.kind()}
	}
}

// broken ends the walk: from here on the text makes no sense.
func (f *fields) broken() {
	f.done = true
	if f.err == nil {
		f.err = &FieldError{Field: string(f.key), Want: "JSON", Got: fmt.Sprintf("something else at byte %d of %d", f.s.i, len(f.s.b))}
	}
}

// next goes to the next member. Its value must then be taken by one of the methods below.
func (f *fields) next() bool {
	if f.done {
		return false
	}
	if f.s.byteIs('}') {
		f.key, f.done = nil, true
		if f.s.space(); f.s.i != len(f.s.b) {
			f.broken()
		}
		return false
	}
	if !f.first && !f.s.byteIs(',') {
		f.broken()
		return false
	}
	f.first = false
	f.s.space()
	from := f.s.i
	if from >= len(f.s.b) || f.s.b[from] != '"' || !f.s.str() {
		f.broken()
		return false
	}
	key, _ := unquote(f.s.b[from:f.s.i])
	f.key = key
	if !f.s.byteIs(':') {
		f.broken()
		return false
	}
	f.s.space()
	return true
}

// end returns what was wrong, if anything.
func (f *fields) end() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

// skip takes any value and returns its text.
func (f *fields) skip() []byte {
	from := f.s.i
	if !f.s.value(f.depth) {
		f.broken()
		return nil
	}
	return f.s.b[from:f.s.i]
}

func (f *fields) at(c byte) bool { return f.s.i < len(f.s.b) && f.s.b[f.s.i] == c }

// text takes a string or null.
func (f *fields) text(dst *text) {
	*dst = nil
	switch {
	case f.at('"'):
		if quoted := f.skip(); quoted != nil {
			*dst, _ = unquote(quoted)
		}
	case f.at('n'):
		f.skip()
	default:
		f.wrong("a string")
		f.skip()
	}
}

// list takes a string, an array of strings, or null.
func (f *fields) list() []string {
	const want = "a string or an array of strings"
	switch {
	case f.at('"'):
		var t text
		if f.text(&t); len(t) > 0 {
			return []string{string(t)}
		}
		return nil
	case f.at('n'):
		f.skip()
		return nil
	case !f.at('['):
		f.wrong(want)
		f.skip()
		return nil
	}
	raw := f.skip()
	if raw == nil {
		return nil
	}
	list, ok := stringsOf(raw)
	if !ok {
		f.s.i -= len(raw)
		f.wrong(want)
		f.s.i += len(raw)
	}
	return list
}

// stringsOf reads a valid JSON array whose elements shall be strings.
func stringsOf(raw []byte) ([]string, bool) {
	s := scanner{b: raw, i: 1}
	var list []string
	for {
		s.space()
		switch s.b[s.i] {
		case ']':
			return list, true
		case ',':
			s.i++
		case '"':
			from := s.i
			s.str()
			t, _ := unquote(raw[from:s.i])
			list = append(list, string(t))
		default:
			return nil, false
		}
	}
}

// raw takes any value, or an object alone; null is nil.
func (f *fields) raw(object bool) json.RawMessage {
	isNull := f.at('n')
	if object && !isNull && !f.at('{') {
		f.wrong("an object")
		f.skip()
		return nil
	}
	b := f.skip()
	if isNull {
		return nil
	}
	return b[:len(b):len(b)]
}

// integer takes a number, or also a string of one, or null.
func (f *fields) integer(want string, stringToo bool) int64 {
	from := f.s.i
	quoted := stringToo && f.at('"')
	if !quoted && f.s.kind() != "a number" {
		if !f.at('n') {
			f.wrong(want)
		}
		f.skip()
		return 0
	}
	text := f.skip()
	if text == nil {
		return 0
	}
	if quoted {
		text, _ = unquote(text)
		if len(text) == 0 {
			return 0
		}
	}
	n, ok := integer(text)
	if !ok {
		end := f.s.i
		f.s.i = from
		f.wrong(want)
		f.s.i = end
	}
	return n
}
