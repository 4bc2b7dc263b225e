package wire

import (
	"strconv"
	"unicode/utf8"
)

// AppendEvent appends ev as JSON to dst. Empty fields are left out. ev.Data must be JSON.
func AppendEvent(dst []byte, ev *Event) []byte {
	o := object{b: append(dst, '{')}
	o.text("id", ev.ID)
	o.text("name", ev.Name)
	o.text("replyTo", ev.ReplyTo)
	o.text("resourceId", ev.ResourceID)
	o.text("resourceType", ev.ResourceType)
	o.list("previousIds", ev.PreviousIDs)
	o.list("previousNames", ev.PreviousNames)
	o.text("publisher", ev.Publisher)
	o.number("time", ev.Time)
	o.number("timeoutMillis", ev.TimeoutMillis)
	o.raw("data", ev.Data)
	return append(o.b, '}')
}

// AppendReply appends r as JSON to dst, in the form that travels between Drover agents and servers. Empty fields are
// left out. r.Data must be JSON.
func AppendReply(dst []byte, r *Reply) []byte {
	o := object{b: append(dst, '{')}
	o.text("id", r.ID)
	o.text("name", r.Name)
	o.list("previousIds", r.PreviousIDs)
	o.text("resourceId", r.ResourceID)
	o.text("resourceType", r.ResourceType)
	o.number("time", r.Time)
	o.text("transitioning", r.Transitioning)
	o.text("transitioningMessage", r.TransitioningMessage)
	o.number("transitioningProgress", int64(r.TransitioningProgress))
	o.text("code", r.Code)
	o.raw("data", r.Data)
	return append(o.b, '}')
}

// AppendRancherReply appends r as JSON to dst, with the keys that a Rancher 1.6 agent posts and no others: a good reply
// has id and time and leaves empty data out, progress has neither, a bad one says only what it answers and what went
// wrong. links and actions are always there, as null.
func AppendRancherReply(dst []byte, r *Reply) []byte {
	o := object{b: append(dst, '{')}
	bad := r.Transitioning == TransitioningError
	good := !bad && r.Transitioning != TransitioningYes
	if good {
		o.text("id", r.ID)
	}
	o.raw("links", null())
	o.raw("actions", null())
	o.text("name", r.Name)
	o.list("previousIds", r.PreviousIDs)
	if !bad {
		o.text("resourceId", r.ResourceID)
		o.text("resourceType", r.ResourceType)
	}
	if good {
		o.number("time", r.Time)
	}
	o.text("transitioning", r.Transitioning)
	o.text("transitioningMessage", r.TransitioningMessage)
	if !bad {
		o.number("transitioningProgress", int64(r.TransitioningProgress))
		if !empty(r.Data) {
			o.raw("data", r.Data)
		}
	}
	return append(o.b, '}')
}

func null() []byte { return []byte("null") }

// empty reports whether raw is nothing, null or an object without members.
func empty(raw []byte) bool {
	s := scanner{b: raw}
	s.space()
	switch {
	case s.i == len(raw), s.literal("null"):
		return true
	case s.byteIs('{'):
		return s.byteIs('}')
	}
	return false
}

// object appends members to an object that was begun. Empty members are left out.
type object struct {
	b    []byte
	more bool
}

func (o *object) key(key string) {
	if o.more {
		o.b = append(o.b, ',')
	}
	o.more = true
	o.b = append(o.b, '"')
	o.b = append(o.b, key...)
	o.b = append(o.b, '"', ':')
}

func (o *object) text(key, value string) {
	if value != "" {
		o.key(key)
		o.b = appendString(o.b, value)
	}
}

func (o *object) number(key string, value int64) {
	if value != 0 {
		o.key(key)
		o.b = strconv.AppendInt(o.b, value, 10)
	}
}

func (o *object) list(key string, values []string) {
	if len(values) > 0 {
		o.key(key)
		o.b = appendStrings(o.b, values)
	}
}

func (o *object) raw(key string, value []byte) {
	if len(value) > 0 {
		o.key(key)
		o.b = append(o.b, value...)
	}
}

func appendStrings(dst []byte, values []string) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, v)
	}
	return append(dst, ']')
}

// appendString appends s as a JSON string. What is no UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			dst = append(dst, s[from:i]...)
			dst = append(dst, "\ufffd"...)
			i++
			from = i
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
