package containerlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// The form in which dockerd writes a record of its json-file log: log, stream and time, in this order, no white space.
// Whatever has another form (attributes, a hand-written file) goes through encoding/json, as dockerd's own reader does.
const (
	jsonHead   = `{"log":"`
	jsonStdout = `","stream":"stdout","time":"`
	jsonStderr = `","stream":"stderr","time":"`
	jsonMiddle = len(jsonStdout)
	// longest time that is looked at: "2006-01-02T15:04:05.999999999Z" and a quote
	jsonStamp = 31
)

// jsonLines decodes json-file logs.
type jsonLines struct {
	scratch []byte
	second  [19]byte // text of the last time without its fraction: neighbours mostly share it
	nano    int64    // what it means

	need []byte // text that a line must have to be of interest; nil is none
	hold bool   // do not look for it: the line goes on from before
}

func (d *jsonLines) decode(b []byte, e *Entry) (int, verdict) {
	if d.need != nil && !d.hold {
		// The pieces of a long line must all be seen, as the text may be cut.
		n := bytes.IndexByte(b, '\n') + 1
		if n == 0 {
			return 0, more
		}
		if n < pieceSize && !bytes.Contains(b[:n], d.need) {
			return n, skip
		}
	}
	if n := d.common(b, e); n > 0 {
		return n, good
	}
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return 0, more
	}
	if d.general(b[:i], e) {
		return i + 1, good
	}
	return i + 1, bad
}

// common decodes the record at the start of b if it is complete and has the common form; otherwise it returns 0 and has
// changed nothing.
func (d *jsonLines) common(b []byte, e *Entry) int {
	if len(b) < len(jsonHead) || string(b[:len(jsonHead)]) != jsonHead {
		return 0
	}
	i := plain(b, len(jsonHead))
	if i+2 >= len(b) {
		return 0
	}
	var line []byte
	end := i     // of the string: its closing quote
	newline := 0 // where the escape of the final newline stands, if nothing else in the line is escaped
	switch {
	case b[i] == '"':
		line = b[len(jsonHead):i]
	case b[i] == '\\' && b[i+1] == 'n' && b[i+2] == '"':
		end, newline = i+2, i
	default:
		if line, end = d.unescape(b, i); end == 0 {
			return 0
		}
	}
	t := end + jsonMiddle
	if t > len(b) {
		return 0
	}
	switch string(b[end:t]) {
	case jsonStdout:
		e.Stderr = false
	case jsonStderr:
		e.Stderr = true
	default:
		return 0
	}
	k := bytes.IndexByte(b[t:min(len(b), t+jsonStamp)], '"')
	if k < 0 || t+k+3 > len(b) || b[t+k+1] != '}' || b[t+k+2] != '\n' {
		return 0
	}
	stamp := b[t : t+k]
	nano, ok := d.parse(stamp)
	if !ok {
		return 0
	}
	if newline > 0 {
		b[newline] = '\n'
		line = b[len(jsonHead) : newline+1]
	}
	e.Line, e.stamp, e.nano = line, stamp, nano
	return t + k + 3
}

// parse is parseUTC with a memory.
func (d *jsonLines) parse(s []byte) (int64, bool) {
	if len(s) < 20 || [19]byte(s) != d.second {
		nano, ok := parseUTC(s)
		if ok {
			d.second = [19]byte(s)
			d.nano = nano - nano%1e9
		}
		return nano, ok
	}
	frac, ok := parseFraction(s[19:])
	return d.nano + frac, ok
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns the index of the first byte of b, from i on, that does not stand for itself in a JSON string: a quote, a
// backslash, a control character, or a byte that is no UTF-8. It returns at most len(b).
func plain(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if x&highs != 0 {
			return plainUTF8(b, i)
		}
		if hit := special(x); hit != 0 {
			return i + bits.TrailingZeros64(hit)/8
		}
	}
	return plainUTF8(b, i)
}

