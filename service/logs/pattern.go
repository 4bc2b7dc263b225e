package logs

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// dialect is how a pattern of grep is written.
type dialect int

const (
	basic dialect = iota
	extended
	perl
	fixed
)

// A matcher finds the lines that match a set of patterns. Lines without the literal that every match must hold are
// passed over without looking at them one by one.
type matcher struct {
	re      *regexp.Regexp // nil if the literal alone decides
	literal []byte         // must be in every matching line; empty if nothing is known
	fold    bool           // the literal is lower case and ASCII, and letters match in either case
	word    bool           // the match is submatch 1 of re
	lower   []byte         // the block lowerOf, in lower case
	lowerOf *byte
}

type matchOptions struct {
	dialect    dialect
	fold       bool
	word, line bool
}

// newMatcher compiles patterns, any of which may match.
func newMatcher(patterns []string, o matchOptions) (*matcher, error) {
	alternatives := make([]string, len(patterns))
	for i, p := range patterns {
		re, err := translate(p, o.dialect)
		if err != nil {
			return nil, err
		}
		alternatives[i] = "(?:" + re + ")"
	}
	source := strings.Join(alternatives, "|")
	m := &matcher{word: o.word}
	switch {
	case o.line:
		source = "^(?:" + source + ")$"
	case o.word:
		source = `(?:^|[^\pL\pN_])(` + source + `)(?:[^\pL\pN_]|$)`
	}
	flags := ""
	if o.fold {
		flags = "(?i)"
	}
	re, err := regexp.Compile(flags + source)
	if err != nil {
		return nil, fmt.Errorf("pattern: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	re.Longest()
	m.re = re
	if parsed, err := syntax.Parse(flags+source, syntax.Perl); err == nil {
		lit, fold := required(parsed.Simplify())
		m.literal, m.fold = []byte(lit), fold
	}
	if o.dialect == fixed && len(patterns) == 1 && !o.fold && !o.word && !o.line {
		m.re, m.literal = nil, []byte(patterns[0])
	}
	return m, nil
}

// required returns the longest literal that every match of re holds, lower-cased if re folds it.
func required(re *syntax.Regexp) (literal string, fold bool) {
	switch re.Op {
	case syntax.OpLiteral:
		text := string(re.Rune)
		if re.Flags&syntax.FoldCase == 0 {
			return text, false
		}
		for _, r := range re.Rune {
			if r >= utf8.RuneSelf {
				return "", false
			}
		}
		return strings.ToLower(text), true
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if l, f := required(sub); len(l) > len(literal) {
				literal, fold = l, f
			}
		}
	}
	return literal, fold
}

// matches tells whether one line, without its newline, matches.
func (m *matcher) matches(line []byte) bool {
	if m.re == nil {
		return bytes.Contains(line, m.literal)
	}
	return m.re.Match(line)
}

// next returns the bounds of the first matching line of a block at or after pos; the end includes the newline. ok is
// false if there is none.
func (m *matcher) next(block []byte, pos int) (start, end int, ok bool) {
	if len(m.literal) == 0 || m.foldsBeyondASCII(block) {
		for pos < len(block) {
			end = lineEnd(block, pos)
			if m.matches(chomp(block[pos:end])) {
				return pos, end, true
			}
			pos = end
		}
		return 0, 0, false
	}
	haystack := block
	if m.fold {
		haystack = m.lowered(block)
	}
	for pos < len(block) {
		i := bytes.Index(haystack[pos:], m.literal)
		if i < 0 {
			return 0, 0, false
		}
		at := pos + i
		start = bytes.LastIndexByte(block[:at], '\n') + 1
		end = lineEnd(block, at)
		if m.re == nil || m.re.Match(chomp(block[start:end])) {
			return start, end, true
		}
		pos = end
	}
	return 0, 0, false
}

// lowered returns block with ASCII letters in lower case. It is kept for the calls that go on in the same block.
func (m *matcher) lowered(block []byte) []byte {
	if len(m.lower) == len(block) && m.lowerOf == &block[0] {
		return m.lower
	}
	m.lower, m.lowerOf = append(m.lower[:0], block...), &block[0]
	for i, c := range m.lower {
		if 'A' <= c && c <= 'Z' {
			m.lower[i] = c + 'a' - 'A'
		}
	}
	return m.lower
}

// foldsBeyondASCII tells whether a match may be spelt with a letter that ASCII lower case does not find: the long s
// and the Kelvin sign fold to s and k.
func (m *matcher) foldsBeyondASCII(block []byte) bool {
	return m.fold && bytes.ContainsAny(m.literal, "ks") && (bytes.Contains(block, []byte("\u017f")) || bytes.Contains(block, []byte("\u212a")))
}

// find returns the bounds of the first match in a line at or after pos.
func (m *matcher) find(line []byte, pos int) (start, end int, ok bool) {
	if m.re == nil {
		if i := bytes.Index(line[pos:], m.literal); i >= 0 {
			return pos + i, pos + i + len(m.literal), true
		}
		return 0, 0, false
	}
	var loc []int
	if m.word {
		if loc = m.re.FindSubmatchIndex(line[pos:]); loc != nil {
			loc = loc[2:]
		}
	} else {
		loc = m.re.FindIndex(line[pos:])
	}
	if loc == nil {
		return 0, 0, false
	}
	return pos + loc[0], pos + loc[1], true
}

func lineEnd(block []byte, pos int) int {
	if i := bytes.IndexByte(block[pos:], '\n'); i >= 0 {
		return pos + i + 1
	}
	return len(block)
}

// translate rewrites a pattern of grep as one of package regexp.
func translate(pattern string, d dialect) (string, error) {
	switch d {
	case fixed:
		return regexp.QuoteMeta(pattern), nil
	case perl:
		return pattern, nil
	}
	t := translator{in: pattern, extended: d == extended}
	return t.run()
}

// A translator reads POSIX regular expressions with GNU's additions.
type translator struct {
	in       string
	pos      int
	extended bool
	out      strings.Builder
	// atom tells whether something stands before pos that * may repeat.
	atom bool
}

func (t *translator) run() (string, error) {
	for t.pos < len(t.in) {
		c := t.in[t.pos]
		t.pos++
		switch {
		case c == '\\':
			if err := t.escape(); err != nil {
				return "", err
			}
		case c == '[':
			if err := t.bracket(); err != nil {
				return "", err
			}
			t.atom = true
		case c == '*':
			t.repeat("*")
		case c == '.':
			t.put(".", true)
		case c == '^':
			t.anchor('^', t.startsHere())
		case c == '$':
			t.anchor('$', t.endsHere())
		case strings.IndexByte("+?(){}|", c) >= 0:
			if !t.extended {
				t.put(regexp.QuoteMeta(string(c)), true)
			} else if err := t.operator(c); err != nil {
				return "", err
			}
		default:
			t.put(regexp.QuoteMeta(string(c)), true)
			if c >= utf8.RuneSelf { // the rest of a character beyond ASCII
				t.pos--
				_, n := utf8.DecodeRuneInString(t.in[t.pos:])
				s := t.out.String()
				t.out.Reset()
				t.out.WriteString(s[:len(s)-len(regexp.QuoteMeta(string(c)))])
				t.put(t.in[t.pos:t.pos+n], true)
				t.pos += n
			}
		}
	}
	return t.out.String(), nil
}

func (t *translator) put(s string, atom bool) {
	t.out.WriteString(s)
	t.atom = atom
}

// repeat applies an operator to the last atom; without one it stands for itself.
func (t *translator) repeat(op string) {
	if !t.atom {
		t.put(regexp.QuoteMeta(op), true)
		return
	}
	// Repeating a repetition is allowed in POSIX and an error in package regexp.
	s := t.out.String()
	if n := len(s); n > 0 && strings.IndexByte("*+?}", s[n-1]) >= 0 && (n < 2 || s[n-2] != '\\') {
		t.out.Reset()
		t.out.WriteString("(?:" + s + ")")
	}
	t.out.WriteString(op)
}

func (t *translator) anchor(c byte, special bool) {
	if special || t.extended {
		t.put(string(c), false)
		return
	}
	t.put(`\`+string(c), true)
}

func (t *translator) startsHere() bool {
	before := t.in[:t.pos-1]
	return before == "" || strings.HasSuffix(before, `\(`) || strings.HasSuffix(before, `\|`)
}

func (t *translator) endsHere() bool {
	after := t.in[t.pos:]
	return after == "" || strings.HasPrefix(after, `\)`) || strings.HasPrefix(after, `\|`)
}

func (t *translator) operator(c byte) error {
	switch c {
	case '+', '?':
		t.repeat(string(c))
	case '(', '|':
		t.put(string(c), false)
	case ')':
		t.put(")", true)
	case '{':
		return t.interval("}")
	case '}':
		t.put(`\}`, true)
	}
	return nil
}

// interval reads {n}, {n,}, {,m} or {n,m} up to its closing text.
func (t *translator) interval(closing string) error {
	body, _, found := strings.Cut(t.in[t.pos:], closing)
	var n, m int
	low, high, comma := strings.Cut(body, ",")
	valid := found && t.atom && strings.Trim(body, "0123456789,") == "" && body != "" && body != ","
	if valid && low != "" {
		_, err := fmt.Sscan(low, &n)
		valid = err == nil
	}
	if valid && high != "" {
		_, err := fmt.Sscan(high, &m)
		valid = err == nil
	}
	if !valid {
		if closing == "}" {
			t.put(`\{`, true)
			return nil
		}
		return fmt.Errorf(`pattern: invalid \{...\}`)
	}
	t.pos += len(body) + len(closing)
	switch {
	case !comma:
		t.repeat(fmt.Sprintf("{%d}", n))
	case high == "":
		t.repeat(fmt.Sprintf("{%d,}", n))
	default:
		t.repeat(fmt.Sprintf("{%d,%d}", n, m))
	}
	return nil
}

func (t *translator) escape() error {
	if t.pos == len(t.in) {
		return fmt.Errorf(`pattern: a \ at the end`)
	}
	c := t.in[t.pos]
	t.pos++
	switch {
	case c >= '1' && c <= '9':
		return fmt.Errorf(`pattern: back-reference \%c is not supported`, c)
	case strings.IndexByte("wWsS", c) >= 0:
		t.put(map[byte]string{'w': `[\pL\pN_]`, 'W': `[^\pL\pN_]`, 's': `\s`, 'S': `\S`}[c], true)
	case c == 'b' || c == 'B':
		t.put(`\`+string(c), false)
	case c == '<' || c == '>':
		t.put(`\b`, false)
	case c == '`':
		t.put("^", false)
	case c == '\'':
		t.put("$", false)
	case !t.extended && strings.IndexByte("(|", c) >= 0:
		t.put(string(c), false)
	case !t.extended && c == ')':
		t.put(")", true)
	case !t.extended && c == '{':
		return t.interval(`\}`)
	case !t.extended && strings.IndexByte("+?", c) >= 0:
		t.repeat(string(c))
	default:
		t.put(regexp.QuoteMeta(string(c)), true)
	}
	return nil
}

// bracket reads a bracket expression; pos is behind the opening [.
func (t *translator) bracket() error {
	t.out.WriteByte('[')
	if strings.HasPrefix(t.in[t.pos:], "^") {
		t.out.WriteByte('^')
		t.pos++
	}
	for first := true; ; first = false {
		if t.pos >= len(t.in) {
			return fmt.Errorf("pattern: unmatched [")
		}
		rest := t.in[t.pos:]
		switch {
		case rest[0] == ']' && !first:
			t.out.WriteByte(']')
			t.pos++
			return nil
		case strings.HasPrefix(rest, "[:"):
			name, _, ok := strings.Cut(rest[2:], ":]")
			if !ok {
				return errors.New("pattern: a [: without its end is unmatched")
			}
			t.out.WriteString("[:" + name + ":]")
			t.pos += len(name) + 4
		case strings.HasPrefix(rest, "[.") || strings.HasPrefix(rest, "[="):
			return fmt.Errorf("pattern: %s is not supported", rest[:2])
		case strings.IndexByte(`[]\^`, rest[0]) >= 0:
			t.out.WriteString(`\` + rest[:1])
			t.pos++
		default:
			_, n := utf8.DecodeRuneInString(rest)
			t.out.WriteString(rest[:n])
			t.pos += n
		}
	}
}
