package containerlog

import (
	"encoding/binary"
	"time"
)

// An Entry is one record of a log: a line with its newline, or a piece of one. It and its slices are valid only until
// the call that received it returns.
type Entry struct {
	Stderr bool
	// Line is what the container wrote. It ends in a newline unless more of the line follows in the next entry of the
	// same stream: dockerd cuts lines at 16 KiB. The last line of a container may lack it too.
	Line []byte
	// Truncated says that a line that was being joined was too long, and goes on in the next entry.
	Truncated bool

	stamp []byte // the time in RFC 3339, if the file has it as text
	nano  int64
	pos   position
}

// Partial reports whether the line goes on in a later entry of the same stream.
func (e *Entry) Partial() bool { return len(e.Line) == 0 || e.Line[len(e.Line)-1] != '\n' }

// UnixNano is when dockerd took the entry.
func (e *Entry) UnixNano() int64 { return e.nano }

// Time is when dockerd took the entry, in UTC.
func (e *Entry) Time() time.Time { return time.Unix(0, e.nano).UTC() }

// Cursor names the place after the entry, to go on from with [Query.Cursor].
func (e *Entry) Cursor() string {
	p := e.pos
	p.nano = e.nano
	return p.String()
}

// stampFixed is how dockerd's API prints times: always nine digits.
const stampFixed = "2006-01-02T15:04:05.000000000Z07:00"

// AppendTime appends the time as dockerd's API prints it, with nine digits, without the space that follows there.
func (e *Entry) AppendTime(dst []byte) []byte {
	s := e.stamp
	n := len(s)
	switch {
	case n == 0:
		return e.Time().AppendFormat(dst, stampFixed)
	case n == 30 || s[n-1] != 'Z':
		return append(dst, s...)
	}
	// "2006-01-02T15:04:05" has 19 characters. A fraction without its trailing zeros may follow, and Z.
	dst = append(dst, s[:n-1]...)
	if n == 20 {
		dst = append(dst, '.')
		n++
	}
	return append(dst, "000000000Z"[n-21:]...)
}

// parseUTC reads the form that dockerd writes, "2006-01-02T15:04:05.999999999Z", many times faster than time.Parse.
func parseUTC(s []byte) (int64, bool) {
	if len(s) < 20 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return 0, false
	}
	year := digits2(s[0:])*100 + digits2(s[2:])
	month, day := digits2(s[5:]), digits2(s[8:])
	hour, minute, second := digits2(s[11:]), digits2(s[14:]), digits2(s[17:])
	if year < 1970 || year > 2200 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day {
		return 0, false
	}
	frac, ok := parseFraction(s[19:])
	return t.Unix()*1e9 + frac, ok
}

// parseFraction reads "Z" or ".999999999Z", with one to nine digits, as nanoseconds.
func parseFraction(s []byte) (int64, bool) {
	n := len(s)
	if n == 1 {
		return 0, s[0] == 'Z'
	}
	if n < 3 || n > 11 || s[0] != '.' || s[n-1] != 'Z' {
		return 0, false
	}
	if n == 11 {
		high, ok := digits8(binary.LittleEndian.Uint64(s[1:]))
		low := s[9] - '0'
		return high*10 + int64(low), ok && low <= 9
	}
	frac, scale := int64(0), int64(100_000_000)
	for _, c := range s[1 : n-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		frac += int64(c-'0') * scale
		scale /= 10
	}
	return frac, true
}

// digits8 reads eight digits at once, the first of them in the lowest byte.
func digits8(x uint64) (int64, bool) {
	const nibbles, zeros, sixes = 0xf0f0f0f0f0f0f0f0, 0x3030303030303030, 0x0606060606060606
	if x&nibbles != zeros || (x+sixes)&nibbles != zeros {
		return 0, false
	}
	x -= zeros
	x = x*10 + x>>8 // pairs, in every other byte
	const mask = 0x000000ff000000ff
	return int64(uint32(((x&mask)*(100+1_000_000<<32) + (x>>16&mask)*(1+10_000<<32)) >> 32)), true
}

// digits2 reads two digits; anything else gives a number above 99.
func digits2(s []byte) int {
	v := binary.LittleEndian.Uint16(s)
	hi, lo := byte(v)-'0', byte(v>>8)-'0'
	if hi > 9 || lo > 9 {
		return 10_000
	}
	return int(hi)*10 + int(lo)
}