// plainUTF8 is plain for text that is not ASCII alone.
func plainUTF8(b []byte, from int) int {
	i := from
	for i+8 <= len(b) {
		hit := special(binary.LittleEndian.Uint64(b[i:]))
		if hit != 0 {
			i += bits.TrailingZeros64(hit) / 8
			break
		}
		i += 8
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < 0x20 {
			break
		}
	}
	if utf8.Valid(b[from:i]) {
		return i
	}
	for from < i {
		r, n := utf8.DecodeRune(b[from:i])
		if r == utf8.RuneError && n == 1 {
			break
		}
		from += n
	}
	return from
}

// special marks the quotes, backslashes and control characters among the eight bytes of x by their highest bits. A
// borrow can mark a byte too much above a true one, never below: the lowest mark is right.
func special(x uint64) uint64 {
	quote := x ^ ones*'"'
	slash := x ^ ones*'\\'
	return ((x-ones*0x20)&^x | (quote-ones)&^quote | (slash-ones)&^slash) & highs
}

// unescape decodes a string that begins after jsonHead and whose first byte that is not plain is at i. It returns the
// index of the closing quote, or 0 if b does not hold all of a string that encoding/json would take.
func (d *jsonLines) unescape(b []byte, i int) ([]byte, int) {
	out := append(d.scratch[:0], b[len(jsonHead):i]...)
	defer func() { d.scratch = out[:0] }()
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			return out, i
		case c == '\\':
			var ok bool
			if out, i, ok = unescapeOne(out, b, i); !ok {
				return nil, 0
			}
		case c < 0x20:
			return nil, 0
		default:
			j := plain(b, i)
			if j == i {
				out = utf8.AppendRune(out, utf8.RuneError) // a byte that is no UTF-8
				i++
				continue
			}
			out = append(out, b[i:j]...)
			i = j
		}
	}
	return nil, 0
}

// unescapeOne decodes the escape at b[i].
func unescapeOne(out, b []byte, i int) ([]byte, int, bool) {
	if i+1 >= len(b) {
		return out, i, false
	}
	switch c := b[i+1]; c {
	case '"', '\\', '/':
		out = append(out, c)
	case 'b':
		out = append(out, '\b')
	case 'f':
		out = append(out, '\f')
	case 'n':
		out = append(out, '\n')
	case 'r':
		out = append(out, '\r')
	case 't':
		out = append(out, '\t')
	case 'u':
		r := hex4(b, i+2)
		if r < 0 {
			return out, i, false
		}
		i += 6
		if utf16.IsSurrogate(r) {
			low := rune(-1)
			if i+1 < len(b) && b[i] == '\\' && b[i+1] == 'u' {
				low = hex4(b, i+2)
			} else if i+6 > len(b) {
				return out, i, false // the other half may follow
			}
			if pair := utf16.DecodeRune(r, low); pair != unicode.ReplacementChar {
				return utf8.AppendRune(out, pair), i + 6, true
			}
			r = unicode.ReplacementChar
		}
		return utf8.AppendRune(out, r), i, true
	default:
		return out, i, false
	}
	return out, i + 2, true
}

// hex4 reads four hexadecimal digits at b[i], or returns -1.
func hex4(b []byte, i int) rune {
	if i+4 > len(b) {
		return -1
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// general decodes any record, with the rules of dockerd's reader. line has no newline.
func (d *jsonLines) general(line []byte, e *Entry) bool {
	var rec struct {
		Log    string    `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}
	if json.Unmarshal(line, &rec) != nil {
		return false
	}
	switch rec.Stream {
	case "stdout":
		e.Stderr = false
	case "stderr":
		e.Stderr = true
	default:
		return false
	}
	e.Line = append(d.scratch[:0], rec.Log...)
	d.scratch = e.Line[:0]
	e.stamp = rec.Time.AppendFormat(nil, stampFixed)
	e.nano = rec.Time.UnixNano()
	return true
}

// resync returns the index after the next record boundary in b, or -1.
func (*jsonLines) resync(b []byte) int { return bytes.IndexByte(b, '\n') + 1 }
